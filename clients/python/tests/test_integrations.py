"""The rows of docs/integrations.md: what each package does with a guarded call."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake import FakeEarmark, problem
from provider import Behaviour, FakeProvider
from sdks import run_anthropic, run_google, run_openai

from earmark import GuardedTransport, wrap

pytestmark = pytest.mark.filterwarnings("ignore")  # of the packages
PAGE = Path(__file__).parents[3] / "docs" / "integrations.md"

Run = Callable[[str, dict[str, Any], bool], object]


def run_langchain(url: str, options: dict[str, Any], stream: bool) -> object:
    langchain_openai = pytest.importorskip("langchain_openai", reason="make test-clients installs it")
    http = httpx.Client(transport=GuardedTransport(**options))
    chat = langchain_openai.ChatOpenAI(model="gpt-5", api_key="k", base_url=f"{url}/v1", http_client=http, max_retries=1)
    return list(chat.stream("Count.")) if stream else chat.invoke("Count.")


def run_agents(url: str, options: dict[str, Any], stream: bool) -> object:
    agents = pytest.importorskip("agents", reason="make test-clients installs it")
    import openai

    agents.set_tracing_disabled(True)

    async def call() -> None:
        client = wrap(openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=1), **options)
        model = agents.OpenAIChatCompletionsModel(model="gpt-5", openai_client=client)
        agent = agents.Agent(name="a", model=model)
        if not stream:
            await agents.Runner.run(agent, "Count.")
            return
        async for _ in agents.Runner.run_streamed(agent, "Count.").stream_events():
            pass

    return asyncio.run(call())


PACKAGES: dict[str, Run] = {
    "openai": lambda url, options, stream: run_openai(url, options, stream, retries=1),
    "anthropic": lambda url, options, stream: run_anthropic(url, options, stream, retries=1),
    "google-genai": lambda url, options, stream: run_google(url, options, stream, retries=1),
    "langchain-openai": run_langchain,
    "openai-agents": run_agents,
}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_says_what_happens(package: str) -> None:
    run = PACKAGES[package]
    row = [
        f"`{package}`",
        importlib.metadata.version(package) if _is_there(package) else "",
        "1",
        heard(run, problem(402, "budget_exceeded", violations=[])),
        told(run, Behaviour(cut_after=2 if package != "anthropic" else 4), stream=True),
        told(run, Behaviour(status=500)),
        told(run, Behaviour(cut_after=0)),
        heard(run, problem(503, "unavailable")),
    ]
    assert f"| {' | '.join(row)} |" in PAGE.read_text()


def _is_there(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


def heard(run: Run, answer: httpx.Response) -> str:
    """The error that the caller gets, and how often Earmark was asked."""
    fake = FakeEarmark()
    fake.instead["reservations"] = answer
    with FakeProvider().serve() as provider:
        try:
            run(provider.url, options(fake), False)
        except Exception as error:
            assert provider.bodies == []
            times = "once" if len(fake.verbs) == 1 else f"{len(fake.verbs)} times"
            return f"`{type(error).__name__}` {getattr(error, 'status_code', None) or getattr(error, 'code', None)}, {times}"
    raise AssertionError("there was no error")


def told(run: Run, first: Behaviour, stream: bool = False) -> str:
    """What Earmark gets if the first attempt goes so."""
    fake = FakeEarmark()
    ending = ""
    with FakeProvider().serve() as provider:
        provider.next = [first]
        try:
            run(provider.url, options(fake), stream)
        except Exception:
            ending = "" if stream else "; not repeated"
    words = {"reservations": "reserved", "release": "released", "commit": "charged"}
    parts = [words[verb] for verb in fake.verbs]
    if fake.bodies[-1].get("estimated"):
        parts[-1] = "charged an estimate"
    return ", ".join(parts) + ending


def options(fake: FakeEarmark) -> dict[str, Any]:
    return {"earmark": fake.client(), "scopes": ["acme"], "on_expiry": "commit", "units": ["tokens"]}
