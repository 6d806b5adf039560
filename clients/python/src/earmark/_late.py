"""Calls that run while Earmark is away, and the charges that they owe."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, cast

from ._engine import engine, wait_async
from ._errors import EarmarkError
from ._meter import Meter
from ._types import CommitRequest, Reservation, ReservationRequest, UsageRequest

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0


@dataclass(frozen=True)
class FailOpen:
    """How calls run while Earmark is away."""

    #: How long a call waits for its admission.
    after_seconds: float = 5.0
    #: With so many charges waiting, the next call fails closed, so that no charge has to be dropped.
    max_pending: int = 10_000

    def __post_init__(self) -> None:
        if not self.after_seconds > 0:
            raise EarmarkError("invalid_request", "is not above 0", field="fail_open.after_seconds")
        if self.max_pending < 1:
            raise EarmarkError("invalid_request", "is not a whole number from 1 on", field="fail_open.max_pending")


def fail_open_of(option: bool | FailOpen) -> FailOpen | None:
    if option is True:
        return FailOpen()
    return option or None


@dataclass(frozen=True)
class LateCharge:
    """What a call owes: a charge by the key of its admission, or the settlement of a reservation that is there."""

    key: str
    #: The admission that had no answer.
    request: ReservationRequest
    #: What was used. None: nothing was spent, and a reservation that the admission may have left is released.
    usage: CommitRequest | None
    reservation_id: str | None = None


@dataclass(frozen=True)
class LostCharge:
    """A charge that Earmark did not take."""

    key: str
    #: The admission that had no answer.
    request: ReservationRequest
    #: What was used; None if nobody knows.
    usage: CommitRequest | None
    error: Exception


@dataclass
class LateCalls:
    """The calls that LateCharges makes."""

    charge_usage: Callable[[UsageRequest, str], Awaitable[object]]
    reserve: Callable[[ReservationRequest, str], Awaitable[Reservation]]
    commit: Callable[[str, CommitRequest], Awaitable[object]]
    release: Callable[[str], Awaitable[object]]


class LateCharges:
    """The charges of calls that failed open: they are sent once Earmark is back, one after another, and kept in memory until then. A
    process that ends waits up to 30 seconds for them, and loses what is left."""

    def __init__(self, calls: LateCalls, log: logging.Logger, on_lost: Callable[[LostCharge], object]) -> None:
        self._calls = calls
        self._log = log
        self._on_lost = on_lost
        self._lock = threading.RLock()  # as in Engine
        self._hurry: asyncio.Event | None = None
        self._charged = 0
        self._lost = 0
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._waiting: deque[LateCharge] = deque()
        self._open = 0
        self._sending: Future[None] | None = None

    def _mine(self) -> Any:
        """The lock. A forked child leaves the charges to its parent."""
        if self._process != os.getpid():
            self._lock = threading.RLock()
            self._forget()
        return self._lock

    @property
    def pending(self) -> int:
        """Calls that run without a reservation, and charges that wait for Earmark."""
        with self._mine():
            return self._open + len(self._waiting)

    @property
    def charged(self) -> int:
        """What Earmark has taken: charges, and releases of calls that were free."""
        return self._charged

    @property
    def lost(self) -> int:
        """Charges that Earmark refused, or whose usage nobody knows. Each was logged, and passed to `on_lost`."""
        return self._lost

    def flush(self, timeout_seconds: float | None = None) -> None:
        """Tries again at once, and waits until no charge waits. It raises a TimeoutError when the time is over."""
        with self._mine():
            sending = self._sending
        if sending is None:
            return
        engine.submit(self._wake())
        try:
            sending.result(timeout_seconds)
        except FutureTimeoutError:  # another class before Python 3.11
            raise TimeoutError(f"{self.pending} charges wait for Earmark") from None

    async def flush_async(self) -> None:
        """The same for asynchronous code, which sets a time limit of its own."""
        with self._mine():
            sending = self._sending
        if sending is not None:
            engine.submit(self._wake())
            await wait_async(sending)

    async def _wake(self) -> None:
        if self._hurry is not None:
            self._hurry.set()

    def _begin(self) -> None:
        with self._mine():
            if self.pending == 0:
                self._log.warning("Earmark is away; calls run without a reservation, and are charged later")
            self._open += 1

    def _finish(self) -> None:
        with self._mine():
            self._open -= 1

    def _add(self, charge: LateCharge) -> None:
        with self._mine():
            self._waiting.append(charge)
            if self._sending is None:
                self._sending = engine.submit(self._send(), owed=True)

    async def _lose(self, charge: LateCharge, error: Exception) -> None:
        with self._mine():
            self._lost += 1
        self._log.error("a late charge is lost: key %s, scopes %s, usage %s: %s", charge.key, charge.request["scopes"], charge.usage, error)
        try:
            lost = LostCharge(charge.key, charge.request, charge.usage, error)
            await asyncio.get_running_loop().run_in_executor(None, self._on_lost, lost)
        except Exception:
            self._log.exception("key %s: on_lost failed", charge.key)

    async def _send(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            with self._mine():
                if not self._waiting:
                    self._sending = None
                    return
                charge = self._waiting[0]
            try:
                await self._settle(charge)
                self._charged += 1
            except Exception as error:
                if is_earmark_away(error) or (isinstance(error, EarmarkError) and (error.code == "rate_limited" or error.foreign)):
                    await self._pause(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                    continue
                await self._lose(charge, error)
            pause = _FIRST_PAUSE_SECONDS
            with self._mine():
                self._waiting.popleft()

    async def _pause(self, seconds: float) -> None:
        self._hurry = asyncio.Event()
        try:
            await asyncio.wait_for(self._hurry.wait(), seconds)
        except asyncio.TimeoutError:
            pass

    async def _settle(self, charge: LateCharge) -> None:
        calls, usage = self._calls, charge.usage
        if charge.reservation_id is not None:
            await (calls.release(charge.reservation_id) if usage is None else calls.commit(charge.reservation_id, usage))
        elif usage is None:
            await self._release(charge)
        else:
            try:
                await calls.charge_usage(_usage_request_of(charge.request, usage), charge.key)
            except EarmarkError as error:
                if error.code != "idempotency_mismatch":
                    raise
                # The admission, whose answer was lost, has made a reservation under this key. Where it expired meanwhile, the commit is
                # late.
                await calls.commit(await self._id_of(charge), usage)

    async def _id_of(self, charge: LateCharge) -> str:
        """A repeated admission finds the first one's reservation, or makes it."""
        try:
            return (await self._calls.reserve(charge.request, charge.key))["id"]
        except EarmarkError as error:
            id = error.reservation["id"] if error.reservation is not None else error.reservation_id
            if id is None:
                raise
            return id

    async def _release(self, charge: LateCharge) -> None:
        try:
            reservation = await self._calls.reserve(charge.request, charge.key)
            await self._calls.release(reservation["id"])
        except EarmarkError as error:
            if is_earmark_away(error):
                raise
            # denied or settled: nothing is held


def is_earmark_away(error: BaseException) -> bool:
    """Whether Earmark could not decide, which is no denial."""
    return isinstance(error, EarmarkError) and error.code in ("unavailable", "admission_unknown", "internal")


class OpenRun:
    """A call that runs without a reservation, because Earmark is away. Its usage is charged once Earmark is back."""

    #: No reservation is left.
    left = False

    def __init__(self, late: LateCharges, key: str, request: ReservationRequest) -> None:
        self.meter = Meter()
        self._late = late
        self._charge = LateCharge(key, request, None)
        self._lock = threading.RLock()  # as in Engine
        self._ending: Future[None] | None = None
        self._process = os.getpid()
        late._begin()

    def _is_ours(self) -> bool:
        return self._process == os.getpid()

    def _end(self, error: BaseException | None) -> Future[None]:
        with self._lock:
            if self._ending is None:
                self._ending = engine.submit(self._settle(error is not None), owed=True)
            return self._ending

    async def _settle(self, failed: bool) -> None:
        usage, nothing_sent = self.meter._report({})
        response, on_expiry = self.meter._response, self._charge.request.get("on_expiry")
        charge: CommitRequest | None = None
        if response is not None:
            charge = cast(CommitRequest, {"responded_at": _now(), **response})
        elif usage is not None and (any(usage.values()) or not (failed or nothing_sent)):
            charge = {"usage": usage}
        elif not nothing_sent and on_expiry == "commit":
            charge = self._reserved()
        elif not nothing_sent and on_expiry == "review":
            self._late._finish()
            await self._late._lose(self._charge, ValueError("what was used is not known"))
            return
        if charge is not None and self.meter.estimated:
            charge["estimated"] = True
        self._late._add(replace(self._charge, usage=charge))
        self._late._finish()

    def _reserved(self) -> CommitRequest:
        """What the reservation would have held, which `on_expiry: commit` charges where the usage is not known."""
        estimate = self._charge.request.get("estimate")
        if estimate is None:
            return {"usage": self._charge.request.get("amounts", {}), "estimated": True}
        read = estimate.get("input_tokens", 0)
        written = estimate["max_output_tokens"] * estimate.get("n", 1)
        said = usage_of(read, written)
        return {"provider_usage": said, "usage_format": "openai_chat", "responded_at": _now(), "estimated": True}


def usage_of(input_tokens: int, output_tokens: int) -> dict[str, int]:
    """Counts in the form in which OpenAI has them, for Earmark to price."""
    total = input_tokens + output_tokens
    return {"prompt_tokens": input_tokens, "completion_tokens": output_tokens, "total_tokens": total}


def _usage_request_of(request: ReservationRequest, commit: CommitRequest) -> UsageRequest:
    estimate: Any = request.get("estimate") or {}
    metadata = {**request.get("metadata", {}), "late": "true", **({"estimated": "true"} if commit.get("estimated") else {})}
    if "usage" in commit:
        return cast(UsageRequest, {"scopes": request["scopes"], "amounts": commit["usage"], "metadata": metadata})
    said: Any = commit["provider_usage"]
    if estimate.get("service_tier") is not None:
        # The tier that was asked for prices the usage where the answer names none.
        said = {"service_tier": estimate["service_tier"], **said}
    body = {
        "scopes": request["scopes"],
        "provider_usage": said,
        "model": commit.get("model") or estimate.get("model"),
        "provider": commit.get("provider") or estimate.get("provider"),
        "usage_format": commit.get("usage_format"),
        "responded_at": commit.get("responded_at"),
        "metadata": metadata,
    }
    return cast(UsageRequest, {name: value for name, value in body.items() if value is not None})


def _now() -> str:
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")


