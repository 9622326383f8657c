// The documents of the public contract: whether they are what they say they are, and whether their readers find all.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { before, test } from "node:test";
import specs from "@asyncapi/specs";
import Ajv from "ajv";
import Ajv2020 from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import { parse } from "yaml";

const folder = new URL("../contract/", import.meta.url);

let document, valid;
before(async () => {
  document = parse(await readFile(new URL("asyncapi.yaml", folder), "utf8"));
  const ajv = new Ajv({ strict: false, validateFormats: false, allErrors: true });
  valid = ajv.compile(specs.schemasWithoutId["3.0.0"]);
});

test("contract: the document is AsyncAPI 3.0 by its official schema", () => {
  assert.equal(valid(document), true, JSON.stringify(valid.errors, null, 2));
  const broken = structuredClone(document);
  broken.operations.publish.action = "shout";
  assert.equal(valid(broken), false);
});

/** Replaces each reference by what it leads to, as a generator of code does; fails where one leads nowhere. */
async function resolve(part, root, base) {
  if (Array.isArray(part)) return Promise.all(part.map((inner) => resolve(inner, root, base)));
  if (part === null || typeof part !== "object") return part;
  if (typeof part.$ref !== "string") {
    const entries = Object.entries(part).filter(([key]) => key !== "$id" && key !== "$schema" && key !== "$defs");
    return Object.fromEntries(await Promise.all(entries.map(async ([key, inner]) => [key, await resolve(inner, root, base)])));
  }
  const [file, pointer = ""] = part.$ref.split("#");
  const from = file ? JSON.parse(await readFile(new URL(file, base), "utf8")) : root;
  let target = from;
  for (const step of pointer.split("/").slice(1)) target = target?.[step];
  assert.notEqual(target, undefined, `${part.$ref} leads nowhere`);
  return resolve(target, from, file ? new URL(file, base) : base);
}

test("contract: all references lead somewhere, and the example in the documentation is valid", async (t) => {
  const { channels, components } = await resolve(document, document, folder);
  const messages = Object.keys(channels.public.messages);
  assert.deepEqual(messages, Object.keys(components.messages));
  const ajv = new Ajv2020({ strict: false });
  addFormats(ajv);
  const page = await readFile(new URL("../docs/contract.md", import.meta.url), "utf8");
  const example = JSON.parse(page.match(/```json\n([^]*?)```/)[1]);
  for (const name of messages) ajv.compile(channels.public.messages[name].payload);
  const payload = channels.public.messages[example.type]?.payload;
  if (!payload) return t.diagnostic(`the documentation's ${example.type} is not of this program`);
  const fits = ajv.compile(payload);
  assert.equal(fits(example), true, JSON.stringify(fits.errors, null, 2));
  assert.equal(fits({ ...example, data: { cause: "OTHER" } }), false);
  assert.equal(fits({ ...example, position: 10432 }), false);
});
