// What several tests ask of the example's shop.

import { ask } from "./server.mjs";

export const openCart = /* GraphQL */ `
  mutation OpenCart($ownerId: ID!) {
    openCart(input: { ownerId: $ownerId, currency: "EUR" }) {
      receipt { stream position token }
      userErrors { code message }
    }
  }
`;

export const addItem = /* GraphQL */ `
  mutation AddItem($cartId: ID!, $sku: String!) {
    addItem(input: { cartId: $cartId, sku: $sku, name: $sku, quantity: 1, unitPrice: { amount: 450, currency: "EUR" } }) {
      receipt { position token }
      userErrors { code message }
      cart { id version items { sku quantity } }
    }
  }
`;

export const followEvents = /* GraphQL */ `
  subscription FollowEvents($after: Position, $stream: String) {
    events(after: $after, stream: $stream) { position type version }
  }
`;

export const followCart = /* GraphQL */ `
  subscription FollowCart($id: ID!) {
    cartChanged(id: $id) { id version items { sku quantity } }
  }
`;

/** Opens a cart and returns its receipt. */
export async function open(server, ownerId = "ada", headers = {}) {
  const { openCart: opened } = await ask(server, openCart, { ownerId }, headers);
  if (opened.userErrors.length > 0) throw new Error(JSON.stringify(opened.userErrors));
  return opened.receipt;
}

/** Opens a cart and returns its id. */
export const newCart = async (...args) => (await open(...args)).stream;

/** Puts an item into a cart. */
export async function add(server, cartId, sku = "tea", headers = {}) {
  const { addItem: added } = await ask(server, addItem, { cartId, sku }, headers);
  if (added.userErrors.length > 0) throw new Error(JSON.stringify(added.userErrors));
  return added;
}
