// A small typed client: operations by fetch, subscriptions by graphql-ws. The types of documents, variables and results
// come from the server's schema (src/schema.d.ts, made by `npm run types`).
import { setTimeout as sleep } from "node:timers/promises";
import { initGraphQLTada, type TadaDocumentNode } from "gql.tada";
import { print } from "graphql";
import { type Client, createClient } from "graphql-ws";
import WebSocket from "ws";

import type { introspection } from "./schema.d.ts";

export const graphql = initGraphQLTada<{
  introspection: introspection;
  scalars: { Position: string; Token: string; MinorUnits: number; Duration: string; Time: string; JSON: unknown };
}>();

/** What GraphQL says of an error; `code` is one of the schema's enum ErrorCode. */
interface Fault {
  message: string;
  extensions?: { code?: string; retryAfterMs?: number };
}

/** Codes after which the same request may be sent again: nothing is broken, and commands have an id. */
const passing = new Set(["DRAINING", "OVERLOADED", "RATE_LIMITED", "UNKNOWN_OUTCOME", "PROJECTION_BEHIND", "TIMEOUT"]);

export class RequestError extends Error {
  constructor(readonly faults: readonly Fault[]) {
    super(faults.map(({ message, extensions }) => `${extensions?.code}: ${message}`).join("; "));
  }
}

export class Shop {
  readonly #url: string;
  readonly #headers: Record<string, string>;
  readonly #socket: Client;

  /** `token` is a JSON Web Token, for servers that ask who one is. */
  constructor(url: string, token?: string) {
    this.#url = url;
    this.#headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
    this.#socket = createClient({
      url: url.replace(/^http/, "ws"),
      webSocketImpl: WebSocket,
      connectionParams: this.#headers,
      retryAttempts: Infinity,
      shouldRetry: () => true, // a server that cannot be reached will be
      retryWait: (retries) => sleep(Math.min(100 * 2 ** retries, 5_000) * Math.random()),
    });
  }

  /**
   * Runs a query or mutation, again when the network or the server fails for a while. That is harmless: a query changes
   * nothing, and a mutation with a `commandId` has one effect however often it comes.
   */
  async run<Result, Variables>(document: TadaDocumentNode<Result, Variables>, variables: Variables): Promise<Result> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#send(document, variables);
      } catch (error) {
        const again = error instanceof RequestError ? error.faults.every((fault) => passing.has(fault.extensions?.code ?? "")) : true;
        if (!again || attempt === 8) throw error;
        await sleep(50 * 2 ** attempt * Math.random());
      }
    }
  }

  async #send<Result, Variables>(document: TadaDocumentNode<Result, Variables>, variables: Variables): Promise<Result> {
    const response = await fetch(this.#url, {
      method: "POST",
      headers: { ...this.#headers, "content-type": "application/json", accept: "application/graphql-response+json" },
      body: JSON.stringify({ query: print(document), variables }),
      signal: AbortSignal.timeout(30_000),
    });
    const { data, errors } = (await response.json()) as { data?: Result; errors?: Fault[] };
    if (errors !== undefined || data === undefined) throw new RequestError(errors ?? [{ message: response.statusText }]);
    return data;
  }

  /**
   * Follows a subscription through broken connections and restarts of the server. `variables` is asked each time the
   * client connects, so that it can say where to go on.
   */
  follow<Result, Variables>(document: TadaDocumentNode<Result, Variables>, variables: () => Variables): AsyncIterable<Result> {
    const results = this.#socket.iterate<Result>({
      query: print(document),
      get variables() {
        return variables() as Record<string, unknown>;
      },
    });
    return (async function* () {
      try {
        for await (const { data, errors } of results) {
          if (errors) throw new RequestError(errors as readonly Fault[]);
          if (data) yield data;
        }
      } catch (refused) {
        throw Array.isArray(refused) ? new RequestError(refused as Fault[]) : refused;
      }
    })();
  }

  /** Closes the WebSocket. */
  async close(): Promise<void> {
    await this.#socket.dispose();
  }
}
