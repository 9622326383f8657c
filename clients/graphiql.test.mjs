// GraphiQL in a real browser: its examples work by clicking, it takes nothing from elsewhere, and its policy holds.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

import { ask, start } from "./server.mjs";
import { add } from "./shop.mjs";
import { newIssuer } from "./tokens.mjs";

let server, guarded, issuer, context, folder;
before(async () => {
  issuer = await newIssuer();
  server = await start({ env: {} });
  guarded = await start({ env: issuer.env });
  folder = await mkdtemp(join(tmpdir(), "graphiql-"));
  context = await chromium.launchPersistentContext(join(folder, "profile"), {
    executablePath: process.env.CHROMIUM,
    headless: true,
    viewport: { width: 1440, height: 900 },
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync",
    ],
  });
});
after(async () => {
  await context?.close();
  await rm(join(folder, "profile"), { recursive: true, force: true });
  await guarded.stop();
  await server.stop();
  await issuer.close();
});

/** Runs a test on a page of its own. What the page looks like at the end, good or bad, is kept as a picture. */
const onPage = (name, body, at = () => server) => test(`GraphiQL: ${name}`, async (t) => {
  const opened = await open(at().origin);
  try {
    await body(opened);
    assert.deepEqual(opened.faults, []);
  } finally {
    const picture = join(folder, `${name.replace(/\W+/g, "-")}.png`);
    await opened.page.screenshot({ path: picture });
    t.diagnostic(`screenshot: ${picture}`);
    await opened.page.close();
  }
});

/** Opens the page and notes all that should not happen. */
async function open(origin) {
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const faults = [];
  const addresses = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) faults.push(message.text()); });
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("requestfailed", (request) => faults.push(`${request.url()}: ${request.failure()?.errorText}`));
  context.on("request", (request) => addresses.push(request.url()));
  page.on("websocket", (socket) => addresses.push(socket.url().replace(/^ws/, "http")));
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
  });
  await page.goto(`${origin}/`);
  await page.locator(".graphiql-execute-button").waitFor();
  return { page, faults, addresses };
}

const result = (page) => page.locator(".result-window .view-lines");

/** Opens an example and runs it. */
async function run(page, title) {
  await page.getByRole("button", { name: title, exact: true }).click();
  await page.locator(".graphiql-execute-button").click();
}

onPage("its examples work by clicking, and nothing comes from elsewhere", async ({ page, addresses }) => {
  await run(page, "Open a cart");
  await result(page).getByText("openCart").waitFor();
  const { carts } = await ask(server, "{ carts(first: 1) { nodes { id } } }");
  const cartId = carts.nodes[0].id;

  await run(page, "Fill the cart");
  await result(page).getByText("lineTotal").waitFor();

  await run(page, "Read the cart");
  await result(page).getByText("unitPrice").waitFor();

  await run(page, "Follow a cart");
  await result(page).getByText("tea").waitFor();
  await add(server, cartId, "coffee");
  await result(page).getByText("coffee").waitFor();

  assert.ok(addresses.some((address) => address.endsWith("/graphql")));
  assert.deepEqual(addresses.filter((address) => !/^(data|blob):/.test(address) && new URL(address).origin !== server.origin), []);
});

onPage("what the headers' editor holds goes along, over the WebSocket too", async ({ page }) => {
  await page.getByRole("button", { name: "Open a cart", exact: true }).click();
  await page.getByRole("button", { name: "Headers" }).click();
  await page.locator(".graphiql-editor-tool .graphiql-editor:not(.hidden)").click();
  await page.keyboard.insertText(JSON.stringify({ Authorization: `Bearer ${issuer.token("ada")}` }));
  await page.locator(".graphiql-execute-button").click();
  await result(page).getByText("openCart").waitFor();
  await run(page, "Follow a cart");
  await result(page).getByText("cartChanged").waitFor();
}, () => guarded);

test("GraphiQL: in production there is none", async () => {
  const production = await start({ command: "serve", env: { HEADRACE_ENV: "production", AUTH: "off" } });
  assert.equal((await fetch(`${production.origin}/`)).status, 404);
  assert.equal((await fetch(`${production.origin}/schema.graphql`)).status, 404);
  await production.stop();
});
