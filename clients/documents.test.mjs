// What docs/graphql says to client authors is true: its snippets are code that is tested, its commands run, and errors come
// with the statuses of the table.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { after, before, test } from "node:test";

import { start } from "./server.mjs";
import { newIssuer } from "./tokens.mjs";

const root = new URL("../", import.meta.url);
const read = (path) => readFile(new URL(path, root), "utf8");

let server, issuer;
before(async () => {
  issuer = await newIssuer();
  server = await start({ env: {} });
});
after(async () => {
  await server.stop();
  await issuer.close();
});

/** The blocks of a language in a page. */
const blocks = (page, language) => [...page.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, "gms"))].map((found) => found[1]);

/** Lines without what indents them, so that a snippet is found wherever it stands. */
const flat = (text) => text.split("\n").map((line) => line.trim()).join("\n").trim();

test("documents: the snippets for clients are code that is tested", async () => {
  const page = await read("docs/graphql/clients.md");
  let code = "";
  for (const folder of ["clients/", "examples/typescript/src/"]) {
    for (const name of await readdir(new URL(folder, root))) {
      if (/\.(mjs|ts)$/.test(name)) code += flat(await read(folder + name));
    }
  }
  const snippets = [...blocks(page, "js"), ...blocks(page, "ts")];
  assert.ok(snippets.length >= 8);
  for (const snippet of snippets) assert.ok(code.includes(flat(snippet)), `in no test:\n${snippet}`);
});

test("documents: the commands for clients run", async () => {
  const commands = blocks(await read("docs/graphql/clients.md"), "sh");
  assert.equal(commands.length, 4);
  const run = (command) => execFileSync("bash", ["-euc", command], { env: { ...process.env, SHOP: server.origin }, encoding: "utf8" });
  const [opened, carts, events, schema] = commands.map(run);
  assert.match(JSON.parse(opened).data.openCart.receipt.stream, /^cart-/);
  assert.equal(JSON.parse(carts).data.carts.nodes.length, 1);
  assert.match(events, /^event: next$/m);
  assert.match(events, /^id: \d+\.\d+\.\w+$/m);
  assert.match(schema, /^"""/);
});

const json = { "content-type": "application/json" };
const post = (query, more = {}, headers = {}) => ({ method: "POST", headers: { ...json, ...headers }, body: JSON.stringify({ query, ...more }) });

const provocations = {
  GRAPHQL_PARSE_FAILED: () => post("{"),
  GRAPHQL_VALIDATION_FAILED: () => post("{ nothing }"),
  BAD_REQUEST: () => ({ method: "POST", headers: json, body: "[]" }),
  METHOD_NOT_ALLOWED: () => ({ method: "PUT" }),
  NOT_ACCEPTABLE: () => post("{ __typename }", {}, { accept: "image/png" }),
  UNSUPPORTED_MEDIA_TYPE: () => ({ method: "POST", headers: { "content-type": "text/plain" }, body: "{}" }),
  UNAUTHENTICATED: () => post("{ __typename }", {}, { authorization: "Bearer nonsense" }),
  REQUEST_TOO_LARGE: () => post("#".repeat(2 << 20)),
  DOCUMENT_LIMIT_EXCEEDED: () => post(`#${"x".repeat(100_000)}\n{ __typename }`),
  DIRECTIVE_LIMIT_EXCEEDED: () => post(`{ __typename ${"@skip(if: false) ".repeat(9)} }`),
  ALIAS_LIMIT_EXCEEDED: () => post(`{ carts(first: 1) { ${Array.from({ length: 60 }, (_, i) => `c${i}: totalCount`)} } }`),
  DEPTH_LIMIT_EXCEEDED: () => post("{ carts { nodes { id } } }"),
  COMPLEXITY_LIMIT_EXCEEDED: () => post("{ carts(first: 100) { nodes { items { sku name quantity } } } a: carts(first: 100) { nodes { items { sku name quantity lineTotal { amount } unitPrice { amount } } } } b: orders(first: 100) { nodes { items { sku name quantity lineTotal { amount } unitPrice { amount } } } } }"),
  ROOT_FIELD_LIMIT_EXCEEDED: () => post(`{ ${Array.from({ length: 30 }, (_, i) => `t${i}: __typename`)} }`),
  PERSISTED_QUERY_NOT_FOUND: () => post(undefined, { extensions: { persistedQuery: { version: 1, sha256Hash: "0".repeat(64) } } }),
  ORIGIN_NOT_TRUSTED: () => post("{ __typename }", {}, { origin: "https://elsewhere.example", "sec-fetch-site": "cross-site" }),
  SUBSCRIPTION_NEEDS_STREAM: () => post("subscription { events { position } }"),
};

test("documents: errors come with the statuses of the table", async (t) => {
  const rows = new Map([...(await read("docs/graphql/errors.md")).matchAll(/^\| `([A-Z_]+)` \| ([^|]*) \|/gm)].map(([, code, where]) => [code, where]));
  const strict = await start({ env: { ...issuer.env, MAX_DEPTH: "2" } });
  t.after(() => strict.stop());
  for (const [code, provoke] of Object.entries(provocations)) {
    const { headers, ...request } = provoke();
    const response = await fetch(["UNAUTHENTICATED", "DEPTH_LIMIT_EXCEEDED"].includes(code) ? strict.url : server.url, {
      ...request, headers: { accept: "application/graphql-response+json", ...headers },
    });
    const { errors } = await response.json();
    assert.equal(errors?.[0].extensions.code, code);
    assert.match(rows.get(code), new RegExp(`\\b${response.status}\\b`), `${code} came with ${response.status}`);
  }
});
