import type { components } from "./openapi.js";
import type { Amounts, Checks, OnExpiry, ProviderResponse, Reservation, Violation } from "./types.js";
import { formatAmounts } from "./words.js";

/** The stable name of an error. */
export type ErrorCode = components["schemas"]["Problem"]["code"];

export interface ErrorDetails {
  field?: string;
  status?: number;
  violations?: Violation[];
  retryable?: boolean;
  retryAt?: Date;
  retryAfterSeconds?: number;
  reservation?: Reservation;
  reservationId?: string;
  checks?: Checks;
  cause?: unknown;
}

/** An answer other than success, or no answer: then `code` is `unavailable`, and the call may have taken effect. */
export class EarmarkError extends Error {
  override readonly name: string = "EarmarkError";
  readonly code: ErrorCode;
  /** The wrong input, such as `amounts.tokens`. */
  readonly field: string | undefined;
  /** The status of the HTTP answer; undefined without one. */
  readonly status: number | undefined;
  /** Of a denial: each budget that the request does not fit into. It shows balances. */
  readonly violations: Violation[];
  /** Of a denial: waiting can help, until `retryAt` at the latest. */
  readonly retryable: boolean;
  readonly retryAt: Date | undefined;
  /** How long to wait before the same call may succeed; 0 if that is not known. After a denial it can be days. */
  readonly retryAfterSeconds: number;
  /** The reservation's current state, if there is one. */
  readonly reservation: Reservation | undefined;
  readonly reservationId: string | undefined;
  /** Of `ready`: the state of each dependency. */
  readonly checks: Checks | undefined;
  /** Whether Earmark wrote the answer. Without it the outcome in Earmark is not known. */
  readonly foreign: boolean;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}, foreign = false) {
    super(details.field ? `${details.field}: ${message}` : message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.field = details.field;
    this.status = details.status;
    this.violations = details.violations ?? [];
    this.retryable = details.retryable ?? false;
    this.retryAt = details.retryAt;
    this.retryAfterSeconds = details.retryAfterSeconds ?? 0;
    this.reservation = details.reservation;
    this.reservationId = details.reservationId;
    this.checks = details.checks;
    this.foreign = foreign;
  }
}

/** Whether the error is a denial: the request does not fit into a budget. */
export function isDenied(error: unknown): error is EarmarkError {
  return error instanceof EarmarkError && error.code === "budget_exceeded";
}

/** Another run with the same key holds its reservation, or held it when it died. The guarded function did not run. */
export class KeyInUseError extends Error {
  override readonly name = "KeyInUseError";
  constructor(readonly reservationId: string) {
    super(`reservation ${reservationId}: another run with this key holds its reservation`);
  }
}

/**
 * Throw it in a guarded function if you are certain that nothing was sent: the guard then releases the reservation. After a
 * time-out or a broken connection that is not certain.
 */
export class NothingSentError extends Error {
  override readonly name = "NothingSentError";
  constructor(cause?: unknown) {
    super(cause === undefined ? "nothing was sent" : `nothing was sent: ${messageOf(cause)}`, { cause });
  }
}

const unsettledErrors = new WeakMap<object, UnsettledError>();

/**
 * The guarded function has run, and its reservation is not settled, or may not be. The function's result stands: it is in
 * `value`. If the function failed as well, the guard throws the function's error, and `UnsettledError.of` finds this one.
 */
export class UnsettledError extends Error {
  override readonly name = "UnsettledError";
  /** What the guarded function returned. */
  value: unknown;

  constructor(
    readonly reservationId: string,
    /** What was tried; undefined: nothing, because the usage is not known. */
    readonly verb: "commit" | "release" | undefined,
    /** The usage to commit; undefined if `response` has it. */
    readonly usage: Amounts | undefined,
    /** The expiry policy as Earmark last reported it. */
    readonly onExpiry: OnExpiry,
    override readonly cause?: EarmarkError,
    /** In place of the usage: what the provider said was used. */
    readonly response?: ProviderResponse,
  ) {
    super(describe(reservationId, verb, usage, onExpiry, cause), { cause });
  }

  /** The reservation is left to its expiry policy, because the function did not say what was used. */
  get usageUnknown(): boolean {
    return this.verb === undefined;
  }

  /**
   * Earmark refused the settlement: this run charged nothing, and a retry will not help. Otherwise the settlement may or may not
   * have succeeded, and it is safe to send it again.
   */
  get refused(): boolean {
    return isRefusal(this.cause);
  }

  /** The error itself, or the one that belongs to the error that a guarded function threw; undefined if there is none. */
  static of(error: unknown): UnsettledError | undefined {
    if (error instanceof UnsettledError) return error;
    return typeof error === "object" && error !== null ? unsettledErrors.get(error) : undefined;
  }

  /** @internal */
  attachTo(error: unknown): void {
    if (typeof error === "object" && error !== null) unsettledErrors.set(error, this);
  }
}

function isRefusal(cause: EarmarkError | undefined): boolean {
  return cause !== undefined && !cause.foreign && !["unavailable", "rate_limited", "admission_unknown", "internal"].includes(cause.code);
}

function describe(id: string, verb: string | undefined, usage: Amounts | undefined, onExpiry: OnExpiry, cause: EarmarkError | undefined): string {
  const why = cause?.message ?? "what was used is not known";
  if (verb === undefined) return `reservation ${id} is left to its expiry policy (${onExpiry}): ${why}`;
  if (verb === "commit") {
    const used = usage ? `${formatAmounts(usage)} were` : "the provider's usage was";
    return isRefusal(cause) ? `reservation ${id}: ${used} not charged: ${why}` : `reservation ${id}: it is not known whether ${used} charged: ${why}`;
  }
  return isRefusal(cause) ? `reservation ${id} was not released: ${why}` : `reservation ${id}: it is not known whether it was released: ${why}`;
}

/** The message of an error with those of its causes: fetch keeps the reason in the cause. */
export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const inner = error.cause === undefined ? "" : messageOf(error.cause);
  return inner === "" || error.message.includes(inner) ? error.message : `${error.message}: ${inner}`;
}
