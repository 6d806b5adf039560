from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from ._guard import Run


@dataclass(frozen=True)
class LeftAttempt:
    """An attempt whose outcome nobody knows. Its reservation is left to its expiry policy."""

    run: Run
    #: The estimated input of this attempt and of those before.
    input_tokens: int
    attempts: int


class LeftAttempts:
    """The attempts that were left open. The next attempt of the same call takes the reservation over, so that the call holds once. Only
    the SDKs of OpenAI and Anthropic, and those generated like them, number their attempts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: dict[str, list[tuple[float, LeftAttempt]]] = {}

    def put(self, call: str, attempt: LeftAttempt) -> None:
        now = time.monotonic()
        with self._lock:
            for other, attempts in list(self._left.items()):
                current = self._left[other] = [entry for entry in attempts if entry[0] > now]
                if not current:
                    del self._left[other]
            self._left.setdefault(call, []).append((now + attempt.run.ttl_seconds, attempt))

    def take(self, call: str) -> LeftAttempt | None:
        """The attempt that was left last; None if there is none whose lease may run."""
        with self._lock:
            attempts = self._left.get(call)
            if not attempts:
                return None
            ends, last = attempts.pop()
            if not attempts:
                del self._left[call]
        return last if ends > time.monotonic() else None


def call_name(request: httpx.Request, scopes: Sequence[str], content: bytes) -> str:
    """Names a call with its caller, its scopes and its bytes, which are the same in each attempt."""
    keys = [request.headers.get(name) for name in ("Authorization", "X-Api-Key", "X-Goog-Api-Key")]
    return json.dumps([str(request.url), keys, list(scopes), content.decode("utf-8", "replace")])


def is_retry(request: httpx.Request) -> bool:
    """Whether an SDK says that this is not its first attempt of a call."""
    count: str = request.headers.get("X-Stainless-Retry-Count", "")
    return count.isdigit() and int(count) > 0
