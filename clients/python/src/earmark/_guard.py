from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import uuid
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, cast
from urllib.parse import quote

from ._engine import engine
from ._errors import EarmarkError, KeyInUseError, NothingSentError, UnsettledError
from ._late import FailOpen, LateCharge, LateCharges, OpenRun, is_earmark_away
from ._lease import extend_after, keep_lease
from ._meter import Meter
from ._transport import Answer, Call, Transport
from ._types import CommitRequest, OnExpiry, Reservation, ReservationRequest

T = TypeVar("T")

_NOTHING_SENT_REASON = "the caller says that nothing was sent"
_DEFAULT_TTL_SECONDS = 300
# Of one attempt, so that a connection that hangs leaves time for another attempt.
_SETTLE_ATTEMPT_LIMIT_SECONDS = 10.0


class GuardRequest(ReservationRequest):
    """A reservation of a guard. Its expiry policy has no default, because it decides who pays for a crash in the middle."""

    on_expiry: OnExpiry  # type: ignore[misc] # required here


@dataclass(frozen=True)
class Settled:
    """The result of a commit or a release. `accepted`: Postgres is away, and Temporal keeps the settlement until it is back, which is a
    success; there is no reservation then."""

    accepted: bool
    reservation: Reservation | None


@dataclass
class GuardSettings:
    transport: Transport
    log: logging.Logger
    settle_limit_seconds: float
    on_unsettled: Callable[[UnsettledError], object]
    #: Takes the request, its key, and the moment of time.monotonic() after which it gives up.
    reserve: Callable[[ReservationRequest, Union[str, None], Union[float, None]], Awaitable[Reservation]]
    late: LateCharges


@dataclass
class Change:
    """What the guard sends Earmark in the end."""

    verb: Literal["commit", "release"]
    body: dict[str, Any]


class Run:
    """What guarded code works with. It keeps the lease until it is settled."""

    #: The reservation as it was made.
    reservation: Reservation
    #: Counts what is used. The guard commits the count when the guarded code ends, also if it fails.
    meter: Meter
    #: After the guarded code: the settlement. None before, and if it failed.
    settled: Settled | None
    #: The run has ended, and its reservation is left to its expiry policy, because its usage is not known.
    left: bool

    def __init__(
        self, settings: GuardSettings, request: GuardRequest, reservation: Reservation, since: float, late_key: str | None = None
    ) -> None:
        """Belongs to the engine's thread. late_key is the key of an admission that may fail open."""
        self.reservation = reservation
        self.meter = Meter()
        self.settled = None
        self.left = False
        self._late_key = late_key
        self._settings = settings
        self._request = request
        self._lock = threading.RLock()  # as in Engine
        self._settling: Future[Settled] | None = None
        self._process = os.getpid()
        self._over = threading.Event()
        self.ttl_seconds = request.get("ttl_seconds") or _DEFAULT_TTL_SECONDS
        lease = keep_lease(settings.transport, settings.log, reservation["id"], self.ttl_seconds, since, self._over.is_set)
        self._lease = asyncio.get_running_loop().create_task(lease)

    @staticmethod
    async def _admit(settings: GuardSettings, request: GuardRequest, key: str | None, fail_open: FailOpen | None = None) -> Run:
        """With fail_open it has to have a key."""
        if not request.get("on_expiry"):
            raise EarmarkError(
                "invalid_request",
                'is missing; a guard needs "commit" (a run that dies is charged what it reserved), "release" (it is free) or "review" '
                "(a person decides)",
                field="on_expiry",
            )
        since = time.monotonic()
        deadline = None if fail_open is None else since + fail_open.after_seconds
        reservation = await settings.reserve(cast(ReservationRequest, request), key, deadline)
        if reservation.get("replayed"):
            raise KeyInUseError(reservation["id"])
        return Run(settings, request, reservation, since, None if fail_open is None else key)

    async def _resume(self) -> Run:
        """A run that takes over what this one has left. The first extension of the lease is due now."""
        since = time.monotonic() - extend_after(self.ttl_seconds)
        return Run(self._settings, self._request, self.reservation, since, self._late_key)

    def _end(self, error: BaseException | None) -> Future[Settled]:
        """Settles by the meter and by how the guarded code ended: once, and whether anybody waits or not."""
        with self._lock:
            if self._settling is None:
                self._settling = engine.submit(self._settle(self._change(error)), owed=True)
            return self._settling

    def _is_ours(self) -> bool:
        """Whether this process began the run. A forked child leaves it to its parent."""
        return self._process == os.getpid()

    def _change(self, error: BaseException | None) -> Change | None:
        estimated = {"estimated": True} if self.meter.estimated else {}
        if self.meter._response is not None:
            return Change("commit", {**self.meter._response, **estimated})
        usage, nothing_sent = self.meter._report(self.reservation["amounts"])
        unsent = nothing_sent or _is_nothing_sent(error)
        if usage is not None and (any(usage.values()) or (error is None and not unsent)):
            return Change("commit", {"usage": usage, **estimated})
        return Change("release", {"reason": _NOTHING_SENT_REASON}) if unsent else None

    async def _settle(self, change: Change | None) -> Settled:
        """It never releases if a commit may have succeeded, and never guesses."""
        self._over.set()
        self._lease.cancel()
        await asyncio.wait([self._lease])
        id, on_expiry = self.reservation["id"], self.reservation["on_expiry"]
        if change is None:
            self.left = True
            raise await self._report(UnsettledError(id, None, None, on_expiry))
        call = settlement(id, change.verb, change.body)
        call.attempts = float("inf")
        call.limit_seconds = _SETTLE_ATTEMPT_LIMIT_SECONDS
        call.deadline = time.monotonic() + self._settings.settle_limit_seconds
        call.past_foreign = True
        try:
            self.settled = settled_of(await self._settings.transport.exchange(call))
            return self.settled
        except Exception as error:
            cause = error if isinstance(error, EarmarkError) else EarmarkError("internal", f"{type(error).__name__}: {error}")
            # A refused commit changes the policy to review.
            if cause.reservation is not None:
                on_expiry = cause.reservation.get("on_expiry", on_expiry)
            unsettled = UnsettledError(id, change.verb, change.body.get("usage"), on_expiry, cause, self.meter._response)
            if self._late_key is not None and not unsettled.refused:
                usage = cast(CommitRequest, change.body) if change.verb == "commit" else None
                self._settings.late._add(LateCharge(self._late_key, cast(ReservationRequest, self._request), usage, id))
        raise await self._report(unsettled)

    async def _report(self, unsettled: UnsettledError) -> UnsettledError:
        self._settings.log.error("reservation not settled: %s", unsettled)
        try:  # not on the engine's thread: it may block, or call Earmark
            await asyncio.get_running_loop().run_in_executor(None, self._settings.on_unsettled, unsettled)
        except Exception:
            self._settings.log.exception("reservation %s: on_unsettled failed", unsettled.reservation_id)
        return unsettled


async def admit_or_open(settings: GuardSettings, request: GuardRequest, fail_open: FailOpen | None) -> Run | OpenRun:
    """Admits a run, or with fail_open lets it run without a reservation while Earmark is away."""
    if fail_open is None:
        return await Run._admit(settings, request, None)
    key = str(uuid.uuid4())
    try:
        return await Run._admit(settings, request, key, fail_open)
    except EarmarkError as error:
        if not is_earmark_away(error) or settings.late.pending >= fail_open.max_pending:
            raise
        return OpenRun(settings.late, key, cast(ReservationRequest, request))


class Dropped(Exception):
    """Stands for the error of guarded code that nobody waits for any more."""


def leave(admission: Future[Run]) -> None:
    """Nobody waits for an admission any more: nothing was sent, and the reservation is released."""

    def settle(done: Future[Run]) -> None:
        if not done.cancelled() and done.exception() is None:
            done.result()._end(NothingSentError())  # what is not settled was reported

    admission.add_done_callback(settle)
    engine.owe(admission)


def _is_nothing_sent(error: BaseException | None) -> bool:
    return error is not None and (isinstance(error, NothingSentError) or _is_nothing_sent(error.__cause__))


def settlement(id: str, verb: str, body: object) -> Call:
    """A commit or a release."""
    return Call("POST", f"/v1/reservations/{quote(id, safe='')}/{verb}", body=body, repeat=True)


def settled_of(answer: Answer) -> Settled:
    if answer.status == 202:
        return Settled(True, None)
    return Settled(False, cast(Reservation, answer.value))


# What opens the source of a guarded stream.
Open = Callable[[Run], Iterable[T]]
AsyncOpen = Callable[[Run], Union[AsyncIterable[T], Awaitable[AsyncIterable[T]]]]
