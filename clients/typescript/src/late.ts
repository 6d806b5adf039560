import { EarmarkError } from "./errors.js";
import type { GuardRequest } from "./guard.js";
import type { Logger } from "./lease.js";
import { Meter } from "./meter.js";
import { sleep } from "./transport.js";
import type { CommitRequest, Reservation, ReservationRequest, UsageRequest } from "./types.js";

/** How long a call waits for its admission before it fails open. */
const defaultAfterMs = 5_000;
/** How many calls may fail open before the next ones fail closed, so that no charge has to be dropped. */
const defaultMaxPending = 10_000;
const firstPauseMs = 500;
const longestPauseMs = 30_000;

export interface FailOpenOptions {
  /** How long a call waits for its admission; 5,000. */
  afterMs?: number;
  /** With so many charges waiting, the next call fails closed; 10,000. */
  maxPending?: number;
}

/** @internal What a call owes: a charge by the key of its admission, or the settlement of a reservation that is there. */
export interface LateCharge {
  key: string;
  request: GuardRequest;
  reservationId?: string;
  /** Undefined: nothing was spent, and a reservation that the admission may have left is released. */
  usage: CommitRequest | undefined;
}

/** The calls that LateCharges makes. */
interface Calls {
  chargeUsage(request: UsageRequest, options: { key: string }): Promise<unknown>;
  reserve(request: ReservationRequest, options: { key: string }): Promise<Reservation>;
  commit(id: string, usage: CommitRequest): Promise<unknown>;
  release(id: string): Promise<unknown>;
}

/**
 * The charges of calls that failed open: they are sent once Earmark is back, one after another, and kept in memory until then. A
 * timer keeps the process alive while charges wait; a process that is ended loses them.
 */
export class LateCharges {
  readonly #waiting: LateCharge[] = [];
  #open = 0;
  #charged = 0;
  #lost = 0;
  #sending: Promise<void> | undefined;
  #hurry = new AbortController();

  /** @internal */
  constructor(
    private readonly calls: Calls,
    private readonly log: Logger,
    private readonly onLost: (charge: LostCharge) => void | Promise<void>,
  ) {}

  /** Calls that run without a reservation, and charges that wait for Earmark. */
  get pending(): number {
    return this.#open + this.#waiting.length;
  }

  /** What Earmark has taken: charges, and releases of calls that were free. */
  get charged(): number {
    return this.#charged;
  }

  /** Charges that Earmark refused, or whose usage nobody knows. Each was logged, and passed to `onLost`. */
  get lost(): number {
    return this.#lost;
  }

  /** Tries again at once, and waits until no charge waits; the signal ends only the wait. Call it before the process ends. */
  async flush(options: { signal?: AbortSignal } = {}): Promise<void> {
    this.#hurry.abort();
    const { signal } = options;
    signal?.throwIfAborted();
    let leave = () => {};
    const left = new Promise<never>((_, reject) => {
      leave = () => reject(signal?.reason);
      signal?.addEventListener("abort", leave, { once: true });
    });
    try {
      while (this.#sending !== undefined) await Promise.race([this.#sending, left]);
    } finally {
      signal?.removeEventListener("abort", leave);
    }
  }

  /** @internal */
  begin(): void {
    if (this.pending === 0) this.log.warn("Earmark is away; calls run without a reservation, and are charged later", {});
    this.#open++;
  }

  /** @internal */
  finish(): void {
    this.#open--;
  }

  /** @internal */
  add(charge: LateCharge): void {
    this.#waiting.push(charge);
    this.#sending ??= this.#send().finally(() => {
      this.#sending = undefined;
    });
  }

  /** @internal */
  async lose(charge: LateCharge, error: unknown): Promise<void> {
    this.#lost++;
    const lost: LostCharge = { key: charge.key, request: charge.request, usage: charge.usage, error };
    this.log.error("a late charge is lost", { key: charge.key, scopes: charge.request.scopes, usage: charge.usage, error });
    try {
      await this.onLost(lost);
    } catch (failed) {
      this.log.error("onLost failed", { key: charge.key, error: failed });
    }
  }

  async #send(): Promise<void> {
    let pauseMs = firstPauseMs;
    for (let charge = this.#waiting[0]; charge !== undefined; charge = this.#waiting[0]) {
      try {
        await this.#settle(charge);
        this.#charged++;
      } catch (error) {
        if (isEarmarkAway(error) || (error instanceof EarmarkError && (error.code === "rate_limited" || error.foreign))) {
          await this.#pause(pauseMs);
          pauseMs = Math.min(pauseMs * 2, longestPauseMs);
          continue;
        }
        await this.lose(charge, error);
      }
      pauseMs = firstPauseMs;
      this.#waiting.shift();
    }
  }

  async #pause(ms: number): Promise<void> {
    this.#hurry = new AbortController();
    await sleep(ms, this.#hurry.signal).catch(() => {}); // flush
  }

  async #settle({ key, request, reservationId, usage }: LateCharge): Promise<unknown> {
    if (reservationId !== undefined) return usage === undefined ? this.calls.release(reservationId) : this.calls.commit(reservationId, usage);
    if (usage === undefined) return this.#release(key, request);
    try {
      return await this.calls.chargeUsage(usageRequestOf(request, usage), { key });
    } catch (error) {
      if (!(error instanceof EarmarkError && error.code === "idempotency_mismatch")) throw error;
      // The admission, whose answer was lost, has made a reservation under this key. Where it expired meanwhile, the commit is late.
      return this.calls.commit(await this.#idOf(key, request), usage);
    }
  }

  /** A repeated admission finds the first one's reservation, or makes it. */
  async #idOf(key: string, request: GuardRequest): Promise<string> {
    try {
      return (await this.calls.reserve(request, { key })).id;
    } catch (error) {
      const id = error instanceof EarmarkError ? (error.reservation?.id ?? error.reservationId) : undefined;
      if (id === undefined) throw error;
      return id;
    }
  }

  async #release(key: string, request: GuardRequest): Promise<unknown> {
    try {
      return await this.calls.release((await this.calls.reserve(request, { key })).id);
    } catch (error) {
      if (!(error instanceof EarmarkError) || isEarmarkAway(error)) throw error;
      return undefined; // denied or settled: nothing is held
    }
  }
}

/** A charge that Earmark did not take. */
export interface LostCharge {
  key: string;
  /** The admission that had no answer. */
  request: GuardRequest;
  /** What was used; undefined if nobody knows. */
  usage: CommitRequest | undefined;
  error: unknown;
}

/** Whether Earmark could not decide, which is no denial. */
export function isEarmarkAway(error: unknown): error is EarmarkError {
  return error instanceof EarmarkError && ["unavailable", "admission_unknown", "internal"].includes(error.code);
}

export interface FailOpen {
  afterMs: number;
  maxPending: number;
}

export function failOpenOf(option: boolean | FailOpenOptions | undefined): FailOpen | undefined {
  if (option === undefined || option === false) return undefined;
  const { afterMs = defaultAfterMs, maxPending = defaultMaxPending } = option === true ? {} : option;
  for (const [name, value] of Object.entries({ afterMs, maxPending })) {
    if (!Number.isSafeInteger(value) || value < 1) throw new EarmarkError("invalid_request", "is not a whole number from 1 on", { field: `failOpen.${name}` });
  }
  return { afterMs, maxPending };
}

/** A call that runs without a reservation, because Earmark is away. Its usage is charged once Earmark is back. */
export class OpenRun {
  readonly meter = new Meter();
  readonly signal: AbortSignal;
  /** No reservation is left. */
  readonly left = false;
  #ended = false;

  constructor(
    private readonly late: LateCharges,
    private readonly key: string,
    private readonly request: GuardRequest,
    signal: AbortSignal | undefined,
  ) {
    this.signal = signal ?? new AbortController().signal;
    late.begin();
  }

  async end(how: { failed: boolean }): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.late.finish();
    const charge: LateCharge = { key: this.key, request: this.request, usage: undefined };
    const { usage, nothingSent } = this.meter.report({});
    const response = this.meter.response;
    const spent = usage !== undefined && Object.values(usage).some((amount) => amount !== 0);
    if (response !== undefined) charge.usage = { ...response, provider_usage: response.provider_usage as Record<string, unknown>, responded_at: new Date().toISOString() };
    else if (spent || (usage !== undefined && !how.failed && !nothingSent)) charge.usage = { usage };
    else if (!nothingSent && this.request.on_expiry === "commit") charge.usage = this.reserved();
    else if (!nothingSent && this.request.on_expiry === "review") return this.late.lose(charge, new Error("what was used is not known"));
    if (charge.usage !== undefined && this.meter.estimated) charge.usage.estimated = true;
    this.late.add(charge);
  }

  /** What the reservation would have held, which `on_expiry: commit` charges where the usage is not known. */
  private reserved(): CommitRequest {
    const { amounts, estimate } = this.request;
    if (estimate === undefined) return { usage: amounts, estimated: true };
    const input = estimate.input_tokens ?? 0;
    const output = estimate.max_output_tokens * (estimate.n ?? 1);
    const said = { prompt_tokens: input, completion_tokens: output, total_tokens: input + output };
    return { provider_usage: said, usage_format: "openai_chat", responded_at: new Date().toISOString(), estimated: true };
  }
}

function usageRequestOf(request: GuardRequest, commit: CommitRequest): UsageRequest {
  const { scopes, estimate } = request;
  const metadata = { ...request.metadata, late: "true", ...(commit.estimated && { estimated: "true" }) };
  if (commit.usage !== undefined) return { scopes, amounts: commit.usage, metadata };
  const provider = commit.provider ?? estimate?.provider;
  // The tier that was asked for prices the usage where the answer names none.
  const said = estimate?.service_tier === undefined ? commit.provider_usage : { service_tier: estimate.service_tier, ...commit.provider_usage };
  return {
    scopes,
    provider_usage: said,
    model: commit.model ?? estimate?.model,
    metadata,
    ...(commit.usage_format !== undefined && { usage_format: commit.usage_format }),
    ...(provider !== undefined && { provider }),
    ...(commit.responded_at !== undefined && { responded_at: commit.responded_at }),
  };
}
