// graphql-sse, the reference client of server-sent events with distinct connections, and what a browser's EventSource does.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createClient } from "graphql-sse";

import { eventually, start } from "./server.mjs";
import { add, addItem, followEvents, newCart } from "./shop.mjs";

let server;
before(async () => { server = await start(); });
after(() => server.stop());

test("graphql-sse: query, mutation and subscription", async () => {
  const cartId = await newCart(server);

  const client = createClient({ url: server.url });
  const events = client.iterate({ query: followEvents, variables: { after: "0", stream: cartId } });
  assert.equal((await events.next()).value.data.events.type, "cart.opened");

  for await (const { data } of client.iterate({ query: addItem, variables: { cartId, sku: "tea" } })) {
    assert.equal(data.addItem.cart.version, 2);
  }
  assert.equal((await events.next()).value.data.events.type, "cart.item_added");
  for await (const { data } of client.iterate({ query: "{ __typename }" })) {
    assert.equal(data.__typename, "Query");
  }
  await events.return();
  client.dispose();
});

test("graphql-sse: errors come as results with their codes", async () => {
  const client = createClient({ url: server.url });
  const results = [];
  for await (const result of client.iterate({ query: "{ nothing }" })) results.push(result);
  assert.equal(results[0].errors[0].extensions.code, "GRAPHQL_VALIDATION_FAILED");
  client.dispose();
});

test("graphql-sse: a client follows through a restart of the server by itself", async () => {
  let own = await start({ env: {} });
  const cartId = await newCart(own);
  const seen = [];

  let position = "0";
  const client = createClient({
    url: own.url,
    retryAttempts: Infinity,
    retry: () => new Promise((resume) => setTimeout(resume, 50)),
  });
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
  await add(server, cartId);
  own = await start({ env: {}, listen: own.listen });
  await add(own, cartId);
  await eventually("the last event", () => seen.length >= 4);
  assert.deepEqual(seen, [1, 2, 3, 4]);
  stop();
  client.dispose();
  await own.stop();
});

/** Opens a stream as EventSource does, by GET, and reads `count` of its events. */
async function eventSource(address, count, headers = {}) {
  const abort = new AbortController();
  const response = await fetch(address, { headers: { accept: "text/event-stream", ...headers }, signal: abort.signal });
  assert.equal(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
  const events = [];
  let text = "";
  for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const fields = Object.fromEntries(text.slice(0, end).split("\n").filter((line) => !line.startsWith(":"))
        .map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]));
      if (fields.event === "next") events.push({ id: fields.id, data: JSON.parse(fields.data).data });
      if (events.length === count) {
        abort.abort();
        return events;
      }
    }
  }
  return events;
}

test("EventSource: goes on after Last-Event-ID, which begins with the position", async () => {
  const cartId = await newCart(server);
  await add(server, cartId);
  await add(server, cartId);
  const parameters = new URLSearchParams({ query: followEvents, variables: JSON.stringify({ after: "0", stream: cartId }) });
  const address = `${server.url}?${parameters}`;
  const first = await eventSource(address, 2);
  assert.deepEqual(first.map(({ data }) => data.events.version), [1, 2]);
  assert.equal(first[1].id.split(".")[0], first[1].data.events.position);
  for (const id of [first[1].id, first[1].data.events.position]) {
    const [next] = await eventSource(address, 1, { "last-event-id": id });
    assert.equal(next.data.events.version, 3);
  }
});
