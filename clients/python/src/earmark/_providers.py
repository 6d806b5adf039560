"""What calls of AI providers ask for, and what their answers say was used."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

#: The APIs that a guarded transport knows, by the path of their calls.
ProviderApi = Literal[
    "openai_chat", "openai_completions", "openai_responses", "openai_embeddings", "anthropic_messages", "gemini_generate"
]

# The largest whole number that every JSON library reads exactly.
_MAX_COUNT = 2**53 - 1
# Text has about this many bytes for each token, where nobody counts them.
BYTES_PER_TOKEN = 4

_PATHS: list[tuple[str, ProviderApi]] = [
    (r"/chat/completions$", "openai_chat"),
    (r"/completions$", "openai_completions"),
    (r"/responses$", "openai_responses"),
    (r"/embeddings$", "openai_embeddings"),
    (r"/v1/messages$", "anthropic_messages"),
    (r":(stream)?[gG]enerateContent$", "gemini_generate"),
]
# Calls that bill nothing.
_FREE = [r"/count_tokens$", r":countTokens$", r"/input_tokens$"]
_FREE_METHODS = {"GET", "HEAD", "DELETE", "OPTIONS"}


@dataclass(frozen=True)
class ProviderCall:
    """A call of a model."""

    #: A ProviderApi, or what else calls the model.
    api: str
    url: str
    model: str
    stream: bool
    #: At least as many as the input has: the bytes of the request. It does not know files and texts that the request only names.
    input_tokens: int
    #: The limit that the request sets for each answer; None if it sets none.
    max_output_tokens: int | None
    #: How many answers it asks for.
    answers: int
    #: The service tier that it asks for, if that has prices of its own.
    service_tier: str | None


@dataclass(frozen=True)
class Counts:
    """What was used."""

    input_tokens: int
    output_tokens: int
    #: The provider said so, at the end of its answer.
    exact: bool
    requests: int = 1
    #: The provider's own object; None for an estimate.
    usage: dict[str, Any] | None = None


def estimated_input_tokens(call: ProviderCall) -> int:
    """An estimate of the input, for a stream that broke before the provider said what it read."""
    return -(-call.input_tokens // BYTES_PER_TOKEN)


def is_free(method: str, url: str) -> bool:
    return method in _FREE_METHODS or any(re.search(path, urlsplit(url).path) for path in _FREE)


def api_of(method: str, url: str) -> ProviderApi | None:
    if method != "POST":
        return None
    path = urlsplit(url).path
    return next((api for pattern, api in _PATHS if re.search(pattern, path)), None)


def call_of(api: ProviderApi, url: str, content: bytes) -> ProviderCall | None:
    """Reads a call; None if the content is not the JSON of one."""
    body = _parse(content)
    if not isinstance(body, dict):
        return None
    path = urlsplit(url).path
    if api == "gemini_generate":
        config = _object(body.get("generationConfig"))
        named = re.search(r"([^/]+):[^/]*$", path)
        model, stream = unquote(named[1]) if named else "", ":stream" in path
        most, answers = config.get("maxOutputTokens"), _whole(config.get("candidateCount"))
    else:
        deployment = re.search(r"/deployments/([^/]+)/", path)  # of Azure
        model, stream = str(body.get("model") or (unquote(deployment[1]) if deployment else "")), body.get("stream") is True
        most = _first(body.get("max_completion_tokens"), body.get("max_output_tokens"), body.get("max_tokens"))
        answers = max(_whole(body.get("n")), _whole(body.get("best_of")))
    tier = body.get("service_tier")
    return ProviderCall(
        api=api,
        url=url,
        model=model,
        stream=stream,
        input_tokens=len(content),
        max_output_tokens=most if isinstance(most, int) and not isinstance(most, bool) else None,
        answers=max(1, answers),
        service_tier=tier if tier in ("flex", "priority") else None,
    )


def ask_for_usage(api: str, content: bytes) -> bytes | None:
    """Asks for the usage at the end of a chat stream, which OpenAI and compatible servers send only on request. It returns the new
    content, with every other byte as it was; None if the caller asks for it already."""
    if api not in ("openai_chat", "openai_completions"):
        return None
    body = json.loads(content)
    options = body.get("stream_options")
    if body.get("stream") is not True or (isinstance(options, dict) and options.get("include_usage") is True):
        return None
    if options:
        changed = {**body, "stream_options": {**_object(options), "include_usage": True}}
        return json.dumps(changed, ensure_ascii=False, separators=(",", ":")).encode()
    if "stream_options" in body:
        content = re.sub(rb'"stream_options"\s*:\s*(null|\{\s*\})\s*,?', b"", content, count=1)
    return content.replace(b"{", b'{"stream_options":{"include_usage":true},', 1)


def is_usage_event(data: str) -> bool:
    """Whether an event is the extra one that ask_for_usage brings."""
    event = _object(_parse(data))
    return isinstance(event.get("usage"), dict) and event.get("choices") == []


def counts_of(api: str, content: bytes) -> Counts | None:
    """Reads the usage of an answer that is not a stream of events; None if it has none that can be read."""
    body = _parse(content)
    if isinstance(body, list):  # Gemini streams an array where nobody asks for events
        body = body[-1] if body else None
    last = _object(body)
    usage = _first(last.get("usage"), last.get("usageMetadata"))
    said = _read(api, usage) if isinstance(usage, dict) else None
    return None if said is None else Counts(*said, exact=True, usage=_with_tier(usage, _tier_of(last)))


class StreamReader:
    """Reads a stream as it passes."""

    def __init__(self, call: ProviderCall) -> None:
        self._call = call
        self._usage: dict[str, Any] | None = None
        self._tier: str | None = None
        self._ended = False
        self._finished: set[int] = set()  # answers that have a reason for their end
        self._events = 0
        self._output_bytes = 0
        self._output_events = 0

    def push(self, data: str) -> None:
        if data == "[DONE]":
            self._ended = True
            return
        event = _parse(data)
        if not isinstance(event, dict):
            return
        self._events += 1
        output = _output_text(event)
        if output:
            self._output_events += 1
            self._output_bytes += len(output.encode("utf-8", "replace"))
        usage = _first(
            event.get("usage"),
            event.get("usageMetadata"),
            _object(event.get("message")).get("usage"),
            _object(event.get("response")).get("usage"),
            _object(event.get("x_groq")).get("usage"),
        )
        if isinstance(usage, dict):
            self._usage = {**(self._usage or {}), **{name: value for name, value in usage.items() if value is not None}}
        self._tier = _tier_of(event) or self._tier
        for answer in [*_list(event.get("choices")), *_list(event.get("candidates"))]:
            if _object(answer).get("finish_reason") or _object(answer).get("finishReason"):
                self._finished.add(_whole(answer.get("index")))
        self._ended = self._ended or _is_end(event) or len(self._finished) >= self._call.answers

    def counts(self) -> Counts | None:
        """What was used so far; None if the stream had no event. Without the provider's last word it is an estimate."""
        if self._events == 0:
            return None
        said = None if self._usage is None else _read(self._call.api, self._usage)
        if self._usage is not None and said is not None and self._ended:
            return Counts(*said, exact=True, usage=_with_tier(self._usage, self._tier))
        counted = max(self._output_events, -(-self._output_bytes // BYTES_PER_TOKEN))
        input_tokens, output_tokens = said or (0, 0)
        return Counts(input_tokens or estimated_input_tokens(self._call), max(output_tokens, counted), exact=False)


def _read(api: str, usage: Mapping[str, Any]) -> tuple[int, int] | None:
    """The provider's usage as input and output. What a total has beyond both, such as reasoning, is output. None: there is no count, or
    one that is no whole number from 0."""
    counts: list[int | None] = []

    def of(*names: str) -> int:
        given = [count_of(usage[name]) for name in names if usage.get(name) is not None]
        counts.extend(given)
        return sum(count or 0 for count in given)

    if api == "gemini_generate":
        read, written = of("promptTokenCount", "toolUsePromptTokenCount"), of("candidatesTokenCount", "thoughtsTokenCount")
    elif api == "anthropic_messages":
        read, written = of("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"), of("output_tokens")
    elif usage.get("prompt_tokens") is not None:
        read, written = of("prompt_tokens"), of("completion_tokens")
    else:
        read, written = of("input_tokens"), of("output_tokens")
    total = of("total_tokens", "totalTokenCount")
    return (read, max(written, total - read)) if counts and None not in counts else None


def _tier_of(said: Mapping[str, Any]) -> str | None:
    """The service tier that an answer or an event names; OpenAI writes it beside the usage."""
    tier = _first(
        said.get("service_tier"), _object(said.get("message")).get("service_tier"), _object(said.get("response")).get("service_tier")
    )
    return tier if isinstance(tier, str) and tier else None


def _with_tier(usage: dict[str, Any], tier: str | None) -> dict[str, Any]:
    """The usage, together with the tier that decides its price, if it does not name the tier itself."""
    return usage if tier is None or isinstance(usage.get("service_tier"), str) else {"service_tier": tier, "usage": usage}


def _is_end(event: Mapping[str, Any]) -> bool:
    if event.get("type") in ("message_stop", "response.completed", "response.incomplete", "response.failed"):
        return True
    return bool(_object(event.get("promptFeedback")).get("blockReason"))


def _output_text(event: Mapping[str, Any]) -> str:
    """The text that an event adds to the answer, of any API."""
    parts: list[object] = []
    for choice in map(_object, _list(event.get("choices"))):
        delta = _object(choice.get("delta"))
        parts += [choice.get("text"), delta.get("content"), delta.get("reasoning_content"), delta.get("refusal")]
        parts += [_object(_object(call).get("function")).get("arguments") for call in _list(delta.get("tool_calls"))]
    for candidate in map(_object, _list(event.get("candidates"))):
        for part in map(_object, _list(_object(candidate.get("content")).get("parts"))):
            called = part.get("functionCall")
            parts += [part.get("text"), called and json.dumps(called, ensure_ascii=False)]
    added = event.get("delta")
    if isinstance(added, str):  # Responses
        parts.append(added)
    elif event.get("type") == "content_block_delta":
        parts += [_object(added).get(name) for name in ("text", "thinking", "partial_json")]
    return "".join(part for part in parts if isinstance(part, str))


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def count_of(value: object) -> int | None:
    """A whole number from 0 to the largest that JSON carries exactly; None if it is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT else None


def _whole(value: object) -> int:
    return count_of(value) or 0


def _parse(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
