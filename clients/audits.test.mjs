// Every audit of the GraphQL-over-HTTP specification that graphql-http has, against the running server.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { serverAudits } from "graphql-http";

import { start } from "./server.mjs";

const expected = { MUST: 13, SHOULD: 23, MAY: 25 };

let server;
before(async () => { server = await start(); });
after(() => server.stop());

test("GraphQL over HTTP: all audits of graphql-http", async (t) => {
  const audits = serverAudits({ url: () => server.url, fetchFn: fetch });
  const passed = { MUST: 0, SHOULD: 0, MAY: 0 };
  const failed = [];
  for (const audit of audits) {
    const level = audit.name.split(" ")[0];
    const result = await audit.fn();
    if (result.status === "ok") {
      passed[level] += 1;
    } else {
      failed.push(`${audit.id} ${audit.name}: ${result.reason}`);
    }
  }
  for (const [level, count] of Object.entries(expected)) {
    t.diagnostic(`${level}: ${passed[level]} of ${count} audits pass`);
  }
  for (const failure of failed) t.diagnostic(failure);
  assert.deepEqual(failed, []);
  assert.deepEqual(passed, expected);
});
