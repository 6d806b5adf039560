"""Runs the cases of test/conformance, on both clients. With EARMARK_CONFORMANCE_URL, their server runs already, such as beside a real
Earmark."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from earmark import AsyncEarmark, DeniedError, Earmark, EarmarkError, KeyInUseError, Meter, NothingSentError, Settled, UnsettledError

HTTP = httpx.Client(timeout=60)
QUIET = logging.Logger("quiet", logging.CRITICAL + 1)
ROOT = Path(__file__).parents[3]

Result = dict[str, Any]


@pytest.fixture(scope="session")
def base() -> Iterator[str]:
    running = os.environ.get("EARMARK_CONFORMANCE_URL")
    if running:
        yield running
        return
    with subprocess.Popen(
        ["go", "run", "-C", str(ROOT / "test"), "./conformance/server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        yield server.stdout.readline().strip()
        server.stdin.close()


def control(base: str, path: str, body: object = None) -> Any:
    response = HTTP.request("GET" if body is None else "POST", base + path, json=body)
    assert response.status_code < 300, f"{path}: {response.text}"
    return response.json()


@pytest.mark.parametrize("kind", [Earmark, AsyncEarmark])
def test_cases(base: str, kind: type[Earmark | AsyncEarmark]) -> None:
    cases = control(base, "/control/cases")["cases"]
    assert len(cases) > 40
    with ThreadPoolExecutor(8) as threads:
        failures = dict(zip(cases, threads.map(lambda name: run_case(base, name, kind), cases)))
    assert {name: wrong for name, wrong in failures.items() if wrong} == {}


def run_case(base: str, name: str, kind: type[Earmark | AsyncEarmark]) -> list[str]:
    session = control(base, "/control/sessions", {"case": name})
    results = Runner(session, kind).run(session["steps"]) if kind is Earmark else asyncio.run(AsyncRunner(session, kind).run(session["steps"]))
    return list(control(base, f"/control/sessions/{session['id']}/finish", {"results": results})["failures"])


class CallerLeft(BaseException):
    """What ends synchronous code from outside, such as KeyboardInterrupt."""


class Base:
    def __init__(self, session: Any, kind: Any) -> None:
        options = session["client"]
        self.last_id = ""
        self.last_budget = ""
        self.earmark = kind(
            session["url"],
            options.get("api_key", ""),
            max_attempts=options.get("max_attempts", 4),
            settle_limit_seconds=options.get("settle_limit_ms", 30_000) / 1_000,
            logger=QUIET,
        )

    def call(self, step: Any) -> Any:
        """The answer, or what has to be awaited for it."""
        request, id = step.get("request"), step.get("id", "")
        if id == "$id":
            id = self.last_id
        budget = step.get("budget", "")
        if budget == "$budget":
            budget = self.last_budget
        match step["op"]:
            case "reserve":
                return self.earmark.reserve(request, key=step.get("key"))
            case "decide":
                return self.earmark.decide(request)
            case "charge":
                return self.earmark.charge_usage(request, key=step.get("key", ""))
            case "commit":
                return self.earmark.commit_reservation(id, {"usage": request})
            case "commit_response":
                return self.earmark.commit_reservation(id, request)
            case "commit_estimate":
                return self.earmark.commit_reservation(id, {"usage": request, "estimated": True})
            case "release":
                return self.earmark.release_reservation(id)
            case "correct":
                return self.earmark.correct_reservation(id, request, key=step.get("key", ""))
            case "extend":
                return self.earmark.extend_reservation(id, request)
            case "reservation":
                return self.earmark.get_reservation(id)
            case "reservations":
                return self.earmark.list_reservations(**(request or {}))
            case "budgets":
                return self.earmark.list_budgets(**(request or {}))
            case "entries":
                return self.earmark.list_entries(**(request or {}))
            case "prices":
                return self.earmark.list_prices(**(request or {}))
            case "add_prices":
                return self.earmark.add_prices(request)
            case "explain_price":
                return self.earmark.explain_price(request)
            case "create_budget":
                return self.earmark.create_budget(request)
            case "patch_budget":
                return self.earmark.patch_budget(id, request)
            case "create_grant":
                return self.earmark.create_grant(budget, request, key=step.get("key", ""))
            case "grants":
                return self.earmark.list_grants(budget, **(request or {}))
            case "void_grant":
                return self.earmark.void_grant(budget, id, request)
            case "create_key":
                return self.earmark.create_key(request)
            case "rotate_key":
                return self.earmark.rotate_key(id, request)
            case "create_webhook":
                return self.earmark.create_webhook(request)
            case "webhooks":
                return self.earmark.list_webhooks(**(request or {}))
            case "webhook":
                return self.earmark.get_webhook(id)
            case "patch_webhook":
                return self.earmark.patch_webhook(id, request)
            case "delete_webhook":
                return self.earmark.delete_webhook(id)
            case "rotate_webhook_secret":
                return self.earmark.rotate_webhook_secret(id)
            case "test_webhook":
                return self.earmark.test_webhook(id)
            case "deliveries":
                return self.earmark.list_deliveries(id, **(request or {}))
            case "replay_webhook":
                return self.earmark.replay_webhook(id, request)
        raise AssertionError(f"there is no operation {step['op']}")

    def result(self, op: str, value: Any) -> Result:
        if isinstance(value, Settled):
            return settled_result(value)
        if op == "create_budget":
            self.last_budget = value["id"]
        else:
            self.last_id = value.get("id", self.last_id)
        return {"value": value}


class Runner(Base):
    def run(self, steps: list[Any]) -> list[Result]:
        with self.earmark:
            return [self.guard(step) if step["op"] == "guard" else self.step(step) for step in steps]

    def step(self, step: Any) -> Result:
        try:
            return self.result(step["op"], self.call(step))
        except Exception as error:
            return {"error": failure(error)}

    def guard(self, step: Any) -> Result:
        work = step.get("work", {})
        ending = Ending(work)
        run = None
        try:
            with self.earmark.guard(step["request"], key=step.get("key")) as run:
                time.sleep(work.get("takes_ms", 0) / 1_000)
                count(work, run.meter)
                ending.reached(CallerLeft() if work.get("caller_leaves") else None)
        except BaseException as error:
            return ending.result(error, run is not None)
        return {**settled_result(run.settled), "worked": 1}


class AsyncRunner(Base):
    async def run(self, steps: list[Any]) -> list[Result]:
        async with self.earmark:
            return [await self.guard(step) if step["op"] == "guard" else await self.step(step) for step in steps]

    async def step(self, step: Any) -> Result:
        try:
            return self.result(step["op"], await self.call(step))
        except Exception as error:
            return {"error": failure(error)}

    async def guard(self, step: Any) -> Result:
        work = step.get("work", {})
        ending = Ending(work)
        run = None

        async def guarded() -> Result:
            nonlocal run
            async with self.earmark.guard(step["request"], key=step.get("key")) as run:
                await asyncio.sleep(work.get("takes_ms", 0) / 1_000)
                count(work, run.meter)
                left = None
                if work.get("caller_leaves"):
                    task.cancel()
                    try:
                        await asyncio.sleep(0)
                    except asyncio.CancelledError as error:
                        left = error
                ending.reached(left)
            return {**settled_result(run.settled), "worked": 1}

        task = asyncio.ensure_future(guarded())
        try:
            return await task
        except BaseException as error:
            return ending.result(error, run is not None)


class Ending:
    """How the guarded code of a step ends."""

    def __init__(self, work: Any) -> None:
        self.work = work
        self.thrown: BaseException | None = None
        self.left: BaseException | None = None

    def reached(self, left: BaseException | None) -> None:
        self.left = left
        fails = self.work.get("fails")
        error = left or (RuntimeError(fails) if fails else None)
        self.thrown = NothingSentError(error) if self.work.get("nothing_sent") else error
        if self.thrown is not None:
            raise self.thrown

    def result(self, error: BaseException, worked: bool) -> Result:
        result: Result = {"worked": int(worked)}
        if not worked:
            result["error"] = failure(error)
        elif self.left is not None:
            # asyncio raises a new CancelledError, made of the first
            result["caller_left"] = error is self.thrown or isinstance(error, asyncio.CancelledError)
        elif error is self.thrown:
            result["work_error"] = str(error)
        unsettled = UnsettledError.of(error)
        if unsettled is not None:
            result["unsettled"] = unsettled_result(unsettled)
        return result


def count(work: Any, meter: Meter) -> None:
    for step in work.get("meter", []):
        if "add" in step:
            meter.add(step["add"])
        if "set" in step:
            meter.set(step["set"])


def unsettled_result(unsettled: UnsettledError) -> Result:
    return {
        "reservation_id": unsettled.reservation_id,
        "verb": unsettled.verb,
        "usage": unsettled.usage,
        "on_expiry": unsettled.on_expiry,
        "refused": unsettled.refused,
        "code": unsettled.cause and unsettled.cause.code,
        "usage_unknown": unsettled.usage_unknown,
        "message": str(unsettled),
    }


def settled_result(settled: Settled | None) -> Result:
    assert settled is not None
    return {"accepted": settled.accepted, "value": settled.reservation}


def failure(error: BaseException) -> Result:
    if isinstance(error, KeyInUseError):
        return {"kind": "key_in_use", "message": str(error)}
    if not isinstance(error, EarmarkError):
        return {"kind": "other", "message": repr(error)}
    return {
        "kind": "earmark",
        "message": str(error),
        "denied": isinstance(error, DeniedError),
        "code": error.code,
        "field": error.field,
        "violations": error.violations,
        "retryable": error.retryable,
        "retry_at": error.retry_at and error.retry_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "retry_after_seconds": error.retry_after_seconds,
        "reservation": error.reservation,
        "reservation_id": error.reservation_id,
    }
