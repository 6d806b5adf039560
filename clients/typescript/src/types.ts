import type { components } from "./openapi.js";

type Schemas = components["schemas"];

/** Whole numbers of units, such as `{ tokens: 1200 }`. */
export type Amounts = Record<string, number>;
export type State = Schemas["State"];
export type OnExpiry = Schemas["OnExpiry"];
export type Role = Schemas["Role"];
export type Violation = Schemas["Violation"];
export type Decision = Schemas["Decision"];
export type Balance = Schemas["Balance"];
export type Budget = Schemas["Budget"];
/** What a budget was charged over time. */
export type UsageReport = Schemas["UsageReport"];
export type BudgetPatch = Schemas["BudgetPatch"];
export type Key = Schemas["Key"];
export type IssuedKey = Schemas["IssuedKey"];
export type Caller = Schemas["Caller"];
export type Entry = Schemas["Entry"];
export type Event = Schemas["Event"];
export type EventPage = Schemas["EventPage"];
export type Threshold = Schemas["Threshold"];
export type EventType = Schemas["EventType"];
export type Overview = Schemas["Overview"];
export type AuditRecord = Schemas["AuditRecord"];
export type Checks = Schemas["Checks"];

/** A reservation. `replayed`: an earlier call with the same key made it; do not call the model then. */
export type Reservation = Schemas["Reservation"];

/** A page of a list; `next_cursor` is empty on the last one. */
export interface Page<T> {
  data: T[];
  next_cursor: string;
}

/** A page of reservations. With `stuck`, `incomplete` says what Earmark could not look at. */
export type ReservationPage = Schemas["ReservationPage"];

// A generated type requires what has a default; a request may leave it out.
type Defaulted<T, Names extends keyof T> = Omit<T, Names> & Partial<Pick<T, Names>>;

/** One call of a model, in place of amounts: Earmark computes the most that it may cost. */
export type Estimate = Defaulted<Schemas["Estimate"], "n">;
export type ReservationRequest = Defaulted<Omit<Schemas["ReservationRequest"], "estimate">, "ttl_seconds" | "on_expiry" | "coverage" | "require_budget"> & { estimate?: Estimate };
export type UsageRequest = Schemas["UsageRequest"];
export type CommitRequest = Schemas["CommitRequest"];
/** What a provider says was used: its usage object, what that is, and which model answered. */
export type ProviderResponse = Pick<CommitRequest, "usage_format" | "model" | "provider" | "responded_at"> & { provider_usage: object };
/** How much of what a window leaves of its limit the next ones may use. */
export type Rollover = Defaulted<Schemas["Rollover"], "windows">;
export type BudgetRequest = Defaulted<Omit<Schemas["BudgetRequest"], "window" | "rollover">, "enforcement" | "overage" | "allowance"> & {
  rollover?: Rollover;
  /** Lifetime in UTC when left out. */
  window?: Partial<Schemas["Window"]>;
};
export type KeyRequest = Schemas["KeyRequest"];
export type RotateKeyRequest = Partial<Schemas["RotateKeyRequest"]>;

/** An amount on top of a budget's limit that is used up once. `replayed`: an earlier call with the same key made it. */
export type Grant = Schemas["Grant"];
export type GrantRequest = Defaulted<Schemas["GrantRequest"], "priority">;
/** A change of a budget's limit for a time. `replayed`: an earlier call with the same key made it. */
export type Override = Schemas["Override"];
export type OverrideRequest = Schemas["OverrideRequest"];
export type ReasonRequest = Schemas["ReasonRequest"];
/** An endpoint that events are delivered to. */
export type Webhook = Schemas["Webhook"];
export type IssuedWebhook = Schemas["IssuedWebhook"];
export type WebhookRequest = Schemas["WebhookRequest"];
export type WebhookPatch = Schemas["WebhookPatch"];
export type WebhookReplay = Schemas["WebhookReplay"];
export type WebhookTest = Schemas["WebhookTest"];
/** One attempt to deliver an event. */
export type Delivery = Schemas["Delivery"];
export type CorrectionRequest = Schemas["CorrectionRequest"];
export type PricePage = Schemas["PricePage"];
export type PricesRequest = Schemas["PricesRequest"];
export type AddedPrices = Schemas["AddedPrices"];
export type ExplainRequest = Schemas["ExplainRequest"];
export type ExplainedPrice = Schemas["ExplainedPrice"];

/** The name of a person who acts in the caller's place, and why; the journal keeps both. */
export interface By {
  operator?: string;
  reason?: string;
}

/** What a usage report covers; by default the present window, or the last 30 days of a lifetime budget. */
export interface UsageFilter {
  /** RFC 3339; needs `to`. */
  from?: string;
  to?: string;
  /** `day` by default. */
  by?: "hour" | "day" | "scope" | `metadata.${string}`;
}

/** What every list takes: `limit` is 1 to 500. */
export interface PageFilter {
  cursor?: string;
  limit?: number;
}
export interface BudgetFilter extends PageFilter {
  /** Only budgets on exactly this scope. */
  scope?: string;
  /** Every budget that covers this scope. */
  covering?: string;
  /** Only budgets that this template made, or that follow it. */
  template_id?: string;
}
export interface ReservationFilter extends PageFilter {
  state?: State;
  scope?: string;
  overdue?: boolean;
  orphan?: boolean;
  stuck?: boolean;
  stuck_reason?: Schemas["StuckReason"];
}
export interface EventFilter {
  /** The id of an event, a page's `next_after`, or `now`; from the oldest event. */
  after?: string;
  type?: EventType[];
  budget_id?: string;
  limit?: number;
}
export interface EntryFilter extends PageFilter {
  budget_id?: string;
  reservation_id?: string;
}
export interface PriceFilter extends PageFilter {
  provider?: string;
  model?: string;
  /** The moment whose prices are shown; now. */
  at?: string;
  version?: number;
}
export interface AuditFilter extends PageFilter {
  subject?: string;
  action?: Schemas["AuditAction"];
  actor?: string;
}

/** The result of a commit or a release. */
export type Settled =
  | { accepted: false; reservation: Reservation }
  /** Postgres is away, and Temporal keeps the settlement until it is back: a success. */
  | { accepted: true; reservation?: undefined };
