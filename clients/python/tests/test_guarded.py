"""Guarded SDKs of providers: what Earmark and the provider get, and what the caller hears."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from fake import FakeEarmark, problem
from provider import READ, TEXT, TOTAL, WRITTEN, Behaviour, FakeProvider
from sdks import CALLS, MESSAGES, run_anthropic, run_openai, run_openai_async

from earmark import AsyncGuardedTransport, Denial, EarmarkError, FailOpen, GuardedTransport, LostCharge, denial_of, wrap

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the SDKs

EXACT = ("commit", {"tokens": TOTAL})
NUMBERED = ["openai", "openai-async", "openai-responses", "openai-responses-async", "anthropic", "anthropic-async"]
CHAT = {"model": "gpt-5", "messages": MESSAGES}


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider().serve() as served:
        yield served


@pytest.fixture
def fake() -> FakeEarmark:
    return FakeEarmark()


def options(fake: FakeEarmark, **more: Any) -> dict[str, Any]:
    return {"earmark": fake.client(), "scopes": ["acme"], "on_expiry": "commit", "units": ["tokens"], **more}


def client(provider: FakeProvider, fake: FakeEarmark, **more: Any) -> openai.OpenAI:
    return wrap(openai.OpenAI(api_key="k", base_url=f"{provider.url}/v1", max_retries=0), **options(fake, **more))


def estimate(provider: FakeProvider, written: int) -> int:
    asked = provider.bodies[0].replace(b'"stream_options":{"include_usage":true},', b"")  # which the guard added
    return -(-len(asked) // 4) + written


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_charged_what_the_provider_says(provider: FakeProvider, fake: FakeEarmark, name: str, stream: bool) -> None:
    assert CALLS[name](provider.url, options(fake), stream) == TEXT
    assert fake.calls[1:] == [EXACT]
    assert "estimated" not in fake.bodies[1]


@pytest.mark.parametrize("denied", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_can_be_read_as_it_comes(provider: FakeProvider, fake: FakeEarmark, stream: bool, denied: bool) -> None:
    if denied:
        fake.instead["reservations"] = problem(402, "budget_exceeded", violations=[])
    call: dict[str, Any] = {"method": "POST", "url": f"{provider.url}/v1/chat/completions", "json": {**CHAT, "stream": stream}}
    with httpx.Client(transport=GuardedTransport(**options(fake))) as http, http.stream(**call) as response:
        raw = b"".join(response.iter_raw())

    async def read() -> bytes:
        async with httpx.AsyncClient(transport=AsyncGuardedTransport(**options(fake))) as http, http.stream(**call) as response:
            return b"".join([chunk async for chunk in response.aiter_raw()])

    assert asyncio.run(read()) == raw
    assert (b"budget_exceeded" if denied else "✓".encode() if stream else b"choices") in raw


def test_a_call_reserves_the_most_that_it_may_use(provider: FakeProvider, fake: FakeEarmark) -> None:
    run_openai(provider.url, options(fake), False, max_completion_tokens=100, n=2)
    assert fake.bodies[0]["amounts"] == {"tokens": len(provider.bodies[0]) + 200}
    assert fake.bodies[0]["metadata"] == {"api": "openai_chat", "model": "gpt-5"}


@pytest.mark.parametrize("run", [run_openai, run_openai_async])
def test_a_stream_asks_for_its_usage_and_changes_no_other_byte(provider: FakeProvider, fake: FakeEarmark, run: Any) -> None:
    run(provider.url, options(fake), True)
    bare = provider.bodies[0].replace(b'{"stream_options":{"include_usage":true},', b"{", 1)
    assert bare != provider.bodies[0]
    assert json.loads(bare) == {**CHAT, "stream": True}


@pytest.mark.parametrize("asked", [{"include_usage": True}, {"include_obfuscation": False}])
def test_a_stream_with_options_of_its_own(provider: FakeProvider, fake: FakeEarmark, asked: dict[str, bool]) -> None:
    stream: Any = client(provider, fake).chat.completions.create(**CHAT, stream=True, stream_options=asked)
    usages = [chunk.usage for chunk in stream]
    assert any(usages) == ("include_usage" in asked)
    assert json.loads(provider.bodies[0])["stream_options"] == {"include_usage": True, **asked}
    assert fake.calls[1:] == [EXACT]


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_a_transport_guards_a_client_of_both_libraries(provider: FakeProvider, fake: FakeEarmark, library: str) -> None:
    http = pytest.importorskip(library)
    with http.Client(transport=GuardedTransport(**options(fake))) as caller:
        response = caller.post(f"{provider.url}/v1/chat/completions", json=CHAT)
    assert response.json()["usage"]["total_tokens"] == TOTAL

    async def call() -> Any:
        async with http.AsyncClient(transport=AsyncGuardedTransport(**options(fake))) as caller:
            return await caller.post(f"{provider.url}/v1/chat/completions", json=CHAT)

    assert asyncio.run(call()).json()["usage"]["total_tokens"] == TOTAL
    assert fake.verbs == ["reservations", "commit"] * 2


def test_other_units(provider: FakeProvider, fake: FakeEarmark) -> None:
    units = ["input_tokens", "output_tokens", "requests"]
    run_openai(provider.url, options(fake, units=units, max_output_tokens=30, input_tokens=lambda call: 20), False)
    assert fake.bodies[0]["amounts"] == {"input_tokens": 20, "output_tokens": 30, "requests": 1}
    assert fake.bodies[1]["usage"] == {"input_tokens": READ, "output_tokens": WRITTEN, "requests": 1}


def test_earmark_counts_by_the_model_and_the_usage_object(provider: FakeProvider, fake: FakeEarmark) -> None:
    run_openai(provider.url, options(fake, units=None, provider="openai"), False, max_completion_tokens=100, n=2, service_tier="flex")
    assert fake.bodies[0]["estimate"] == {
        "model": "gpt-5",
        "provider": "openai",
        "input_tokens": len(provider.bodies[0]),
        "max_output_tokens": 100,
        "n": 2,
        "service_tier": "flex",
    }
    assert fake.bodies[1] == {"provider_usage": {"prompt_tokens": READ, "completion_tokens": WRITTEN, "total_tokens": TOTAL}}


def test_earmark_counts_what_a_stream_of_anthropic_says_in_two_places(provider: FakeProvider, fake: FakeEarmark) -> None:
    run_anthropic(provider.url, options(fake, units=None), True)
    usage = {"input_tokens": 4, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2, "output_tokens": WRITTEN}
    assert fake.bodies[1] == {"provider_usage": usage}


def test_earmark_counts_in_the_tier_that_the_answer_names(fake: FakeEarmark) -> None:
    usage = {"total_tokens": 5}
    http = httpx.MockTransport(lambda _: httpx.Response(200, json={"service_tier": "priority", "usage": usage}))
    with httpx.Client(transport=GuardedTransport(http, **options(fake, units=None))) as caller:
        caller.post("https://api.openai.com/v1/chat/completions", json=CHAT)
    assert fake.bodies[1] == {"provider_usage": {"service_tier": "priority", "usage": usage}}


def test_an_embedding_has_no_output(provider: FakeProvider, fake: FakeEarmark) -> None:
    client(provider, fake, units=None).embeddings.create(model="m", input="Count.", encoding_format="float")
    assert fake.bodies[0]["estimate"]["max_output_tokens"] == 0
    assert fake.bodies[1] == {"provider_usage": {"prompt_tokens": READ, "total_tokens": READ}}


@pytest.mark.parametrize("name", CALLS)
def test_a_denial_is_heard_once(provider: FakeProvider, fake: FakeEarmark, name: str) -> None:
    violations = [{"budget_id": "bud_1", "available": 5}]
    fake.instead["reservations"] = problem(402, "budget_exceeded", violations=violations, retryable=True, retry_at="2126-01-01T00:00:00Z")
    with pytest.raises(Exception, match="it is budget_exceeded") as raised:
        CALLS[name](provider.url, options(fake), False)
    denial = denial_of(raised.value)
    assert isinstance(denial, Denial) and denial.violations == violations and denial.retryable
    assert denial.retry_at is not None and denial.retry_at.year == 2126
    assert (fake.verbs, provider.bodies) == (["reservations"], [])


@pytest.mark.parametrize("name", CALLS)
def test_a_call_fails_closed_while_earmark_is_away(provider: FakeProvider, fake: FakeEarmark, name: str) -> None:
    fake.instead["reservations"] = problem(503, "unavailable")
    with pytest.raises(Exception, match="Earmark: it is unavailable") as raised:
        CALLS[name](provider.url, options(fake), False)
    assert denial_of(raised.value) is None
    assert (fake.verbs, provider.bodies) == (["reservations"], [])


@pytest.mark.parametrize(("status", "code", "wanted"), [(404, "no_budget", 400), (429, "rate_limited", 429), (401, "unauthenticated", 401)])
def test_what_earmark_refuses_is_heard_once(provider: FakeProvider, fake: FakeEarmark, status: int, code: str, wanted: int) -> None:
    fake.instead["reservations"] = problem(status, code)
    with pytest.raises(openai.APIStatusError) as raised:
        run_openai(provider.url, options(fake), False)
    assert (raised.value.status_code, raised.value.code, fake.verbs) == (wanted, code, ["reservations"])


def test_a_call_that_the_guard_does_not_know_is_refused(provider: FakeProvider, fake: FakeEarmark) -> None:
    with httpx.Client(transport=GuardedTransport(**options(fake)), base_url=provider.url) as caller:
        assert caller.post("/v1/images/generations", json={}).status_code == 400
        assert caller.post("/v1/chat/completions", content="no json").status_code == 400
        assert provider.bodies == []
        assert caller.get("/v1/models").status_code == 200
        assert caller.post("/v1/messages/count_tokens", json={"model": "m"}).status_code == 200
    with httpx.Client(transport=GuardedTransport(**options(fake, pass_unknown=True)), base_url=provider.url) as caller:
        assert caller.post("/v1/images/generations", json={}).status_code == 200
    assert fake.verbs == []


@pytest.mark.parametrize("name", CALLS)
def test_a_stream_that_is_cut_is_charged_an_estimate(provider: FakeProvider, fake: FakeEarmark, name: str) -> None:
    provider.behaviour = Behaviour(cut_after=4 if "anthropic" in name else 2)
    with pytest.raises(Exception):
        CALLS[name](provider.url, options(fake), True)
    assert fake.bodies[-1]["estimated"] is True
    assert fake.verbs == ["reservations", "commit"]


def test_the_estimate_is_the_input_and_the_output_so_far(provider: FakeProvider, fake: FakeEarmark) -> None:
    provider.behaviour = Behaviour(cut_after=2)
    with pytest.raises(Exception):
        run_openai(provider.url, options(fake), True)
    assert fake.bodies[1] == {"usage": {"tokens": estimate(provider, 2)}, "estimated": True}


@pytest.mark.parametrize("behaviour", [Behaviour(end_after=2), Behaviour(no_usage=True)], ids=["in the middle", "without usage"])
def test_a_stream_that_ends_without_its_usage_is_charged_an_estimate(provider: FakeProvider, fake: FakeEarmark, behaviour: Behaviour) -> None:
    provider.behaviour = behaviour
    run_openai(provider.url, options(fake), True)
    assert fake.bodies[1]["estimated"] is True


def stream_of(provider: FakeProvider, fake: FakeEarmark, kind: str, raw: bytes, **more: Any) -> bytes:
    """The bytes of a chat stream for which the provider sends `raw`."""
    provider.behaviour = Behaviour(raw=raw)
    call: dict[str, Any] = {"url": f"{provider.url}/v1/chat/completions", "json": {**CHAT, "stream": True}}
    if kind == "sync":
        with httpx.Client(transport=GuardedTransport(**options(fake, **more))) as caller:
            return caller.post(**call).content

    async def ask() -> bytes:
        async with httpx.AsyncClient(transport=AsyncGuardedTransport(**options(fake, **more))) as caller:
            return (await caller.post(**call)).content

    return asyncio.run(ask())


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_malformed_stream_passes_unchanged_and_is_left_to_its_policy(
    provider: FakeProvider, fake: FakeEarmark, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    raw = b"garbage\xff\n\ndata: {broken\n\n: comment"
    earmark = fake.client(logger=logging.getLogger("earmark.test"))
    assert stream_of(provider, fake, kind, raw, earmark=earmark) == raw
    assert fake.verbs == ["reservations"]
    assert [error.usage_unknown for error in fake.unsettled] == [True]
    assert "reservation not settled" in caplog.text


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_event_that_is_no_utf_8_passes_unchanged_and_the_usage_after_it_counts(provider: FakeProvider, fake: FakeEarmark, kind: str) -> None:
    said, done = b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xc3"},"finish_reason":"stop"}]}\n\n', b"data: [DONE]\n\n"
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7}}\n\n'
    assert stream_of(provider, fake, kind, said + usage + done) == said + done
    assert fake.calls[1:] == [EXACT] and "estimated" not in fake.bodies[1]


def test_a_stream_without_any_event_passes_before_its_end(fake: FakeEarmark) -> None:
    raw = b"x" * ((16 << 20) + 8)

    class Endless(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield raw
            raise AssertionError("the reader waits for more")

    answer = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Endless())
    transport = GuardedTransport(httpx.MockTransport(lambda request: answer), **options(fake))
    with httpx.Client(transport=transport) as caller, caller.stream("POST", "http://provider.test/v1/chat/completions", json={**CHAT, "stream": True}) as response:
        assert next(response.iter_bytes()) == raw
    assert fake.verbs == ["reservations"]


@pytest.mark.parametrize("leaving", ["break", "close"])
def test_a_stream_that_its_reader_leaves_is_charged_an_estimate(provider: FakeProvider, fake: FakeEarmark, leaving: str) -> None:
    provider.behaviour = Behaviour(hang_after=1)
    stream: Any = client(provider, fake).chat.completions.create(**CHAT, stream=True)
    for _ in stream:
        break
    if leaving == "close":
        stream.close()
    del stream, _
    gc.collect()
    fake.wait(2)
    assert fake.bodies[1] == {"usage": {"tokens": estimate(provider, 1)}, "estimated": True}


@pytest.mark.parametrize("leaving", ["break", "close", "cancel"])
def test_an_asynchronous_stream_that_its_reader_leaves(provider: FakeProvider, fake: FakeEarmark, leaving: str) -> None:
    provider.behaviour = Behaviour(hang_after=1)

    async def call() -> None:
        caller = wrap(openai.AsyncOpenAI(api_key="k", base_url=f"{provider.url}/v1", max_retries=0), **options(fake))
        stream: Any = await caller.chat.completions.create(**CHAT, stream=True)
        read = asyncio.Event()

        async def reader() -> None:
            async for _ in stream:
                read.set()
                if leaving == "break":
                    break

        task = asyncio.create_task(reader())
        await read.wait()
        if leaving == "close":
            task.cancel()
            await stream.close()
        elif leaving == "cancel":
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(call())
    gc.collect()
    fake.wait(2)
    assert fake.bodies[1] == {"usage": {"tokens": estimate(provider, 1)}, "estimated": True}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_the_provider_refuses_is_released(provider: FakeProvider, fake: FakeEarmark, name: str) -> None:
    provider.behaviour = Behaviour(status=400)
    with pytest.raises(Exception):
        CALLS[name](provider.url, options(fake), False)
    assert fake.verbs == ["reservations", "release"]


@pytest.mark.parametrize("name", NUMBERED)
def test_each_attempt_that_billed_nothing_makes_room_for_the_next(provider: FakeProvider, fake: FakeEarmark, name: str) -> None:
    provider.next = [Behaviour(status=500)]
    CALLS[name](provider.url, options(fake), False)
    assert fake.verbs == ["reservations", "release", "reservations", "commit"]


@pytest.mark.parametrize("name", NUMBERED)
@pytest.mark.parametrize("first", [Behaviour(status=504), Behaviour(cut_after=0)], ids=["504", "cut"])
def test_a_call_holds_once_for_all_attempts(provider: FakeProvider, fake: FakeEarmark, name: str, first: Behaviour) -> None:
    provider.next = [first]
    CALLS[name](provider.url, options(fake, units=["tokens", "requests"]), False)
    assert fake.verbs == ["reservations", "commit"]
    assert fake.bodies[-1] == {"usage": {"tokens": estimate(provider, TOTAL), "requests": 2}, "estimated": True}


def test_the_last_attempt_is_left_to_its_policy(provider: FakeProvider, fake: FakeEarmark) -> None:
    provider.behaviour = Behaviour(cut_after=0)
    with pytest.raises(openai.APIConnectionError):
        run_openai(provider.url, options(fake), False, retries=1)
    assert fake.verbs == ["reservations"]
    assert [error.usage_unknown for error in fake.unsettled] == [True, True]


def test_a_connection_that_is_never_made_is_released(fake: FakeEarmark) -> None:
    with pytest.raises(openai.APIConnectionError):
        run_openai("http://127.0.0.1:1", options(fake), False, retries=0)
    assert fake.verbs == ["reservations", "release"]


def test_the_answer_stands_if_it_cannot_be_settled(provider: FakeProvider, fake: FakeEarmark) -> None:
    fake.instead["commit"] = problem(409, "overage_rejected")
    assert run_openai(provider.url, options(fake), False) == TEXT
    assert run_openai(provider.url, options(fake), True) == TEXT
    assert [error.refused for error in fake.unsettled] == [True, True]


def test_an_answer_without_usage_is_left_to_its_policy(provider: FakeProvider, fake: FakeEarmark) -> None:
    provider.behaviour = Behaviour(no_usage=True)
    assert run_openai(provider.url, options(fake), False) == TEXT
    assert fake.verbs == ["reservations"]


def test_a_function_gives_the_scopes_of_each_call(provider: FakeProvider, fake: FakeEarmark) -> None:
    run_openai(provider.url, options(fake, scopes=lambda call: [f"acme/{call.model}"]), False)
    assert fake.bodies[0]["scopes"] == ["acme/gpt-5"]


def test_wrap_refuses_what_it_does_not_know_and_what_is_guarded(provider: FakeProvider, fake: FakeEarmark) -> None:
    class Cohere:
        pass

    with pytest.raises(EarmarkError, match="client: Cohere is no client that wrap knows"):
        wrap(Cohere(), **options(fake))
    with pytest.raises(EarmarkError, match="client: is guarded already"):
        wrap(client(provider, fake), **options(fake))


def test_wrap_keeps_the_options_and_the_connections_of_the_client(provider: FakeProvider, fake: FakeEarmark) -> None:
    original = openai.OpenAI(api_key="k", base_url=f"{provider.url}/v1", max_retries=7, timeout=3)
    guarded = wrap(original, **options(fake))
    assert (guarded.max_retries, guarded.timeout) == (7, 3)
    del original
    gc.collect()
    guarded.chat.completions.create(**CHAT)
    assert fake.calls[1:] == [EXACT]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_guarded_copy_that_is_dropped_leaves_the_connections_to_the_others(provider: FakeProvider, fake: FakeEarmark, kind: str) -> None:
    async def call() -> None:
        sdk: Any = openai.AsyncOpenAI if kind == "async" else openai.OpenAI
        original = sdk(api_key="k", base_url=f"{provider.url}/v1", max_retries=0)
        provider.next = [Behaviour(pause_after=1)]
        stream = wrap(original, **options(fake)).chat.completions.create(**CHAT, stream=True)
        if kind == "async":
            stream = await stream
        other = wrap(original, **options(fake)).chat.completions.create(**CHAT)
        if kind == "async":
            await other
        gc.collect()
        await asyncio.sleep(0)
        provider.resume.set()
        assert len([chunk async for chunk in stream] if kind == "async" else list(stream)) == 4

    asyncio.run(call())
    assert [call for call in fake.calls if call[0] == "commit"] == [EXACT, EXACT]


class TestFailOpen:
    """Calls run while Earmark is away, and are charged when it is back."""

    def run(self, server: FakeProvider, fake: FakeEarmark, stream: bool = False, lost: list[LostCharge] | None = None, **more: Any) -> Any:
        earmark = fake.client(settle_limit_seconds=0.01, on_lost=[].append if lost is None else lost.append)
        fake.instead = {verb: problem(503, "unavailable") for verb in ("reservations", "usage", "commit", "release")}
        run_openai(server.url, options(fake, earmark=earmark, fail_open=True, **more), stream, retries=0)
        return earmark

    def back(self, fake: FakeEarmark, earmark: Any, **instead: httpx.Response) -> list[tuple[str, Any]]:
        """Earmark comes back: the calls that it gets."""
        pending = earmark.late_charges.pending
        fake.instead = instead
        before = len(fake.calls)
        earmark.late_charges.flush(20)
        assert (earmark.late_charges.pending, earmark.late_charges.charged + earmark.late_charges.lost) == (0, pending)
        return [(verb, body) for (verb, _), body in zip(fake.calls[before:], fake.bodies[before:])]

    def test_a_call_is_charged_later_under_the_key_of_its_admission(self, provider: FakeProvider, fake: FakeEarmark) -> None:
        earmark = self.run(provider, fake)
        calls = self.back(fake, earmark)
        assert calls[-1][0] == "usage"
        assert calls[-1][1] == {
            "scopes": ["acme"],
            "amounts": {"tokens": TOTAL},
            "metadata": {"api": "openai_chat", "model": "gpt-5", "late": "true"},
        }
        assert fake.idempotency_keys[0] == fake.idempotency_keys[-1] is not None

    def test_what_earmark_counts_by_itself_is_charged_with_its_model_and_tier(self, provider: FakeProvider, fake: FakeEarmark) -> None:
        earmark = self.run(provider, fake, units=None, provider="openai")
        _, body = self.back(fake, earmark)[-1]
        assert body["provider_usage"] == {"prompt_tokens": READ, "completion_tokens": WRITTEN, "total_tokens": TOTAL}
        assert (body["model"], body["provider"], body["responded_at"][-1]) == ("gpt-5", "openai", "Z")

    def test_a_reservation_that_the_lost_admission_made_is_committed(self, provider: FakeProvider, fake: FakeEarmark) -> None:
        earmark = self.run(provider, fake)
        calls = self.back(fake, earmark, usage=problem(422, "idempotency_mismatch"))
        assert [verb for verb, _ in calls][-3:] == ["usage", "reservations", "commit"]
        assert calls[-1][1] == {"usage": {"tokens": TOTAL}}

    def test_a_stream_that_is_cut_is_charged_an_estimate(self, provider: FakeProvider, fake: FakeEarmark) -> None:
        provider.behaviour = Behaviour(end_after=2)
        earmark = self.run(provider, fake, stream=True)
        assert self.back(fake, earmark)[-1][1]["metadata"]["estimated"] == "true"

    def test_usage_that_nobody_knows_is_charged_free_or_reported(self, provider: FakeProvider, fake: FakeEarmark) -> None:
        provider.behaviour = Behaviour(no_usage=True)
        earmark = self.run(provider, fake, max_output_tokens=30)
        assert self.back(fake, earmark)[-1][1]["amounts"] == {"tokens": len(provider.bodies[0]) + 30}
        earmark = self.run(provider, fake, on_expiry="release")
        assert [verb for verb, _ in self.back(fake, earmark)][-2:] == ["reservations", "release"]
        lost: list[LostCharge] = []
        earmark = self.run(provider, fake, lost=lost, on_expiry="review")
        earmark.close()
        fake.eventually(lambda: len(lost) == 1)
        assert earmark.late_charges.lost == 1 and lost[0].usage is None

    def test_a_charge_that_earmark_refuses_is_lost(self, provider: FakeProvider, fake: FakeEarmark) -> None:
        lost: list[LostCharge] = []
        earmark = self.run(provider, fake, lost=lost)
        self.back(fake, earmark, usage=problem(404, "no_budget"))
        assert [str(charge.error) for charge in lost] == ["it is no_budget"]

    def test_a_call_fails_closed_with_too_many_charges_waiting(self, provider: FakeProvider, fake: FakeEarmark) -> None:
        earmark = self.run(provider, fake)
        with pytest.raises(openai.InternalServerError, match="it is unavailable"):
            run_openai(provider.url, options(fake, earmark=earmark, fail_open=FailOpen(max_pending=1)), False, retries=0)
        self.back(fake, earmark)

    def test_a_settlement_that_finds_earmark_away_is_sent_later(self, provider: FakeProvider, fake: FakeEarmark) -> None:
        earmark = fake.client(settle_limit_seconds=0.01)
        fake.instead["commit"] = problem(503, "unavailable")
        run_openai(provider.url, options(fake, earmark=earmark, fail_open=True), False)
        assert self.back(fake, earmark)[-1] == ("commit", {"usage": {"tokens": TOTAL}})

    def test_a_denial_is_a_denial(self, provider: FakeProvider, fake: FakeEarmark) -> None:
        fake.instead["reservations"] = problem(402, "budget_exceeded", violations=[])
        with pytest.raises(openai.APIStatusError) as raised:
            run_openai(provider.url, options(fake, fail_open=True), False)
        assert denial_of(raised.value) is not None and provider.bodies == []

    def test_its_options_are_checked(self) -> None:
        with pytest.raises(EarmarkError, match=r"fail_open\.max_pending: "):
            FailOpen(max_pending=0)
