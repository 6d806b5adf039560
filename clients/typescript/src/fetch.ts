import { Earmark } from "./client.js";
import { EarmarkError, KeyInUseError } from "./errors.js";
import { admitOrOpen, guardSettings, type GuardedRun, type GuardRequest } from "./guard.js";
import { failOpenOf, type FailOpenOptions, type OpenRun } from "./late.js";
import { apiOf, askForUsage, callOf, countsOf, isFree, isUsageEvent, StreamReader, type Counts, type ProviderCall } from "./providers.js";
import { concat, EventSplitter } from "./sse.js";
import type { Amounts, Estimate, OnExpiry, Violation } from "./types.js";

/** What a call may use if it sets no limit itself. */
const defaultMaxOutputTokens = 16_384;

/** What a guarded fetch can count. */
export type FetchUnit = "tokens" | "input_tokens" | "output_tokens" | "requests";

export interface GuardedFetchOptions {
  /** Left out: a new one, by EARMARK_URL and EARMARK_API_KEY. */
  earmark?: Earmark;
  /** Whose budgets pay; a function is asked for each call. */
  scopes: string[] | ((call: ProviderCall) => string[] | Promise<string[]>);
  /** Who pays for a call whose usage nobody knows; see docs/typescript.md. */
  on_expiry: OnExpiry;
  /**
   * What to count, by the fetch itself. Left out: Earmark computes amounts from the model and the provider's usage, in the units that
   * the budgets count, `usd_micros` too; it then has to know the model's price if a budget counts money.
   */
  units?: FetchUnit[];
  /** The company that bills, for Earmark's prices; needed if several have the model. */
  provider?: string;
  ttl_seconds?: number;
  /** The upper bound of the input's tokens, where the bytes of the request are none or far too many; see docs/typescript.md. */
  inputTokens?: (call: ProviderCall) => number | Promise<number>;
  /** Reserved for the output of a call that sets no limit; 16,384. */
  maxOutputTokens?: number;
  /** Passes calls on that it does not know. Without it they are answered 400, because they may cost money. */
  passUnknown?: boolean;
  /** While Earmark is away, calls run without a reservation, and are charged when it is back; see docs/typescript.md. */
  failOpen?: boolean | FailOpenOptions;
  /** In place of the global fetch. */
  fetch?: typeof globalThis.fetch;
}

const guardedFetches = new WeakSet<typeof globalThis.fetch>();

export const isGuarded = (fetch: typeof globalThis.fetch): boolean => guardedFetches.has(fetch);

/**
 * A fetch for the SDK of a provider: it reserves before each call of a model, passes the call on, reads the usage as the answer passes,
 * and commits it. A denial is a 402 answer, which SDKs do not repeat; denialOf reads it from their errors.
 */
export function guardedFetch(options: GuardedFetchOptions): typeof globalThis.fetch {
  const send = options.fetch ?? ((...call: Parameters<typeof fetch>) => globalThis.fetch(...call));
  const settings = (options.earmark ?? new Earmark())[guardSettings];
  const failOpen = failOpenOf(options.failOpen);
  const guarded: typeof globalThis.fetch = async (input, init) => {
    const method = (init?.method ?? (input instanceof Request ? input.method : "GET")).toUpperCase();
    const url = new URL(input instanceof Request ? input.url : String(input));
    const api = apiOf(method, url);
    if (api === undefined) {
      if (isFree(method, url) || options.passUnknown) return send(input, init);
      return refusal(400, "unknown_call", `${method} ${url.pathname} is no call that the guard knows; set passUnknown to send it without a reservation`);
    }
    const body = await bodyOf(input, init);
    const call = body === undefined ? undefined : callOf(api, url, body);
    if (body === undefined || call === undefined) return refusal(400, "unknown_call", "the guard cannot read the body of this call: it is no JSON text");
    const signal = init?.signal ?? (input instanceof Request ? input.signal : undefined);

    let run: GuardedRun | OpenRun;
    try {
      run = await admitOrOpen(settings, await requestOf(options, call), { failOpen, ...(signal && { signal }) });
    } catch (error) {
      return answerTo(error);
    }
    const admitted = new GuardedCall(run, call, options.units);
    const asked = askForUsage(api, body);
    let response: Response;
    try {
      response = await (asked === undefined ? send(input, init) : send(...withBody(input, init, asked)));
    } catch (error) {
      if (isUnsent(error)) run.meter.nothingSent();
      await admitted.end(undefined, error);
      throw error;
    }
    return admitted.pass(response, asked !== undefined, signal ?? undefined);
  };
  guardedFetches.add(guarded);
  return guarded;
}

async function requestOf(options: GuardedFetchOptions, call: ProviderCall): Promise<GuardRequest> {
  const scopes = typeof options.scopes === "function" ? await options.scopes(call) : options.scopes;
  const inputTokens = (await options.inputTokens?.(call)) ?? call.inputTokens;
  const perAnswer = call.maxOutputTokens ?? (call.api === "openai_embeddings" ? 0 : (options.maxOutputTokens ?? defaultMaxOutputTokens));
  const estimate: Estimate = {
    model: call.model,
    ...(options.provider !== undefined && { provider: options.provider }),
    input_tokens: inputTokens,
    max_output_tokens: perAnswer,
    n: call.answers,
    ...(call.serviceTier !== undefined && { service_tier: call.serviceTier }),
  };
  return {
    scopes,
    ...(options.units === undefined ? { estimate } : { amounts: amountsOf(options.units, { inputTokens, outputTokens: perAnswer * call.answers }) }),
    on_expiry: options.on_expiry,
    ...(options.ttl_seconds !== undefined && { ttl_seconds: options.ttl_seconds }),
    metadata: { api: call.api, model: call.model.slice(0, 100) },
  };
}

/** Counts in the form in which OpenAI has them, for Earmark to price. */
function usageOf({ inputTokens, outputTokens }: Counts): object {
  return { prompt_tokens: inputTokens, completion_tokens: outputTokens, total_tokens: inputTokens + outputTokens };
}

function amountsOf(units: FetchUnit[], { inputTokens, outputTokens }: Pick<Counts, "inputTokens" | "outputTokens">): Amounts {
  const all = { tokens: inputTokens + outputTokens, input_tokens: inputTokens, output_tokens: outputTokens, requests: 1 };
  return Object.fromEntries(units.map((unit) => [unit, all[unit]]));
}

/** A call that is admitted: it ends once. */
class GuardedCall {
  #ended: Promise<void> | undefined;

  constructor(
    private readonly run: GuardedRun | OpenRun,
    private readonly call: ProviderCall,
    private readonly units: FetchUnit[] | undefined,
  ) {}

  /** Settles. What cannot be settled is logged and reported: the answer of the provider stands. */
  end(counts: Counts | undefined, error?: unknown): Promise<void> {
    this.#ended ??= (async () => {
      if (counts !== undefined) {
        if (this.units !== undefined) this.run.meter.set(amountsOf(this.units, counts));
        else if (counts.usage !== undefined) this.run.meter.setProviderUsage(counts.usage);
        else this.run.meter.setProviderUsage(usageOf(counts), { usage_format: "openai_chat" });
        this.run.meter.estimated = !counts.exact;
      }
      await this.run.end(error === undefined ? { failed: false, value: undefined } : { failed: true, error }).catch(() => {});
    })();
    return this.#ended;
  }

  async pass(response: Response, hideUsage: boolean, signal: AbortSignal | undefined): Promise<Response> {
    if (!response.ok) {
      if (billsNothing(response.status)) this.run.meter.nothingSent();
      await this.end(undefined);
      return response;
    }
    if (response.body !== null && /^text\/event-stream\b/.test(response.headers.get("Content-Type") ?? "")) {
      return copyOf(response, this.passStream(response.body, hideUsage, signal));
    }
    let bytes: ArrayBuffer;
    try {
      bytes = await response.arrayBuffer();
    } catch (error) {
      await this.end(undefined, error);
      throw error;
    }
    await this.end(countsOf(this.call.api, new TextDecoder().decode(bytes)));
    return copyOf(response, bytes);
  }

  /** Passes a stream on as it comes, but for the event of the usage if the caller did not ask for it. */
  private passStream(body: ReadableStream<Uint8Array>, hideUsage: boolean, signal: AbortSignal | undefined): ReadableStream<Uint8Array> {
    const source = body.getReader();
    const splitter = new EventSplitter();
    const reader = new StreamReader(this.call);
    const end = (error?: unknown): Promise<void> => {
      signal?.removeEventListener("abort", leave);
      return this.end(reader.counts(), error);
    };
    const leave = (): void => void end(signal?.reason);
    signal?.addEventListener("abort", leave, { once: true }); // the caller may never read again
    const shown = (chunk: Uint8Array): Uint8Array => {
      const events = splitter.push(chunk);
      for (const { data } of events) reader.push(data);
      return hideUsage ? concat(events.filter(({ data }) => !isUsageEvent(data)).map(({ bytes }) => bytes)) : chunk;
    };
    return new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          try {
            for (;;) {
              const { done, value } = await source.read();
              const bytes = done ? undefined : shown(value);
              if (bytes !== undefined && bytes.length === 0) continue;
              if (bytes !== undefined) return controller.enqueue(bytes);
              const rest = splitter.end();
              reader.push(rest.data);
              if (hideUsage && rest.bytes.length > 0) controller.enqueue(rest.bytes);
              await end();
              return controller.close();
            }
          } catch (error) {
            await end(error);
            controller.error(error);
          }
        },
        async cancel(reason) {
          await source.cancel(reason).catch(() => {});
          await end(reason ?? new Error("the reader left the stream"));
        },
      },
      { highWaterMark: 0 },
    );
  }
}

/** The same answer with a body that is not compressed any more. */
function copyOf(response: Response, body: BodyInit): Response {
  const headers = new Headers(response.headers);
  headers.delete("Content-Encoding");
  headers.delete("Content-Length");
  const copy = new Response(body, { status: response.status, statusText: response.statusText, headers });
  Object.defineProperty(copy, "url", { value: response.url });
  return copy;
}

/** A refusal bills nothing. Behind a time-out the model may have run. */
const billsNothing = (status: number): boolean => status >= 400 && ![408, 499, 504, 522, 524].includes(status);

const connectErrors = ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "UND_ERR_CONNECT_TIMEOUT"];

/** Whether the connection was never made. */
function isUnsent(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code, errors } = error as { code?: unknown; errors?: unknown };
  if (Array.isArray(errors) && errors.length > 0) return errors.every(isUnsent); // one for each address
  return (typeof code === "string" && connectErrors.includes(code)) || isUnsent(error.cause);
}

async function bodyOf(input: RequestInfo | URL, init: RequestInit | undefined): Promise<string | undefined> {
  const body: unknown = init?.body;
  if (typeof body === "string") return body;
  if (body instanceof ArrayBuffer || ArrayBuffer.isView(body)) return new TextDecoder().decode(body);
  if (body === undefined && input instanceof Request) return input.clone().text();
  return undefined;
}

function withBody(input: RequestInfo | URL, init: RequestInit | undefined, body: string): Parameters<typeof fetch> {
  const headers = new Headers(init?.headers ?? (input instanceof Request ? input.headers : undefined));
  headers.delete("Content-Length");
  return [input, { ...init, body, headers }];
}

/** The answer to the SDK in the provider's place. What Earmark refuses is not repeated. */
function answerTo(error: unknown): Response {
  if (error instanceof KeyInUseError) return refusal(400, "key_in_use", error.message);
  if (!(error instanceof EarmarkError)) throw error; // the caller left, or an option failed
  if (error.code === "budget_exceeded") {
    const retryAt = error.retryAt?.toISOString();
    const denial: Denial = { violations: error.violations, retryable: error.retryable, ...(retryAt !== undefined && { retry_at: retryAt }) };
    const title = "The request does not fit into a budget";
    const problem = { type: `urn:earmark:problem:${error.code}`, title, status: 402, detail: error.message, ...denial };
    return refusal(402, error.code, error.message, problem, denial, error.retryAfterSeconds);
  }
  const statuses: Record<string, number> = { unavailable: 503, admission_unknown: 503, rate_limited: 429 };
  return refusal(statuses[error.code] ?? 400, error.code, `Earmark: ${error.message}`, {}, {}, error.retryAfterSeconds);
}

function refusal(status: number, code: string, message: string, members: object = {}, details: object = {}, retryAfterSeconds = 0): Response {
  const error = { message, type: "earmark", code, param: null, ...details };
  const headers = { "x-should-retry": "false", ...(retryAfterSeconds > 0 && { "Retry-After": String(Math.ceil(retryAfterSeconds)) }) };
  return Response.json({ ...members, code, error }, { status, headers });
}

/** Where a request did not fit, and whether waiting can help. */
export interface Denial {
  violations: Violation[];
  retryable: boolean;
  retry_at?: string;
}

/** The denial in an error that an SDK made of a guarded fetch's answer; undefined if it is another error. */
export function denialOf(error: unknown, depth = 0): Denial | undefined {
  if (typeof error !== "object" || error === null || depth > 4) return undefined;
  const candidate = error as Record<string, unknown>;
  if (candidate["code"] === "budget_exceeded" && Array.isArray(candidate["violations"])) {
    const { violations, retryable, retry_at } = candidate as unknown as Denial;
    return { violations, retryable, ...(retry_at !== undefined && { retry_at }) };
  }
  const texts = [candidate["responseBody"], error instanceof Error ? error.message : undefined].filter((text) => typeof text === "string");
  const inside = [candidate["error"], candidate["cause"], candidate["lastError"], ...texts.map(objectIn)];
  for (const inner of inside) {
    const found = denialOf(inner, depth + 1);
    if (found) return found;
  }
  return undefined;
}

function objectIn(text: unknown): unknown {
  try {
    return JSON.parse(String(text).slice(String(text).indexOf("{")));
  } catch {
    return undefined;
  }
}
