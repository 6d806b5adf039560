import { EarmarkError } from "./errors.js";
import { guardedFetch, isGuarded, type GuardedFetchOptions } from "./fetch.js";

type Fetch = typeof globalThis.fetch;

/** Clients of `openai`, `@anthropic-ai/sdk` and of the many SDKs that are generated in the same way. */
interface CopyingClient {
  fetch: Fetch;
  withOptions(options: { fetch: Fetch }): unknown;
}

/** The client of `@google/genai`. */
interface GoogleClient {
  models: { generateContent: unknown };
  apiClient: { clientOptions: { httpOptions?: { fetch?: Fetch } } };
}

export type WrapOptions = Omit<GuardedFetchOptions, "fetch">;

/**
 * Guards the client of a provider: each call of a model reserves before, and commits what the provider says was used. Use what it
 * returns. It knows `openai`, `@anthropic-ai/sdk` and `@google/genai`. The first two return a guarded copy; Google's client has no
 * copy, and is changed itself.
 */
export function wrap<Client extends object>(client: Client, options: WrapOptions): Client {
  if (isCopying(client)) {
    refuseTwice(client.fetch);
    return client.withOptions({ fetch: guardedFetch({ ...options, fetch: client.fetch }) }) as Client;
  }
  if (isGoogle(client)) {
    const { clientOptions } = client.apiClient;
    const fetch = clientOptions.httpOptions?.fetch;
    refuseTwice(fetch);
    clientOptions.httpOptions = { ...clientOptions.httpOptions, fetch: guardedFetch({ ...options, ...(fetch && { fetch }) }) };
    return client;
  }
  const name = (client as object | undefined)?.constructor?.name ?? String(client);
  throw new EarmarkError("invalid_request", `${name} is no client that wrap knows (openai, @anthropic-ai/sdk, @google/genai); where its package takes a fetch, give it a guardedFetch`, { field: "client" });
}

function refuseTwice(fetch: Fetch | undefined): void {
  if (fetch !== undefined && isGuarded(fetch)) throw new EarmarkError("invalid_request", "is guarded already; a second guard would hold and charge each call twice", { field: "client" });
}

function isCopying(client: object | undefined): client is CopyingClient {
  const { withOptions, fetch } = (client ?? {}) as Partial<CopyingClient>;
  return typeof withOptions === "function" && typeof fetch === "function";
}

function isGoogle(client: object | undefined): client is GoogleClient {
  const { models, apiClient } = (client ?? {}) as Partial<GoogleClient>;
  return typeof models?.generateContent === "function" && typeof apiClient?.clientOptions === "object";
}
