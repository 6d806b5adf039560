import { EarmarkError, KeyInUseError, NothingSentError, UnsettledError } from "./errors.js";
import { isEarmarkAway, OpenRun, type FailOpen, type LateCharge, type LateCharges } from "./late.js";
import { extendAfter, keepLease, type Logger } from "./lease.js";
import { Meter } from "./meter.js";
import type { Call, Transport } from "./transport.js";
import type { CommitRequest, OnExpiry, Reservation, ReservationRequest, Settled } from "./types.js";

const nothingSentReason = "the caller says that nothing was sent";
const defaultTtlSeconds = 300;
/** Of one attempt, so that a connection that hangs leaves time for another attempt. */
const settleAttemptLimitMs = 10_000;

/** A reservation of a guard. Its expiry policy has no default, because it decides who pays for a crash in the middle. */
export type GuardRequest = ReservationRequest & { on_expiry: OnExpiry };

export interface GuardOptions {
  /** Names this run: a second run with the same key does not start. Left out: every run gets a new one. */
  key?: string;
  /** Reaches the function as `run.signal`. The settlement does not end with it. */
  signal?: AbortSignal;
}

/** What a guarded function works with. */
export interface Run {
  reservation: Reservation;
  /** Counts what is used. The guard commits the count when the function ends, also if it fails. */
  meter: Meter;
  /** The caller's signal. */
  signal: AbortSignal;
}

/** What a guard returns: the function's value, and the settlement. */
export type Guarded<T> = Settled & { value: T };

/** The member of an Earmark that the guards of this package use. */
export const guardSettings: unique symbol = Symbol("guardSettings");

export interface GuardSettings {
  transport: Transport;
  log: Logger;
  settleLimitMs: number;
  onUnsettled: (unsettled: UnsettledError) => void | Promise<void>;
  reserve(request: ReservationRequest, options: { key?: string; deadline?: number }): Promise<Reservation>;
  late: LateCharges;
}

/** How a run begins. With failOpen it has to have a key. */
type Admission = GuardOptions & { failOpen?: FailOpen };

/** How a function ended: with a value, or with what it threw. */
type End = { value: unknown; failed: false } | { error: unknown; failed: true };

/** What the guard tells Earmark in the end; undefined: nothing, the usage is not known. */
type Change = { verb: "commit"; body: CommitRequest } | { verb: "release"; body: { reason: string } } | undefined;

/** One admitted run: it keeps the lease until it is settled. */
export class GuardedRun implements Run {
  readonly meter = new Meter();
  /** The run has ended, and its reservation is left to its expiry policy, because its usage is not known. */
  left = false;
  readonly #stop: () => Promise<void>;

  private constructor(
    private readonly settings: GuardSettings,
    readonly ttlSeconds: number,
    readonly reservation: Reservation,
    readonly signal: AbortSignal,
    since: number,
    private readonly lateCharge: Pick<LateCharge, "key" | "request"> | undefined,
  ) {
    this.#stop = keepLease(settings.transport, settings.log, reservation.id, ttlSeconds, since);
  }

  /** A run that takes over what this one has left. The first extension of the lease is due now. */
  resume(signal: AbortSignal | undefined): GuardedRun {
    const since = performance.now() - extendAfter(this.ttlSeconds * 1_000);
    return new GuardedRun(this.settings, this.ttlSeconds, this.reservation, signal ?? new AbortController().signal, since, this.lateCharge);
  }

  /** Reserves. If the caller leaves meanwhile, nothing was sent, and the reservation is released. */
  static async admit(settings: GuardSettings, request: GuardRequest, options: Admission): Promise<GuardedRun> {
    options.signal?.throwIfAborted();
    if (!request.on_expiry) {
      const choices = 'is missing; a guard needs "commit" (a run that dies is charged what it reserved), "release" (it is free) or "review" (a person decides)';
      throw new EarmarkError("invalid_request", choices, { field: "on_expiry" });
    }
    const since = performance.now();
    const signal = options.signal ?? new AbortController().signal;
    const { key, failOpen } = options;
    const deadline = failOpen === undefined ? {} : { deadline: since + failOpen.afterMs };
    const admission = settings.reserve(request, { ...(key !== undefined && { key }), ...deadline }).then((reservation) => {
      if (reservation.replayed) throw new KeyInUseError(reservation.id);
      const late = failOpen === undefined || key === undefined ? undefined : { key, request };
      return new GuardedRun(settings, request.ttl_seconds ?? defaultTtlSeconds, reservation, signal, since, late);
    });
    if (options.signal === undefined) return admission;
    return orLeave(admission, options.signal, (run) => run.settle({ failed: true, error: new NothingSentError(signal.reason) }));
  }

  /** Settles by the meter and by how the function ended, and returns the function's value or throws its error. */
  async end<T>(end: End): Promise<Guarded<T>> {
    let settled: Settled;
    try {
      settled = await this.settle(end);
    } catch (error) {
      if (end.failed) {
        if (error instanceof UnsettledError) error.attachTo(end.error);
        throw end.error;
      }
      if (error instanceof UnsettledError) error.value = end.value;
      throw error;
    }
    if (end.failed) throw end.error;
    return { ...settled, value: end.value as T };
  }

  /** Settles. It never releases if a commit may have succeeded, and never guesses. */
  private async settle(end: End): Promise<Settled> {
    await this.#stop();
    const change = this.change(end);
    const { id, on_expiry: onExpiry } = this.reservation;
    if (change === undefined) {
      this.left = true;
      throw await this.report(new UnsettledError(id, undefined, undefined, onExpiry));
    }
    try {
      return await settle(this.settings.transport, id, change, {
        attempts: Infinity,
        limitMs: settleAttemptLimitMs,
        deadline: performance.now() + this.settings.settleLimitMs,
        pastForeign: true,
      });
    } catch (error) {
      const cause = error instanceof EarmarkError ? error : new EarmarkError("internal", String(error), { cause: error });
      const usage = change.verb === "commit" ? change.body.usage : undefined;
      // A refused commit changes the policy to review.
      const unsettled = new UnsettledError(id, change.verb, usage, cause.reservation?.on_expiry ?? onExpiry, cause, this.meter.response);
      if (this.lateCharge !== undefined && !unsettled.refused) {
        this.settings.late.add({ ...this.lateCharge, reservationId: id, usage: change.verb === "commit" ? change.body : undefined });
      }
      throw await this.report(unsettled);
    }
  }

  private change(end: End): Change {
    const estimated = this.meter.estimated && { estimated: true };
    const { response } = this.meter;
    if (response !== undefined) {
      const { provider_usage: said, ...about } = response;
      return { verb: "commit", body: { provider_usage: said as Record<string, unknown>, ...about, ...estimated } };
    }
    const { usage, nothingSent } = this.meter.report(this.reservation.amounts);
    const unsent = nothingSent || (end.failed && isNothingSent(end.error));
    const spent = usage !== undefined && Object.values(usage).some((amount) => amount !== 0);
    if (usage !== undefined && (spent || (!end.failed && !unsent))) {
      return { verb: "commit", body: { usage, ...estimated } };
    }
    return unsent ? { verb: "release", body: { reason: nothingSentReason } } : undefined;
  }

  private async report(unsettled: UnsettledError): Promise<UnsettledError> {
    const { reservationId, verb, usage } = unsettled;
    this.settings.log.error("reservation not settled", { reservation_id: reservationId, verb, usage, error: unsettled });
    await this.settings.onUnsettled(unsettled);
    return unsettled;
  }
}

/** Admits a run, or with failOpen lets it run without a reservation while Earmark is away. */
export async function admitOrOpen(settings: GuardSettings, request: GuardRequest, options: GuardOptions & { failOpen: FailOpen | undefined }): Promise<GuardedRun | OpenRun> {
  const { signal, failOpen, ...keyed } = options;
  if (failOpen === undefined) return GuardedRun.admit(settings, request, { ...keyed, ...(signal && { signal }) });
  const key = options.key ?? globalThis.crypto.randomUUID();
  try {
    return await GuardedRun.admit(settings, request, { key, failOpen, ...(signal && { signal }) });
  } catch (error) {
    if (!isEarmarkAway(error) || settings.late.pending >= failOpen.maxPending) throw error;
    return new OpenRun(settings.late, key, request, signal);
  }
}

function isNothingSent(error: unknown): boolean {
  return error instanceof NothingSentError || (error instanceof Error && error.cause !== undefined && isNothingSent(error.cause));
}

/** Waits for a run, but not past the caller; a run that nobody waits for any more is ended by left. */
function orLeave(admission: Promise<GuardedRun>, signal: AbortSignal, left: (run: GuardedRun) => Promise<unknown>): Promise<GuardedRun> {
  return new Promise((resolve, reject) => {
    const leave = () => {
      reject(signal.reason);
      admission.then(left).catch(() => {}); // what is not settled was reported
    };
    signal.addEventListener("abort", leave, { once: true });
    admission
      .then((run) => !signal.aborted && resolve(run), reject)
      .finally(() => signal.removeEventListener("abort", leave));
  });
}

/** Sends a commit or a release. */
export async function settle(transport: Transport, id: string, change: { verb: string; body: unknown }, call: Partial<Call> = {}): Promise<Settled> {
  const path = `/v1/reservations/${encodeURIComponent(id)}/${change.verb}`;
  const { value, status } = await transport.exchange<Reservation>({ method: "POST", path, body: change.body, repeat: true, ...call });
  return status === 202 ? { accepted: true } : { accepted: false, reservation: value };
}

/** Runs work within a reservation. */
export async function guard<T>(settings: GuardSettings, request: GuardRequest, work: (run: Run) => T | Promise<T>, options: GuardOptions): Promise<Guarded<T>> {
  const run = await GuardedRun.admit(settings, request, options);
  let value: T;
  try {
    value = await work(run);
  } catch (error) {
    return run.end<T>({ failed: true, error });
  }
  return run.end<T>({ failed: false, value });
}

/**
 * Runs a stream within a reservation: it is admitted with the first next(), and settled when the stream ends, fails, is left by
 * its reader (`break`), or when the signal is aborted while nobody reads.
 */
export function guardStream<T>(
  settings: GuardSettings,
  request: GuardRequest,
  open: (run: Run) => AsyncIterable<T> | Promise<AsyncIterable<T>>,
  options: GuardOptions,
): AsyncIterableIterator<T> {
  let begun: Promise<{ run: GuardedRun; source: AsyncIterator<T> }> | undefined;
  let ended = false;
  let reading = false;

  const begin = async () => {
    const run = await GuardedRun.admit(settings, request, options);
    options.signal?.addEventListener("abort", leave, { once: true });
    try {
      return { run, source: (await open(run))[Symbol.asyncIterator]() };
    } catch (error) {
      return await end(run, { failed: true, error });
    }
  };
  const end = async (run: GuardedRun, how: End): Promise<never> => {
    if (ended) throw how.failed ? how.error : new Error("the stream was left"); // close settles it
    ended = true;
    options.signal?.removeEventListener("abort", leave);
    await run.end(how);
    return undefined as never;
  };
  // The reader may never come back.
  const leave = () => {
    if (!reading) void close(options.signal?.reason).catch(() => {}); // what is not settled was reported
  };
  const close = async (reason: unknown): Promise<void> => {
    if (ended || begun === undefined) return;
    ended = true;
    const { run, source } = await begun;
    options.signal?.removeEventListener("abort", leave);
    let how: End = reason === undefined ? { failed: false, value: undefined } : { failed: true, error: reason };
    try {
      await source.return?.();
    } catch (error) {
      how = { failed: true, error };
    }
    await run.end(how);
  };

  return {
    [Symbol.asyncIterator]() {
      return this;
    },
    async next(): Promise<IteratorResult<T>> {
      if (ended) {
        options.signal?.throwIfAborted();
        return { done: true, value: undefined };
      }
      reading = true;
      try {
        const { run, source } = await (begun ??= begin());
        let result: IteratorResult<T>;
        try {
          result = await source.next();
        } catch (error) {
          return await end(run, { failed: true, error });
        }
        if (result.done && !ended) await end(run, { failed: false, value: undefined });
        return result;
      } catch (error) {
        ended = true;
        throw error;
      } finally {
        reading = false;
        if (options.signal?.aborted) leave();
      }
    },
    async return(): Promise<IteratorResult<T>> {
      await close(undefined);
      return { done: true, value: undefined };
    },
    async throw(error: unknown): Promise<IteratorResult<T>> {
      await close(error);
      return { done: true, value: undefined };
    },
  };
}
