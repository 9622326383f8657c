// The published schema: whether tools can read it, whether it is what the server answers by, and whether clients of the
// last release can go on with it.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import {
  buildClientSchema, buildSchema, findBreakingChanges, findDangerousChanges, getIntrospectionQuery, isIntrospectionType,
  isSpecifiedScalarType, lexicographicSortSchema, printType, validateSchema,
} from "graphql";

import { ask, start } from "./server.mjs";

const root = new URL("../", import.meta.url);
const file = "graph/generated/schema.graphql";

let server, schema;
before(async () => {
  server = await start({ env: {} });
  schema = buildSchema(await (await fetch(`${server.origin}/schema.graphql`)).text());
});
after(() => server.stop());

test("schema: it is valid, and its description of each type is what introspection says", async () => {
  assert.deepEqual(validateSchema(schema), []);
  const query = getIntrospectionQuery({ inputValueDeprecation: true, oneOf: true });
  const introspected = buildClientSchema(await ask(server, query));
  const print = (from) => Object.values(lexicographicSortSchema(from).getTypeMap())
    .filter((type) => !isIntrospectionType(type) && !isSpecifiedScalarType(type)).map(printType);
  const [published, said] = [print(schema), print(introspected)];
  assert.deepEqual(published.filter((type) => !said.includes(type)), []);
  assert.equal(published.length, said.length);
});

test("schema: it is not sent again as long as it is unchanged", async () => {
  const { headers } = await fetch(`${server.origin}/schema.graphql`);
  const again = await fetch(`${server.origin}/schema.graphql`, { headers: { "if-none-match": headers.get("etag") } });
  assert.equal(again.status, 304);
});

/** What clients of `before` may stumble over in `after`, as the lines by which it is accepted. */
function changes(before, after) {
  const line = ({ type, description }) => `${type}: ${description}`;
  return {
    breaking: findBreakingChanges(before, after).map(line).sort(),
    dangerous: findDangerousChanges(before, after).map(line).sort(),
  };
}

/** The schema of the newest release that has one: that of its tag, or else the one that `make release-schema` kept. */
async function released() {
  const git = (...args) => execFileSync("git", args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  try {
    const [tag] = git("tag", "--list", "v*", "--sort=-v:refname").split("\n");
    if (tag) return { name: tag, text: git("show", `${tag}:${file}`) };
  } catch {
    // no git, or a release from before the schema was published
  }
  return { name: "graph/released.graphql", text: await readFile(new URL("graph/released.graphql", root), "utf8") };
}

test("schema: clients of the last release can go on with it", async (t) => {
  const { name, text } = await released();
  const { breaking, dangerous } = changes(buildSchema(text), schema);
  t.diagnostic(`compared with ${name}: ${breaking.length} breaking and ${dangerous.length} dangerous changes`);
  for (const change of dangerous) t.diagnostic(`dangerous: ${change}`);

  const accepted = (await readFile(new URL("graph/accepted-breaks.txt", root), "utf8")).split("\n")
    .filter((line) => line !== "" && !line.startsWith("#")).sort();
  assert.deepEqual(breaking.filter((change) => !accepted.includes(change)), [],
    "these changes break clients of the last release: take them back, or add their lines to graph/accepted-breaks.txt");
  assert.deepEqual(accepted.filter((change) => !breaking.includes(change)), [],
    "these lines of graph/accepted-breaks.txt accept what is not there: remove them");
});

test("schema: the comparison finds what breaks clients", () => {
  const before = buildSchema("type Query { cart(id: ID!): String, carts: Int } enum Status { OPEN }");
  const after = buildSchema("type Query { cart(id: ID!, of: ID!): String, count: Int } enum Status { OPEN CLOSED }");
  assert.deepEqual(changes(before, after), {
    breaking: [
      "FIELD_REMOVED: Query.carts was removed.",
      "REQUIRED_ARG_ADDED: A required arg of on Query.cart was added.",
    ],
    dangerous: ["VALUE_ADDED_TO_ENUM: CLOSED was added to enum type Status."],
  });
});
