// The panel of examples: operations that examples.graphql holds, one click from being tried.
import { parse } from "graphql";
import { useGraphiQL, useGraphiQLActions } from "@graphiql/react";

/**
 * Reads the examples. Blank lines with a comment after them separate them; of the comment the first line is the title,
 * a line that begins with { the variables, and the rest what there is to know.
 */
export function readExamples(text) {
  return text.split(/\n\n(?=#)/).map((part) => {
    const lines = part.trim().split("\n");
    const end = lines.findIndex((line) => !line.startsWith("#"));
    const [title, ...notes] = lines.slice(0, end).map((line) => line.replace(/^#\s*/, ""));
    const query = lines.slice(end).join("\n");
    return {
      title,
      note: notes.filter((line) => !line.startsWith("{")).join(" "),
      variables: notes.find((line) => line.startsWith("{")) ?? "",
      query: `# ${title}\n${query}\n`,
      name: /^(?:query|mutation|subscription)\s+(\w+)/m.exec(query)?.[1],
    };
  });
}

const seen = new Map();

/** Looks through an answer for ids of streams, such as cart-0193…, and for the receipt's token. */
export function remember(value, key) {
  if (typeof value === "string") {
    const [category] = /^[a-z_]+(?=-)/.exec(value) ?? [];
    if (["id", "stream", "orderId"].includes(key) && category) seen.set(category, value);
    if (key === "token") seen.set("token", value);
  } else if (value && typeof value === "object") {
    for (const [name, part] of Object.entries(value)) remember(part, name);
  }
}

/** Puts the last id of its kind in the place of each "cart-…", no token in that of an unknown one, and indents it all. */
export function fillIn(variables) {
  const filled = variables.replace(/"([a-z_]+)-…"/g, (placeholder, kind) => {
    if (seen.has(kind)) return JSON.stringify(seen.get(kind));
    return kind === "token" ? "null" : placeholder;
  });
  return filled && JSON.stringify(JSON.parse(filled), null, 2);
}

/** Returns the panel as GraphiQL takes it. */
export function examplesPlugin(examples) {
  return {
    title: "Examples",
    icon: () => (
      <svg viewBox="0 0 24 24" fill="none" stroke="currentColor" strokeWidth="1.5" strokeLinecap="round" aria-hidden="true">
        <path d="M4 6h.01M4 12h.01M4 18h.01M9 6h11M9 12h11M9 18h11" />
      </svg>
    ),
    content: () => <Examples examples={examples} />,
  };
}

function Examples({ examples }) {
  const { addTab, changeTab, setOperationFacts, updateActiveTabValues } = useGraphiQLActions();
  const tabs = useGraphiQL((state) => state.tabs);
  const queryEditor = useGraphiQL((state) => state.queryEditor);
  const variableEditor = useGraphiQL((state) => state.variableEditor);
  const headerEditor = useGraphiQL((state) => state.headerEditor);

  /** Shows the example, as it is in the file, in a tab of its own. */
  function open({ name, query, variables }) {
    const headers = headerEditor?.getValue() ?? "";
    const index = tabs.findIndex((tab) => tab.title === name);
    if (index >= 0) changeTab(index);
    else addTab();
    const values = { query, variables: fillIn(variables), headers, operationName: name };
    queryEditor?.setValue(values.query);
    variableEditor?.setValue(values.variables);
    headerEditor?.setValue(values.headers);
    updateActiveTabValues(values);
    // GraphiQL reads the document by itself, but only a moment later, when the example may have been run.
    const documentAST = parse(values.query);
    setOperationFacts({ documentAST, operationName: name, operations: documentAST.definitions });
    queryEditor?.focus();
  }

  return (
    <section className="examples" aria-label="Examples">
      <header className="graphiql-doc-explorer-title">Examples</header>
      <p>Each opens in a tab. Run it with Ctrl-Enter. Ids and tokens in the variables are those of your last answers.</p>
      <ol>
        {examples.map((example) => (
          <li key={example.name}>
            <button type="button" onClick={() => open(example)}>{example.title}</button>
            {example.note && <p>{example.note}</p>}
          </li>
        ))}
      </ol>
    </section>
  );
}
