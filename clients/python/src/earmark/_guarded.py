"""Transports for the SDKs of providers."""

from __future__ import annotations

import functools
import json
import math
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import httpx

from ._admitted import DEFAULT_MAX_OUTPUT_TOKENS, AdmittedCall, ModelGuard, ModelUnit, Scopes, bills_nothing
from ._async_client import AsyncEarmark
from ._client import Earmark
from ._engine import engine, wait_async, wait_sync
from ._errors import DeniedError, EarmarkError
from ._guard import Dropped, GuardRequest, admit_or_open
from ._late import FailOpen, fail_open_of
from ._libraries import is_unsent, library_of
from ._providers import ProviderCall, StreamReader, api_of, ask_for_usage, call_of, counts_of, is_free, is_usage_event
from ._retries import LeftAttempts, call_name, is_retry
from ._sse import EventSplitter, StreamEvent
from ._transport import moment_of
from ._types import OnExpiry, Violation

_MOST_DEPTH = 4
# Of an answer that is read whole as it passes. The usage of a longer one is unknown.
_MAX_WHOLE_BYTES = 64 << 20


class _Guarded:
    """What both transports share. For the arguments see GuardedTransport."""

    def __init__(
        self,
        *,
        scopes: Scopes,
        on_expiry: OnExpiry,
        earmark: Earmark | AsyncEarmark | None = None,
        units: Sequence[ModelUnit] | None = None,
        provider: str | None = None,
        input_tokens: Callable[[ProviderCall], int] | None = None,
        max_output_tokens: int = DEFAULT_MAX_OUTPUT_TOKENS,
        ttl_seconds: int | None = None,
        require_budget: bool = False,
        fail_open: bool | FailOpen = False,
        pass_unknown: bool = False,
    ) -> None:
        self._settings = (earmark or Earmark())._guards
        self._guard = ModelGuard(
            scopes=scopes,
            on_expiry=on_expiry,
            units=units,
            provider=provider,
            input_tokens=input_tokens,
            max_output_tokens=max_output_tokens,
            ttl_seconds=ttl_seconds,
            require_budget=require_budget,
        )
        self._fail_open = fail_open_of(fail_open)
        self._pass_unknown = pass_unknown
        self._left = LeftAttempts()

    def passes(self, request: httpx.Request) -> bool:
        """Whether a call goes on without a reservation."""
        url = str(request.url)
        return api_of(request.method, url) is None and (self._pass_unknown or is_free(request.method, url))

    def read(self, request: httpx.Request) -> _Asked | _Refusal:
        """Reads a call whose content is there, or says why it is refused."""
        url = str(request.url)
        api = api_of(request.method, url)
        if api is None:
            what = f"{request.method} {request.url.path} is no call that the guard knows"
            return _Refusal(400, "unknown_call", f"{what}; set pass_unknown to send it without a reservation")
        call = call_of(api, url, request.content)
        if call is None:
            return _Refusal(400, "unknown_call", "the guard cannot read the body of this call: it is no JSON text")
        guarded = self._guard.request_for(call)
        return _Asked(request, call, guarded, call_name(request, guarded["scopes"], request.content))

    async def admit(self, asked: _Asked) -> _GuardedCall:
        """Belongs to the engine's thread."""
        before = self._left.take(asked.name) if is_retry(asked.request) else None
        if before is not None:
            run: Any = await before.run._resume()
        else:
            run = await admit_or_open(self._settings, asked.guarded, self._fail_open)
        return _GuardedCall(run, self, asked, AdmittedCall(run, self._guard, asked.call, before))


@dataclass(frozen=True)
class _Asked:
    """A call of a model, and what it reserves."""

    request: httpx.Request
    call: ProviderCall
    guarded: GuardRequest
    name: str


class _GuardedCall:
    """An attempt of a call of a provider's API."""

    def __init__(self, run: Any, guard: _Guarded, asked: _Asked, admitted: AdmittedCall) -> None:
        self._run = run
        self._guard = guard
        self._asked = asked
        self.end = admitted.end
        self._admitted = admitted
        content = ask_for_usage(asked.call.api, asked.request.content)
        self.hides_usage = content is not None
        self.request = asked.request if content is None else _with_content(asked.request, content)

    def drop(self, error: BaseException | None) -> None:
        """Ends a call that nobody waits for."""
        if self._run._is_ours() and not sys.is_finalizing():
            self.end(None, error)

    def never_sent(self) -> None:
        self._admitted.nothing_sent()
        self.drop(Dropped())

    def fail(self, error: BaseException) -> Future[Any]:
        """The call had no answer."""
        if is_unsent(error):
            self._admitted.nothing_sent()
        return self.end(None, error)

    def refuse(self, response: httpx.Response) -> Future[Any]:
        """The provider answered with an error."""
        if bills_nothing(response.status_code):
            self._admitted.nothing_sent()
        return self.end(None)

    def leave(self) -> None:
        """Keeps an attempt that has ended without an answer for the next one."""
        left = self._admitted.left()
        if left is not None:
            self._guard._left.put(self._asked.name, left)

    def answer(self, response: httpx.Response, content: bytes) -> Future[Any]:
        return self.end(counts_of(self._asked.call.api, content))

    def reader(self, response: httpx.Response) -> _Reader | None:
        """What reads an answer as it passes; None if it is no stream."""
        if _is_stream_of_events(response):
            return _Reader(self)
        return _WholeReader(self) if self._asked.call.stream else None


class _Reader:
    """Reads a stream of events as it passes, and settles at its end."""

    def __init__(self, call: _GuardedCall) -> None:
        self._call = call
        self._splitter = EventSplitter()
        self._reader = StreamReader(call._asked.call)
        self._hiding = False  # the event that was read last

    def push(self, chunk: bytes) -> bytes:
        """What of it the caller gets."""
        events = self._splitter.push(chunk)
        for event in events:
            self._reader.push(event.data)
        if not self._call.hides_usage:
            return chunk
        return b"".join(event.content for event in events if self._shows(event))

    def _shows(self, event: StreamEvent) -> bool:
        if len(event.content) > 1:  # one byte is an empty line, and goes with the event before it
            self._hiding = is_usage_event(event.data)
        return not self._hiding

    def rest(self) -> bytes:
        """What came after the last whole event."""
        rest = self._splitter.end()
        self._reader.push(rest.data)
        return rest.content if self._call.hides_usage and self._shows(rest) else b""

    def end(self, error: BaseException | None) -> Future[Any]:
        return self._call.end(self._reader.counts(), error)

    def drop(self) -> None:
        if self._call._run._is_ours() and not sys.is_finalizing():
            self.end(Dropped())


class _WholeReader(_Reader):
    """Reads a stream that is not of events, such as Gemini's list. Its usage is known when it has ended."""

    def __init__(self, call: _GuardedCall) -> None:
        super().__init__(call)
        self._content = bytearray()

    def push(self, chunk: bytes) -> bytes:
        if len(self._content) <= _MAX_WHOLE_BYTES:
            self._content += chunk
        return chunk

    def rest(self) -> bytes:
        return b""

    def end(self, error: BaseException | None) -> Future[Any]:
        return self._call.end(counts_of(self._call._asked.call.api, bytes(self._content)), error)


class GuardedTransport(httpx.BaseTransport):
    """A transport for the SDK of a provider: it reserves before each call of a model, passes the call on, reads the usage as the answer
    passes, and commits it. A denial is a 402 answer, which SDKs do not repeat; denial_of reads it from their errors.

    transport: what sends the calls; httpx's own.
    scopes: whose budgets pay: a list, or a function that is asked for each call.
    on_expiry: who pays for a call whose usage nobody knows; see docs/python.md.
    earmark: left out, a new one by EARMARK_URL and EARMARK_API_KEY.
    units: what to count, by the transport itself. Left out: Earmark computes amounts from the model and the provider's usage, in the
        units that the budgets count, usd_micros too; it then has to know the model's price if a budget counts money.
    provider: the company that bills, for Earmark's prices; needed if several have the model.
    input_tokens: the upper bound of the input's tokens, where the bytes of the request are none or far too many.
    max_output_tokens: reserved for the output of a call that sets no limit.
    ttl_seconds: of the lease; 300.
    require_budget: refuses a scope without a budget of its own: one above it does not count.
    fail_open: while Earmark is away, calls run without a reservation, and are charged when it is back.
    pass_unknown: passes calls on that it does not know. Without it they are answered 400, because they may cost money.
    """

    def __init__(self, transport: httpx.BaseTransport | None = None, **options: Any) -> None:
        self._guarded = _Guarded(**options)
        self._transports: dict[Any, Any] = {} if transport is None else {None: transport}
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        guarded, send = self._guarded, _transport_for(self, request, "HTTPTransport").handle_request
        if guarded.passes(request):
            return cast(httpx.Response, send(request))
        request.read()
        asked = guarded.read(request)
        if isinstance(asked, _Refusal):
            return asked.answer(request)
        admission = engine.submit(guarded.admit(asked))
        try:
            call = wait_sync(admission)
        except BaseException as error:
            _leave(admission)
            return _answer_to(error).answer(request)
        try:
            response = send(call.request)
            if response.is_success and (reader := call.reader(response)):
                return _copy_of(response, _streams_of(response)[0](response, reader))
            if response.is_success:
                content = _content_of(response)
        except BaseException as error:
            _settled(call.fail(error))
            call.leave()
            raise
        if not response.is_success:
            _settled(call.refuse(response))
            call.leave()
            return cast(httpx.Response, response)
        _settled(call.answer(response, content))
        return _copy_of(response, content)

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()


class AsyncGuardedTransport(httpx.AsyncBaseTransport):
    """The same for asynchronous SDKs."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None, **options: Any) -> None:
        self._guarded = _Guarded(**options)
        self._transports: dict[Any, Any] = {} if transport is None else {None: transport}
        self._lock = threading.Lock()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        guarded, send = self._guarded, _transport_for(self, request, "AsyncHTTPTransport").handle_async_request
        if guarded.passes(request):
            return cast(httpx.Response, await send(request))
        await request.aread()
        asked = guarded.read(request)
        if isinstance(asked, _Refusal):
            return asked.answer(request)
        admission = engine.submit(guarded.admit(asked))
        try:
            call = await wait_async(admission)
        except BaseException as error:
            _leave(admission)
            return _answer_to(error).answer(request)
        try:
            response = await send(call.request)
            if response.is_success and (reader := call.reader(response)):
                return _copy_of(response, _streams_of(response)[1](response, reader))
            if response.is_success:
                content = await _content_of_async(response)
        except BaseException as error:
            await _settled_async(call.fail(error))
            call.leave()
            raise
        if not response.is_success:
            await _settled_async(call.refuse(response))
            call.leave()
            return cast(httpx.Response, response)
        await _settled_async(call.answer(response, content))
        return _copy_of(response, content)

    async def aclose(self) -> None:
        for transport in self._transports.values():
            await transport.aclose()


class _GuardedBytes:
    """The content of a stream, which is settled before its reader learns of the end, and also when it is closed or dropped."""

    def __init__(self, response: httpx.Response, reader: _Reader) -> None:
        self._response = response
        self._reader = reader

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._response.iter_bytes():
                if shown := self._reader.push(chunk):
                    yield shown
            if rest := self._reader.rest():
                yield rest
        except GeneratorExit:  # the reader left; close comes next, or nobody waits
            raise
        except BaseException as error:
            _settled(self._reader.end(error))
            raise
        _settled(self._reader.end(None))

    def close(self) -> None:
        try:
            self._response.close()
        finally:
            _settled(self._reader.end(Dropped()))

    def __del__(self) -> None:
        self._reader.drop()


class _AsyncGuardedBytes:
    def __init__(self, response: httpx.Response, reader: _Reader) -> None:
        self._response = response
        self._reader = reader

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.aiter_bytes():
                if shown := self._reader.push(chunk):
                    yield shown
            if rest := self._reader.rest():
                yield rest
        except GeneratorExit:
            raise
        except BaseException as error:
            await _settled_async(self._reader.end(error))
            raise
        await _settled_async(self._reader.end(None))

    async def aclose(self) -> None:
        try:
            await self._response.aclose()
        finally:
            await _settled_async(self._reader.end(Dropped()))

    def __del__(self) -> None:
        self._reader.drop()


@functools.lru_cache
def _classes_of(library: Any) -> tuple[Any, Any]:
    return (
        type("GuardedBytes", (_GuardedBytes, library.SyncByteStream), {}),
        type("AsyncGuardedBytes", (_AsyncGuardedBytes, library.AsyncByteStream), {}),
    )


def _streams_of(response: httpx.Response) -> tuple[Any, Any]:
    return _classes_of(library_of(response))


def _transport_for(guard: GuardedTransport | AsyncGuardedTransport, request: httpx.Request, kind: str) -> Any:
    """What sends a request of httpx or of httpx2."""
    transports = guard._transports
    if None in transports:
        return transports[None]
    library = library_of(request)
    with guard._lock:
        if library not in transports:
            transports[library] = getattr(library, kind)()
        return transports[library]


def _settled(settling: Future[Any]) -> None:
    """Waits for a settlement. What is not settled was logged and reported."""
    try:
        wait_sync(settling)
    except Exception:
        pass


async def _settled_async(settling: Future[Any]) -> None:
    try:
        await wait_async(settling)
    except Exception:
        pass


def _leave(admission: Future[_GuardedCall]) -> None:
    """Nobody waits for an admission any more: nothing was sent."""

    def settle(done: Future[_GuardedCall]) -> None:
        if not done.cancelled() and done.exception() is None:
            done.result().never_sent()

    admission.add_done_callback(settle)
    engine.owe(admission)


def _is_stream_of_events(response: httpx.Response) -> bool:
    kind: str = response.headers.get("Content-Type", "")
    return kind.partition(";")[0].strip().lower() == "text/event-stream"


def _content_of(response: httpx.Response) -> bytes:
    try:
        return response.read()
    finally:
        response.close()


async def _content_of_async(response: httpx.Response) -> bytes:
    try:
        return await response.aread()
    finally:
        await response.aclose()


def _copy_of(response: httpx.Response, body: Any) -> httpx.Response:
    """The same answer with a body that is not compressed any more: bytes, or a stream of them."""
    headers = [
        (name, value) for name, value in response.headers.raw if name.lower() not in (b"content-encoding", b"content-length")
    ]
    if isinstance(body, bytes):
        headers.append((b"Content-Length", str(len(body)).encode()))
        body = library_of(response).ByteStream(body)  # not read yet, as an answer of any transport: content= would read it
    copy: httpx.Response = library_of(response).Response(response.status_code, headers=headers, extensions=response.extensions, stream=body)
    return copy


def _with_content(request: httpx.Request, content: bytes) -> httpx.Request:
    headers = request.headers.copy()
    headers["Content-Length"] = str(len(content))
    library = library_of(request)
    changed: httpx.Request = library.Request(request.method, request.url, headers=headers, content=content, extensions=request.extensions)
    return changed


def _answer_to(error: BaseException) -> _Refusal:
    if not isinstance(error, EarmarkError):
        raise error  # the caller left, or an option failed
    if isinstance(error, DeniedError):
        details: dict[str, Any] = {"violations": error.violations, "retryable": error.retryable}
        if error.retry_at is not None:
            details["retry_at"] = error.retry_at.isoformat().replace("+00:00", "Z")
        title = "The request does not fit into a budget"
        members = {"type": f"urn:earmark:problem:{error.code}", "title": title, "status": 402, "detail": str(error), **details}
        return _Refusal(402, error.code, str(error), members, details, error.retry_after_seconds)
    statuses = {"unavailable": 503, "admission_unknown": 503, "rate_limited": 429, "unauthenticated": 401, "forbidden": 403}
    status = statuses.get(error.code, 400)
    return _Refusal(status, error.code, f"Earmark: {error}", retry_after_seconds=error.retry_after_seconds)


@dataclass(frozen=True)
class _Refusal:
    """The answer to the SDK in the provider's place. What Earmark refuses is not repeated."""

    status: int
    code: str
    message: str
    members: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    retry_after_seconds: float = 0

    def answer(self, request: httpx.Request) -> httpx.Response:
        error = {"message": self.message, "type": "earmark", "code": self.code, "param": None, **self.details}
        headers = {"x-should-retry": "false"}
        if self.retry_after_seconds > 0:
            headers["Retry-After"] = str(math.ceil(self.retry_after_seconds))
        content = {**self.members, "code": self.code, "error": error}
        body = json.dumps(content, ensure_ascii=False).encode()
        library = library_of(request)
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        response: httpx.Response = library.Response(self.status, headers=headers, stream=library.ByteStream(body))
        return response


@dataclass(frozen=True)
class Denial:
    """Where a request did not fit, and whether waiting can help."""

    violations: list[Violation]
    retryable: bool
    retry_at: datetime | None = None


def denial_of(error: object) -> Denial | None:
    """The denial in an error that an SDK made of a guarded transport's answer, or in a DeniedError; None if it is another error."""
    return _denial_in(error, _MOST_DEPTH)


def _denial_in(found: object, depth: int) -> Denial | None:
    if found is None or depth < 0:
        return None
    if isinstance(found, DeniedError):
        return Denial(found.violations, found.retryable, found.retry_at)
    inside: list[object]
    if isinstance(found, dict):
        if found.get("code") == "budget_exceeded" and isinstance(found.get("violations"), list):
            return Denial(found["violations"], found.get("retryable") is True, moment_of(found.get("retry_at")))
        inside = [found.get("error")]
    elif isinstance(found, BaseException):
        inside = [getattr(found, name, None) for name in ("body", "details", "response")]
        inside += [found.__cause__, found.__context__, _json_in(str(found))]
    else:
        inside = [_body_of(found)]  # of a response
    return next((denial for inner in inside if (denial := _denial_in(inner, depth - 1)) is not None), None)


def _body_of(response: Any) -> object:
    try:
        return _json_in(response.text)
    except Exception:  # no response, or nobody has read it
        return None


def _json_in(text: str) -> object:
    try:
        return cast(object, json.JSONDecoder().raw_decode(text[text.index("{") :])[0])
    except ValueError:
        return None
