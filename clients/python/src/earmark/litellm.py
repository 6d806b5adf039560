"""A logger for LiteLLM that reserves before each call of a deployment, and commits the usage that LiteLLM reports. It needs `litellm`."""

from __future__ import annotations

import json
import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Union

from litellm.integrations.custom_logger import CustomLogger

from ._admitted import DEFAULT_MAX_OUTPUT_TOKENS, AdmittedCall, ModelGuard, ModelUnit, bills_nothing
from ._async_client import AsyncEarmark
from ._client import Earmark
from ._engine import engine, wait_async
from ._errors import EarmarkError
from ._guard import Dropped, Run, admit_or_open
from ._late import FailOpen, OpenRun, fail_open_of
from ._libraries import is_unsent
from ._providers import Counts, ProviderCall, count_of
from ._types import OnExpiry

_EMBEDDINGS = "aembedding"
_CALL_TYPES = {"acompletion", "atext_completion", "aresponses", "anthropic_messages", _EMBEDDINGS}
_PASSED_THROUGH = "pass_through_endpoint"
_MOST_CAUSES = 8
# In what LiteLLM keeps of a request, which its attempts share. The id of a call is the caller's to choose.
_ATTEMPT = "earmark_attempt"
# What LiteLLM answers for Earmark's codes. It takes a deployment out of use after 401, 402, 404, 408, 429 and 5xx, and a budget that is
# used up says nothing about a deployment.
_REFUSED_STATUS = 403

Scopes = Union[Sequence[str], Callable[[Mapping[str, Any]], Sequence[str]]]


class RefusedError(EarmarkError):
    """Earmark did not admit a call. LiteLLM answers 403, whatever the reason; `code` has it, and `violations` those of a denial."""

    status_code = _REFUSED_STATUS
    message = ""  # LiteLLM writes it


class _Attempt(NamedTuple):
    kind: str
    admitted: AdmittedCall


class EarmarkLogger(CustomLogger):  # type: ignore[misc] # without types here
    """Guards each call of a deployment that LiteLLM makes for asynchronous code, so each attempt of its proxy and its router: a retry or
    a fallback has a reservation of its own. Put it into litellm.callbacks, or name it in the callbacks of the proxy. RuntimeError with
    a LiteLLM that does not report the failure of each attempt.

    scopes: whose budgets pay: a list, or a function of LiteLLM's arguments; `metadata` has the proxy's key, user and team.
    pass_unknown: lets calls pass that are no completion, response or embedding. Without it they are refused, because they may cost
        money.
    For the other arguments see earmark.GuardedTransport. input_tokens and scopes get LiteLLM's arguments.
    """

    def __init__(
        self,
        *,
        scopes: Scopes,
        on_expiry: OnExpiry,
        earmark: Earmark | AsyncEarmark | None = None,
        units: Sequence[ModelUnit] | None = None,
        provider: str | None = None,
        input_tokens: Callable[[Mapping[str, Any]], int] | None = None,
        max_output_tokens: int = DEFAULT_MAX_OUTPUT_TOKENS,
        ttl_seconds: int | None = None,
        require_budget: bool = False,
        fail_open: bool | FailOpen = False,
        pass_unknown: bool = False,
    ) -> None:
        if not hasattr(CustomLogger, "async_post_call_failure_deployment_hook"):
            raise RuntimeError("EarmarkLogger needs LiteLLM 1.106.12 or newer: older ones do not report the failure of each attempt")
        super().__init__()
        self._settings = (earmark or Earmark())._guards
        self._options: dict[str, Any] = {
            "on_expiry": on_expiry,
            "units": units,
            "provider": provider,
            "input_tokens": None,
            "max_output_tokens": max_output_tokens,
            "ttl_seconds": ttl_seconds,
            "require_budget": require_budget,
        }
        self._scopes = scopes
        self._input_tokens = input_tokens
        self._fail_open = fail_open_of(fail_open)
        self._pass_unknown = pass_unknown
        self._lock = threading.RLock()
        self._calls: dict[str, _Attempt] = {}

    async def async_pre_call_hook(self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str) -> None:
        """The proxy passes calls of some paths on without a deployment, so no other hook hears of them."""
        if call_type == _PASSED_THROUGH and not self._pass_unknown:
            raise _unknown(_PASSED_THROUGH)

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> dict[str, Any] | None:
        kind = str(getattr(call_type, "value", call_type))
        log = kwargs["litellm_logging_obj"]
        with self._lock:
            before = self._calls.get(log.model_call_details.get(_ATTEMPT))
        if before is not None and before.kind != kind:
            return None  # LiteLLM makes the call by another API, inside the call that is admitted
        if kind not in _CALL_TYPES:
            if self._pass_unknown:
                return None
            raise _unknown(kind)
        if before is not None:
            self._drop(log.model_call_details[_ATTEMPT])  # a stream broke, and LiteLLM goes on with another attempt
        known = {**kwargs, "metadata": {**(kwargs.get("metadata") or {}), **(kwargs.get("litellm_metadata") or {})}}
        call = self._call_of(known, kind)
        guard = ModelGuard(scopes=list(self._scopes(known) if callable(self._scopes) else self._scopes), **self._options)
        admission = engine.submit(admit_or_open(self._settings, guard.request_for(call), self._fail_open))
        try:
            run = await wait_async(admission)
        except EarmarkError as error:
            raise _refused(error) from error
        except BaseException:
            admission.add_done_callback(_leave)
            engine.owe(admission)
            raise
        id = log.model_call_details[_ATTEMPT] = str(uuid.uuid4())
        with self._lock:
            self._calls[id] = _Attempt(kind, AdmittedCall(run, guard, call))
        # A stream that its reader leaves ends without an event.
        weakref.finalize(log, self._drop, id).atexit = False
        if not call.stream or kind != "acompletion":
            return None
        # Without it LiteLLM counts the tokens of a stream by itself.
        return {**kwargs, "stream_options": {**(kwargs.get("stream_options") or {}), "include_usage": True}}

    async def async_log_success_event(self, kwargs: Mapping[str, Any], response_obj: Any, start_time: Any, end_time: Any) -> None:
        admitted = self._take(kwargs.get(_ATTEMPT))
        if admitted is None:
            return
        if kwargs.get("cache_hit"):
            admitted.nothing_sent()
        await _wait(admitted, None if kwargs.get("cache_hit") else _counts_of(response_obj, exact=not _is_left(kwargs)))

    async def async_post_call_failure_deployment_hook(self, request_data: Mapping[str, Any], exception: Exception, call_type: Any) -> None:
        """Comes for each attempt, and the failure event for the first one alone."""
        await self._failed(request_data["litellm_logging_obj"].model_call_details, exception)

    async def async_log_failure_event(self, kwargs: Mapping[str, Any], response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Comes for a stream that breaks."""
        await self._failed(kwargs, kwargs.get("exception"))

    async def _failed(self, details: Mapping[str, Any], error: object) -> None:
        admitted = self._take(details.get(_ATTEMPT))
        if admitted is None:
            return
        if _billed_nothing(error):
            admitted.nothing_sent()
        await _wait(admitted, None)

    def _call_of(self, kwargs: Mapping[str, Any], kind: str) -> ProviderCall:
        asked = {name: kwargs[name] for name in ("messages", "prompt", "input", "instructions", "system", "tools", "functions") if kwargs.get(name)}
        size = len(json.dumps(asked, ensure_ascii=False, default=str).encode("utf-8", "replace"))
        most = next((kwargs[name] for name in ("max_completion_tokens", "max_output_tokens", "max_tokens") if kwargs.get(name)), None)
        model = str(kwargs.get("model") or "")
        return ProviderCall(
            api="openai_embeddings" if kind == _EMBEDDINGS else "litellm",
            url=str(kwargs.get("api_base") or ""),
            model=model.partition("/")[2] or model,
            stream=kwargs.get("stream") is True,
            input_tokens=size if self._input_tokens is None else self._input_tokens(kwargs),
            max_output_tokens=most if isinstance(most, int) else None,
            answers=max(1, int(kwargs.get("n") or 1)),
            service_tier=kwargs["service_tier"] if kwargs.get("service_tier") in ("flex", "priority") else None,
        )

    def _take(self, id: str | None) -> AdmittedCall | None:
        with self._lock:
            attempt = None if id is None else self._calls.pop(id, None)
        return None if attempt is None else attempt.admitted

    def _drop(self, id: str) -> None:
        admitted = self._take(id)
        if admitted is not None and admitted.run._is_ours() and not sys.is_finalizing():
            admitted.end(None, Dropped())


def _leave(admission: Any) -> None:
    """Nobody waits for an admission any more: nothing was sent."""
    if not admission.cancelled() and admission.exception() is None:
        run: Run | OpenRun = admission.result()
        run.meter.nothing_sent()
        run._end(Dropped())


async def _wait(admitted: AdmittedCall, counts: Counts | None) -> None:
    try:
        await wait_async(admitted.end(counts))
    except Exception:
        pass  # what is not settled was logged and reported


def _unknown(kind: str) -> RefusedError:
    refused = RefusedError("invalid_request", f"{kind} is no call that the guard knows; set pass_unknown to let it pass")
    refused.message = str(refused)
    return refused


def _refused(error: EarmarkError) -> RefusedError:
    refused = RefusedError(error.code, str(error))
    refused.__dict__.update(error.__dict__)
    refused.message = str(error)
    return refused


def _is_left(kwargs: Mapping[str, Any]) -> bool:
    """Whether the caller left a stream of the proxy. LiteLLM then counts the tokens of what came by itself."""
    parameters = kwargs.get("litellm_params") or {}
    return any((of.get("metadata") or {}).get("client_disconnected") is True for of in (kwargs, parameters))


def _counts_of(response: Any, *, exact: bool) -> Counts | None:
    usage: Any = response.get("usage") if isinstance(response, Mapping) else getattr(response, "usage", None)
    said = usage.model_dump() if hasattr(usage, "model_dump") else usage
    if not isinstance(said, Mapping):
        return None
    read = said.get("prompt_tokens") if said.get("prompt_tokens") is not None else said.get("input_tokens")
    written = said.get("completion_tokens") if said.get("completion_tokens") is not None else said.get("output_tokens")
    if any(count is not None and count_of(count) is None for count in (read, written)):
        return None  # numbers that count nothing
    read, written = int(read or 0), int(written or 0)
    cached, wrote = _detail(said, "prompt_tokens_details", "cached_tokens"), _detail(said, "prompt_tokens_details", "cache_creation_tokens")
    reasoned = _detail(said, "completion_tokens_details", "reasoning_tokens")
    chat: dict[str, Any] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    if cached or wrote:
        chat["prompt_tokens_details"] = {"cached_tokens": cached, **({"cache_write_tokens": wrote} if wrote else {})}
    if reasoned:
        chat["completion_tokens_details"] = {"reasoning_tokens": reasoned}
    return Counts(read, written, exact=exact, usage=chat)


def _detail(said: Mapping[str, Any], group: str, name: str) -> int:
    details = said.get(group)
    found = details.get(name) if isinstance(details, Mapping) else None
    return found if isinstance(found, int) else 0


def _billed_nothing(error: object) -> bool:
    """Whether the provider refused the call, or was never reached. Behind a broken connection or a time-out the model may have run;
    LiteLLM gives such errors the status 500, so the causes decide."""
    causes = list(_causes(error))
    if any(is_unsent(cause) for cause in causes):
        return True
    if any("Connection" in type(cause).__name__ or "Timeout" in type(cause).__name__ or "MidStream" in type(cause).__name__ for cause in causes):
        return False
    status = next((status for cause in causes if isinstance(status := getattr(cause, "status_code", None), int)), None)
    return status is not None and bills_nothing(status)


def _causes(error: object) -> Iterator[BaseException]:
    for _ in range(_MOST_CAUSES):
        if not isinstance(error, BaseException):
            return
        yield error
        error = error.__cause__ or error.__context__
