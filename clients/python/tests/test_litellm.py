"""EarmarkLogger in LiteLLM's own router, as its proxy uses it."""

from __future__ import annotations

import asyncio
import gc
import importlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fake import FakeEarmark, problem
from provider import TEXT, TOTAL, Behaviour, FakeProvider

from earmark import denial_of

litellm: Any = pytest.importorskip("litellm", reason="make test-clients installs litellm")
pytestmark = [pytest.mark.filterwarnings("ignore")]  # of litellm
EarmarkLogger: Any = importlib.import_module("earmark.litellm").EarmarkLogger
MESSAGES = [{"role": "user", "content": "Count."}]
EXACT = {"usage": {"tokens": TOTAL}}


def test_the_example_names_the_user_and_the_team_of_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARMARK_URL", "http://earmark.test")
    example: Any = importlib.import_module("earmark_callbacks")
    assert isinstance(example.logger, EarmarkLogger)
    assert example.scopes({"metadata": {"user_api_key_user_id": "a@b.com", "user_api_key_team_id": "ml"}}) == ["acme/ml/x--a_40b.com"]
    assert example.scopes({}) == ["acme/none/none"]


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider().serve() as served:
        yield served


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEarmark]:
    fake = FakeEarmark()
    guard(fake, monkeypatch)
    yield fake


def guard(fake: FakeEarmark, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    options = {"earmark": fake.client(), "scopes": ["acme"], "on_expiry": "commit", "units": ["tokens"], **more}
    monkeypatch.setattr(litellm, "callbacks", [EarmarkLogger(**options)])
    for name in ("success_callback", "failure_callback", "_async_success_callback", "_async_failure_callback"):
        monkeypatch.setattr(litellm, name, [])


def router(provider: FakeProvider, **options: Any) -> Any:
    models = {"first": "openai/gpt-5", "second": "openai/gpt-4.1"}
    arguments = {"api_base": f"{provider.url}/v1", "api_key": "k"}
    deployments = [{"model_name": name, "litellm_params": {"model": model, **arguments}} for name, model in models.items()]
    return litellm.Router(model_list=deployments, **{"num_retries": 0, "retry_after": 0, **options})


def ask(provider: FakeProvider, fake: FakeEarmark, wanted: int, *, stream: bool = False, call: dict[str, Any] | None = None, **options: Any) -> str:
    """The text of an answer, after `wanted` calls of Earmark: LiteLLM reports the end of a call in the background."""

    async def answer() -> str:
        try:
            response = await router(provider, **options).acompletion(model="first", messages=MESSAGES, stream=stream, **(call or {}))
            if not stream:
                return str(response.choices[0].message.content)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in response if chunk.choices])
        finally:
            while len(fake.calls) < wanted:
                await asyncio.sleep(0.01)

    async def limited() -> str:
        return await asyncio.wait_for(answer(), 60)

    return asyncio.run(limited())


def settled(fake: FakeEarmark) -> list[Any]:
    return [body for (verb, _), body in zip(fake.calls, fake.bodies) if verb == "commit"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_is_charged_what_litellm_reports(provider: FakeProvider, fake: FakeEarmark, stream: bool) -> None:
    assert ask(provider, fake, 2, stream=stream, call={"max_tokens": 100}) == TEXT
    assert fake.verbs == ["reservations", "commit"]
    assert settled(fake) == [EXACT]
    assert fake.bodies[0]["metadata"] == {"api": "litellm", "model": "gpt-5"}
    assert 100 < fake.bodies[0]["amounts"]["tokens"] < 200


def test_numbers_that_count_nothing_are_no_usage() -> None:
    read: Any = importlib.import_module("earmark.litellm")._counts_of
    assert read({"usage": {"prompt_tokens": 11, "completion_tokens": 7}}, exact=True).output_tokens == 7
    for usage in ({"prompt_tokens": -11, "completion_tokens": 7}, {"prompt_tokens": 11, "completion_tokens": 7.5}, {"prompt_tokens": 2**60}):
        assert read({"usage": usage}, exact=True) is None


def test_earmark_counts_by_the_model_and_the_usage(provider: FakeProvider, fake: FakeEarmark, monkeypatch: pytest.MonkeyPatch) -> None:
    guard(fake, monkeypatch, units=None, provider="openai", require_budget=True)
    ask(provider, fake, 2)
    assert (fake.bodies[0]["estimate"]["model"], fake.bodies[0]["estimate"]["provider"]) == ("gpt-5", "openai")
    assert fake.bodies[0]["require_budget"] is True
    assert fake.bodies[1]["provider_usage"]["total_tokens"] == TOTAL


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("again", [{"fallbacks": [{"first": ["second"]}]}, {"num_retries": 1}], ids=["fallback", "retry"])
def test_an_attempt_that_failed_is_released_and_the_next_charged(
    provider: FakeProvider, fake: FakeEarmark, again: dict[str, Any], stream: bool
) -> None:
    provider.next = [Behaviour(status=500)]
    assert ask(provider, fake, 4, stream=stream, **again) == TEXT
    assert sorted(fake.verbs) == ["commit", "release", "reservations", "reservations"]
    assert settled(fake) == [EXACT]
    models = [body["metadata"]["model"] for body in fake.bodies if "metadata" in body]
    assert models == ["gpt-5", "gpt-4.1" if "fallbacks" in again else "gpt-5"]


def test_a_denial_is_heard_and_takes_no_deployment_out_of_use(provider: FakeProvider, fake: FakeEarmark) -> None:
    violations = [{"budget_id": "bud_1", "available": 5}]
    fake.instead["reservations"] = problem(402, "budget_exceeded", violations=violations)

    async def both() -> None:
        asked = router(provider, num_retries=2)
        with pytest.raises(Exception, match="it is budget_exceeded") as raised:
            await asked.acompletion(model="first", messages=MESSAGES)
        denial = denial_of(raised.value)
        assert denial is not None and denial.violations == violations
        assert getattr(raised.value, "status_code") == 403
        assert (fake.verbs, provider.bodies) == (["reservations"] * 3, [])  # LiteLLM repeats every error
        fake.instead.clear()
        await asked.acompletion(model="first", messages=MESSAGES)

    asyncio.run(both())


def test_a_call_fails_closed_while_earmark_is_away(provider: FakeProvider, fake: FakeEarmark) -> None:
    fake.instead["reservations"] = problem(503, "unavailable")
    with pytest.raises(Exception, match="it is unavailable"):
        ask(provider, fake, 1)
    assert (fake.verbs, provider.bodies) == (["reservations"], [])


@pytest.mark.parametrize(("stream", "behaviour"), [(False, Behaviour(cut_after=0)), (True, Behaviour(cut_after=2))])
def test_a_connection_that_breaks_leaves_the_charge_to_the_policy(
    provider: FakeProvider, fake: FakeEarmark, stream: bool, behaviour: Behaviour
) -> None:
    provider.behaviour = behaviour
    with pytest.raises(Exception):
        ask(provider, fake, 1, stream=stream, call={"max_retries": 0})
    fake.eventually(lambda: len(fake.unsettled) == 1)
    assert fake.verbs == ["reservations"]
    assert fake.unsettled[0].usage_unknown


def test_a_connection_that_is_never_made_is_released(provider: FakeProvider, fake: FakeEarmark) -> None:
    url, provider.url = provider.url, "http://127.0.0.1:1"
    with pytest.raises(Exception):
        ask(provider, fake, 2, call={"max_retries": 0})
    provider.url = url
    assert fake.verbs == ["reservations", "release"]


def test_an_answer_of_the_cache_is_released(provider: FakeProvider, fake: FakeEarmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm, "cache", litellm.Cache(type="local"))

    async def twice() -> None:
        for wanted in (2, 4):
            await router(provider).acompletion(model="first", messages=MESSAGES, caching=True)
            while len(fake.calls) < wanted:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(twice(), 60))
    assert fake.verbs == ["reservations", "commit", "reservations", "release"]
    assert len(provider.bodies) == 1


def test_a_stream_that_its_reader_leaves_ends_its_lease(provider: FakeProvider, fake: FakeEarmark) -> None:
    provider.behaviour = Behaviour(hang_after=1)

    async def leave() -> None:
        response: AsyncIterator[Any] = await litellm.acompletion(
            model="openai/gpt-5", messages=MESSAGES, stream=True, api_base=f"{provider.url}/v1", api_key="k"
        )
        async for _ in response:
            break

    asyncio.run(leave())

    def over() -> bool:
        gc.collect()
        return len(fake.unsettled) == 1

    fake.eventually(over)
    assert fake.unsettled[0].usage_unknown


def test_a_call_that_the_guard_does_not_know_is_refused(provider: FakeProvider, fake: FakeEarmark, monkeypatch: pytest.MonkeyPatch) -> None:
    async def image() -> None:
        await litellm.aimage_generation(model="openai/image", prompt="A cat.", api_base=f"{provider.url}/v1", api_key="k")

    with pytest.raises(Exception, match="aimage_generation is no call that the guard knows"):
        asyncio.run(image())
    assert (fake.verbs, provider.bodies) == ([], [])


def test_a_function_gives_the_scopes_of_each_call(provider: FakeProvider, fake: FakeEarmark, monkeypatch: pytest.MonkeyPatch) -> None:
    guard(fake, monkeypatch, scopes=lambda arguments: [f"acme/{arguments['metadata']['user_api_key_user_id']}"])
    ask(provider, fake, 2, call={"metadata": {"user_api_key_user_id": "u1"}})
    assert fake.bodies[0]["scopes"] == ["acme/u1"]
