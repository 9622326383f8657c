import { createGraphiQLFetcher } from "@graphiql/toolkit";
import { GraphiQL } from "graphiql";
import "graphiql/style.css";
import { createClient } from "graphql-ws";
import { createRoot } from "react-dom/client";

import examples from "./examples.graphql";

const workers = { json: "json.worker.js", graphql: "graphql.worker.js" };
globalThis.MonacoEnvironment = {
  getWorker: (_, label) => new Worker(`/assets/${workers[label] ?? "editor.worker.js"}`),
};

const url = new URL("/graphql", location.href);
const fetcher = createGraphiQLFetcher({
  url: url.href,
  wsClient: createClient({ url: url.href.replace(/^http/, "ws"), lazy: true }),
});
createRoot(document.getElementById("graphiql")).render(
  <GraphiQL fetcher={fetcher} defaultQuery={examples} defaultEditorToolsVisibility="variables" />,
);
