"""The rows of docs/integrations.md: what each package does with a guarded call."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from fake import FakeEarmark, problem
from google import genai
from provider import Behaviour, FakeProvider
from sdks import MESSAGES, run_anthropic, run_google, run_openai

from earmark import GuardedTransport, wrap

pytestmark = pytest.mark.filterwarnings("ignore")  # of the packages
PAGE = Path(__file__).parents[3] / "docs" / "integrations.md"

#: Asks for an answer, whole or as a stream. retries: how often the package may try again.
Ask = Callable[[str, dict[str, Any], bool, int], object]
#: Reads a stream until its first text, and leaves it.
Leave = Callable[[str, dict[str, Any]], object]


def first_of(stream: Any) -> None:
    for _ in stream:
        break


def leave_openai(url: str, options: dict[str, Any]) -> None:
    client = wrap(openai.OpenAI(api_key="k", base_url=f"{url}/v1"), **options)
    with client.chat.completions.create(model="gpt-5", messages=MESSAGES, stream=True) as stream:
        first_of(stream)


def leave_anthropic(url: str, options: dict[str, Any]) -> None:
    client = wrap(anthropic.Anthropic(api_key="k", base_url=url), **options)
    with client.messages.stream(model="claude", max_tokens=50, messages=MESSAGES) as stream:
        first_of(stream.text_stream)


def leave_google(url: str, options: dict[str, Any]) -> None:
    client = wrap(genai.Client(api_key="k", http_options=genai.types.HttpOptions(base_url=url)), **options)
    first_of(client.models.generate_content_stream(model="gemini-3", contents="Count."))


def langchain(url: str, options: dict[str, Any], retries: int) -> Any:
    langchain_openai = pytest.importorskip("langchain_openai", reason="make test-clients installs it")
    http = httpx.Client(transport=GuardedTransport(**options))
    return langchain_openai.ChatOpenAI(model="gpt-5", api_key="k", base_url=f"{url}/v1", http_client=http, max_retries=retries)


def run_langchain(url: str, options: dict[str, Any], stream: bool, retries: int) -> object:
    chat = langchain(url, options, retries)
    return list(chat.stream("Count.")) if stream else chat.invoke("Count.")


def run_agents(url: str, options: dict[str, Any], stream: bool, retries: int, leaves: bool = False) -> object:
    agents = pytest.importorskip("agents", reason="make test-clients installs it")
    agents.set_tracing_disabled(True)

    async def call() -> None:
        client = wrap(openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=retries), **options)
        agent = agents.Agent(name="a", model=agents.OpenAIChatCompletionsModel(model="gpt-5", openai_client=client))
        if not stream:
            await agents.Runner.run(agent, "Count.")
            return
        result = agents.Runner.run_streamed(agent, "Count.")
        async for event in result.stream_events():
            if leaves and event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                result.cancel()

    return asyncio.run(call())


PACKAGES: dict[str, tuple[Ask, Leave]] = {
    "openai": (run_openai, leave_openai),
    "anthropic": (run_anthropic, leave_anthropic),
    "google-genai": (run_google, leave_google),
    "langchain-openai": (run_langchain, lambda url, options: first_of(langchain(url, options, 0).stream("Count."))),
    "openai-agents": (run_agents, lambda url, options: run_agents(url, options, True, 0, leaves=True)),
}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_says_what_happens(package: str) -> None:
    ask, leave = PACKAGES[package]
    events = 2 if package != "anthropic" else 4  # with the first texts

    def once(url: str, options: dict[str, Any], stream: bool) -> object:
        return ask(url, options, stream, 1)

    def either(url: str, options: dict[str, Any], stream: bool) -> object:
        """Asks one model, and another one if that fails."""
        if package == "langchain-openai":
            return langchain(url, options, 0).with_fallbacks([langchain(url, options, 0)]).invoke("Count.")
        try:
            return ask(url, options, stream, 0)
        except Exception:
            return ask(url, options, stream, 0)

    row = [
        f"`{package}`",
        importlib.metadata.version(package) if _is_there(package) else "",
        "1",
        heard(once, problem(402, "budget_exceeded", violations=[])),
        told(lambda url, options, stream: leave(url, options), Behaviour(hang_after=events)),
        told(once, Behaviour(cut_after=events), stream=True),
        told(once, Behaviour(status=500)),
        told(once, Behaviour(cut_after=0)),
        told(either, Behaviour(status=500)),
        heard(once, problem(503, "unavailable")),
    ]
    assert f"| {' | '.join(row)} |" in PAGE.read_text()


def test_the_page_has_no_other_rows() -> None:
    rows = re.findall(r"(?m)^\| `([^`]+)` \|", PAGE.read_text().partition("## Python\n")[2])
    assert rows == list(PACKAGES)


def _is_there(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


def heard(run: Callable[[str, dict[str, Any], bool], object], answer: httpx.Response) -> str:
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


def told(run: Callable[[str, dict[str, Any], bool], object], first: Behaviour, stream: bool = False) -> str:
    """What Earmark gets if the first attempt goes so."""
    fake = FakeEarmark()
    ending = ""
    with FakeProvider().serve() as provider:
        provider.next = [first]
        try:
            run(provider.url, options(fake), stream)
        except Exception:
            ending = "" if stream else "; not repeated"
        if first.hang_after is not None:
            gc.collect()
            fake.wait(2)
    words = {"reservations": "reserved", "release": "released", "commit": "charged"}
    parts = [words[verb] for verb in fake.verbs]
    if fake.bodies[-1].get("estimated"):
        parts[-1] = "charged an estimate"
    return ", ".join(parts) + ending


def options(fake: FakeEarmark) -> dict[str, Any]:
    return {"earmark": fake.client(), "scopes": ["acme"], "on_expiry": "commit", "units": ["tokens"]}
