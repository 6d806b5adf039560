from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from urllib.parse import quote

from ._errors import EarmarkError
from ._transport import Call, Transport

# When a lease is extended, in parts of its length. A third of the lease is left at that point, enough for several attempts. Retry-After
# is ignored: it is at least a second, which may be the whole lease.
_SHORTEST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 5.0
_SHORTEST_LIMIT_SECONDS = 1.0  # of one attempt
_LONGEST_LIMIT_SECONDS = 10.0


def extend_after(ttl: float) -> float:
    return ttl * 2 / 3


def _pause_of(ttl: float) -> float:
    return min(max(ttl / 15, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS) * (1 - random.random() / 4)


def _limit_of(ttl: float) -> float:
    return min(max(ttl / 6, _SHORTEST_LIMIT_SECONDS), _LONGEST_LIMIT_SECONDS)


async def keep_lease(
    transport: Transport, log: logging.Logger, id: str, ttl_seconds: int, since: float, is_over: Callable[[], bool]
) -> None:
    """Extends a lease until it is cancelled. since is the moment of time.monotonic() before the first call was sent; the client never
    compares its clock with the server's. Extending goes on after the end of the lease while Earmark is away, because the state decides
    there, not the clock. is_over says that the run has ended: before Python 3.12 a time limit may lose a cancellation."""
    failing = False
    pause = since + extend_after(ttl_seconds) - time.monotonic()
    while True:
        await asyncio.sleep(max(0.0, pause))
        asked = time.monotonic()
        try:
            await transport.exchange(
                Call(
                    "POST",
                    f"/v1/reservations/{quote(id, safe='')}/extend",
                    body={"ttl_seconds": ttl_seconds},
                    repeat=False,
                    limit_seconds=_limit_of(ttl_seconds),
                )
            )
            failing = False
            pause = asked + extend_after(ttl_seconds) - time.monotonic()
        except EarmarkError as error:
            if is_over():
                return
            if error.code in ("already_settled", "reservation_expired"):
                log.warning("reservation %s: the lease is over while the work runs; its commit will be late: %s", id, error)
                return  # nothing is left to extend, and the work's money may be spent
            if not failing:
                log.warning("reservation %s: the lease was not extended; trying again: %s", id, error)
            failing = True
            pause = _pause_of(ttl_seconds)
        if is_over():
            return
