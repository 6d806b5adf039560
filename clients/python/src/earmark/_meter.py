from __future__ import annotations

import operator
import threading
from collections.abc import Mapping
from typing import Any, TypedDict

from ._types import ProviderUsage

# The largest amount: Earmark would refuse a larger one, and the usage would be lost.
MAX_AMOUNT = 2**63 - 1


class ProviderResponse(TypedDict, total=False):
    """What a provider said was used, with what Earmark cannot read from the object."""

    provider_usage: ProviderUsage
    usage_format: str
    model: str
    provider: str
    #: In the form of RFC 3339.
    responded_at: str


class Meter:
    """Counts the usage of a run, from any thread. What is counted after the run has ended is not charged."""

    #: The count is an estimate, as of a stream that broke: the first commit without `estimated` corrects it.
    estimated: bool

    def __init__(self) -> None:
        self.estimated = False
        self._response: ProviderResponse | None = None
        self._lock = threading.Lock()
        self._used: dict[str, int] | None = None
        self._nothing_sent = False

    def add(self, amounts: Mapping[str, int]) -> None:
        """Adds amounts, such as the tokens of one chunk. It raises a TypeError where one is not a whole number."""
        counted = {unit: operator.index(amount) for unit, amount in amounts.items()}
        with self._lock:
            used = self._used = self._used or {}
            for unit, amount in counted.items():
                used[unit] = min(used.get(unit, 0) + amount, MAX_AMOUNT)

    def set(self, amounts: Mapping[str, int]) -> None:
        """Replaces the count of each unit that it names, such as by the model's own totals. It raises a TypeError where one is not
        a whole number."""
        counted = {unit: min(operator.index(amount), MAX_AMOUNT) for unit, amount in amounts.items()}
        with self._lock:
            self._used = {**(self._used or {}), **counted}

    def set_provider_usage(
        self,
        usage: Mapping[str, Any],
        *,
        usage_format: str | None = None,
        model: str | None = None,
        provider: str | None = None,
        responded_at: str | None = None,
    ) -> None:
        """Charges what the usage object of a provider says, at the prices of the reservation's estimate, in place of the count. Earmark
        refuses an object that it cannot read or price; the reservation is then not settled."""
        response: ProviderResponse = {"provider_usage": dict(usage)}
        if usage_format is not None:
            response["usage_format"] = usage_format
        if model is not None:
            response["model"] = model
        if provider is not None:
            response["provider"] = provider
        if responded_at is not None:
            response["responded_at"] = responded_at
        self._response = response

    def nothing_sent(self) -> None:
        """Says that no request was sent, so that nothing can have been spent. Counted usage takes precedence."""
        self._nothing_sent = True

    @property
    def usage(self) -> dict[str, int] | None:
        """The count so far; None if nothing was counted, not even a zero."""
        with self._lock:
            return None if self._used is None else dict(self._used)

    def _report(self, reserved: Mapping[str, int]) -> tuple[dict[str, int] | None, bool]:
        """The usage that settles a run, in which a reserved unit that was not counted is zero; and whether nothing was sent."""
        used = self.usage
        return None if used is None else {**dict.fromkeys(reserved, 0), **used}, self._nothing_sent
