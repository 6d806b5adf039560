"""Runs the examples, which the pages show."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
from collections.abc import AsyncIterator
from datetime import datetime, timezone, tzinfo
from pathlib import Path
from typing import Any

import guard
import httpx
import pytest
import standardwebhooks
import standardwebhooks.webhooks
import stream
import webhook
from fake import FakeEarmark, problem
from provider import TEXT, TOTAL, FakeProvider

from earmark import AsyncEarmark, Earmark

PACKAGE = Path(__file__).parents[1]


def test_the_examples_guard_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def model(prompt: str) -> guard.Reply:
        return guard.Reply(f"to {prompt}", 40)

    fake = FakeEarmark()
    monkeypatch.setattr(guard, "earmark", Earmark("http://earmark.test", "", transport=httpx.MockTransport(fake)))
    assert guard.chat("a@b.com", "hi", model) == "to hi"
    assert fake.bodies[0]["scopes"] == ["acme/ml/x--a_40b.com"]
    assert fake.calls[-1] == ("commit", {"tokens": 40})
    fake.instead["reservations"] = problem(402, "budget_exceeded")
    assert guard.chat("a@b.com", "hi", model) == "Your budget is used up."


def test_the_examples_guard_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    async def model(prompt: str) -> AsyncIterator[stream.Chunk]:
        yield stream.Chunk("a")
        yield stream.Chunk("b", 77)

    fake = FakeEarmark()
    monkeypatch.setattr(stream, "earmark", AsyncEarmark("http://earmark.test", "", transport=httpx.MockTransport(fake)))

    async def read() -> None:
        assert [text async for text in stream.stream("hi", model)] == ["a", "b"]
        async with stream.stream("hi", model) as chunks:
            async for _ in chunks:
                break

    asyncio.run(read())
    assert [usage for verb, usage in fake.calls if verb == "commit"] == [{"tokens": 77}, {"tokens": 3}]


def test_the_examples_guard_a_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeProvider().serve() as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{provider.url}/v1")
        fake = FakeEarmark()
        openai_chat: Any = importlib.import_module("openai_chat")
        guarded = openai_chat.client._client._transport._guarded
        monkeypatch.setattr(guarded, "_settings", fake.client()._guards)
        assert openai_chat.answer("Count.") == TEXT
        assert (fake.bodies[0]["scopes"], fake.bodies[1]["provider_usage"]["total_tokens"]) == (["acme/ml"], TOTAL)
        fake.instead["reservations"] = problem(402, "budget_exceeded", violations=[])
        assert openai_chat.answer("Count.") == "Your budget is used up."


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # clients of other tests
def test_the_examples_guard_a_route(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi", reason="make test-clients installs it")
    with FakeProvider().serve() as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{provider.url}/v1")
        fake = FakeEarmark()
        example: Any = importlib.import_module("fastapi_chat")
        monkeypatch.setattr(example, "earmark", fake.client())

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(example.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://app.test") as caller:
                return await caller.post("/users/a@b.com/chat", json={"prompt": "Count."})

        async def twice() -> None:
            answer = await ask()
            assert (answer.status_code, answer.text) == (200, TEXT)
            assert fake.bodies[0]["scopes"] == ["acme/x--a_40b.com"]
            assert fake.bodies[1]["provider_usage"]["total_tokens"] == TOTAL
            fake.instead["reservations"] = problem(402, "budget_exceeded", violations=[])
            denied = await ask()
            assert (denied.status_code, denied.json()["error"]) == (402, "Your budget is used up.")
            await example.provider.close()

        asyncio.run(twice())


def test_a_delivery_passes_the_check_of_standard_webhooks(monkeypatch: pytest.MonkeyPatch) -> None:
    delivery = json.loads((PACKAGE / "../../internal/webhook/testdata/delivery.json").read_text())
    at = datetime.fromtimestamp(int(delivery["headers"]["webhook-timestamp"]), tz=timezone.utc)

    class Then(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return at

    monkeypatch.setattr(standardwebhooks.webhooks, "datetime", Then)
    event = webhook.received(delivery["body"].encode(), delivery["headers"], delivery["secret"])
    assert (event["id"], event["type"]) == (delivery["headers"]["webhook-id"], "budget.exhausted")
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        webhook.received(delivery["body"].encode() + b" ", delivery["headers"], delivery["secret"])


def test_the_pages_show_the_examples() -> None:
    examples = [path.read_text() for path in [*(PACKAGE / "examples").glob("*.py"), PACKAGE / "../../examples/litellm-proxy/earmark_callbacks.py"]]
    for page in ["README.md", "../../README.md", "../../docs/python.md", "../../docs/integrations.md", "../../docs/events.md"]:
        blocks = re.findall(r"\n```python\n(.*?\n)```\n", (PACKAGE / page).read_text(), re.DOTALL)
        assert blocks
        for block in blocks:
            assert any(block in example for example in examples), f"{page} has code that is in no example:\n{block}"
