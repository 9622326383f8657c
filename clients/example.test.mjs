// The example in examples/typescript: it compiles against the schema, and buys and follows although the network breaks.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { connect, createServer } from "node:net";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { ask, start } from "./server.mjs";
import { newIssuer } from "./tokens.mjs";

const cwd = fileURLToPath(new URL("../examples/typescript/", import.meta.url));

let server;
before(async () => { server = await start(); });
after(() => server.stop());

/** A stretch of network that can be cut: whatever goes through it breaks off. */
async function network(to) {
  const open = new Set();
  const { hostname, port } = new URL(to);
  const relay = createServer((near) => {
    const far = connect(Number(port), hostname);
    for (const [one, other] of [[near, far], [far, near]]) {
      open.add(one);
      one.pipe(other);
      one.on("error", () => other.destroy()).on("close", () => { other.destroy(); open.delete(one); });
    }
  });
  relay.listen(0, "127.0.0.1");
  await once(relay, "listening");
  return {
    url: `http://127.0.0.1:${relay.address().port}/graphql`,
    cut: () => { for (const socket of open) socket.resetAndDestroy(); },
    close: () => relay.close(),
  };
}

test("example: it compiles against the schema", () => {
  execFileSync("npm", ["run", "--silent", "build"], { cwd, stdio: ["ignore", "ignore", "inherit"] });
});

test("example: it says who it is where that is asked", async (t) => {
  const issuer = await newIssuer();
  t.after(() => issuer.close());
  const guarded = await start({ env: issuer.env });
  t.after(() => guarded.stop());
  const env = { ...process.env, SHOP_URL: guarded.url, SHOP_USER: "grace", SHOP_TOKEN: issuer.token("grace") };
  const printed = execFileSync("node", ["build/main.js"], { cwd, env, encoding: "utf8" });
  assert.match(printed, /event order\.paid$/m);
});

test("example: it buys, and follows its order through cut connections, with no hole and no repeat", async () => {
  const wire = await network(server.url);
  const buyer = spawn("node", ["build/main.js"], {
    cwd, env: { ...process.env, SHOP_URL: wire.url, FOLLOW_UNTIL: "order.delivered" }, stdio: ["ignore", "pipe", "inherit"],
  });
  const events = [];
  const orders = new Set();
  for await (const line of createInterface({ input: buyer.stdout })) {
    wire.cut();
    const [, id, type] = line.match(/^order (\S+): event (\S+)$/) ?? [];
    if (!id) continue;
    orders.add(id);
    events.push(type);
    const next = { "order.paid": "shipOrder", "order.shipped": "deliverOrder" }[type];
    if (next) await ask(server, `mutation ($id: ID!) { ${next}(input: { orderId: $id }) { receipt { version } } }`, { id });
  }
  wire.close();
  const [code] = buyer.exitCode === null ? await once(buyer, "exit") : [buyer.exitCode];
  assert.equal(code, 0);
  assert.deepEqual(events, ["order.placed", "order.paid", "order.shipped", "order.delivered"]);
  assert.equal(orders.size, 1);
  const [orderId] = orders;
  const { order } = await ask(server, "query ($id: ID!) { order(id: $id) { status cartId } }", { id: orderId });
  assert.equal(order.status, "DELIVERED");
  const { orders: all } = await ask(server, "query ($id: ID!) { orders(filter: { cartId: $id }) { totalCount } }", { id: order.cartId });
  assert.equal(all.totalCount, 1);
});
