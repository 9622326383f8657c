// graphql-ws, the reference client of graphql-transport-ws, which Apollo, urql, Relay and GraphiQL use underneath.
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { createClient } from "graphql-ws";
import WebSocket from "ws";

import { eventually, start } from "./server.mjs";
import { add, addItem, followCart, followEvents, newCart } from "./shop.mjs";

let server;
before(async () => { server = await start(); });
after(() => server.stop());

const connect = (url = server.ws, options = {}) => createClient({ url, webSocketImpl: WebSocket, ...options });

/** The first results of an operation. */
async function take(count, results) {
  const taken = [];
  for await (const result of results) {
    taken.push(result);
    if (taken.length === count) break;
  }
  return taken;
}

test("graphql-ws: query, mutation and subscription on one socket", async () => {
  const cartId = await newCart(server);
  let opened = 0;
  const client = connect(server.ws, { on: { connected: () => { opened += 1; } } });

  const changes = client.iterate({ query: followCart, variables: { id: cartId } });
  assert.equal((await changes.next()).value.data.cartChanged.version, 1);

  const [added] = await take(2, client.iterate({ query: addItem, variables: { cartId, sku: "tea" } }));
  assert.deepEqual(added.data.addItem.cart.items, [{ sku: "tea", quantity: 1 }]);
  assert.equal((await changes.next()).value.data.cartChanged.version, 2);

  const token = added.data.addItem.receipt.token;
  const [read] = await take(2, client.iterate({
    query: "query ($id: ID!, $token: Token) { cart(id: $id, atLeast: $token) { version } }",
    variables: { id: cartId, token },
  }));
  assert.equal(read.data.cart.version, 2);
  await changes.return();
  await client.dispose();
  assert.equal(opened, 1);
});

test("graphql-ws: a refusal comes as an error with its code", async () => {
  const client = connect();
  await assert.rejects(take(1, client.iterate({ query: "{ nothing }" })), (errors) => {
    assert.equal(errors[0].extensions.code, "GRAPHQL_VALIDATION_FAILED");
    return true;
  });
  await client.dispose();
});

test("graphql-ws: a new client goes on after the last position, with no hole and no repeat", async () => {
  const cartId = await newCart(server);
  await add(server, cartId);
  await add(server, cartId);
  const events = async (after, count) => {
    const client = connect();
    const results = await take(count, client.iterate({ query: followEvents, variables: { after, stream: cartId } }));
    await client.dispose();
    return results.map(({ data }) => data.events);
  };
  const first = await events("0", 2);
  assert.deepEqual(first.map((event) => event.version), [1, 2]);
  const rest = events(first.at(-1).position, 2);
  await add(server, cartId);
  assert.deepEqual((await rest).map((event) => event.version), [3, 4]);
});

test("graphql-ws: a client follows through a restart of the server by itself", async () => {
  let own = await start({ env: {} });
  const cartId = await newCart(own);
  const seen = [];
  const closes = [];

  const client = createClient({
    url: own.ws,
    webSocketImpl: WebSocket, // browsers and Node 22 have one of their own
    retryAttempts: Infinity,
    shouldRetry: () => true,
    retryWait: (retries) => new Promise((resume) => setTimeout(resume, Math.min(50 * 2 ** retries, 5_000))),
    on: { closed: (event) => closes.push(event.code) },
  });
  let position = "0";
  const stop = client.subscribe(
    // Read anew each time the client connects: it goes on after the last event it has.
    { query: followEvents, get variables() { return { after: position, stream: cartId }; } },
    {
      next({ data: { events: event } }) {
        seen.push(event.version);
        position = event.position;
      },
      error: assert.fail,
      complete() {},
    },
  );

  await add(own, cartId);
  await eventually("the first events", () => seen.length === 2);
  await own.stop();
  await add(server, cartId); // another server takes what comes meanwhile
  own = await start({ env: {}, listen: own.listen });
  await add(own, cartId);
  await eventually("the last event", () => seen.length >= 4);
  assert.deepEqual(seen, [1, 2, 3, 4]);
  assert.equal(closes[0], 1012);
  stop();
  await client.dispose();
  await own.stop();
});

test("graphql-ws: the protocol's predecessor is refused so that its clients give up", async () => {
  const socket = new WebSocket(server.ws, "graphql-ws");
  const [code] = await once(socket, "close");
  assert.equal(code, 4406);
});
