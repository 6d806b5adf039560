"""How guarded code and guarded streams end, and what Earmark then hears."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from fake import LIMIT_SECONDS, QUIET, FakeEarmark, problem

from earmark import AsyncEarmark, Earmark, EarmarkError, GuardRequest, Run, UnsettledError

REQUEST: GuardRequest = {"scopes": ["acme"], "amounts": {"tokens": 100}, "on_expiry": "commit"}


def client(fake: FakeEarmark) -> Earmark:
    return Earmark("http://earmark.test", "", transport=httpx.MockTransport(fake))


def async_client(fake: FakeEarmark) -> AsyncEarmark:
    return AsyncEarmark("http://earmark.test", "", transport=httpx.MockTransport(fake))


def chunks(run: Run) -> Iterator[int]:
    for i in range(5):
        run.meter.add({"tokens": 7})
        yield i


async def async_chunks(run: Run) -> AsyncIterator[int]:
    for i in range(5):
        run.meter.add({"tokens": 7})
        yield i


def test_a_stream_is_charged_before_its_reader_learns_of_the_end() -> None:
    fake = FakeEarmark()
    assert list(client(fake).guard_stream(REQUEST, chunks)) == [0, 1, 2, 3, 4]
    assert fake.calls[-1] == ("commit", {"tokens": 35})


def test_a_stream_that_is_closed_is_charged_what_was_counted() -> None:
    fake = FakeEarmark()
    stream = client(fake).guard_stream(REQUEST, chunks)
    assert [next(stream), next(stream)] == [0, 1]
    stream.close()
    assert fake.calls[-1] == ("commit", {"tokens": 14})


def test_a_stream_that_its_reader_breaks_out_of_is_charged_what_was_counted() -> None:
    fake = FakeEarmark()
    for _ in client(fake).guard_stream(REQUEST, chunks):
        break
    gc.collect()
    assert fake.settlement() == ("commit", {"tokens": 7})


def test_a_stream_in_a_generator_that_is_closed_is_charged_what_was_counted() -> None:
    fake = FakeEarmark()

    def relay() -> Iterator[int]:
        with client(fake).guard_stream(REQUEST, chunks) as stream:
            yield from stream

    relayed = relay()
    assert next(relayed) == 0
    relayed.close()  # type: ignore[attr-defined] # raises GeneratorExit in it
    assert fake.settlement() == ("commit", {"tokens": 7})


def test_a_stream_cut_in_the_middle_is_charged_and_its_error_comes_out() -> None:
    fake = FakeEarmark()

    def cut(run: Run) -> Iterator[int]:
        run.meter.add({"tokens": 7})
        yield 0
        raise httpx.RemoteProtocolError("cut")

    with pytest.raises(httpx.RemoteProtocolError):
        list(client(fake).guard_stream(REQUEST, cut))
    assert fake.calls[-1] == ("commit", {"tokens": 7})


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_code_that_is_interrupted_is_charged_what_was_counted(ending: type[BaseException]) -> None:
    fake = FakeEarmark()
    with pytest.raises(ending):
        with client(fake).guard(REQUEST) as run:
            run.meter.add({"tokens": 9})
            raise ending
    assert fake.settlement() == ("commit", {"tokens": 9})


def test_code_that_is_interrupted_before_it_counts_is_left_to_its_policy() -> None:
    fake = FakeEarmark()
    with pytest.raises(KeyboardInterrupt) as raised:
        with client(fake).guard(REQUEST):
            raise KeyboardInterrupt
    unsettled = UnsettledError.of(raised.value)
    assert unsettled is not None and unsettled.usage_unknown
    assert [verb for verb, _ in fake.calls] == ["reservations"]


def test_a_cancelled_task_is_charged_what_was_counted() -> None:
    fake = FakeEarmark()

    async def run_it() -> None:
        counted = asyncio.Event()

        async def work() -> None:
            async with async_client(fake).guard(REQUEST) as run:
                run.meter.add({"tokens": 9})
                counted.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await asyncio.wait_for(counted.wait(), LIMIT_SECONDS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run_it())
    assert fake.settlement() == ("commit", {"tokens": 9})


@pytest.mark.parametrize("ending", ["end", "break", "close"])
def test_an_asynchronous_stream_is_charged(ending: str) -> None:
    fake = FakeEarmark()

    async def read() -> None:
        stream = async_client(fake).guard_stream(REQUEST, async_chunks)
        async for _ in stream:
            if ending != "end":
                break
        if ending == "close":
            await stream.aclose()

    asyncio.run(read())
    gc.collect()
    assert fake.settlement() == ("commit", {"tokens": 35 if ending == "end" else 7})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_leaves_the_run_to_its_parent() -> None:
    fake = FakeEarmark()
    with client(fake).guard(REQUEST) as run:
        run.meter.add({"tokens": 9})
        child = os.fork()
        if child == 0:
            try:
                other = FakeEarmark()
                with client(other).guard(REQUEST) as own:  # the client works in the child
                    own.meter.add({"tokens": 1})
                os._exit(0 if other.calls[-1] == ("commit", {"tokens": 1}) else 1)
            except BaseException:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert fake.settlement() == ("commit", {"tokens": 9})


def test_an_estimate_is_committed_as_one() -> None:
    fake = FakeEarmark()
    with client(fake).guard(REQUEST) as run:
        run.meter.add({"tokens": 9})
        run.meter.estimated = True
    assert fake.bodies[-1] == {"usage": {"tokens": 9}, "estimated": True}


def test_the_usage_of_a_provider_is_committed_as_it_is() -> None:
    fake = FakeEarmark()
    with client(fake).guard(REQUEST) as run:
        run.meter.add({"tokens": 9})
        run.meter.set_provider_usage({"total_tokens": 7}, usage_format="openai_chat")
    assert fake.bodies[-1] == {"provider_usage": {"total_tokens": 7}, "usage_format": "openai_chat"}


def test_what_earmark_cannot_price_is_reported_with_the_object() -> None:
    fake = FakeEarmark()
    fake.instead["commit"] = problem(422, "unpriced_usage")
    reported: list[UnsettledError] = []
    earmark = Earmark("http://earmark.test", "", transport=httpx.MockTransport(fake), logger=QUIET, on_unsettled=reported.append)
    with pytest.raises(UnsettledError, match="the provider's usage was not charged: it is unpriced_usage") as raised:
        with earmark.guard(REQUEST) as run:
            run.meter.set_provider_usage({"total_tokens": 7})
    assert reported == [raised.value] and raised.value.refused
    assert raised.value.response == {"provider_usage": {"total_tokens": 7}} and raised.value.usage is None
    assert pickle.loads(pickle.dumps(raised.value)).response == raised.value.response


def test_the_key_comes_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("emk_secret\n")
    monkeypatch.delenv("EARMARK_API_KEY", raising=False)
    monkeypatch.setenv("EARMARK_API_KEY_FILE", str(file))
    fake = FakeEarmark()
    earmark = Earmark("http://earmark.test", transport=httpx.MockTransport(fake))
    earmark.release_reservation("rsv_1")
    assert fake.keys == ["Bearer emk_secret"]
    monkeypatch.setenv("EARMARK_API_KEY", "emk_other")
    with pytest.raises(EarmarkError, match="both set"):
        Earmark("http://earmark.test")
    monkeypatch.delenv("EARMARK_API_KEY")
    file.write_text("emk_sec\u00fcret")
    with pytest.raises(EarmarkError) as raised:
        Earmark("http://earmark.test")
    assert "ret" not in str(raised.value)
