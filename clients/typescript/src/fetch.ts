import { AdmittedCall, billsNothing, defaultMaxOutputTokens, isUnsent, requestFor, type ModelGuardOptions } from "./admitted.js";
import { Earmark } from "./client.js";
import { EarmarkError, KeyInUseError } from "./errors.js";
import { admitOrOpen, guardSettings, type GuardedRun, type GuardRequest } from "./guard.js";
import { failOpenOf, type OpenRun } from "./late.js";
import { apiOf, askForUsage, callOf, countsOf, estimatedInputTokens, isFree, isUsageEvent, StreamReader, type Counts, type ProviderCall } from "./providers.js";
import { callName, isRetry, LeftAttempts, type LeftAttempt } from "./retries.js";
import { concat, EventSplitter, type StreamEvent } from "./sse.js";
import type { Violation } from "./types.js";

/** How much a guarded fetch reads ahead of its reader, in bytes: more than a model writes. */
const readAheadBytes = 16 << 20;
/** Of an answer that is read whole as it passes. The usage of a longer one is unknown. */
const maxWholeBytes = 64 << 20;

export interface GuardedFetchOptions extends ModelGuardOptions {
  /** Whose budgets pay; a function is asked for each call. */
  scopes: string[] | ((call: ProviderCall) => string[] | Promise<string[]>);
  /** The upper bound of the input's tokens, where the bytes of the request are none or far too many; see docs/typescript.md. */
  inputTokens?: (call: ProviderCall) => number | Promise<number>;
  /** Passes calls on that it does not know. Without it they are answered 400, because they may cost money. */
  passUnknown?: boolean;
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
  const left = new LeftAttempts();
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

    let admitted: GuardedCall;
    try {
      const request = await requestOf(options, call);
      const headers = new Headers(init?.headers ?? (input instanceof Request ? input.headers : undefined));
      const name = callName(url, headers, request.scopes, body);
      const before = isRetry(headers) ? left.take(name) : undefined;
      const run = before?.run.resume(signal ?? undefined) ?? (await admitOrOpen(settings, request, { failOpen, ...(signal && { signal }) }));
      admitted = new GuardedCall(run, call, options, before, (attempt) => left.put(name, attempt));
    } catch (error) {
      return answerTo(error);
    }
    const asked = askForUsage(api, body);
    let response: Response;
    try {
      response = await (asked === undefined ? send(input, init) : send(...withBody(input, init, asked)));
    } catch (error) {
      if (isUnsent(error)) admitted.nothingSent();
      await admitted.endWithoutAnswer(error);
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
  const outputTokens = call.maxOutputTokens ?? (call.api === "openai_embeddings" ? 0 : (options.maxOutputTokens ?? defaultMaxOutputTokens));
  return requestFor(options, scopes, { ...call, inputTokens, outputTokens });
}

/** An attempt of a call of a provider's API. */
class GuardedCall extends AdmittedCall {
  constructor(
    run: GuardedRun | OpenRun,
    private readonly call: ProviderCall,
    options: GuardedFetchOptions,
    private readonly before: LeftAttempt | undefined,
    private readonly leave: (attempt: LeftAttempt) => void,
  ) {
    super(run, options.units);
  }

  /** The provider billed nothing for this attempt; one before may have been billed. */
  override nothingSent(): void {
    if (this.before === undefined) super.nothingSent();
  }

  override end(counts: Counts | undefined, error?: unknown): Promise<void> {
    if (counts === undefined || this.before === undefined) return super.end(counts, error);
    const { inputTokens, attempts } = this.before;
    return super.end({ inputTokens: inputTokens + counts.inputTokens, outputTokens: counts.outputTokens, requests: attempts + 1, exact: false }, error);
  }

  /** Ends an attempt that the SDK may repeat. */
  async endWithoutAnswer(error?: unknown): Promise<void> {
    await this.end(undefined, error);
    const { inputTokens, attempts } = this.before ?? { inputTokens: 0, attempts: 0 };
    if (this.run.left) this.leave({ run: this.run, inputTokens: inputTokens + estimatedInputTokens(this.call), attempts: attempts + 1 });
  }

  async pass(response: Response, hideUsage: boolean, signal: AbortSignal | undefined): Promise<Response> {
    if (!response.ok) {
      if (billsNothing(response.status)) this.nothingSent();
      await this.endWithoutAnswer();
      return response;
    }
    if (response.body !== null && /^text\/event-stream\b/i.test(response.headers.get("Content-Type") ?? "")) {
      return copyOf(response, this.passStream(response.body, new PassingEvents(this.call, hideUsage), signal));
    }
    if (response.body !== null && this.call.stream) return copyOf(response, this.passStream(response.body, new PassingBytes(this.call), signal));
    let bytes: ArrayBuffer;
    try {
      bytes = await response.arrayBuffer();
    } catch (error) {
      await this.endWithoutAnswer(error);
      throw error;
    }
    await this.end(countsOf(this.call.api, new TextDecoder().decode(bytes)));
    return copyOf(response, bytes);
  }

  /**
   * Passes a stream on as it comes, but for the event of the usage if the caller did not ask for it. It reads ahead, so that the call of
   * a reader who neither reads on nor cancels, as after `break` in `ai`, ends with the provider's answer.
   */
  private passStream(body: ReadableStream<Uint8Array>, passing: Passing, signal: AbortSignal | undefined): ReadableStream<Uint8Array> {
    const source = body.getReader();
    const end = (error?: unknown): Promise<void> => {
      signal?.removeEventListener("abort", leave);
      return this.end(passing.counts(), error);
    };
    const leave = (): void => void end(signal?.reason);
    signal?.addEventListener("abort", leave, { once: true }); // the caller may never read again
    return new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          try {
            for (;;) {
              const { done, value } = await source.read();
              const bytes = done ? passing.rest() : passing.shown(value);
              if (bytes.length > 0) controller.enqueue(bytes);
              if (!done && bytes.length === 0) continue;
              if (!done) return;
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
      new ByteLengthQueuingStrategy({ highWaterMark: readAheadBytes }),
    );
  }
}

/** What is read of a stream as it passes. */
interface Passing {
  /** What of a chunk the caller gets. */
  shown(chunk: Uint8Array): Uint8Array;
  /** What of it is left at its end. */
  rest(): Uint8Array;
  counts(): Counts | undefined;
}

class PassingEvents implements Passing {
  readonly #splitter = new EventSplitter();
  readonly #reader: StreamReader;
  #hiding = false; // the event that was read last

  constructor(
    call: ProviderCall,
    private readonly hideUsage: boolean,
  ) {
    this.#reader = new StreamReader(call);
  }

  shown(chunk: Uint8Array): Uint8Array {
    const events = this.#splitter.push(chunk);
    for (const { data } of events) this.#reader.push(data);
    return this.hideUsage ? concat(events.filter((event) => this.#shows(event)).map(({ bytes }) => bytes)) : chunk;
  }

  rest(): Uint8Array {
    const rest = this.#splitter.end();
    this.#reader.push(rest.data);
    return this.hideUsage && this.#shows(rest) ? rest.bytes : nothing;
  }

  #shows({ bytes, data }: StreamEvent): boolean {
    if (bytes.length > 1) this.#hiding = isUsageEvent(data); // one byte is an empty line, and goes with the event before it
    return !this.#hiding;
  }

  counts(): Counts | undefined {
    return this.#reader.counts();
  }
}

/** A stream, but not of events, such as Gemini's list. Its usage is known when it has ended. */
class PassingBytes implements Passing {
  readonly #chunks: Uint8Array[] = [];
  #size = 0;

  constructor(private readonly call: ProviderCall) {}

  shown(chunk: Uint8Array): Uint8Array {
    if (this.#size <= maxWholeBytes) this.#chunks.push(chunk);
    this.#size += chunk.length;
    return chunk;
  }

  rest(): Uint8Array {
    return nothing;
  }

  counts(): Counts | undefined {
    return countsOf(this.call.api, new TextDecoder().decode(concat(this.#chunks)));
  }
}

const nothing = new Uint8Array();

/** The same answer with a body that is not compressed any more. */
function copyOf(response: Response, body: BodyInit): Response {
  const headers = new Headers(response.headers);
  headers.delete("Content-Encoding");
  headers.delete("Content-Length");
  const copy = new Response(body, { status: response.status, statusText: response.statusText, headers });
  Object.defineProperty(copy, "url", { value: response.url });
  return copy;
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
  const statuses: Record<string, number> = { unavailable: 503, admission_unknown: 503, rate_limited: 429, unauthenticated: 401, forbidden: 403 };
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
    const { violations, retryable, retry_at, retryAt } = candidate as unknown as Denial & { retryAt?: Date };
    const at = retry_at ?? retryAt?.toISOString();
    return { violations, retryable, ...(at !== undefined && { retry_at: at }) };
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
