// Apollo Client: queries and mutations over HTTP, with and without persisted queries, and subscriptions over a WebSocket.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, test } from "node:test";
import { ApolloClient, ApolloLink, CombinedGraphQLErrors, gql, HttpLink, InMemoryCache } from "@apollo/client";
import { PersistedQueryLink } from "@apollo/client/link/persisted-queries";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { createClient } from "graphql-ws";
import { OperationTypeNode } from "graphql";
import WebSocket from "ws";

import { start } from "./server.mjs";
import { addItem, followCart, open } from "./shop.mjs";

globalThis.WebSocket ??= WebSocket; // browsers and Node 22 have it

let server;
before(async () => { server = await start(); });
after(() => server.stop());

function connect(server) {
  const socket = createClient({ url: server.ws });
  const link = ApolloLink.split(
    ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION,
    new GraphQLWsLink(socket),
    new HttpLink({ uri: server.url }),
  );
  const client = new ApolloClient({ link, cache: new InMemoryCache() });
  return { client, close: () => { client.stop(); return socket.dispose(); } };
}

test("Apollo: query, mutation, the cache, and a subscription that feeds it", async () => {
  const { stream: cartId, token } = await open(server);
  const { client, close } = connect(server);
  const read = gql`query ($id: ID!) { cart(id: $id) { id version items { sku quantity } } }`;

  // As a header the token is no argument, so that it does not part the cache.
  const context = { headers: { "Headrace-At-Least": token } };
  const first = await client.query({ query: read, variables: { id: cartId }, context });
  assert.equal(first.data.cart.version, 1);

  // A subscription of an object sends it as it is now whenever it connects, so that nothing has to be resumed.
  const versions = [];
  const changed = new Promise((resolve, reject) => {
    client.subscribe({ query: gql(followCart), variables: { id: cartId } }).subscribe({
      next({ data }) {
        versions.push(data.cartChanged.version);
        if (data.cartChanged.version === 2) resolve();
        // The mutation waits until the subscription is there.
        else client.mutate({ mutation: gql(addItem), variables: { cartId, sku: "tea" } }).catch(reject);
      },
      error: reject,
    });
  });
  await changed;
  assert.deepEqual(versions, [1, 2]);
  const { data } = await client.query({ query: read, variables: { id: cartId }, fetchPolicy: "cache-only" }); // what the subscription told
  assert.deepEqual(data.cart.items.map(({ sku, quantity }) => ({ sku, quantity })), [{ sku: "tea", quantity: 1 }]);
  await close();
});

test("Apollo: errors come with their codes", async () => {
  const { client, close } = connect(server);
  const refused = client.query({ query: gql`{ carts(first: 1000) { totalCount } }` });
  await assert.rejects(refused, (error) => {
    assert.ok(CombinedGraphQLErrors.is(error));
    assert.equal(error.errors[0].extensions.code, "BAD_USER_INPUT");
    return true;
  });
  await close();
});

for (const useGETForHashedQueries of [false, true]) {
  const method = useGETForHashedQueries ? "GET" : "POST";
  test(`Apollo: automatic persisted queries by ${method}`, async () => {
    const requests = [];
    const link = ApolloLink.from([
      new PersistedQueryLink({
        sha256: (text) => createHash("sha256").update(text).digest("hex"),
        useGETForHashedQueries,
      }),
      new HttpLink({
        uri: server.url,
        fetch(address, init) {
          requests.push({ method: init.method, whole: (init.body ?? new URL(address).search).includes("totalCount") });
          return fetch(address, init);
        },
      }),
    ]);
    const client = new ApolloClient({ link, cache: new InMemoryCache() });
    // A name of its own for each run: the server must not know the document yet.
    const query = gql(`query Carts${method}${Date.now()} { carts(first: 1) { totalCount } }`);
    for (let i = 0; i < 2; i += 1) {
      const { data } = await client.query({ query, fetchPolicy: "network-only" });
      assert.ok(data.carts.totalCount >= 0);
    }
    client.stop();
    assert.deepEqual(requests, [
      { method, whole: false }, // not known yet
      { method: requests[1].method, whole: true },
      { method, whole: false }, // the hash is enough from now on
    ]);
  });
}
