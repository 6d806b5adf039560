import { EarmarkError, type UnsettledError } from "./errors.js";
import { guard, guardSettings, guardStream, settle, type Guarded, type GuardOptions, type GuardRequest, type GuardSettings, type Run } from "./guard.js";
import { LateCharges, type LostCharge } from "./late.js";
import type { Logger } from "./lease.js";
import { Transport, type Call } from "./transport.js";
import type {
  AddedPrices, CorrectionRequest, ExplainedPrice, ExplainRequest, PriceFilter, PricePage, PricesRequest,
  AuditFilter, AuditRecord, Balance, Budget, BudgetFilter, BudgetPatch, BudgetRequest, By, Caller, Checks, CommitRequest, Decision, Entry, EntryFilter, EventFilter, EventPage,
  Grant, GrantRequest, IssuedKey, Key, KeyRequest, Override, OverrideRequest, Overview, Page, PageFilter, ReasonRequest, Reservation, ReservationFilter, ReservationPage, ReservationRequest, RotateKeyRequest,
  Settled, UsageFilter, UsageReport, UsageRequest,
  Delivery, IssuedWebhook, Webhook, WebhookPatch, WebhookReplay, WebhookRequest, WebhookTest,
} from "./types.js";

const defaultBaseUrl = "http://127.0.0.1:8080";
const defaultMaxAttempts = 4;
/** An admission is decided within seconds; a call that takes longer will get no answer. */
const defaultTimeoutMs = 30_000;
/** Enough for a restart of Earmark. */
const defaultSettleLimitMs = 30_000;
const maxKeyBytes = 255;

export interface EarmarkOptions {
  /** `EARMARK_URL`, else http://127.0.0.1:8080. */
  baseUrl?: string;
  /** The key emk_…; `EARMARK_API_KEY`, else none. */
  apiKey?: string;
  /** How often a call that is safe to repeat is sent, including the first time; 4. A guard settles within settleLimitMs instead. */
  maxAttempts?: number;
  /** Of one attempt of a call; 30,000. */
  timeoutMs?: number;
  /** How long a guard tries to settle after its function has ended; 30,000. */
  settleLimitMs?: number;
  userAgent?: string;
  /** In place of the global fetch. */
  fetch?: typeof globalThis.fetch;
  /** For leases that a guard cannot keep and reservations that it cannot settle; `console`. */
  logger?: Logger;
  /** Receives every reservation that a guard could not settle, before the guard returns: to count them, or to keep the usage. */
  onUnsettled?: (unsettled: UnsettledError) => void | Promise<void>;
  /** Receives every charge of a call that failed open and that Earmark did not take. */
  onLost?: (lost: LostCharge) => void | Promise<void>;
}

export interface CallOptions {
  /** Ends the call; a call that changes something may then have taken effect. */
  signal?: AbortSignal;
}
export interface KeyedOptions extends CallOptions {
  /** Names this request: the same key and request return the same reservation. Left out: the client makes one for this call. */
  key?: string;
}

/** Calls one Earmark server. Each method is a call of the API and is repeated where that is safe; see docs/typescript.md. */
export class Earmark {
  readonly #transport: Transport;
  /** The charges of calls that ran while Earmark was away, by the option failOpen. */
  readonly lateCharges: LateCharges;
  /** @internal */
  readonly [guardSettings]: GuardSettings;

  constructor(options: EarmarkOptions = {}) {
    const log = options.logger ?? console;
    const onUnsettled = options.onUnsettled ?? (() => {});
    this.#transport = new Transport({
      baseUrl: baseUrlOf(options.baseUrl ?? environment("EARMARK_URL") ?? defaultBaseUrl),
      apiKey: options.apiKey ?? environment("EARMARK_API_KEY") ?? "",
      userAgent: options.userAgent ?? "earmark-typescript-client",
      maxAttempts: Math.max(1, options.maxAttempts ?? defaultMaxAttempts),
      timeoutMs: options.timeoutMs ?? defaultTimeoutMs,
      fetch: options.fetch ?? ((...call) => globalThis.fetch(...call)),
    });
    this.lateCharges = new LateCharges(
      {
        chargeUsage: (request, keyed) => this.chargeUsage(request, keyed),
        reserve: (request, keyed) => this.reserve(request, keyed),
        commit: (id, usage) => this.commitReservation(id, usage),
        release: (id) => this.releaseReservation(id),
      },
      log,
      options.onLost ?? (() => {}),
    );
    this[guardSettings] = {
      transport: this.#transport,
      late: this.lateCharges,
      log,
      settleLimitMs: options.settleLimitMs ?? defaultSettleLimitMs,
      onUnsettled: async (unsettled) => {
        try {
          await onUnsettled(unsettled);
        } catch (error) {
          log.error("onUnsettled failed", { reservation_id: unsettled.reservationId, error });
        }
      },
      reserve: (request, bounded) => this.reserve(request, bounded),
    };
  }

  /**
   * Runs work, such as one call of a model, within a reservation: it reserves, extends the lease while work runs, and settles.
   *
   * - A count on `run.meter` that is not all zero is charged, also if work fails.
   * - A count of all zeros is charged if work does not fail.
   * - After a NothingSentError, or `meter.nothingSent()`, the reservation is released.
   * - Otherwise the usage is not known: the reservation is left to `on_expiry`, and the guard throws an UnsettledError.
   *
   * If work did not run, the guard throws an EarmarkError, such as a denial (isDenied), or a KeyInUseError. An error of work comes
   * back as it is; UnsettledError.of finds what else went wrong.
   */
  guard<T>(request: GuardRequest, work: (run: Run) => T | Promise<T>, options: GuardOptions = {}): Promise<Guarded<T>> {
    return guard(this[guardSettings], request, work, options);
  }

  /**
   * The same for a stream. The reservation is made when the reader asks for the first item, and settled before the reader learns of
   * the end. Read it to its end, leave it with `break`, or abort the signal: until then the lease is kept.
   */
  guardStream<T>(request: GuardRequest, open: (run: Run) => AsyncIterable<T> | Promise<AsyncIterable<T>>, options: GuardOptions = {}): AsyncIterableIterator<T> {
    return guardStream(this[guardSettings], request, open, options);
  }

  /** Sets amounts aside, or the most that the call of an estimate may cost. If `replayed` is true, an earlier call made the reservation: do not call the model. */
  async reserve(request: ReservationRequest, options: KeyedOptions = {}): Promise<Reservation> {
    checkAmounts("amounts", request.amounts);
    if (options.key === undefined) {
      const made = await this.#make("/v1/reservations", newKey(), request, options);
      return { ...made, replayed: false }; // no other call has this key
    }
    return this.#make("/v1/reservations", options.key, request, options);
  }

  /** Says whether a request would be admitted now; it reserves nothing. */
  decide(request: ReservationRequest, options: CallOptions = {}): Promise<Decision> {
    checkAmounts("amounts", request.amounts);
    return this.#call({ method: "POST", path: "/v1/decisions", body: request, repeat: true, ...options });
  }

  /** Charges the usage, in exactly the reserved units, or what the usage object of a provider says, and gives the rest back. */
  async commitReservation(id: string, request: CommitRequest, options: CallOptions = {}): Promise<Settled> {
    checkAmounts("usage", request.usage);
    return settle(this.#transport, id, { verb: "commit", body: request }, options);
  }

  /** Gives everything back, because nothing was spent. It is final. */
  releaseReservation(id: string, request: By = {}, options: CallOptions = {}): Promise<Settled> {
    return settle(this.#transport, id, { verb: "release", body: request }, options);
  }

  /** Moves the expiry to at least ttl_seconds from now. */
  extendReservation(id: string, request: { ttl_seconds: number } & By, options: CallOptions = {}): Promise<Reservation> {
    return this.#call({ method: "POST", path: `${pathOf("reservations", id)}/extend`, body: request, repeat: true, ...options });
  }

  /** Starts a new workflow for an open reservation that lost its own. */
  adoptReservation(id: string, request: By = {}, options: CallOptions = {}): Promise<Reservation> {
    return this.#call({ method: "POST", path: `${pathOf("reservations", id)}/adopt`, body: request, repeat: true, ...options });
  }

  getReservation(id: string, options: CallOptions = {}): Promise<Reservation> {
    return this.#get(pathOf("reservations", id), undefined, options);
  }

  listReservations(filter: ReservationFilter = {}, options: CallOptions = {}): Promise<ReservationPage> {
    return this.#get("/v1/reservations", filter, options);
  }

  /** Charges usage without a reservation. The key names the usage: under another key the same usage is charged again. */
  async chargeUsage(request: UsageRequest, options: CallOptions & { key: string }): Promise<Reservation> {
    checkAmounts("amounts", request.amounts);
    return this.#make("/v1/usage", options.key, request, options);
  }

  /** Corrects a final charge by signed amounts. The key names the correction. */
  async correctReservation(id: string, request: CorrectionRequest, options: CallOptions & { key: string }): Promise<Reservation> {
    return this.#make(`${pathOf("reservations", id)}/corrections`, options.key, request, options);
  }

  listPrices(filter: PriceFilter = {}, options: CallOptions = {}): Promise<PricePage> {
    return this.#get("/v1/prices", filter, options);
  }

  /** Adds prices of the tenant. It is not repeated. */
  addPrices(request: PricesRequest, options: CallOptions = {}): Promise<AddedPrices> {
    return this.#call({ method: "POST", path: "/v1/prices", body: request, repeat: false, ...options });
  }

  /** Shows how usage is priced; it charges nothing. */
  explainPrice(request: ExplainRequest, options: CallOptions = {}): Promise<ExplainedPrice> {
    return this.#call({ method: "POST", path: "/v1/prices/explain", body: request, repeat: true, ...options });
  }

  /** The journal, oldest first. */
  listEntries(filter: EntryFilter = {}, options: CallOptions = {}): Promise<Page<Entry>> {
    return this.#get("/v1/entries", filter, options);
  }

  /** What happened after `filter.after`, oldest first. To miss nothing, give each page's `next_after` to the next call. */
  listEvents(filter: EventFilter = {}, options: CallOptions = {}): Promise<EventPage> {
    return this.#get("/v1/events", { ...filter, type: filter.type?.join(",") }, options);
  }

  /** Counts what is held, by age. */
  overview(options: CallOptions = {}): Promise<Overview> {
    return this.#get("/v1/overview", undefined, options);
  }

  /** It is not repeated. */
  createBudget(request: BudgetRequest, options: CallOptions = {}): Promise<Budget> {
    return this.#call({ method: "POST", path: "/v1/budgets", body: request, repeat: false, ...options });
  }

  getBudget(id: string, options: CallOptions = {}): Promise<Budget> {
    return this.#get(pathOf("budgets", id), undefined, options);
  }

  listBudgets(filter: BudgetFilter = {}, options: CallOptions = {}): Promise<Page<Budget>> {
    return this.#get("/v1/budgets", filter, options);
  }

  /** What a budget was charged over time, exact at the moment of the answer. */
  usageReport(id: string, filter: UsageFilter = {}, options: CallOptions = {}): Promise<UsageReport> {
    return this.#get(`${pathOf("budgets", id)}/usage`, filter, options);
  }

  /** It is not repeated, because another change may have come in between. */
  patchBudget(id: string, patch: BudgetPatch, options: CallOptions = {}): Promise<Budget> {
    return this.#call({ method: "PATCH", path: pathOf("budgets", id), body: patch, repeat: false, ...options });
  }

  /** The balances of a budget's windows, newest first; of a rolling budget, of its slices. */
  listWindows(id: string, filter: PageFilter = {}, options: CallOptions = {}): Promise<Page<Balance>> {
    return this.#get(`${pathOf("budgets", id)}/windows`, filter, options);
  }

  /** An archived budget no longer limits new requests; its open reservations still settle. */
  archiveBudget(id: string, options: CallOptions = {}): Promise<Budget> {
    return this.#call({ method: "DELETE", path: pathOf("budgets", id), repeat: true, ...options });
  }

  /** Changes a budget's limit for a time. The key names the override of this budget. */
  createOverride(id: string, request: OverrideRequest, options: CallOptions & { key: string }): Promise<Override> {
    return this.#make(`${pathOf("budgets", id)}/overrides`, options.key, request, options);
  }

  /** Gives the whole limit of the current window again, by an override of what is committed. The key names the reset of this budget. */
  resetBudget(id: string, request: ReasonRequest, options: CallOptions & { key: string }): Promise<Override> {
    return this.#make(`${pathOf("budgets", id)}/reset`, options.key, request, options);
  }

  /** The overrides of a budget, also those that have ended, newest first. */
  listOverrides(id: string, filter: PageFilter = {}, options: CallOptions = {}): Promise<Page<Override>> {
    return this.#get(`${pathOf("budgets", id)}/overrides`, filter, options);
  }

  /** Ends an override now; one that has ended stays as it is. */
  endOverride(id: string, overrideId: string, request: ReasonRequest, options: CallOptions = {}): Promise<Override> {
    return this.#call({ method: "POST", path: `${pathOf("budgets", id)}/overrides/${encodeURIComponent(overrideId)}/end`, body: request, repeat: true, ...options });
  }

  /** Grants an amount on top of a budget's limit, which is used up once. The key names the grant of this budget. */
  createGrant(id: string, request: GrantRequest, options: CallOptions & { key: string }): Promise<Grant> {
    return this.#make(`${pathOf("budgets", id)}/grants`, options.key, request, options);
  }

  /** The grants of a budget, also those that have ended, newest first. */
  listGrants(id: string, filter: PageFilter = {}, options: CallOptions = {}): Promise<Page<Grant>> {
    return this.#get(`${pathOf("budgets", id)}/grants`, filter, options);
  }

  /** Takes away what is left of a grant; one that has ended stays as it is. */
  voidGrant(id: string, grantId: string, request: ReasonRequest, options: CallOptions = {}): Promise<Grant> {
    return this.#call({ method: "POST", path: `${pathOf("budgets", id)}/grants/${encodeURIComponent(grantId)}/void`, body: request, repeat: true, ...options });
  }

  /** On whose behalf the client calls. */
  whoami(options: CallOptions = {}): Promise<Caller> {
    return this.#get("/v1/whoami", undefined, options);
  }

  listKeys(filter: PageFilter = {}, options: CallOptions = {}): Promise<Page<Key>> {
    return this.#get("/v1/keys", filter, options);
  }

  /** Only this answer has the key's secret. It is not repeated. */
  createKey(request: KeyRequest, options: CallOptions = {}): Promise<IssuedKey> {
    return this.#call({ method: "POST", path: "/v1/keys", body: request, repeat: false, ...options });
  }

  /** Replaces a key; the old one works on for the overlap. It is not repeated. */
  rotateKey(id: string, request: RotateKeyRequest = {}, options: CallOptions = {}): Promise<IssuedKey> {
    return this.#call({ method: "POST", path: `${pathOf("keys", id)}/rotate`, body: request, repeat: false, ...options });
  }

  /** Ends a key for good, within 5 seconds on every server. */
  revokeKey(id: string, request: By = {}, options: CallOptions = {}): Promise<Key> {
    return this.#call({ method: "POST", path: `${pathOf("keys", id)}/revoke`, body: request, repeat: true, ...options });
  }

  /** Has events delivered to an address from now on. Only this answer has the secret. It is not repeated. */
  createWebhook(request: WebhookRequest, options: CallOptions = {}): Promise<IssuedWebhook> {
    return this.#call({ method: "POST", path: "/v1/webhooks", body: request, repeat: false, ...options });
  }

  listWebhooks(filter: PageFilter = {}, options: CallOptions = {}): Promise<Page<Webhook>> {
    return this.#get("/v1/webhooks", filter, options);
  }

  getWebhook(id: string, options: CallOptions = {}): Promise<Webhook> {
    return this.#get(pathOf("webhooks", id), undefined, options);
  }

  /** It is not repeated, because another change may have come in between. */
  patchWebhook(id: string, patch: WebhookPatch, options: CallOptions = {}): Promise<Webhook> {
    return this.#call({ method: "PATCH", path: pathOf("webhooks", id), body: patch, repeat: false, ...options });
  }

  /** It is not repeated: a second call finds none. */
  deleteWebhook(id: string, options: CallOptions = {}): Promise<Webhook> {
    return this.#call({ method: "DELETE", path: pathOf("webhooks", id), repeat: false, ...options });
  }

  /** Gives a webhook a new secret; the one before signs too for 24 hours. Only this answer has it. It is not repeated. */
  rotateWebhookSecret(id: string, options: CallOptions = {}): Promise<IssuedWebhook> {
    return this.#call({ method: "POST", path: `${pathOf("webhooks", id)}/rotate-secret`, repeat: false, ...options });
  }

  /** Has a test sent, and says what the endpoint answered. It is not repeated. */
  testWebhook(id: string, options: CallOptions = {}): Promise<WebhookTest> {
    return this.#call({ method: "POST", path: `${pathOf("webhooks", id)}/test`, repeat: false, ...options });
  }

  /** The attempts to deliver to a webhook, newest first. */
  listDeliveries(id: string, filter: PageFilter = {}, options: CallOptions = {}): Promise<Page<Delivery>> {
    return this.#get(`${pathOf("webhooks", id)}/deliveries`, filter, options);
  }

  /** Has the events of a time delivered again. */
  replayWebhook(id: string, request: WebhookReplay, options: CallOptions = {}): Promise<Webhook> {
    return this.#call({ method: "POST", path: `${pathOf("webhooks", id)}/replay`, body: request, repeat: true, ...options });
  }

  /** Changes of the tenant's budgets and keys, newest first. */
  listAudit(filter: AuditFilter = {}, options: CallOptions = {}): Promise<Page<AuditRecord>> {
    return this.#get("/v1/audit", filter, options);
  }

  /** Throws if the service's process does not answer. It is not repeated. */
  async health(options: CallOptions = {}): Promise<void> {
    await this.#call({ method: "GET", path: "/healthz", repeat: false, ...options });
  }

  /** The state of each dependency. If one is away the error has them as `checks`. It is not repeated. */
  async ready(options: CallOptions = {}): Promise<Checks> {
    const { checks } = await this.#call<{ checks: Checks }>({ method: "GET", path: "/readyz", repeat: false, ...options });
    return checks;
  }

  async #call<T>(call: Call): Promise<T> {
    return (await this.#transport.exchange<T>(call)).value;
  }

  #get<T>(path: string, query: object | undefined, options: CallOptions): Promise<T> {
    return this.#call<T>({ method: "GET", path, query, repeat: true, ...options });
  }

  /** A call that was sent more than once may find what its own first attempt made. */
  async #make<T = Reservation>(path: string, key: string, body: unknown, { signal, deadline }: CallOptions & { deadline?: number }): Promise<T & { replayed: boolean }> {
    checkKey(key);
    const answer = await this.#transport.exchange<T>({ method: "POST", path, key, body, repeat: true, signal, deadline });
    return { ...answer.value, replayed: answer.hit && answer.attempts === 1 };
  }
}

/** Each item of a list, page by page: `eachItem((cursor) => earmark.listBudgets({ cursor }))`. */
export async function* eachItem<T>(list: (cursor: string) => Promise<Page<T>>): AsyncGenerator<T, void, void> {
  let cursor = "";
  do {
    const page = await list(cursor);
    yield* page.data;
    cursor = page.next_cursor;
  } while (cursor !== "");
}

const pathOf = (kind: string, id: string): string => `/v1/${kind}/${encodeURIComponent(id)}`;

const newKey = (): string => globalThis.crypto.randomUUID();

function environment(name: string): string | undefined {
  const { process } = globalThis as unknown as { process?: { env?: Record<string, string | undefined> } };
  return process?.env?.[name] || undefined;
}

function baseUrlOf(text: string): string {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new EarmarkError("invalid_request", "the base URL does not parse");
  }
  const redacted = text.replace(/\/\/[^/@]*@/, "//xxxxx@");
  if (!["http:", "https:"].includes(url.protocol) || url.search !== "" || url.hash !== "" || url.username !== "") {
    throw new EarmarkError("invalid_request", `${JSON.stringify(redacted)} is not a base URL such as ${defaultBaseUrl}`);
  }
  return url.href.replace(/\/+$/, "");
}

function checkKey(key: string): void {
  if (key.length === 0 || key.length > maxKeyBytes) {
    throw new EarmarkError("invalid_request", `is ${key.length} bytes long; 1 to ${maxKeyBytes} are allowed`, { field: "Idempotency-Key" });
  }
  if (!/^[ -~]+$/.test(key)) throw new EarmarkError("invalid_request", "holds a character that is not printable ASCII", { field: "Idempotency-Key" });
}

/** JSON carries other numbers as null, or rounded: Earmark would get another amount than the caller meant. */
function checkAmounts(field: string, amounts: Record<string, number> | undefined): void {
  for (const [unit, amount] of Object.entries(amounts ?? {})) {
    if (!Number.isSafeInteger(amount)) {
      throw new EarmarkError("invalid_request", `${amount} is not a whole number up to ${Number.MAX_SAFE_INTEGER}`, { field: `${field}.${unit}` });
    }
  }
}
