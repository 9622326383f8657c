// Starts the program under test, as often as a test file wants. API and DATABASE_URL come from `make clients`; with
// SERVER_URL the files that need nothing special of their server try that one instead.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/**
 * Starts a server and returns when it is ready.
 *
 * @param {{ env?: Record<string, string>, listen?: string, command?: "dev" | "serve" }} [options]
 * @returns {Promise<{ url: string, ws: string, listen: string, stop(signal?: NodeJS.Signals): Promise<number | null> }>}
 */
export async function start(options) {
  if (!options && process.env.SERVER_URL) {
    return describe(process.env.SERVER_URL, async () => 0);
  }
  const { env = {}, listen = "127.0.0.1:0", command = "dev" } = options ?? {};
  const { API, DATABASE_URL } = process.env;
  if (!API || !DATABASE_URL) {
    throw new Error("run `make clients`, which builds the server and gives it a database");
  }
  const child = spawn(API, [command, "--listen", listen], {
    env: { ...process.env, LEASE_TTL: "1s", AUTH: "off", ...env },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const exited = once(child, "exit").then(([code]) => code);
  const stop = async (signal = "SIGTERM") => {
    child.ref();
    child.kill(signal);
    return exited;
  };
  process.once("exit", () => child.kill("SIGKILL"));

  const log = [];
  const url = await new Promise((resolve, reject) => {
    createInterface({ input: child.stderr })
      .on("line", (line) => {
        log.push(line);
        const serving = line.match(/\bgraphql"?[=:]"?(http[^ "]+)\/graphql/);
        if (serving) resolve(serving[1]);
      })
      .once("close", () => reject(new Error(`the server did not start:\n${log.join("\n")}`)));
  });
  await eventually("the server is ready", async () => (await fetch(`${url}/readyz`)).ok);
  child.unref(); // a test that failed may have left it running, and the process should end all the same
  child.stderr.unref();
  return describe(url, stop);
}

function describe(url, stop) {
  return { url: `${url}/graphql`, ws: `${url.replace(/^http/, "ws")}/graphql`, listen: new URL(url).host, origin: url, stop };
}

/** Asks again and again until the answer is neither false nor null; fails after ten seconds. */
export async function eventually(what, ask) {
  for (const deadline = Date.now() + 10_000; Date.now() < deadline;) {
    const answer = await ask();
    if (answer) return answer;
    await new Promise((resume) => setTimeout(resume, 20));
  }
  throw new Error(`waited in vain for: ${what}`);
}

/** Sends an operation by plain fetch. Returns its data, and fails with the errors when there are any. */
export async function ask(server, query, variables = {}, headers = {}) {
  const response = await fetch(server.url, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/graphql-response+json", ...headers },
    body: JSON.stringify({ query, variables }),
  });
  const { data, errors } = await response.json();
  if (errors) throw new Error(JSON.stringify(errors));
  return data;
}
