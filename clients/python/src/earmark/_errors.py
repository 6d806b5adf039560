from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from ._meter import ProviderResponse
from ._types import Checks, ErrorCode, OnExpiry, Reservation, Violation
from ._words import format_amounts


class _Error(Exception):
    """Can be pickled, as by multiprocessing or a task queue."""

    def __reduce__(self) -> tuple[Callable[..., Exception], tuple[Any, ...]]:
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[Exception], args: tuple[Any, ...], members: dict[str, Any]) -> Exception:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(members)
    return error


class EarmarkError(_Error):
    """An answer other than success, or no answer: then `code` is `unavailable`, and the call may have taken effect."""

    code: ErrorCode
    #: The wrong input, such as `amounts.tokens`.
    field: str | None
    #: The status of the HTTP answer; None without one.
    status: int | None
    #: Of a denial: each budget that the request does not fit into. It shows balances.
    violations: list[Violation]
    #: Of a denial: waiting can help, until `retry_at` at the latest.
    retryable: bool
    retry_at: datetime | None
    #: How long to wait before the same call may succeed; 0 if that is not known. After a denial it can be days.
    retry_after_seconds: float
    #: The reservation's current state, if there is one.
    reservation: Reservation | None
    reservation_id: str | None
    #: Of `ready`: the state of each dependency.
    checks: Checks | None
    #: Whether something other than Earmark wrote the answer. The outcome in Earmark is then not known.
    foreign: bool

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        field: str | None = None,
        status: int | None = None,
        violations: list[Violation] | None = None,
        retryable: bool = False,
        retry_at: datetime | None = None,
        retry_after_seconds: float = 0,
        reservation: Reservation | None = None,
        reservation_id: str | None = None,
        checks: Checks | None = None,
        foreign: bool = False,
    ) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.code = code
        self.field = field
        self.status = status
        self.violations = violations or []
        self.retryable = retryable
        self.retry_at = retry_at
        self.retry_after_seconds = retry_after_seconds
        self.reservation = reservation
        self.reservation_id = reservation_id
        self.checks = checks
        self.foreign = foreign


class DeniedError(EarmarkError):
    """The request does not fit into a budget. Its `code` is `budget_exceeded`."""


class KeyInUseError(_Error):
    """Another run with the same key holds its reservation, or held it when it died. The guarded code did not run."""

    reservation_id: str

    def __init__(self, reservation_id: str) -> None:
        super().__init__(f"reservation {reservation_id}: another run with this key holds its reservation")
        self.reservation_id = reservation_id


class NothingSentError(_Error):
    """Raise it in guarded code if you are certain that nothing was sent: the guard then releases the reservation. After a time-out
    or a broken connection that is not certain. `cause` is the error that it stands for, or a text."""

    def __init__(self, cause: BaseException | str | None = None) -> None:
        super().__init__(f"nothing was sent: {message_of(cause)}" if cause else "nothing was sent")
        if isinstance(cause, BaseException):
            self.__cause__ = cause


class UnsettledError(_Error):
    """The guarded code has run, and its reservation is not settled, or may not be. If the code failed as well, its own error comes
    out of the guard, and `UnsettledError.of` finds this one."""

    reservation_id: str
    #: What was tried; None: nothing, because the usage is not known.
    verb: Literal["commit", "release"] | None
    #: The usage to commit; None if `response` has it.
    usage: dict[str, int] | None
    #: The expiry policy as Earmark last reported it.
    on_expiry: OnExpiry
    #: Why it is not settled; None if the usage is not known.
    cause: EarmarkError | None
    #: In place of the usage: what the provider said was used.
    response: ProviderResponse | None

    def __init__(
        self,
        reservation_id: str,
        verb: Literal["commit", "release"] | None,
        usage: dict[str, int] | None,
        on_expiry: OnExpiry,
        cause: EarmarkError | None = None,
        response: ProviderResponse | None = None,
    ) -> None:
        super().__init__(_describe(reservation_id, verb, usage, on_expiry, cause))
        self.reservation_id = reservation_id
        self.verb = verb
        self.usage = usage
        self.on_expiry = on_expiry
        self.cause = cause
        self.response = response
        self.__cause__ = cause

    @property
    def usage_unknown(self) -> bool:
        """The reservation is left to its expiry policy, because the guarded code did not say what was used."""
        return self.verb is None

    @property
    def refused(self) -> bool:
        """Earmark refused the settlement: this run charged nothing, and a retry will not help. Otherwise the settlement may or may
        not have succeeded, and it is safe to send it again."""
        return _is_refusal(self.cause)

    @staticmethod
    def of(error: BaseException | None) -> UnsettledError | None:
        """The error itself, or the one that belongs to the error of guarded code; None if there is none."""
        if isinstance(error, UnsettledError):
            return error
        found = getattr(error, _ATTACHED, None)
        return found if isinstance(found, UnsettledError) else None

    def _attach_to(self, error: BaseException) -> None:
        try:
            setattr(error, _ATTACHED, self)
        except AttributeError:
            pass  # a class that fixes its members; the error was logged


_ATTACHED = "_earmark_unsettled"


def _is_refusal(cause: EarmarkError | None) -> bool:
    return cause is not None and not cause.foreign and cause.code not in ("unavailable", "rate_limited", "admission_unknown", "internal")


def _describe(id: str, verb: str | None, usage: dict[str, int] | None, on_expiry: str, cause: EarmarkError | None) -> str:
    why = "what was used is not known" if cause is None else str(cause)
    if verb is None:
        return f"reservation {id} is left to its expiry policy ({on_expiry}): {why}"
    if verb == "commit":
        used = "the provider's usage was" if usage is None else f"{format_amounts(usage)} were"
        if _is_refusal(cause):
            return f"reservation {id}: {used} not charged: {why}"
        return f"reservation {id}: it is not known whether {used} charged: {why}"
    if _is_refusal(cause):
        return f"reservation {id} was not released: {why}"
    return f"reservation {id}: it is not known whether it was released: {why}"


def message_of(error: object) -> str:
    return str(error) or type(error).__name__
