"""Runs the cases of test/conformance for guarded transports, on both of them."""

from __future__ import annotations

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from test_conformance import QUIET, Result, base, control, unsettled_result

from earmark import AsyncGuardedTransport, Earmark, GuardedTransport, UnsettledError

__all__ = ["base"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_transport_cases(base: str, asynchronous: bool) -> None:
    cases = control(base, "/control/cases")["transport_cases"]
    assert len(cases) > 40
    with ThreadPoolExecutor(8) as threads:
        failures = dict(zip(cases, threads.map(lambda name: run_case(base, name, asynchronous), cases)))
    assert {name: wrong for name, wrong in failures.items() if wrong} == {}


def run_case(base: str, name: str, asynchronous: bool) -> list[str]:
    session = control(base, "/control/sessions", {"case": name})
    calls = [step["call"] for step in session["steps"]]
    results = asyncio.run(async_results(session, calls)) if asynchronous else sync_results(session, calls)
    return list(control(base, f"/control/sessions/{session['id']}/finish", {"results": results})["failures"])


def options_of(session: Any, unsettled: list[UnsettledError]) -> Any:
    attempts = session["client"].get("max_attempts", 1)
    earmark = Earmark(session["url"], max_attempts=attempts, logger=QUIET, on_unsettled=unsettled.append)
    return {**session["transport"], "earmark": earmark}


def sync_results(session: Any, calls: list[Any]) -> list[Result]:
    unsettled: list[UnsettledError] = []
    results = []
    with httpx.Client(transport=GuardedTransport(**options_of(session, unsettled)), timeout=60) as client:
        for call in calls:
            answer = Answer(call)
            try:
                with client.stream(**request_of(session, call)) as response:
                    answer.begins(response)
                    for text in response.iter_text():
                        if answer.reads(text):
                            break  # synchronous code has nothing to abort with
            except httpx.TransportError:
                answer.broke = True
            results.append(answer.result(unsettled))
    return results


async def async_results(session: Any, calls: list[Any]) -> list[Result]:
    unsettled: list[UnsettledError] = []
    results = []
    async with httpx.AsyncClient(transport=AsyncGuardedTransport(**options_of(session, unsettled)), timeout=60) as client:
        for call in calls:
            answer = Answer(call)

            async def send(call: Any = call, answer: Answer = answer) -> None:
                async with client.stream(**request_of(session, call)) as response:
                    answer.begins(response)
                    async for text in response.aiter_text():
                        if answer.reads(text):
                            if call["leaves"] == "close":
                                break
                            task.cancel()

            task = asyncio.ensure_future(send())
            try:
                await task
            except httpx.TransportError:
                answer.broke = True
            except asyncio.CancelledError:
                assert answer.left
            results.append(answer.result(unsettled))
    return results


def request_of(session: Any, call: Any) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", **call.get("headers", {})}
    url = session["provider_url"] + call["path"]
    return {"method": call.get("method", "POST"), "url": url, "content": call.get("text", ""), "headers": headers}


class Answer:
    """The answer of a provider, as far as its caller has read it."""

    def __init__(self, call: Any) -> None:
        self.leaves_after = call.get("leaves_after")
        self.head: Result | None = None
        self.text = ""
        self.left = False
        self.broke = False

    def begins(self, response: httpx.Response) -> None:
        names = {"should_retry": "x-should-retry", "retry_after": "retry-after"}
        self.head = {"status": response.status_code, **{name: response.headers.get(header) for name, header in names.items()}}

    def reads(self, text: str) -> bool:
        """Whether the caller leaves now."""
        self.text += text
        events = re.sub("\r\n?", "\n", self.text).count("\n\n")
        self.left = self.leaves_after is not None and events >= self.leaves_after
        return self.left

    def result(self, unsettled: list[UnsettledError]) -> Result:
        result: Result = {"failed": True}
        if self.head is not None:
            result = {**self.head, "text": self.text, "caller_left": self.left, "broke": self.broke}
        try:
            result["body"] = json.loads(self.text)
        except ValueError:
            pass
        if unsettled:
            result["unsettled"] = unsettled_result(unsettled.pop())
        return result
