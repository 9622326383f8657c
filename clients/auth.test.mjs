// Logins, as clients see them: a token in a header over HTTP, and in connection_init over a WebSocket.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createClient } from "graphql-ws";
import WebSocket from "ws";

import { ask, start } from "./server.mjs";
import { add, followCart, newCart } from "./shop.mjs";
import { newIssuer } from "./tokens.mjs";

let server, issuer;
before(async () => {
  issuer = await newIssuer();
  server = await start({ env: issuer.env });
});
after(async () => {
  await server.stop();
  await issuer.close();
});

const bearer = (token) => ({ authorization: `Bearer ${token}` });

test("login over HTTP: a token that is not accepted is 401, and a good one says who acts", async () => {
  const refused = await fetch(server.url, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/graphql-response+json", ...bearer("nonsense") },
    body: JSON.stringify({ query: "{ __typename }" }),
  });
  assert.equal(refused.status, 401);
  assert.match(refused.headers.get("www-authenticate"), /^Bearer/);
  assert.equal((await refused.json()).errors[0].extensions.code, "UNAUTHENTICATED");

  const headers = bearer(issuer.token("ada"));
  const cartId = await newCart(server, "ada", headers);
  const { history } = await ask(server, "query ($id: ID!) { history(id: $id) { nodes { actor } } }", { id: cartId }, headers);
  assert.equal(history.nodes[0].actor, "ada");
});

test("login over a WebSocket: connection_init has the token", async () => {
  const token = issuer.token("ada");
  const cartId = await newCart(server, "ada", bearer(token));

  const client = createClient({
    url: server.ws,
    webSocketImpl: WebSocket,
    connectionParams: async () => ({ authorization: `Bearer ${token}` }), // asked anew for each connection
  });
  const changes = client.iterate({ query: followCart, variables: { id: cartId } });
  assert.equal((await changes.next()).value.data.cartChanged.version, 1);
  await add(server, cartId, "tea", bearer(token));
  assert.equal((await changes.next()).value.data.cartChanged.version, 2);
  await changes.return();
  await client.dispose();
});

for (const [what, token] of [
  ["a token of nobody's", () => "nonsense"],
  ["an expired token", () => issuer.token("ada", { exp: Math.floor(Date.now() / 1000) - 60 })],
]) {
  test(`login over a WebSocket: ${what} is refused with 4403`, async () => {
    const client = createClient({
      url: server.ws, webSocketImpl: WebSocket, retryAttempts: 0, connectionParams: bearer(token()),
    });
    await assert.rejects(client.iterate({ query: "{ __typename }" }).next(), (event) => {
      assert.equal(event.code, 4403);
      return true;
    });
    await client.dispose();
  });
}

test("login over a WebSocket: a token that expires meanwhile ends the connection with 4403, and the next one goes on", async () => {
  const exp = Math.floor(Date.now() / 1000) + 2;
  const tokens = [issuer.token("ada", { exp }), issuer.token("ada")];
  const cartId = await newCart(server, "ada", bearer(tokens[1]));
  const closes = [];
  const client = createClient({
    url: server.ws,
    webSocketImpl: WebSocket,
    retryWait: async () => {},
    connectionParams: () => bearer(tokens.shift()),
    on: { closed: ({ code }) => closes.push(code) },
  });
  const changes = client.iterate({ query: followCart, variables: { id: cartId } });
  assert.equal((await changes.next()).value.data.cartChanged.version, 1); // by the first token
  assert.equal((await changes.next()).value.data.cartChanged.version, 1); // as it is now, by the second
  assert.deepEqual(closes, [4403]);
  await changes.return();
  await client.dispose();
});
