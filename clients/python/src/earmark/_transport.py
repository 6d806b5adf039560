from __future__ import annotations

import asyncio
import email.utils
import functools
import json
import random
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, cast

import httpx

from ._errors import DeniedError, EarmarkError, message_of
from ._types import ErrorCode

# How a call is repeated. Pauses double from the first to the longest. Each is shortened at random by up to a half, so that many clients
# do not return at once.
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
# Bounds how long a call waits for a Retry-After; the error has the full value.
_LONGEST_RETRY_AFTER_SECONDS = 5.0
_MOST_DOUBLINGS = 10
# A full page of reservations with as much metadata as possible is smaller.
_MAX_ANSWER_BYTES = 64 << 20
_MAX_QUOTED_CHARS = 200
_KEEPALIVE_CONNECTIONS = 100


@dataclass
class Call:
    """A call of the API."""

    method: str
    path: str
    #: Sending it twice has the same effect as sending it once.
    repeat: bool
    query: Mapping[str, object] | None = None
    key: str | None = None
    body: object = None
    #: In place of the client's own bound.
    attempts: float | None = None
    #: Of one attempt.
    limit_seconds: float | None = None
    #: No attempt begins, and none goes on, after this moment of time.monotonic().
    deadline: float | None = None
    #: Also repeat after a failure that Earmark did not write, such as a proxy's 404 during a deployment.
    past_foreign: bool = False


@dataclass
class Answer:
    """A successful answer. attempts is how often the call was sent."""

    value: dict[str, Any]
    status: int
    hit: bool
    attempts: int = 1


class Transport:
    def __init__(
        self,
        base_url: str,
        api_key: str,
        user_agent: str,
        max_attempts: int,
        timeout_seconds: float,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        self._base_url = base_url
        self._api_key = api_key
        self._user_agent = user_agent
        self._max_attempts = max_attempts
        self._timeout_seconds = timeout_seconds
        self._transport = transport
        self._tls = _tls()
        self._http: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def close(self) -> None:
        if self._http is not None and self._loop is asyncio.get_running_loop():
            await self._http.aclose()
        self._http = None

    async def exchange(self, call: Call) -> Answer:
        content = None if call.body is None else json.dumps(call.body, ensure_ascii=False, separators=(",", ":")).encode()
        most = self._max_attempts if call.attempts is None else call.attempts
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = await self._send(call, content)
                answer.attempts = attempt
                return answer
            except EarmarkError as error:
                foreign = call.past_foreign and error.foreign and error.status is not None
                again = call.repeat and attempt < most and (_is_away(error) or foreign)
                pause = _pause_after(attempt, error)
                if not again or (call.deadline is not None and time.monotonic() + pause >= call.deadline):
                    raise
            await asyncio.sleep(pause)

    async def _send(self, call: Call, content: bytes | None) -> Answer:
        limit = self._timeout_seconds if call.limit_seconds is None else call.limit_seconds
        if call.deadline is not None:
            limit = min(limit, max(0.0, call.deadline - time.monotonic()))
        client = self._client()
        query = {name: _text_of(value) for name, value in (call.query or {}).items() if value not in (None, "", False)}
        request = client.build_request(
            call.method, self._base_url + call.path, params=query or None, headers=self._headers(call, content), content=content
        )
        responses: list[httpx.Response] = []

        async def attempt() -> bytes:
            response = await client.send(request, stream=True)
            responses.append(response)
            try:
                return await _body_of(response)
            finally:
                await response.aclose()

        try:
            body = await asyncio.wait_for(attempt(), limit)
        except EarmarkError:
            raise
        except Exception as error:
            what = "Earmark's answer broke off" if responses else "Earmark did not answer"
            why = "there was no answer in time" if isinstance(error, asyncio.TimeoutError) else message_of(error)
            raise EarmarkError("unavailable", f"{what}: {why}") from error
        return _read(responses[0], body)

    def _client(self) -> httpx.AsyncClient:
        """The connections belong to the event loop; after a fork there is another one."""
        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is not loop:
            self._loop = loop
            self._http = httpx.AsyncClient(
                transport=self._transport,
                verify=self._tls,
                timeout=None,  # an attempt has one limit for all of it
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=_KEEPALIVE_CONNECTIONS),
                follow_redirects=False,  # a key goes to no other server
            )
        return self._http

    def _headers(self, call: Call, content: bytes | None) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": self._user_agent}
        if content is not None:
            headers["Content-Type"] = "application/json"
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        if call.key is not None:
            headers["Idempotency-Key"] = call.key
        return headers


@functools.lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """The trusted certificates. Reading them takes long, and belongs on the caller's thread."""
    return httpx.create_ssl_context()


def _text_of(value: object) -> str:
    return "true" if value is True else str(value)


async def _body_of(response: httpx.Response) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > _MAX_ANSWER_BYTES:
            raise EarmarkError("internal", f"Earmark's answer is over {_MAX_ANSWER_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _read(response: httpx.Response, body: bytes) -> Answer:
    if not 200 <= response.status_code <= 299:
        raise _problem_of(response, body)
    try:
        value = json.loads(body)
        if not isinstance(value, dict):
            raise ValueError("it is no object")
    except ValueError as error:
        raise EarmarkError("internal", f"Earmark's answer does not decode: {error}", status=response.status_code) from error
    return Answer(value, response.status_code, response.headers.get("Idempotency-Hit") == "true")


def _problem_of(response: httpx.Response, body: bytes) -> EarmarkError:
    status = response.status_code
    retry_after = _retry_after_of(response.headers.get("Retry-After"))
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None  # not in Earmark's words
    code = problem.get("code") if isinstance(problem, dict) else None
    if not isinstance(code, str) or not code:
        quoted = json.dumps(body.decode("utf-8", "replace").strip()[:_MAX_QUOTED_CHARS], ensure_ascii=False)
        words = f"{status} {response.reason_phrase}".strip()
        message = f"{words}, and not in Earmark's words: {quoted}"
        return EarmarkError(_code_of(status), message, status=status, retry_after_seconds=retry_after, foreign=True)
    field = problem.get("field") or None
    message = str(problem.get("detail") or problem.get("title") or code)
    if field is not None and message.startswith(f"{field}: "):
        message = message[len(field) + 2 :]  # the error adds it again
    kind = DeniedError if code == "budget_exceeded" else EarmarkError
    return kind(
        cast(ErrorCode, code),
        message,
        field=field,
        status=status,
        violations=problem.get("violations"),
        retryable=problem.get("retryable") is True,
        retry_at=moment_of(problem.get("retry_at")),
        retry_after_seconds=retry_after,
        reservation=problem.get("reservation"),
        reservation_id=problem.get("reservation_id") or None,
        checks=problem.get("checks"),
    )


def _code_of(status: int) -> ErrorCode:
    """The nearest code for a status that did not come with one."""
    codes: dict[int, ErrorCode] = {
        401: "unauthenticated",
        403: "forbidden",
        404: "not_found",
        405: "method_not_allowed",
        408: "unavailable",
        413: "payload_too_large",
        415: "unsupported_media_type",
        429: "unavailable",
        502: "unavailable",
        503: "unavailable",
        504: "unavailable",
    }
    return codes.get(status) or ("invalid_request" if 400 <= status <= 499 else "internal")


def _retry_after_of(text: str | None) -> float:
    if text is None:
        return 0
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text)
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(text) - datetime.now(timezone.utc)).total_seconds())
    except (TypeError, ValueError):
        return 0


def moment_of(text: object) -> datetime | None:
    """Reads a time of the API, which may have more digits of a second than Python."""
    match = re.fullmatch(r"([0-9-]+T[0-9:]+)(?:\.([0-9]+))?(Z|[+-][0-9:]+)", str(text or ""))
    if match is None:
        return None
    second, fraction, zone = match.groups()
    return datetime.fromisoformat(f"{second}.{(fraction or '0')[:6]:0<6}{'+00:00' if zone == 'Z' else zone}")


def _is_away(error: EarmarkError) -> bool:
    """Whether the service, or the network to it, failed temporarily, or the key's rate allows no call now. An untrusted certificate
    stays untrusted; a wait that is longer than the client waits is left to its caller."""
    if error.status == 429:
        return error.retry_after_seconds <= _LONGEST_RETRY_AFTER_SECONDS
    if error.status is not None:
        return 502 <= error.status <= 504
    return error.code == "unavailable" and not _is_untrusted(error.__cause__)


def _is_untrusted(error: BaseException | None) -> bool:
    if error is None:
        return False
    return isinstance(error, ssl.SSLCertVerificationError) or _is_untrusted(error.__cause__ or error.__context__)


def _pause_after(attempt: int, error: EarmarkError) -> float:
    pause = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS), _LONGEST_PAUSE_SECONDS)
    return pause * (1 - random.random() / 2) + min(error.retry_after_seconds, _LONGEST_RETRY_AFTER_SECONDS)
