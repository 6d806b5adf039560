"""The example of LiteLLM's proxy, in the proxy itself."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake import FakeEarmark, problem
from provider import TOTAL, Behaviour, FakeProvider

from earmark import Earmark

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "litellm-proxy"
MESSAGES = [{"role": "user", "content": "Count."}]
KEY = "sk-1"
START_SECONDS = 900  # it imports a lot: 24 seconds on an idle machine, minutes on a busy one
FIRST, SECOND = "gpt-5", "gpt-4.1"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("litellm") is None or importlib.util.find_spec("litellm_proxy_extras") is None,
    reason="make test-clients installs litellm[proxy]",
)


@dataclass
class Proxy:
    http: httpx.Client
    fake: FakeEarmark
    provider: FakeProvider

    def ask(self, **body: Any) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json={"model": "chat", "messages": MESSAGES, "max_tokens": 100, **body})

    def told(self, wanted: int) -> list[str]:
        """The calls of Earmark, with the model of each reservation."""
        self.fake.eventually(lambda: len(self.fake.verbs) >= wanted)
        return [told(verb, body) for (verb, _), body in zip(self.fake.calls, self.fake.bodies) if verb != "extend"]


def told(verb: str, body: dict[str, Any]) -> str:
    if verb == "reservations":
        return f"reserve {body['metadata']['model']}"
    if verb != "commit":
        return verb
    return f"commit {body['provider_usage']['total_tokens']}{' estimated' if body.get('estimated') else ''}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    fake = FakeEarmark()
    with fake.serve() as earmark_url, FakeProvider().serve() as provider:
        settings = {"EARMARK_URL": earmark_url, "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{provider.url}/v1", "LITELLM_MASTER_KEY": KEY}
        config = tmp_path_factory.mktemp("proxy") / "config.yaml"
        more = {"litellm_params": {"model": "hosted_vllm/m", "api_key": "k", "api_base": f"{provider.url}/v1"}, "model_name": "bridged"}
        claude = {"litellm_params": {"model": "anthropic/claude", "api_key": "k", "api_base": provider.url}, "model_name": "claude"}
        config.write_text((EXAMPLE / "config.yaml").read_text().replace("model_list:\n", f"model_list:\n  - {json.dumps(more)}\n  - {json.dumps(claude)}\n"))
        (config.parent / "earmark_callbacks.py").symlink_to(EXAMPLE / "earmark_callbacks.py")
        log = config.with_name("log")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [str(Path(sys.executable).parent / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        environment = {**os.environ, **settings, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": str(ROOT / "clients" / "python" / "src")}
        with log.open("w") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        http = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {KEY}"}, timeout=60)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not is_up(http):
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield Proxy(http, fake, provider)
        finally:
            http.close()
            process.terminate()
            process.wait(30)


def is_up(http: httpx.Client) -> bool:
    try:
        return http.get("/health/liveliness").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def proxy(running: Proxy) -> Proxy:
    running.fake.forget()
    running.provider.bodies.clear()
    running.provider.next.clear()
    return running


def test_the_example_is_short() -> None:
    assert sum(len(file.read_text().splitlines()) for file in EXAMPLE.iterdir() if file.is_file()) < 40


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_is_charged(proxy: Proxy, stream: bool) -> None:
    answer = proxy.ask(stream=stream)
    assert answer.status_code == 200 and " two" in answer.text
    assert proxy.told(2) == [f"reserve {FIRST}", f"commit {TOTAL}"]
    assert proxy.fake.bodies[0]["scopes"] == ["acme/none/default_user_id"]


def test_a_denial_is_heard_and_takes_no_deployment_out_of_use(proxy: Proxy) -> None:
    proxy.fake.instead["reservations"] = problem(402, "budget_exceeded", violations=[])
    for stream in (False, True):
        answer = proxy.ask(stream=stream)
        assert answer.status_code == 403
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("permission_error", "403")
        assert error["message"].startswith("it is budget_exceeded")
    assert proxy.told(4) == [f"reserve {FIRST}", f"reserve {SECOND}"] * 2
    assert proxy.provider.bodies == []
    proxy.fake.forget()
    assert proxy.ask().status_code == 200
    assert proxy.told(2) == [f"reserve {FIRST}", f"commit {TOTAL}"]


def test_a_call_fails_closed_while_earmark_is_away(proxy: Proxy) -> None:
    proxy.fake.instead["reservations"] = problem(503, "unavailable")
    answer = proxy.ask()
    assert (answer.status_code, answer.json()["error"]["type"]) == (403, "permission_error")
    assert answer.json()["error"]["message"].startswith("it is unavailable")
    assert proxy.provider.bodies == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 429, 500])
def test_a_fallback_is_charged_by_its_own_model(proxy: Proxy, status: int, stream: bool) -> None:
    proxy.provider.next = [Behaviour(status=status)]
    assert proxy.ask(stream=stream).status_code == 200
    assert proxy.told(4) == [f"reserve {FIRST}", "release", f"reserve {SECOND}", f"commit {TOTAL}"]


def test_each_attempt_that_the_provider_failed_is_released(proxy: Proxy) -> None:
    proxy.provider.next = [Behaviour(status=500), Behaviour(status=500)]
    assert proxy.ask().status_code == 500
    assert proxy.told(4) == [f"reserve {FIRST}", "release", f"reserve {SECOND}", "release"]


def test_a_stream_that_breaks_is_left_to_the_policy(proxy: Proxy) -> None:
    proxy.provider.next = [Behaviour(cut_after=2)]
    answer = proxy.ask(model="backup", stream=True)
    assert answer.status_code == 200
    assert '"error"' in answer.text.strip().splitlines()[-1]
    assert proxy.told(1) == [f"reserve {SECOND}"]


def test_a_caller_who_leaves_a_stream_is_charged_an_estimate(proxy: Proxy) -> None:
    proxy.provider.next = [Behaviour(hang_after=2)]
    with proxy.http.stream("POST", "/v1/chat/completions", json={"model": "chat", "messages": MESSAGES, "stream": True}) as answer:
        for line in answer.iter_lines():
            if "two" in line:
                break
    reserved, settled = proxy.told(2)
    assert reserved == f"reserve {FIRST}"
    assert settled.startswith("commit ") and settled.endswith(" estimated")
    used = proxy.fake.bodies[1]["provider_usage"]
    assert used["prompt_tokens"] > 0 and 0 < used["completion_tokens"] < TOTAL


@pytest.mark.parametrize("model", ["chat", "bridged", "claude"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
def test_a_call_of_another_api_is_reserved_once(proxy: Proxy, path: str, model: str, stream: bool) -> None:
    body: dict[str, Any] = {"input": "Count."} if path == "/v1/responses" else {"messages": MESSAGES, "max_tokens": 100}
    body["metadata"] = {"user_api_key_user_id": "somebody-else"}
    answer = proxy.http.post(path, json={"model": model, "stream": stream, **body})
    assert answer.status_code == 200, answer.text
    name = {"chat": FIRST, "bridged": "m", "claude": "claude"}[model]
    assert proxy.told(2) == [f"reserve {name}", f"commit {TOTAL}"]
    assert proxy.fake.bodies[0]["scopes"] == ["acme/none/default_user_id"]


def test_calls_at_the_same_time_with_the_same_id_are_told_apart(proxy: Proxy) -> None:
    proxy.provider.next = [Behaviour(pause_after=1)]
    proxy.provider.resume.clear()
    body = {"model": "chat", "messages": MESSAGES, "stream": True}
    with proxy.http.stream("POST", "/v1/chat/completions", json=body, headers={"x-litellm-call-id": "same"}) as first:
        lines = first.iter_lines()
        next(lines)
        assert proxy.http.post("/v1/responses", json={"model": "chat", "input": "Count."}, headers={"x-litellm-call-id": "same"}).status_code == 200
        assert proxy.told(3) == [f"reserve {FIRST}"] * 2 + [f"commit {TOTAL}"]
        proxy.provider.resume.set()
        list(lines)
    assert proxy.told(4)[3] == f"commit {TOTAL}"


@pytest.mark.parametrize("path", ["/v1/images/generations", "/openai/v1/chat/completions"])
def test_what_the_guard_does_not_know_is_refused(proxy: Proxy, path: str) -> None:
    answer = proxy.http.post(path, json={"model": "chat", "prompt": "A cat.", "messages": MESSAGES})
    assert answer.status_code == 403
    assert "no call that the guard knows" in answer.json()["error"]["message"]
    assert (proxy.fake.calls, proxy.provider.bodies) == ([], [])


@pytest.mark.skipif("EARMARK_TEST_URL" not in os.environ, reason="EARMARK_TEST_URL names none")
def test_calls_on_a_real_earmark(proxy: Proxy) -> None:
    url = os.environ["EARMARK_TEST_URL"]
    earmark = Earmark(url)
    budget = earmark.create_budget({"scope": "acme/none", "unit": "tokens", "limit": 1000})
    proxy.fake.upstream = url
    try:
        assert proxy.ask().status_code == 200
        proxy.provider.next = [Behaviour(status=500)]
        assert proxy.ask(stream=True).status_code == 200
        proxy.fake.eventually(lambda: earmark.get_budget(budget["id"])["balance"]["committed"] == 2 * TOTAL)
        assert earmark.get_budget(budget["id"])["balance"]["reserved"] == 0
        assert proxy.ask(max_tokens=2000).status_code == 403
    finally:
        proxy.fake.upstream = ""
