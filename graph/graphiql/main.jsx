import { createGraphiQLFetcher } from "@graphiql/toolkit";
import { GraphiQL, HISTORY_PLUGIN } from "graphiql";
import "graphiql/style.css";
import { createClient } from "graphql-ws";
import { createRoot } from "react-dom/client";

import { examplesPlugin, fillIn, readExamples, remember } from "./examples.jsx";
import "./page.css";

const workers = { json: "json.worker.js", graphql: "graphql.worker.js" };
globalThis.MonacoEnvironment = {
  getWorker: (_, label) => new Worker(`/assets/${workers[label] ?? "editor.worker.js"}`),
};

const url = new URL("/graphql", location.href);
let headers = {};
const fetcher = createGraphiQLFetcher({
  url: url.href,
  enableIncrementalDelivery: false, // the server has none, and plain answers are asked for as such
  // Browsers cannot set headers of a WebSocket: it takes those of the headers' editor along in connection_init.
  wsClient: createClient({ url: url.href.replace(/^http/, "ws"), connectionParams: () => headers }),
});

/** Notes the ids and tokens in the answers, which the examples' variables are then filled with. */
async function fetchAndRemember(parameters, options) {
  headers = options?.headers ?? {};
  const answer = await fetcher(parameters, options);
  if (!answer[Symbol.asyncIterator]) {
    remember(answer);
    return answer;
  }
  const results = answer[Symbol.asyncIterator]();
  return {
    [Symbol.asyncIterator]() { return this; },
    async next() {
      const result = await results.next();
      remember(result.value);
      return result;
    },
    return: () => results.return(), // not that of a generator, which would wait for one more result
  };
}

async function show() {
  const examples = readExamples(await (await fetch("/assets/examples.graphql")).text());
  const plugin = examplesPlugin(examples);
  createRoot(document.getElementById("graphiql")).render(
    <GraphiQL
      fetcher={fetchAndRemember}
      defaultTabs={examples.slice(0, 1).map(({ query, variables }) => ({ query, variables: fillIn(variables) }))}
      defaultEditorToolsVisibility="variables"
      plugins={[plugin, HISTORY_PLUGIN]}
      visiblePlugin={plugin}
    />,
  );
}
show();
