# Made of _async_client.py by tools/generate.py; change that file.
"""Earmark, as synchronous code uses it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

import httpx

from . import _options as options
from ._engine import engine, wait_sync
from ._errors import UnsettledError
from ._guard import Open, Dropped, GuardRequest, GuardSettings, Run, Settled, leave, settled_of, settlement
from ._late import LateCharges, LostCharge
from ._streams import close_sync, next_sync, open_sync
from ._transport import Answer, Call, Transport
from ._types import (
    AddedPrices,
    AdoptRequest,
    AuditAction,
    AuditPage,
    Budget,
    BudgetPage,
    BudgetPatch,
    BudgetRequest,
    Caller,
    Checks,
    CommitRequest,
    CorrectionRequest,
    Decision,
    DeliveryPage,
    EntryPage,
    EventPage,
    ExplainedPrice,
    ExplainRequest,
    ExtendRequest,
    Grant,
    GrantPage,
    GrantRequest,
    IssuedKey,
    IssuedWebhook,
    Key,
    KeyPage,
    KeyRequest,
    Override,
    OverridePage,
    OverrideRequest,
    Overview,
    PricePage,
    PricesRequest,
    ReasonRequest,
    ReleaseRequest,
    Reservation,
    ReservationPage,
    ReservationRequest,
    RevokeKeyRequest,
    RotateKeyRequest,
    State,
    StuckReason,
    UsageReport,
    UsageRequest,
    Webhook,
    WebhookPage,
    WebhookPatch,
    WebhookReplay,
    WebhookRequest,
    WebhookTest,
    WindowPage,
)

T = TypeVar("T")


class Earmark:
    """Calls one Earmark server. Each method is a call of the API, and raises an EarmarkError; it is repeated where that is safe. See
    docs/python.md.

    base_url: EARMARK_URL, else http://127.0.0.1:8080.
    api_key: the key emk_…; EARMARK_API_KEY, else the content of the file EARMARK_API_KEY_FILE, else none.
    max_attempts: how often a call that is safe to repeat is sent, including the first time; a guard settles within
        settle_limit_seconds instead.
    timeout_seconds: of one attempt of a call.
    settle_limit_seconds: how long a guard tries to settle after the guarded code has ended.
    transport: in place of httpx's own; it runs on the client's thread.
    logger: for leases that a guard cannot keep and reservations that it cannot settle; the logger "earmark".
    on_unsettled: receives every reservation that a guard could not settle, before the guard returns: to count them, or to keep the
        usage. It runs on a thread of its own.
    on_lost: receives every charge of a call that ran while Earmark was away, and that Earmark did not take afterwards.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        max_attempts: int = options.DEFAULT_MAX_ATTEMPTS,
        timeout_seconds: float = options.DEFAULT_TIMEOUT_SECONDS,
        settle_limit_seconds: float = options.DEFAULT_SETTLE_LIMIT_SECONDS,
        user_agent: str = "earmark-python-client",
        transport: httpx.AsyncBaseTransport | None = None,
        logger: logging.Logger | None = None,
        on_unsettled: Callable[[UnsettledError], object] | None = None,
        on_lost: Callable[[LostCharge], object] | None = None,
    ) -> None:
        own = self._transport = Transport(
            options.base_url_of(base_url), options.api_key_of(api_key), user_agent, max(1, max_attempts), timeout_seconds, transport
        )
        log = logger or logging.getLogger("earmark")
        self._guards = GuardSettings(
            transport=own,
            log=log,
            settle_limit_seconds=settle_limit_seconds,
            on_unsettled=on_unsettled or (lambda _: None),
            reserve=lambda request, key, deadline: options.reserve(own, request, key, deadline),
            late=options.late_charges(own, log, on_lost),
        )

    @property
    def late_charges(self) -> LateCharges:
        """The charges of calls that ran while Earmark was away."""
        return self._guards.late

    def close(self) -> None:
        """Closes the connections. A later call opens new ones."""
        wait_sync(engine.submit(self._transport.close()))

    def __enter__(self) -> Earmark:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def guard(self, request: GuardRequest, *, key: str | None = None) -> Guard:
        """A context in which code runs within a reservation, such as one call of a model: it reserves, extends the lease while the code
        runs, and settles.

        - A count on `run.meter` that is not all zero is charged, also if the code fails.
        - A count of all zeros is charged if the code does not fail.
        - After a NothingSentError, or `run.meter.nothing_sent()`, the reservation is released.
        - Otherwise the usage is not known: the reservation is left to `on_expiry`, and the guard raises an UnsettledError.

        If the code did not run, the guard raises an EarmarkError, such as a DeniedError, or a KeyInUseError. An error of the code comes
        out as it is; UnsettledError.of finds what else went wrong.

        key names this run: a second run with the same key does not start. Left out: every run gets a new one.
        """
        return Guard(self._guards, request, key)

    def guard_stream(self, request: GuardRequest, open: Open[T], *, key: str | None = None) -> GuardedStream[T]:
        """The same for a stream. The reservation is made when the reader asks for the first item, and settled before the reader learns
        of the end. Read it to its end, close it, or drop it: until then the lease is kept."""
        return GuardedStream(Guard(self._guards, request, key), open)

    def reserve(self, request: ReservationRequest, *, key: str | None = None) -> Reservation:
        """Sets amounts aside. key names this request: the same key and request return the same reservation. Left out: the client makes
        one for this call. If `replayed` is true, an earlier call made the reservation: do not call the model."""
        return self._run(options.reserve(self._transport, request, key))

    def decide(self, request: ReservationRequest) -> Decision:
        """Says whether a request would be admitted now; it reserves nothing."""
        options.check_amounts("amounts", request.get("amounts"))
        return cast(Decision, self._call(Call("POST", "/v1/decisions", body=request, repeat=True)))

    def commit_reservation(self, id: str, request: CommitRequest) -> Settled:
        """Charges the usage, in exactly the reserved units, and gives the rest back."""
        options.check_amounts("usage", request.get("usage"))
        return settled_of(self._exchange(settlement(id, "commit", request)))

    def release_reservation(self, id: str, request: ReleaseRequest | None = None) -> Settled:
        """Gives everything back, because nothing was spent. It is final."""
        return settled_of(self._exchange(settlement(id, "release", request or {})))

    def extend_reservation(self, id: str, request: ExtendRequest) -> Reservation:
        """Moves the expiry to at least ttl_seconds from now."""
        return cast(Reservation, self._call(Call("POST", options.path_of("reservations", id, "extend"), body=request, repeat=True)))

    def adopt_reservation(self, id: str, request: AdoptRequest | None = None) -> Reservation:
        """Starts a new workflow for an open reservation that lost its own."""
        path = options.path_of("reservations", id, "adopt")
        return cast(Reservation, self._call(Call("POST", path, body=request or {}, repeat=True)))

    def get_reservation(self, id: str) -> Reservation:
        return cast(Reservation, self._get(options.path_of("reservations", id)))

    def list_reservations(
        self,
        *,
        state: State | None = None,
        scope: str | None = None,
        overdue: bool | None = None,
        orphan: bool | None = None,
        stuck: bool | None = None,
        stuck_reason: StuckReason | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> ReservationPage:
        page = self._get(
            "/v1/reservations",
            state=state,
            scope=scope,
            overdue=overdue,
            orphan=orphan,
            stuck=stuck,
            stuck_reason=stuck_reason,
            cursor=cursor,
            limit=limit,
        )
        return cast(ReservationPage, page)

    def charge_usage(self, request: UsageRequest, *, key: str) -> Reservation:
        """Charges usage without a reservation. The key names the usage: under another key the same usage is charged again."""
        return self._run(options.make(self._transport, "/v1/usage", key, request))

    def correct_reservation(self, id: str, request: CorrectionRequest, *, key: str) -> Reservation:
        """Adds signed amounts to a final charge; below 0 gives back. The key names the correction of this reservation."""
        return self._run(options.make(self._transport, options.path_of("reservations", id, "corrections"), key, request))

    def list_prices(
        self,
        *,
        provider: str | None = None,
        model: str | None = None,
        at: str | None = None,
        version: str | int | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> PricePage:
        """The prices that hold, by provider and model."""
        page = self._get("/v1/prices", provider=provider, model=model, at=at, version=version, cursor=cursor, limit=limit)
        return cast(PricePage, page)

    def add_prices(self, request: PricesRequest) -> AddedPrices:
        """Adds a version of the tenant's prices. It is not repeated."""
        return cast(AddedPrices, self._call(Call("POST", "/v1/prices", body=request, repeat=False)))

    def explain_price(self, request: ExplainRequest) -> ExplainedPrice:
        """What a usage costs, line by line. It changes nothing."""
        return cast(ExplainedPrice, self._call(Call("POST", "/v1/prices/explain", body=request, repeat=True)))

    def list_entries(
        self, *, budget_id: str | None = None, reservation_id: str | None = None, cursor: str | None = None, limit: int | None = None
    ) -> EntryPage:
        """The journal, oldest first."""
        page = self._get("/v1/entries", budget_id=budget_id, reservation_id=reservation_id, cursor=cursor, limit=limit)
        return cast(EntryPage, page)

    def list_events(
        self, *, after: str | None = None, type: str | None = None, budget_id: str | None = None, limit: int | None = None
    ) -> EventPage:
        """What happened after a position, oldest first. To miss nothing, give each page's next_after to the next call."""
        return cast(EventPage, self._get("/v1/events", after=after, type=type, budget_id=budget_id, limit=limit))

    def overview(self) -> Overview:
        """Counts what is held, by age."""
        return cast(Overview, self._get("/v1/overview"))

    def create_budget(self, request: BudgetRequest) -> Budget:
        """It is not repeated."""
        return cast(Budget, self._call(Call("POST", "/v1/budgets", body=request, repeat=False)))

    def get_budget(self, id: str) -> Budget:
        return cast(Budget, self._get(options.path_of("budgets", id)))

    def list_budgets(
        self, *, scope: str | None = None, covering: str | None = None, template_id: str | None = None, cursor: str | None = None, limit: int | None = None
    ) -> BudgetPage:
        """scope: only budgets on exactly this scope. covering: every budget that covers this scope. template_id: only budgets that
        this template made, or that follow it."""
        return cast(BudgetPage, self._get("/v1/budgets", scope=scope, covering=covering, template_id=template_id, cursor=cursor, limit=limit))

    def usage_report(self, id: str, *, from_: str | None = None, to: str | None = None, by: str | None = None) -> UsageReport:
        """What a budget was charged over time, by hour, day, scope or metadata.KEY. from_ and to are RFC 3339."""
        query: dict[str, object] = {"from": from_, "to": to, "by": by}
        return cast(UsageReport, self._get(f"{options.path_of('budgets', id)}/usage", **query))

    def list_windows(self, id: str, *, cursor: str | None = None, limit: int | None = None) -> WindowPage:
        """The balances of a budget's windows, newest first; of a rolling budget, of its slices."""
        return cast(WindowPage, self._get(options.path_of("budgets", id, "windows"), cursor=cursor, limit=limit))

    def patch_budget(self, id: str, patch: BudgetPatch) -> Budget:
        """It is not repeated, because another change may have come in between."""
        return cast(Budget, self._call(Call("PATCH", options.path_of("budgets", id), body=patch, repeat=False)))

    def archive_budget(self, id: str) -> Budget:
        """An archived budget no longer limits new requests; its open reservations still settle."""
        return cast(Budget, self._call(Call("DELETE", options.path_of("budgets", id), repeat=True)))

    def create_override(self, id: str, request: OverrideRequest, *, key: str) -> Override:
        """Changes a budget's limit for a time. The key names the override of this budget."""
        return cast(Override, self._run(options.make(self._transport, options.path_of("budgets", id, "overrides"), key, request)))

    def reset_budget(self, id: str, request: ReasonRequest, *, key: str) -> Override:
        """Gives the whole limit of the current window again, by an override of what is committed. The key names the reset."""
        return cast(Override, self._run(options.make(self._transport, options.path_of("budgets", id, "reset"), key, request)))

    def list_overrides(self, id: str, *, cursor: str | None = None, limit: int | None = None) -> OverridePage:
        """The overrides of a budget, also those that have ended, newest first."""
        return cast(OverridePage, self._get(options.path_of("budgets", id, "overrides"), cursor=cursor, limit=limit))

    def end_override(self, id: str, override_id: str, request: ReasonRequest) -> Override:
        """Ends an override now; one that has ended stays as it is."""
        path = options.path_of("budgets", id, "overrides", override_id, "end")
        return cast(Override, self._call(Call("POST", path, body=request, repeat=True)))

    def create_grant(self, id: str, request: GrantRequest, *, key: str) -> Grant:
        """Grants an amount on top of a budget's limit, which is used up once. The key names the grant of this budget."""
        return cast(Grant, self._run(options.make(self._transport, options.path_of("budgets", id, "grants"), key, request)))

    def list_grants(self, id: str, *, cursor: str | None = None, limit: int | None = None) -> GrantPage:
        """The grants of a budget, also those that have ended, newest first."""
        return cast(GrantPage, self._get(options.path_of("budgets", id, "grants"), cursor=cursor, limit=limit))

    def void_grant(self, id: str, grant_id: str, request: ReasonRequest) -> Grant:
        """Takes away what is left of a grant; one that has ended stays as it is."""
        path = options.path_of("budgets", id, "grants", grant_id, "void")
        return cast(Grant, self._call(Call("POST", path, body=request, repeat=True)))

    def whoami(self) -> Caller:
        """On whose behalf the client calls."""
        return cast(Caller, self._get("/v1/whoami"))

    def list_keys(self, *, cursor: str | None = None, limit: int | None = None) -> KeyPage:
        return cast(KeyPage, self._get("/v1/keys", cursor=cursor, limit=limit))

    def create_key(self, request: KeyRequest) -> IssuedKey:
        """Only this answer has the key's secret. It is not repeated."""
        return cast(IssuedKey, self._call(Call("POST", "/v1/keys", body=request, repeat=False)))

    def rotate_key(self, id: str, request: RotateKeyRequest | None = None) -> IssuedKey:
        """Replaces a key; the old one works on for the overlap. It is not repeated."""
        return cast(IssuedKey, self._call(Call("POST", options.path_of("keys", id, "rotate"), body=request or {}, repeat=False)))

    def revoke_key(self, id: str, request: RevokeKeyRequest | None = None) -> Key:
        """Ends a key for good, within 5 seconds on every server."""
        return cast(Key, self._call(Call("POST", options.path_of("keys", id, "revoke"), body=request or {}, repeat=True)))

    def create_webhook(self, request: WebhookRequest) -> IssuedWebhook:
        """Has events delivered to an address from now on. Only this answer has the secret. It is not repeated."""
        return cast(IssuedWebhook, self._call(Call("POST", "/v1/webhooks", body=request, repeat=False)))

    def list_webhooks(self, *, cursor: str | None = None, limit: int | None = None) -> WebhookPage:
        return cast(WebhookPage, self._get("/v1/webhooks", cursor=cursor, limit=limit))

    def get_webhook(self, id: str) -> Webhook:
        return cast(Webhook, self._get(options.path_of("webhooks", id)))

    def patch_webhook(self, id: str, patch: WebhookPatch) -> Webhook:
        """It is not repeated, because another change may have come in between."""
        return cast(Webhook, self._call(Call("PATCH", options.path_of("webhooks", id), body=patch, repeat=False)))

    def delete_webhook(self, id: str) -> Webhook:
        """It is not repeated: a second call finds none."""
        return cast(Webhook, self._call(Call("DELETE", options.path_of("webhooks", id), repeat=False)))

    def rotate_webhook_secret(self, id: str) -> IssuedWebhook:
        """The secret before signs too for 24 hours. Only this answer has the new one. It is not repeated."""
        return cast(IssuedWebhook, self._call(Call("POST", options.path_of("webhooks", id, "rotate-secret"), repeat=False)))

    def test_webhook(self, id: str) -> WebhookTest:
        """Has a test sent, and says what the endpoint answered. It is not repeated."""
        return cast(WebhookTest, self._call(Call("POST", options.path_of("webhooks", id, "test"), repeat=False)))

    def list_deliveries(self, id: str, *, cursor: str | None = None, limit: int | None = None) -> DeliveryPage:
        """The attempts to deliver to a webhook, newest first."""
        return cast(DeliveryPage, self._get(options.path_of("webhooks", id, "deliveries"), cursor=cursor, limit=limit))

    def replay_webhook(self, id: str, request: WebhookReplay) -> Webhook:
        """Has the events of a time delivered again."""
        return cast(Webhook, self._call(Call("POST", options.path_of("webhooks", id, "replay"), body=request, repeat=True)))

    def list_audit(
        self,
        *,
        subject: str | None = None,
        action: AuditAction | None = None,
        actor: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> AuditPage:
        """Changes of the tenant's budgets and keys, newest first."""
        page = self._get("/v1/audit", subject=subject, action=action, actor=actor, cursor=cursor, limit=limit)
        return cast(AuditPage, page)

    def health(self) -> None:
        """Raises if the service's process does not answer. It is not repeated."""
        self._call(Call("GET", "/healthz", repeat=False))

    def ready(self) -> Checks:
        """The state of each dependency. If one is away the error has them as `checks`. It is not repeated."""
        return cast(Checks, (self._call(Call("GET", "/readyz", repeat=False)))["checks"])

    def _get(self, path: str, **query: object) -> dict[str, Any]:
        return self._call(Call("GET", path, query=query, repeat=True))

    def _call(self, call: Call) -> dict[str, Any]:
        return (self._exchange(call)).value

    def _exchange(self, call: Call) -> Answer:
        return self._run(self._transport.exchange(call))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for a call; the caller's end is the call's."""
        future = engine.submit(work)
        try:
            return wait_sync(future)
        finally:
            future.cancel()


class Guard:
    """Guards code, once. Made by Earmark.guard."""

    def __init__(self, settings: GuardSettings, request: GuardRequest, key: str | None) -> None:
        self._run: Run | None = None
        self._begun = False
        self._settings = settings
        self._request = request
        self._key = key

    def __enter__(self) -> Run:
        if self._begun:
            raise RuntimeError("a guard runs once; make another one")
        self._begun = True
        admission = engine.submit(Run._admit(self._settings, self._request, self._key))
        try:
            self._run = wait_sync(admission)
            return self._run
        except BaseException:
            leave(admission)  # the caller is gone, or was not admitted
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        run = self._run
        if run is None or not run._is_ours():
            return
        settling = run._end(error)
        try:
            wait_sync(settling)
        except UnsettledError as unsettled:
            if error is None:
                raise
            unsettled._attach_to(error)

    def __del__(self) -> None:
        self._drop(Dropped())

    def _drop(self, error: BaseException | None) -> None:
        """Settles without waiting."""
        if self._run is not None and self._run._is_ours() and not sys.is_finalizing():
            self._run._end(error)


class GuardedStream(Generic[T]):
    """A stream within a reservation. Made by Earmark.guard_stream."""

    def __init__(self, guard: Guard, open: Open[T]) -> None:
        self._guard = guard
        self._open = open
        self._source: Iterator[T] | None = None
        self._ended = False

    def __iter__(self) -> GuardedStream[T]:
        return self

    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        try:
            if self._source is None:
                self._source = open_sync(self._open, self._guard.__enter__())
            return next_sync(self._source)
        except StopIteration:
            self._end(None)
            raise
        except BaseException as error:
            self._end(error)
            raise

    def close(self) -> None:
        """Ends the stream: what was counted is charged."""
        if self._ended:
            return
        try:
            close_sync(self._source)
        except BaseException as error:
            self._end(error)
            raise
        self._end(None)

    def __enter__(self) -> GuardedStream[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self, error: BaseException | None) -> None:
        self._ended = True
        self._guard.__exit__(None, error, None)

    def __del__(self) -> None:
        if not self._ended:
            self._guard._drop(None)  # its reader left, as by break


def each_item(list_page: Callable[[str], Any]) -> Iterator[Any]:
    """Each item of a list, page by page: `each_item(lambda cursor: earmark.list_budgets(cursor=cursor))`."""
    cursor = ""
    while True:
        page = list_page(cursor)
        for item in page["data"]:
            yield item
        cursor = page["next_cursor"]
        if not cursor:
            return
