import { EarmarkError, messageOf, type ErrorCode } from "./errors.js";

// How a call is repeated. Pauses double from firstPauseMs to longestPauseMs. Each is shortened at random by up to a half, so
// that many clients do not return at once.
const firstPauseMs = 100;
const longestPauseMs = 2_000;
/** Bounds how long a call waits for a Retry-After; the error has the full value. */
const longestRetryAfterMs = 5_000;
const mostDoublings = 10;
/** A full page of reservations with as much metadata as possible is smaller. */
const maxAnswerBytes = 64 << 20;
const maxQuotedChars = 200;

/** A call of the API. repeat: sending it twice has the same effect as sending it once. */
export interface Call {
  method: "GET" | "POST" | "PATCH" | "DELETE";
  path: string;
  query?: object;
  key?: string;
  body?: unknown;
  repeat: boolean;
  signal?: AbortSignal;
  /** In place of the client's own bound. */
  attempts?: number;
  /** Of one attempt. */
  limitMs?: number;
  /** No attempt begins, and none goes on, after this moment of performance.now(). */
  deadline?: number;
  /** Also repeat after a failure that Earmark did not write, such as a proxy's 404 during a deployment. */
  pastForeign?: boolean;
}

/** A successful answer. attempts is how often the call was sent. */
export interface Answer<T> {
  value: T;
  status: number;
  hit: boolean;
  attempts: number;
}

export interface TransportOptions {
  baseUrl: string;
  apiKey: string;
  userAgent: string;
  maxAttempts: number;
  timeoutMs: number;
  fetch: typeof globalThis.fetch;
}

export class Transport {
  constructor(private readonly options: TransportOptions) {}

  async exchange<T>(call: Call): Promise<Answer<T>> {
    const body = call.body === undefined ? undefined : JSON.stringify(call.body);
    const most = call.attempts ?? this.options.maxAttempts;
    for (let attempt = 1; ; attempt++) {
      try {
        const answer = await this.send<T>(call, body);
        return { ...answer, attempts: attempt };
      } catch (error) {
        if (!(error instanceof EarmarkError)) throw error; // the caller's own abort
        const again = call.repeat && attempt < most && (isAway(error) || (call.pastForeign === true && error.foreign && error.status !== undefined));
        const waitMs = pauseAfter(attempt, error);
        if (!again || (call.deadline !== undefined && performance.now() + waitMs >= call.deadline)) throw error;
        await sleep(waitMs, call.signal);
      }
    }
  }

  private async send<T>(call: Call, body: string | undefined): Promise<Omit<Answer<T>, "attempts">> {
    call.signal?.throwIfAborted();
    const left = call.deadline === undefined ? Infinity : call.deadline - performance.now();
    const attempt = new AbortController();
    const timer = setTimeout(() => attempt.abort(new Error("there was no answer in time")), Math.max(0, Math.min(call.limitMs ?? this.options.timeoutMs, left)));
    const leave = () => attempt.abort(call.signal?.reason);
    call.signal?.addEventListener("abort", leave, { once: true });
    let response: Response | undefined;
    try {
      response = await this.options.fetch(this.options.baseUrl + call.path + queryOf(call.query), {
        method: call.method,
        headers: this.headers(call, body),
        ...(body !== undefined && { body }),
        redirect: "manual", // a key goes to no other server
        signal: attempt.signal,
      });
      return read<T>(response, await textOf(response));
    } catch (error) {
      call.signal?.throwIfAborted();
      if (error instanceof EarmarkError) throw error;
      const what = response === undefined ? "Earmark did not answer" : "Earmark's answer broke off";
      throw new EarmarkError("unavailable", `${what}: ${messageOf(error)}`, { cause: error });
    } finally {
      clearTimeout(timer);
      call.signal?.removeEventListener("abort", leave);
    }
  }

  private headers(call: Call, body: string | undefined): Record<string, string> {
    return {
      Accept: "application/json",
      "User-Agent": this.options.userAgent,
      ...(body !== undefined && { "Content-Type": "application/json" }),
      ...(this.options.apiKey !== "" && { Authorization: `Bearer ${this.options.apiKey}` }),
      ...(call.key !== undefined && { "Idempotency-Key": call.key }),
    };
  }
}

function queryOf(query: object | undefined): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== "" && value !== false) params.set(name, String(value));
  }
  const text = params.toString();
  return text === "" ? "" : `?${text}`;
}

async function textOf(response: Response): Promise<string> {
  if (response.body === null) return "";
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    size += chunk.length;
    if (size > maxAnswerBytes) throw new EarmarkError("internal", `Earmark's answer is over ${maxAnswerBytes} bytes`);
    chunks.push(chunk);
  }
  const all = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return new TextDecoder().decode(all);
}

function read<T>(response: Response, text: string): Omit<Answer<T>, "attempts"> {
  if (response.status < 200 || response.status > 299) throw problemOf(response, text);
  const hit = response.headers.get("Idempotency-Hit") === "true";
  try {
    return { value: JSON.parse(text) as T, status: response.status, hit };
  } catch (error) {
    throw new EarmarkError("internal", `Earmark's answer does not decode: ${messageOf(error)}`, { status: response.status, cause: error });
  }
}

function problemOf(response: Response, text: string): EarmarkError {
  const retryAfterSeconds = retryAfterOf(response.headers.get("Retry-After"));
  let problem: Record<string, any> = {};
  try {
    problem = JSON.parse(text) ?? {};
  } catch {
    // not in Earmark's words
  }
  if (typeof problem["code"] !== "string" || problem["code"] === "") {
    const quoted = JSON.stringify([...text.trim()].slice(0, maxQuotedChars).join(""));
    const words = `${response.status} ${response.statusText}`.trim();
    return new EarmarkError(codeOf(response.status), `${words}, and not in Earmark's words: ${quoted}`, { status: response.status, retryAfterSeconds }, true);
  }
  const field = (problem["field"] as string | undefined) || undefined;
  let message = String(problem["detail"] || problem["title"] || problem["code"]);
  if (field !== undefined && message.startsWith(`${field}: `)) message = message.slice(field.length + 2); // the error adds it again
  return new EarmarkError(problem["code"] as ErrorCode, message, {
    field,
    status: response.status,
    retryAfterSeconds,
    violations: problem["violations"],
    retryable: problem["retryable"],
    retryAt: problem["retry_at"] ? new Date(problem["retry_at"]) : undefined,
    reservation: problem["reservation"],
    reservationId: problem["reservation_id"] || undefined,
    checks: problem["checks"],
  });
}

/** The nearest code for a status that did not come with one. */
function codeOf(status: number): ErrorCode {
  switch (status) {
    case 401:
      return "unauthenticated";
    case 403:
      return "forbidden";
    case 404:
      return "not_found";
    case 405:
      return "method_not_allowed";
    case 413:
      return "payload_too_large";
    case 415:
      return "unsupported_media_type";
    case 408:
    case 429:
    case 502:
    case 503:
    case 504:
      return "unavailable";
  }
  return status >= 400 && status <= 499 ? "invalid_request" : "internal";
}

function retryAfterOf(text: string | null): number {
  if (text === null) return 0;
  if (/^\d{1,9}$/.test(text)) return Number(text);
  const at = Date.parse(text);
  return /^[A-Z]/.test(text) && !Number.isNaN(at) ? Math.max(0, (at - Date.now()) / 1_000) : 0;
}

/**
 * Whether the service, or the network to it, failed temporarily, or the key's rate allows no call now. An untrusted
 * certificate stays untrusted; a wait that is longer than the client waits is left to its caller.
 */
function isAway(error: EarmarkError): boolean {
  if (error.status === 429) return error.retryAfterSeconds * 1_000 <= longestRetryAfterMs;
  if (error.status !== undefined) return error.status >= 502 && error.status <= 504;
  return error.code === "unavailable" && !isUntrusted(error.cause);
}

function isUntrusted(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code = (error as { code?: unknown }).code;
  return (typeof code === "string" && /CERT|UNABLE_TO_/.test(code)) || isUntrusted(error.cause);
}

function pauseAfter(attempt: number, error: EarmarkError): number {
  const pauseMs = Math.min(firstPauseMs * 2 ** Math.min(attempt - 1, mostDoublings), longestPauseMs);
  return pauseMs * (1 - Math.random() / 2) + Math.min(error.retryAfterSeconds * 1_000, longestRetryAfterMs);
}

/** Waits, and throws the reason of the signal if that ends first. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const leave = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", leave);
      resolve();
    }, ms);
    signal?.addEventListener("abort", leave, { once: true });
  });
}
