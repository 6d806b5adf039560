"""An Earmark without a network."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from earmark import Earmark, UnsettledError

LIMIT_SECONDS = 20
QUIET = logging.Logger("quiet", logging.CRITICAL + 1)


class FakeEarmark:
    """Answers every call with success, but those with an answer in `instead`, and keeps how reservations are settled."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.bodies: list[Any] = []
        self.keys: list[str | None] = []
        self.idempotency_keys: list[str | None] = []
        self.settled = threading.Event()
        self.held: dict[str, Any] = {"amounts": {"tokens": 100}}
        self.unsettled: list[UnsettledError] = []
        self.instead: dict[str, httpx.Response] = {}
        #: A real Earmark that answers.
        self.upstream = ""

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        verb = request.url.path.rsplit("/", 1)[1]
        body = json.loads(request.content or b"{}")
        self.idempotency_keys.append(request.headers.get("Idempotency-Key"))
        self.keys.append(request.headers.get("Authorization"))
        self.bodies.append(body)
        self.calls.append((verb, body.get("usage")))
        if verb in ("commit", "release"):
            self.settled.set()
        if verb in self.instead:
            answer = self.instead[verb]
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)
        if self.upstream:
            async with httpx.AsyncClient(base_url=self.upstream) as real:
                headers = {name: text for name, text in request.headers.items() if name != "host"}
                return await real.request(request.method, request.url.path, headers=headers, content=request.content)
        state = {"commit": "committed", "release": "released"}.get(verb, "held")
        if verb == "reservations":
            self.held = {"amounts": {"tokens": 100}, **body}
        return httpx.Response(200, json={"on_expiry": "commit", **self.held, "id": "rsv_1", "state": state})

    @contextmanager
    def serve(self) -> Iterator[str]:
        """A network after all, for what runs in a process of its own."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                answer = asyncio.run(fake(httpx.Request(self.command, f"http://earmark.test{self.path}", headers=dict(self.headers), content=body)))
                self.send_response(answer.status_code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            try:
                yield f"http://127.0.0.1:{server.server_port}"
            finally:
                server.shutdown()

    @property
    def verbs(self) -> list[str]:
        """Without those that keep a lease."""
        return [verb for verb, _ in self.calls if verb != "extend"]

    def forget(self) -> None:
        self.calls.clear()
        self.bodies.clear()
        self.instead.clear()

    def client(self, **options: Any) -> Earmark:
        options = {"logger": QUIET, "max_attempts": 1, "on_unsettled": self.unsettled.append, **options}
        return Earmark("http://earmark.test", "", transport=httpx.MockTransport(self), **options)

    def wait(self, calls: int) -> None:
        """Waits for calls that come after their caller has left."""
        self.eventually(lambda: len(self.calls) >= calls)

    def eventually(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.calls
            time.sleep(0.005)

    def settlement(self) -> Any:
        assert self.settled.wait(LIMIT_SECONDS), self.calls
        assert [verb for verb, _ in self.calls] == ["reservations", self.calls[-1][0]]
        return self.calls[-1]


def problem(status: int, code: str, **more: object) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "detail": f"it is {code}", **more})
