// Buys a pot of tea, and follows its order from the first event to the last.
import { randomUUID } from "node:crypto";

import { graphql, Shop } from "./client.js";

const openCart = graphql(`
  mutation OpenCart($input: OpenCartInput!) {
    openCart(input: $input) { receipt { stream } userErrors { code message } }
  }
`);

const addItem = graphql(`
  mutation AddItem($input: AddItemInput!) {
    addItem(input: $input) { receipt { token } userErrors { code message } }
  }
`);

const readCart = graphql(`
  query ReadCart($id: ID!, $atLeast: Token) {
    cart(id: $id, atLeast: $atLeast) { items { name quantity } total { amount currency } }
  }
`);

const checkOut = graphql(`
  mutation CheckOut($input: CheckOutCartInput!) {
    checkOutCart(input: $input) {
      receipt { position token }
      userErrors { code message }
      orderId
      order(within: "10s") { id }
    }
  }
`);

const payOrder = graphql(`
  mutation PayOrder($input: PayOrderInput!) {
    payOrder(input: $input) { receipt { token } userErrors { code message } }
  }
`);

const readOrder = graphql(`
  query ReadOrder($id: ID!, $atLeast: Token) {
    order(id: $id, atLeast: $atLeast) { status total { amount currency } }
  }
`);

const followActivity = graphql(`
  subscription FollowActivity($userId: ID, $after: Position) {
    activityLogged(userId: $userId, after: $after) { position stream type }
  }
`);

const owner = process.env.SHOP_USER ?? "ada";

/** A refusal is an answer: the payload says why, and nothing was written. */
function accepted<Payload extends { receipt: object | null; userErrors: readonly { code: string; message: string }[] }>(
  payload: Payload,
): Payload & { receipt: NonNullable<Payload["receipt"]> } {
  if (payload.receipt === null) {
    throw new Error(payload.userErrors.map(({ code, message }) => `${code}: ${message}`).join("; "));
  }
  return payload as Payload & { receipt: NonNullable<Payload["receipt"]> };
}

async function buy(shop: Shop): Promise<void> {
  // The id of a command is made once, before it is first sent: sent again it is the same command.
  const opened = await shop.run(openCart, { input: { ownerId: owner, currency: "EUR", commandId: randomUUID() } });
  const cartId = accepted(opened.openCart).receipt.stream;

  const added = await shop.run(addItem, {
    input: {
      cartId, sku: "tea", name: "Green tea", quantity: 2, unitPrice: { amount: 450, currency: "EUR" }, commandId: randomUUID(),
    },
  });
  // The token makes the answer include what was just done.
  const { cart } = await shop.run(readCart, { id: cartId, atLeast: accepted(added.addItem).receipt.token });
  console.log(`cart ${cartId}: ${cart?.items.map((item) => `${item.quantity} ${item.name}`).join(", ")}`);

  const checkedOut = accepted((await shop.run(checkOut, { input: { cartId, commandId: randomUUID() } })).checkOutCart);
  const orderId = checkedOut.orderId;
  if (orderId === null) throw new Error("a check-out that was accepted has an order");
  console.log(`order ${orderId}: checked out`);

  await Promise.all([follow(shop, orderId, checkedOut.receipt.position), pay(shop, orderId)]);
}

async function pay(shop: Shop, orderId: string): Promise<void> {
  const paid = await shop.run(payOrder, { input: { orderId, reference: `payment-${randomUUID()}`, commandId: randomUUID() } });
  const { order } = await shop.run(readOrder, { id: orderId, atLeast: accepted(paid.payOrder).receipt.token });
  console.log(`order ${orderId}: ${order?.status}, ${order?.total.amount} ${order?.total.currency}`);
}

/** Prints what happens to an order until it is paid, each event once, whatever the connection does meanwhile. */
async function follow(shop: Shop, orderId: string, after: string): Promise<void> {
  let position = after;
  for await (const { activityLogged: event } of shop.follow(followActivity, () => ({ userId: owner, after: position }))) {
    position = event.position;
    if (event.stream !== orderId) continue;
    console.log(`order ${orderId}: event ${event.type}`);
    if (event.type === (process.env.FOLLOW_UNTIL ?? "order.paid")) return;
  }
}

const shop = new Shop(process.env.SHOP_URL ?? "http://localhost:8080/graphql", process.env.SHOP_TOKEN);
try {
  await buy(shop);
} finally {
  await shop.close();
}
