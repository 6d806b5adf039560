import operator
import threading
from collections.abc import Mapping

# The largest amount: Earmark would refuse a larger one, and the usage would be lost.
MAX_AMOUNT = 2**63 - 1


class Meter:
    """Counts the usage of a run, from any thread. What is counted after the run has ended is not charged."""

    def __init__(self) -> None:
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
