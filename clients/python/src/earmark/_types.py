"""The types of the API. Made of api/openapi.yaml by tools/generate.py."""

from typing import Any, Literal, TypedDict

# `rsv_` and the base32 of a SHA-256 over the tenant and the idempotency key, or of random bytes.
ReservationId = str

class Accepted(TypedDict):
    id: ReservationId
    accepted: Literal[True]

_UsdRate2Words = TypedDict("_UsdRate2Words", {"as": str}, total=False)


class UsdRate2(_UsdRate2Words, total=False):
    pass


# US dollars for one token, search, page or second, exact; or the name of the part whose rate it shares.
UsdRate = str | float | UsdRate2

# The rate of each part that has one, such as `input`, `cache_read`, `output`; docs/ai.md has all parts. A part without a rate is refused
# when it is used.
PriceRates = dict[str, UsdRate]

class _PriceTier(TypedDict):
    # Input tokens, cached ones included.
    threshold: int
    rates: PriceRates


class PriceTier(_PriceTier, total=False):
    # The threshold itself is in the tier.
    inclusive: bool

class _PriceVariants(TypedDict):
    # `service_tier`, `speed`, `region`, `windows`: all must hold.
    when: dict[str, Any]


class PriceVariants(_PriceVariants, total=False):
    # `rates`, `tiers` and `marginal`.
    prices: dict[str, Any]
    multiplier: str


_PriceWords = TypedDict("_PriceWords", {"from": str}, total=False)


class _Price(_PriceWords):
    provider: str
    model: str
    rates: PriceRates


# The prices of one model at one provider, from a moment on.
class Price(_Price, total=False):
    # Other names of the model.
    aliases: list[str]
    # A condition on further names: `equals`, `starts_with`, `ends_with`, `contains`, `regex`, `or` or `and`.
    match: dict[str, Any]
    # By the input tokens of a request, ascending. Each has all of its rates.
    tiers: list[PriceTier]
    # A tier prices only the tokens beyond its threshold.
    marginal: bool
    # Other prices, or a multiplier of all tokens, under conditions of the response.
    variants: list[PriceVariants]
    # Where the prices come from.
    source: str

class AddedPrices(TypedDict):
    # The newest version.
    version: int
    # What was added; the others say nothing new.
    entries: list[Price]

# The name of a person who settles in the caller's place, for which the key needs the role `operate`; entries then name `operator:NAME`,
# with a key `operator:NAME key:ID`.
Operator = str

# Why, for the journal; at most 512 bytes.
Reason = str

class AdoptRequest(TypedDict, total=False):
    operator: Operator
    reason: Reason

# When the limit of the window is used, if the budget has grants: `first`, before the grants, or `last`, after them. A rolling window has no
# grants, and only `first`.
Allowance = Literal["first", "last"]

# A whole number for each unit.
Amounts = dict[str, int]

# The model that answered. Without it, the one that the response names, or else the one of the estimate.
AnsweringModel = str

# The company that bills. Without it, that of the estimate.
AnsweringProvider = str

AuditAction = Literal["budget.create", "budget.change", "budget.archive", "key.create", "key.rotate", "key.revoke", "tenant.create", "tenant.disable", "tenant.enable", "price.add", "override.create", "override.end", "grant.create", "grant.void", "webhook.create", "webhook.change", "webhook.rotate", "webhook.replay", "webhook.delete"]

class AuditRecord(TypedDict):
    id: int
    tenant: str
    # Who made the change: `key:ID`, `operator:NAME`, or both as `operator:NAME key:ID`.
    actor: str
    action: AuditAction
    # The id of the budget, the key, the webhook or the tenant.
    subject: str
    reason: str
    # The subject before the change; null where it did not exist.
    before: dict[str, Any] | None
    # The subject after the change.
    after: dict[str, Any] | None
    created_at: str

class AuditPage(TypedDict):
    data: list[AuditRecord]
    next_cursor: str

# The parts of the balance that grants bear, and what those in force have left; left out where all are 0.
class Granted(TypedDict):
    # The part of the balance's `reserved`.
    reserved: int
    # The part of the balance's `committed`.
    committed: int
    # What the grants in force have left.
    remaining: int

class _Balance(TypedDict):
    limit: int
    # Set aside by open reservations.
    reserved: int
    # Spent.
    committed: int
    # effective_limit − reserved − committed; negative when overdrawn.
    available: int
    # The limit with the overrides that are in force, and with `granted`.
    effective_limit: int
    # The window's first instant; 1970-01-01 for lifetime; for rolling, the start of the oldest slice that counts.
    window_start: str
    # The next window's first instant; null for lifetime; for rolling, the end of the current slice.
    window_end: str | None


# The state of the current window, in the budget's unit.
class Balance(_Balance, total=False):
    granted: Granted

BudgetId = str

# As `Scope`, or that of a template, whose last segment is `*`: app/users/*, or `*` for all scopes of one segment.
BudgetScope = str

# What is counted.
Unit = str

class _Window(TypedDict):
    # A week starts on Monday, unless there is an anchor.
    period: Literal["lifetime", "minute", "hour", "day", "week", "month", "year", "rolling"]
    # The time zone in which the period begins: `UTC` or an IANA name of the form `Area/City`.
    timezone: str


# The period that the limit is for.
class Window(_Window, total=False):
    # How many periods one window has; left out for 1.
    every: int
    # The start of one window, in local time; left out if none was given.
    anchor: str
    # The length of a rolling window; left out for all other periods.
    rolling_seconds: int

# `hard` denies what would pass the limit; `soft` admits it, up to `soft_ceiling` if one is set, with `over_limit: true`.
Enforcement = Literal["hard", "soft"]

# What happens to usage beyond the reserved amount: `allow_with_overdraft` charges all of it, `allow_if_available` charges what fits and
# records the shortfall, `reject` refuses the commit.
Overage = Literal["allow_with_overdraft", "allow_if_available", "reject"]

class _Threshold(TypedDict):
    # What is compared: what was spent, or `used`, which is committed + reserved.
    of: Literal["committed", "used"]


# When the balance reaches it, an event `budget.threshold_crossed` is written, once a window; after a raise of the limit again when it is
# reached again. Either `percent` or `amount`.
class Threshold(_Threshold, total=False):
    # Of the limit.
    percent: int
    # In the budget's unit.
    amount: int

# All thresholds of the budget; left out if it has none. A change replaces them, and an empty list removes them. A rolling window has none.
Thresholds = list[Threshold]

class _Rollover(TypedDict):
    # At most so much of one window, such as half of the limit.
    max: int


# How much of what a window leaves of its limit the next ones may use: when the next window opens, the rest becomes a grant with the source
# `rollover`. Left out if nothing rolls over. Only for windows of `day`, `week`, `month` and `year`.
class Rollover(_Rollover, total=False):
    # At most so much in all that is left of such grants, from `max`; null or left out means no bound.
    max_total: int | None
    # How many windows may use it before it expires.
    windows: int

class _Budget(TypedDict):
    id: BudgetId
    scope: BudgetScope
    unit: Unit
    limit: int
    window: Window
    enforcement: Enforcement
    # Null means no ceiling.
    soft_ceiling: int | None
    overage: Overage
    allowance: Allowance
    created_at: str
    archived_at: str | None
    balance: Balance


class Budget(_Budget, total=False):
    thresholds: Thresholds
    rollover: Rollover
    # `true` for a template; left out for all others. A template limits nothing itself: its balance is that of a child which has used
    # nothing.
    template: bool
    # The template that made this budget, or that it follows; left out without one.
    template_id: BudgetId
    # `true` while changes of the template change this budget too; left out otherwise.
    follows_template: bool

class BudgetPage(TypedDict):
    data: list[Budget]
    # Empty on the last page.
    next_cursor: str

class _BudgetPatchRollover(TypedDict):
    max: int


# Replaces what the budget rolls over, as in a new budget; null removes it. What was rolled over stays.
class BudgetPatchRollover(_BudgetPatchRollover, total=False):
    max_total: int | None
    # 1 when left out.
    windows: int


class BudgetPatch(TypedDict, total=False):
    limit: int
    # Null removes the ceiling, and so does `enforcement: hard`.
    soft_ceiling: int | None
    enforcement: Literal["hard", "soft"]
    overage: Literal["allow_with_overdraft", "allow_if_available", "reject"]
    allowance: Literal["first", "last"]
    thresholds: Thresholds
    # Replaces what the budget rolls over, as in a new budget; null removes it. What was rolled over stays.
    rollover: BudgetPatchRollover | None
    # Only for a template: when its children take the change over; `now` if left out. `next_window` is not for `lifetime` and `rolling`. A
    # change that is effective now takes earlier ones with it that wait for the next window; a child that is made later has them from the
    # start.
    effective: Literal["now", "next_window"]
    # `true` gives the budget the settings of the template of its scope, unit, period and `every`, and lets it follow that template. `false`
    # ends that and keeps the settings. Goes without other changes.
    follows_template: bool

# Lifetime in UTC when left out.
class BudgetRequestWindow(TypedDict, total=False):
    # A week starts on Monday, unless there is an anchor.
    period: Literal["lifetime", "minute", "hour", "day", "week", "month", "year", "rolling"]
    # How many periods one window has. Without an anchor they are counted from 2001-01-01T00:00, a Monday: 3 months are quarters. Not for
    # `lifetime` and `rolling`.
    every: int
    # The start of one window, in local time, without seconds and offset, in the years 1970 to 2199; it may be past or to come. All windows
    # are counted from it: they start at its time of day, and on its weekday, day of the month or date. A month without that day takes its
    # last one. Not for `lifetime` and `rolling`.
    anchor: str
    # For `rolling`, and required there: the limit is for the last so many seconds at any time, up to 366 days. Amounts are counted in 60
    # slices of equal length: each counts for the whole window, and for at most one slice longer. An amount counts from when its reservation
    # was made.
    rolling_seconds: int
    # `UTC`, or a name of the form `Area/City` in the IANA time zone database, in the spelling there. Areas are Africa, America, Antarctica,
    # Arctic, Asia, Atlantic, Australia, Europe, Indian, Pacific and Etc. Names that may mean something else on another machine are refused,
    # such as `localtime`, `CET` or `US/Eastern`.
    timezone: str


class _BudgetRequest(TypedDict):
    scope: BudgetScope
    unit: Unit
    # In the unit; 0 admits nothing.
    limit: int


class BudgetRequest(_BudgetRequest, total=False):
    # Lifetime in UTC when left out.
    window: BudgetRequestWindow
    enforcement: Enforcement
    # Only for `soft`, from the limit up; null or left out means no ceiling.
    soft_ceiling: int | None
    overage: Overage
    allowance: Allowance
    thresholds: Thresholds
    rollover: Rollover

# What a key may do; each role includes those before it.
Role = Literal["read", "settle", "reserve", "operate", "admin"]

class Caller(TypedDict):
    tenant: str
    role: Role
    # What the key is bound to; empty: all.
    scopes: list[str]
    # Empty on a server without keys.
    key_id: str
    key_name: str

class Check(TypedDict):
    # `unknown` where another check that is down hides it.
    status: Literal["up", "down", "unknown"]
    # Why it is down; or, where it is up, what there is to know of it, such as the size of its database under `earmark dev`. Often empty.
    detail: str

# `postgres`, `temporal` and `worker`; or `process` alone, when it is about to stop.
class Checks(TypedDict, total=False):
    process: Check
    postgres: Check
    temporal: Check
    worker: Check

# Exactly the reserved units, each with a whole number from 0. The keys are units, see `Unit`.
Usage = dict[str, int]

# The usage object as the provider sent it, or the whole response with it. Earmark computes from it what the call cost in the reserved
# units, or for `/v1/usage` in those that the budgets count. A field that is wrong is named by its path.
ProviderUsage = dict[str, Any]

# What the object is, such as `anthropic`; docs/ai.md has all names. Without it the shape decides.
UsageFormat = str

# When the provider answered; it decides which off-peak hours apply. Without it now.
RespondedAt = str

# Exactly one of `usage` and `provider_usage`.
class CommitRequest(TypedDict, total=False):
    usage: Usage
    provider_usage: ProviderUsage
    usage_format: UsageFormat
    model: AnsweringModel
    provider: AnsweringProvider
    responded_at: RespondedAt
    # The usage is an estimate, as when a stream broke before the provider reported it. The first commit without `estimated` corrects it, in
    # full. An estimate never replaces another.
    estimated: bool
    operator: Operator
    reason: Reason

class _CorrectionRequest(TypedDict):
    # 1 to 8 of the reservation's units, each with a whole number that is not 0. Below 0 gives back.
    amounts: dict[str, int]
    # Why the charge is wrong, for the journal; at most 512 bytes.
    reason: str


class CorrectionRequest(_CorrectionRequest, total=False):
    operator: Operator

# A path of 1 to 8 segments; matching is by whole segments. Encode ids that have other characters: x-- and percent-encoding with _ in place
# of %, such as x--a_40b.com for a@b.com.
Scope = str

# One budget that the request does not fit into, in its unit.
class Violation(TypedDict):
    budget_id: BudgetId
    scope: Scope
    unit: Unit
    # That in force, with overrides and grants; for a soft budget, its ceiling.
    limit: int
    reserved: int
    committed: int
    available: int
    requested: int

class _Decision(TypedDict):
    admitted: bool
    violations: list[Violation]
    # The request does not fit, and waiting can help.
    retryable: bool


class Decision(_Decision, total=False):
    amounts: Amounts
    # Of the prices of an estimate; left out if it needs none.
    price_version: int
    # When to ask again at the latest; present where `retryable` is true, and only there. By then, in each budget that the request does not
    # fit into, the window has ended or, if the amount would fit without the holds, the lease of the first, or an override has begun or
    # ended, or a grant begun, that makes room. A hold that is settled makes room sooner; another request may take the room first.
    retry_at: str

EventType = Literal["budget.window_opened", "budget.threshold_crossed", "budget.exhausted", "grant.expiring", "reservation.denied", "reservation.expired", "reservation.review", "reservation.committed_late", "reservation.overage", "reservation.corrected", "webhook.disabled"]

class Delivery(TypedDict):
    id: int
    event_id: str
    type: EventType
    attempt: int
    at: str
    duration_ms: int
    # Of the answer; 0 without one.
    status: int
    # Why the attempt was no success; empty for a success.
    error: str
    # When the event is tried again; null after a success, and if the webhook was disabled.
    next_attempt_at: str | None

class DeliveryPage(TypedDict):
    data: list[Delivery]
    next_cursor: str

# One line of the journal. Entries are never changed.
class Entry(TypedDict):
    id: int
    # What happened: `reserve`, `commit`, `estimate` (a commit with `estimated`), `release`, `expire`, `charge`, `extend`, `review`,
    # `reject`, `refuse`, `correction`, `budget`, `adopt`, `checkpoint` (stands for entries that were pruned).
    kind: str
    # Empty for an entry about a budget.
    reservation_id: str
    # Empty for a note on a reservation.
    budget_id: str
    window_start: str | None
    reserved_delta: int
    committed_delta: int
    # Who did it: `workflow`, `sweeper`, `reconciler`, `key:ID` for a call with a key (`api` without), or `operator:NAME`. What was done for
    # a call with a key has `key:ID` after it.
    actor: str
    reason: str
    created_at: str

class EntryPage(TypedDict):
    data: list[Entry]
    # Empty on the last page.
    next_cursor: str

class _Estimate(TypedDict):
    model: str
    # The limit for the output that the provider is given, reasoning included.
    max_output_tokens: int


# One call of a model, in the place of `amounts`: Earmark computes the most that it may cost in each of `tokens`, `input_tokens`,
# `output_tokens`, `usd_micros` and `requests` that a budget on the scopes counts. Exactly one of `input_tokens`, `input_text` and
# `messages`. The price is that of the dearest response: input written to the provider's cache for the longest time that has a price, output
# as reasoning where that costs more, at the dearest hour.
class Estimate(_Estimate, total=False):
    # The company that bills; needed if several providers have the model.
    provider: str
    # As the provider counts them.
    input_tokens: int
    # The prompt. Its count is never below the provider's: see docs/ai.md. It is not stored.
    input_text: str
    # The messages, in OpenAI's or Anthropic's form, with text alone. They are counted and not stored.
    messages: list[dict[str, Any]]
    # How many answers to one input.
    n: int
    # The part of the input that the provider will surely read from its cache.
    cached_input_tokens: int
    # The one that is asked for, if it is not the standard.
    service_tier: str
    # As `service_tier`.
    speed: str
    # As `service_tier`.
    region: str

class Event(TypedDict):
    # Such as `evt_81234_17`; also the position after which the feed continues.
    id: str
    type: EventType
    created_at: str
    # Of the budget or the reservation; empty for an event of a webhook.
    scopes: list[str]
    # Empty for an event of a reservation.
    budget_id: str
    # Empty for an event of a budget.
    reservation_id: str
    # Null for an event of a reservation or a grant.
    window_start: str | None
    # Its fields depend on the type.
    data: dict[str, Any]

class EventPage(TypedDict):
    data: list[Event]
    # Where the feed continues. Never empty.
    next_after: str

class _ExplainRequest(TypedDict):
    provider_usage: ProviderUsage


class ExplainRequest(_ExplainRequest, total=False):
    # Required if the usage does not name it.
    model: str
    # The company that bills; required if several have the model.
    provider: str
    usage_format: UsageFormat
    # What is charged, for its multiplier.
    scopes: list[Scope]
    # The moment whose prices apply; now by default.
    at: str
    # A version of the prices; the newest by default.
    version: int

class _ExplainedPriceLines(TypedDict):
    # The part.
    what: str
    count: str
    rate_usd: str
    usd: str


class ExplainedPriceLines(_ExplainedPriceLines, total=False):
    provider: str
    model: str
    # The variants that apply.
    special: str


class _ExplainedPrice(TypedDict):
    version: int
    lines: list[ExplainedPriceLines]
    # The exact sum.
    usd: str
    # The sum, rounded once.
    usd_micros: int


class ExplainedPrice(_ExplainedPrice, total=False):
    # For resale.
    multiplier: str
    estimate: bool

class _ExtendRequest(TypedDict):
    # How long the lease runs on from now, at least.
    ttl_seconds: int


class ExtendRequest(_ExtendRequest, total=False):
    operator: Operator
    reason: Reason

# Made from the budget and the key, or the window that rolled over.
GrantId = str

class _Grant(TypedDict):
    id: GrantId
    budget_id: BudgetId
    # In the budget's unit; 0 only of a rollover, which settlements in its window change.
    amount: int
    # Held against it by open reservations.
    reserved: int
    # Charged to it.
    committed: int
    # What a void took away.
    voided: int
    # What requests can still take; 0 once it has ended.
    remaining: int
    # The lower is used first.
    priority: int
    effective_at: str
    # Null means never.
    expires_at: str | None
    voided_at: str | None
    # `rollover` for what a window of the budget left.
    source: Literal["manual", "rollover"]
    # For `rollover`, the start of that window.
    rolled_from: str | None
    reason: str
    created_at: str


# An amount on top of a budget's limit that is used up once, such as prepaid credit.
class Grant(_Grant, total=False):
    # An earlier call with the same key made it.
    replayed: bool

class GrantPage(TypedDict):
    data: list[Grant]
    # Empty on the last page.
    next_cursor: str

class _GrantRequest(TypedDict):
    # In the budget's unit.
    amount: int
    # Why, for the journal; at most 512 bytes.
    reason: str


class GrantRequest(_GrantRequest, total=False):
    # Now when left out.
    effective_at: str
    # After now and after `effective_at`; never when left out.
    expires_at: str
    # The lower is used first; of equal ones the one that expires first, then the oldest.
    priority: int

# Printable ASCII. Keys are the tenant's, shared by reservations and usage.
IdempotencyKey = str

# How many calls a second or a minute the key may make at each server process, 1 to 1,000,000; empty for no bound.
Rate = str

class IssuedKey(TypedDict):
    id: str
    tenant: str
    name: str
    role: Role
    # The key acts on these scopes and what is below; empty: on all.
    scopes: list[str]
    created_at: str
    # Null: never.
    expires_at: str | None
    revoked_at: str | None
    # The hour of the last use; null: never used.
    last_used_at: str | None
    # The id of the key that a rotation made; empty where there is none.
    replaced_by: str
    rate: Rate
    # The whole key, `emk_…`. Earmark keeps a hash alone.
    secret: str

WebhookId = str

class IssuedWebhook(TypedDict):
    id: WebhookId
    url: str
    # The types that it receives; empty: all.
    types: list[EventType]
    # Only events of these budgets; empty: all events.
    budgets: list[BudgetId]
    # Only events on these scopes or below them; empty: all events.
    scopes: list[str]
    enabled: bool
    # Why nothing is delivered; empty if it is enabled.
    disabled_reason: str
    # The position in the feed: every event up to it is delivered, or not selected.
    after: str
    # The first failure since the last success; null: the last attempt succeeded, or there was none.
    failing_since: str | None
    # Of the last attempt if it failed; else empty.
    last_error: str
    # After a failure; null: at once.
    next_attempt_at: str | None
    # When the secret before the last rotation stops signing; null: one secret signs.
    former_secret_until: str | None
    created_at: str
    # `whsec_` and the key in base64, as the libraries of Standard Webhooks take it.
    secret: str

class Key(TypedDict):
    id: str
    tenant: str
    name: str
    role: Role
    # The key acts on these scopes and what is below; empty: on all.
    scopes: list[str]
    created_at: str
    # Null: never.
    expires_at: str | None
    revoked_at: str | None
    # The hour of the last use; null: never used.
    last_used_at: str | None
    # The id of the key that a rotation made; empty where there is none.
    replaced_by: str
    rate: Rate

class KeyPage(TypedDict):
    data: list[Key]
    next_cursor: str

class _KeyRequest(TypedDict):
    role: Role


class KeyRequest(_KeyRequest, total=False):
    # For people; at most 64 bytes.
    name: str
    scopes: list[Scope]
    # In the future, at most 10 years away; left out: never.
    expires_at: str
    rate: Rate
    operator: Operator
    reason: Reason

# The caller's own notes; at most 20 keys, keys and values of at most 512 bytes each.
Metadata = dict[str, str]

# A whole number for each unit, or null.
NullableAmounts = dict[str, int] | None

# What happens when the lease runs out: `release` gives the amounts back, `commit` charges them as an estimate, `review` keeps them set
# aside until an operator decides.
OnExpiry = Literal["release", "commit", "review"]

# Made from the budget and the key.
OverrideId = str

class _Override(TypedDict):
    id: OverrideId
    budget_id: BudgetId
    # `reset` was made by a reset of the budget.
    source: Literal["manual", "reset"]
    # Added to the limit, in the budget's unit; below 0 lowers it.
    amount: int
    effective_at: str
    # Null means never.
    expires_at: str | None
    # When it was ended by hand.
    ended_at: str | None
    reason: str
    created_at: str


# A change of a budget's limit for a time, on top of it.
class Override(_Override, total=False):
    # An earlier call with the same key made it.
    replayed: bool

class OverridePage(TypedDict):
    data: list[Override]
    # Empty on the last page.
    next_cursor: str

class _OverrideRequest(TypedDict):
    # Added to the limit; below 0 lowers it.
    amount: int
    # Why, for the journal; at most 512 bytes.
    reason: str


class OverrideRequest(_OverrideRequest, total=False):
    # Now when left out.
    effective_at: str
    # After now and after `effective_at`; never when left out. Not with `windows`.
    expires_at: str
    # How many windows it lasts: the one of `effective_at` and those after it. Not for a lifetime.
    windows: int

# The open reservations of one group of ages.
class OverviewAge(TypedDict):
    from_seconds: int
    # The first age beyond the group; null for the last.
    to_seconds: int | None
    reservations: int
    amounts: Amounts

# `held` and `review` set budget aside. `committed` is charged. `released` is the caller's word that nothing was spent. `expired` was given
# back without it, and late usage is still charged.
State = Literal["held", "committed", "released", "expired", "review"]

# The reservation's share in one budget, in its unit.
class ReservationBudget(TypedDict):
    budget_id: BudgetId
    scope: Scope
    unit: Unit
    # The window it settles in.
    window_start: str
    # Set aside at admission.
    reserved: int
    # Charged by now.
    committed: int

class _ResponseRecord(TypedDict):
    # The usage object alone, as the provider sent it; no prompt and no answer.
    provider_usage: dict[str, Any]
    # The format in which it was read.
    usage_format: str
    # The moment whose off-peak hours applied.
    responded_at: str


# The response from which `usage` was computed. Absent if the caller gave amounts, and in lists.
class ResponseRecord(_ResponseRecord, total=False):
    # The model that answered, as the caller, the response or the estimate names it.
    model: str
    provider: str
    # The prices; absent if none were needed.
    price_version: int

# Why a reservation needs a person; if several reasons apply, the first in this order. `paused`: somebody paused its workflow, or the
# workflow's activity, in Temporal, so the workflow does not run. `task_failing`: its workflow's task fails, so the workflow does not run.
# `settlement_failing`: its workflow cannot settle it and keeps trying. `orphan`: no open workflow guards it. `review`: it has expired and
# waits for a decision. `expiry_missed`: it has been overdue for more than 5 seconds, and nothing has expired it.
StuckReason = Literal["paused", "task_failing", "settlement_failing", "orphan", "review", "expiry_missed"]

# What is wrong with a reservation. Only with `stuck=true`.
class Stuck(TypedDict):
    reason: StuckReason
    # When it began; for an orphan, when its workflow was last looked for. Null where that is not known.
    since: str | None
    # Since then; 0 where that is not known.
    age_seconds: int
    # The last error, what was refused, or who paused it and why; empty where there is none.
    detail: str
    # The command to paste.
    remedy: str

class _Reservation(TypedDict):
    id: ReservationId
    state: State
    scopes: list[Scope]
    amounts: Amounts
    usage: NullableAmounts
    overage: NullableAmounts
    shortfall: NullableAmounts
    # The sum of its corrections, to be added to `usage`; null if there was none.
    correction: dict[str, int] | None
    # Committed after its expiry.
    late: bool
    # Charged by the expiry policy `commit` or by a commit with `estimated`; the first real usage corrects it.
    estimated: bool
    # Admitted past a soft limit.
    over_limit: bool
    created_at: str
    # Null for usage charged without a reservation.
    expires_at: str | None
    settled_at: str | None
    # Held past its `expires_at`.
    overdue: bool
    # Held, and no open workflow was found to guard it.
    orphan: bool
    on_expiry: OnExpiry
    # Why it was settled so.
    reason: str
    metadata: Metadata
    # Of the workflow that guards it; empty for usage charged without a reservation.
    workflow_id: str
    # Where Temporal UI shows the workflow; empty when not configured.
    ui_url: str
    budgets: list[ReservationBudget]


class Reservation(_Reservation, total=False):
    # Usage that the policy `reject` refused; absent when none.
    rejected_usage: dict[str, int]
    response: ResponseRecord
    # An earlier call with the same `Idempotency-Key` made it, and this one set aside or charged nothing. Absent otherwise, and in all
    # answers but 201 and that of a correction.
    replayed: bool
    stuck: Stuck
    # Postgres has lost it, as after the restore of a backup, and its workflow has usage to charge; this is what the workflow knows. Only
    # with `stuck=true`.
    lost: bool

# What is held at one moment, by Postgres' clock.
class Overview(TypedDict):
    # The moment from which ages are counted.
    at: str
    # Reservations that are held.
    held: int
    # Reservations that wait for an operator.
    review: int
    # Of those held: past their `expires_at`.
    overdue: int
    # Of both: no open workflow was found to guard them.
    orphan: int
    # False where there are more than are counted; the numbers are then too low.
    complete: bool
    # Every group of ages, the youngest first, empty ones too.
    ages: list[OverviewAge]
    # The oldest open reservations, the oldest first.
    oldest: list[Reservation]

class PayloadsPayloads(TypedDict, total=False):
    metadata: dict[str, str]
    data: str


# Payloads as Temporal's API has them; metadata and data are base64.
class Payloads(TypedDict, total=False):
    payloads: list[PayloadsPayloads]

class PricePage(TypedDict):
    # The version that is shown; 0 without any.
    version: int
    data: list[Price]
    next_cursor: str

class _PricesRequest(TypedDict):
    entries: list[Price]


class PricesRequest(_PricesRequest, total=False):
    # Where the prices come from.
    source: str
    operator: Operator
    reason: Reason

class _Problem(TypedDict):
    # `urn:earmark:problem:` and the code.
    type: str
    # What the code means, always the same.
    title: str
    status: int
    # What is wrong here, for people.
    detail: str
    # The stable name of the error, for programs.
    code: Literal["invalid_request", "unauthenticated", "budget_exceeded", "not_found", "no_budget", "method_not_allowed", "forbidden", "budget_exists", "already_settled", "not_charged", "below_zero", "overage_rejected", "reservation_expired", "payload_too_large", "unsupported_media_type", "unit_not_budgeted", "unknown_model", "unpriced_usage", "idempotency_mismatch", "rate_limited", "admission_unknown", "unavailable", "internal"]


# An error as RFC 9457 writes it.
class Problem(_Problem, total=False):
    # The wrong input, such as `amounts.tokens`, `scopes[0]` or `Idempotency-Key`.
    field: str
    # With `unknown_model`: names of models with a price, as `provider/model`, the most similar first.
    nearest: list[str]
    # With `unavailable`: the server's queue that is full; left out for other causes.
    queue: Literal["admissions", "reads", "lists", "charges", "changes", "unknown keys"]
    # With `budget_exceeded`.
    violations: list[Violation]
    # With `budget_exceeded`: waiting can help.
    retryable: bool
    # With `budget_exceeded`, where `retryable` is true: when to ask again at the latest, as in a decision.
    retry_at: str
    reservation: Reservation
    reservation_id: ReservationId
    checks: Checks

class ReasonRequest(TypedDict):
    # Why, for the journal; at most 512 bytes.
    reason: str

class ReleaseRequest(TypedDict, total=False):
    reason: Reason
    operator: Operator

# 1 to 8 units, each with a whole number from 0. The keys are units, see `Unit`.
RequestedAmounts = dict[str, int]

# Whether each scope needs a budget of its own. A budget above a scope then counts the request, but does not cover the scope: without a
# budget on the scope itself it is refused (404 `no_budget`, or 422 `unit_not_budgeted`).
RequireBudget = bool

# A query for the list of workflows in Temporal UI.
class Search(TypedDict):
    title: str
    query: str
    # Empty when the address of Temporal UI is not configured.
    url: str

class _ReservationPage(TypedDict):
    data: list[Reservation]
    # Empty on the last page.
    next_cursor: str


class ReservationPage(_ReservationPage, total=False):
    # With `stuck=true`: what could not be looked at, and why; absent when all was.
    incomplete: str
    # With `stuck=true`: queries that find the same in Temporal UI.
    searches: list[Search]

# Every budget on the path of each of these is charged, once.
Scopes = list[Scope]

class _ReservationRequest(TypedDict):
    scopes: Scopes


# Exactly one of `amounts` and `estimate`.
class ReservationRequest(_ReservationRequest, total=False):
    amounts: RequestedAmounts
    estimate: Estimate
    # The length of the lease.
    ttl_seconds: int
    on_expiry: OnExpiry
    # A unit that no budget counts on a scope is unlimited there. `each_scope` refuses that (422 `unit_not_budgeted`); with `any_scope` a
    # budget on one of the scopes is enough.
    coverage: Literal["each_scope", "any_scope"]
    require_budget: RequireBudget
    metadata: Metadata

class RevokeKeyRequest(TypedDict, total=False):
    operator: Operator
    reason: Reason

class RotateKeyRequest(TypedDict, total=False):
    # How long the old key works on.
    overlap_seconds: int
    operator: Operator
    reason: Reason

# One hour, day, scope or metadata value.
class UsagePart(TypedDict):
    # Null for scopes and values.
    start: str | None
    # The first moment afterwards; null for scopes and values.
    end: str | None
    # The scope or the value; null for hours and days, for `other`, and for what was charged without this metadata key.
    value: str | None
    # The sum of all values that are not shown: a day has a sum of its own for the first 200 values, and an answer for the 200 largest.
    other: bool
    # Charged, with late usage and corrections; negative where corrections gave back more.
    committed: int
    # Journal entries that changed what is committed.
    charges: int

# The sum of all parts.
class UsageSum(TypedDict):
    committed: int
    charges: int

_UsageReportWords = TypedDict("_UsageReportWords", {"from": str}, total=False)


class _UsageReport(_UsageReportWords):
    budget_id: BudgetId
    unit: Unit
    # The first moment afterwards.
    to: str
    # As asked for.
    by: str
    # Of hours and days.
    timezone: str
    # Hours and days in their order, without those that have no charge; or values by `committed`, the largest first.
    data: list[UsagePart]
    total: UsageSum
    balance: Balance


# What a budget was charged over time, in the budget's unit.
class UsageReport(_UsageReport, total=False):
    pass

class _UsageRequest(TypedDict):
    scopes: Scopes


# Exactly one of `amounts` and `provider_usage`.
class UsageRequest(_UsageRequest, total=False):
    amounts: RequestedAmounts
    provider_usage: ProviderUsage
    usage_format: UsageFormat
    model: AnsweringModel
    provider: AnsweringProvider
    responded_at: RespondedAt
    require_budget: RequireBudget
    metadata: Metadata

class Webhook(TypedDict):
    id: WebhookId
    url: str
    # The types that it receives; empty: all.
    types: list[EventType]
    # Only events of these budgets; empty: all events.
    budgets: list[BudgetId]
    # Only events on these scopes or below them; empty: all events.
    scopes: list[str]
    enabled: bool
    # Why nothing is delivered; empty if it is enabled.
    disabled_reason: str
    # The position in the feed: every event up to it is delivered, or not selected.
    after: str
    # The first failure since the last success; null: the last attempt succeeded, or there was none.
    failing_since: str | None
    # Of the last attempt if it failed; else empty.
    last_error: str
    # After a failure; null: at once.
    next_attempt_at: str | None
    # When the secret before the last rotation stops signing; null: one secret signs.
    former_secret_until: str | None
    created_at: str

class WebhookPage(TypedDict):
    data: list[Webhook]
    next_cursor: str

class WebhookPatch(TypedDict, total=False):
    # An address over https, without a user and a fragment. What its name resolves to must be public, unless the operator allows other
    # addresses.
    url: str
    # The types that it receives; empty: all.
    types: list[EventType]
    # Only events of these budgets; empty: all events.
    budgets: list[BudgetId]
    # Only events on these scopes or below them; empty: all events. With several filters an event passes all.
    scopes: list[Scope]
    enabled: bool

_WebhookReplayWords = TypedDict("_WebhookReplayWords", {"from": str}, total=False)


class WebhookReplay(_WebhookReplayWords, total=False):
    # Events before this time; left out: now.
    to: str

class _WebhookRequest(TypedDict):
    # An address over https, without a user and a fragment. What its name resolves to must be public, unless the operator allows other
    # addresses.
    url: str


class WebhookRequest(_WebhookRequest, total=False):
    # The types that it receives; empty: all.
    types: list[EventType]
    # Only events of these budgets; empty: all events.
    budgets: list[BudgetId]
    # Only events on these scopes or below them; empty: all events. With several filters an event passes all.
    scopes: list[Scope]

class WebhookTest(TypedDict):
    # The `webhook-id` of the delivery.
    event_id: str
    # Of the answer; 0 without one.
    status: int
    # Why the test failed; empty if it succeeded.
    error: str
    duration_ms: int

class WindowPage(TypedDict):
    data: list[Balance]
    # Empty on the last page.
    next_cursor: str

# The stable name of the error, for programs.
ErrorCode = Literal["invalid_request", "unauthenticated", "budget_exceeded", "not_found", "no_budget", "method_not_allowed", "forbidden", "budget_exists", "already_settled", "not_charged", "below_zero", "overage_rejected", "reservation_expired", "payload_too_large", "unsupported_media_type", "unit_not_budgeted", "unknown_model", "unpriced_usage", "idempotency_mismatch", "rate_limited", "admission_unknown", "unavailable", "internal"]

__all__ = [
    "Accepted",
    "AddedPrices",
    "AdoptRequest",
    "Allowance",
    "Amounts",
    "AnsweringModel",
    "AnsweringProvider",
    "AuditAction",
    "AuditPage",
    "AuditRecord",
    "Balance",
    "Budget",
    "BudgetId",
    "BudgetPage",
    "BudgetPatch",
    "BudgetRequest",
    "BudgetScope",
    "Caller",
    "Check",
    "Checks",
    "CommitRequest",
    "CorrectionRequest",
    "Decision",
    "Delivery",
    "DeliveryPage",
    "Enforcement",
    "Entry",
    "EntryPage",
    "ErrorCode",
    "Estimate",
    "Event",
    "EventPage",
    "EventType",
    "ExplainRequest",
    "ExplainedPrice",
    "ExtendRequest",
    "Grant",
    "GrantId",
    "GrantPage",
    "GrantRequest",
    "Granted",
    "IdempotencyKey",
    "IssuedKey",
    "IssuedWebhook",
    "Key",
    "KeyPage",
    "KeyRequest",
    "Metadata",
    "NullableAmounts",
    "OnExpiry",
    "Operator",
    "Overage",
    "Override",
    "OverrideId",
    "OverridePage",
    "OverrideRequest",
    "Overview",
    "OverviewAge",
    "Payloads",
    "Price",
    "PricePage",
    "PriceRates",
    "PriceTier",
    "PricesRequest",
    "Problem",
    "ProviderUsage",
    "Rate",
    "Reason",
    "ReasonRequest",
    "ReleaseRequest",
    "RequestedAmounts",
    "RequireBudget",
    "Reservation",
    "ReservationBudget",
    "ReservationId",
    "ReservationPage",
    "ReservationRequest",
    "RespondedAt",
    "ResponseRecord",
    "RevokeKeyRequest",
    "Role",
    "Rollover",
    "RotateKeyRequest",
    "Scope",
    "Scopes",
    "Search",
    "State",
    "Stuck",
    "StuckReason",
    "Threshold",
    "Thresholds",
    "Unit",
    "Usage",
    "UsageFormat",
    "UsagePart",
    "UsageReport",
    "UsageRequest",
    "UsageSum",
    "UsdRate",
    "Violation",
    "Webhook",
    "WebhookId",
    "WebhookPage",
    "WebhookPatch",
    "WebhookReplay",
    "WebhookRequest",
    "WebhookTest",
    "Window",
    "WindowPage",
]
