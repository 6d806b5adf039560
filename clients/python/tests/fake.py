"""An Earmark without a network."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any

import httpx

LIMIT_SECONDS = 20
QUIET = logging.Logger("quiet", logging.CRITICAL + 1)


class FakeEarmark:
    """Answers every call with success, but those with an answer in `instead`, and keeps how reservations are settled."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.bodies: list[Any] = []
        self.keys: list[str | None] = []
        self.settled = threading.Event()
        self.instead: dict[str, httpx.Response] = {}

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        verb = request.url.path.rsplit("/", 1)[1]
        body = json.loads(request.content or b"{}")
        self.keys.append(request.headers.get("Authorization"))
        self.bodies.append(body)
        self.calls.append((verb, body.get("usage")))
        if verb in ("commit", "release"):
            self.settled.set()
        if verb in self.instead:
            return self.instead[verb]
        state = {"commit": "committed", "release": "released"}.get(verb, "held")
        return httpx.Response(200, json={"id": "rsv_1", "state": state, "amounts": {"tokens": 100}, "on_expiry": "commit"})

    def settlement(self) -> Any:
        assert self.settled.wait(LIMIT_SECONDS), self.calls
        assert [verb for verb, _ in self.calls] == ["reservations", self.calls[-1][0]]
        return self.calls[-1]


def problem(status: int, code: str, **more: object) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "detail": f"it is {code}", **more})
