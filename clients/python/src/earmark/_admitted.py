from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal, Union, cast

from ._guard import GuardRequest, Run
from ._late import OpenRun, usage_of
from ._providers import Counts, ProviderCall, estimated_input_tokens
from ._retries import LeftAttempt
from ._types import OnExpiry

# What a call may use if it sets no limit itself.
DEFAULT_MAX_OUTPUT_TOKENS = 16_384

#: What a guard of model calls can count by itself.
ModelUnit = Literal["tokens", "input_tokens", "output_tokens", "requests"]

Scopes = Union[Sequence[str], Callable[[ProviderCall], Sequence[str]]]


class ModelGuard:
    """The options of everything that guards calls of models."""

    def __init__(
        self,
        *,
        scopes: Scopes,
        on_expiry: OnExpiry,
        units: Sequence[ModelUnit] | None,
        provider: str | None,
        input_tokens: Callable[[ProviderCall], int] | None,
        max_output_tokens: int,
        ttl_seconds: int | None,
        require_budget: bool,
    ) -> None:
        self.units = units
        self._scopes = scopes
        self._on_expiry = on_expiry
        self._provider = provider
        self._input_tokens = input_tokens
        self._max_output_tokens = max_output_tokens
        self._ttl_seconds = ttl_seconds
        self._require_budget = require_budget

    def request_for(self, call: ProviderCall) -> GuardRequest:
        """The most that a call may use."""
        read = call.input_tokens if self._input_tokens is None else self._input_tokens(call)
        written = call.max_output_tokens
        if written is None:
            written = 0 if call.api == "openai_embeddings" else self._max_output_tokens
        request: dict[str, Any] = {
            "scopes": list(self._scopes(call) if callable(self._scopes) else self._scopes),
            "on_expiry": self._on_expiry,
            "metadata": {"api": call.api, "model": call.model[:100]},
        }
        if self._ttl_seconds is not None:
            request["ttl_seconds"] = self._ttl_seconds
        if self._require_budget:
            request["require_budget"] = True
        if self.units is not None:
            request["amounts"] = _amounts_of(self.units, read, written * call.answers, 1)
            return cast(GuardRequest, request)
        request["estimate"] = {
            "model": call.model,
            "input_tokens": read,
            "max_output_tokens": written,
            "n": call.answers,
            **({} if self._provider is None else {"provider": self._provider}),
            **({} if call.service_tier is None else {"service_tier": call.service_tier}),
        }
        return cast(GuardRequest, request)


def _amounts_of(units: Sequence[ModelUnit], read: int, written: int, requests: int) -> dict[str, int]:
    amounts = {"tokens": read + written, "input_tokens": read, "output_tokens": written, "requests": requests}
    return {unit: amounts[unit] for unit in units}


class AdmittedCall:
    """An attempt of a call of a model that is admitted: it ends once."""

    def __init__(self, run: Run | OpenRun, guard: ModelGuard, call: ProviderCall, before: LeftAttempt | None = None) -> None:
        self.run = run
        self.call = call
        self._units = guard.units
        self._before = before
        self._lock = threading.RLock()  # as in Engine
        self._ended: Future[Any] | None = None

    def nothing_sent(self) -> None:
        """The provider billed nothing for this attempt; one before may have been billed."""
        if self._before is None:
            self.run.meter.nothing_sent()

    def end(self, counts: Counts | None, error: BaseException | None = None) -> Future[Any]:
        """Settles. What cannot be settled is logged and reported: the answer of the provider stands."""
        with self._lock:
            if self._ended is None:
                if counts is not None:
                    self._count(counts)
                self._ended = self.run._end(error)
            return self._ended

    def _count(self, counts: Counts) -> None:
        read, written, requests, usage, exact = counts.input_tokens, counts.output_tokens, counts.requests, counts.usage, counts.exact
        if self._before is not None:
            read, requests, usage, exact = self._before.input_tokens + read, self._before.attempts + 1, None, False
        meter = self.run.meter
        if self._units is not None:
            meter.set(_amounts_of(self._units, read, written, requests))
        elif usage is not None:
            meter.set_provider_usage(usage)
        else:
            meter.set_provider_usage(usage_of(read, written), usage_format="openai_chat")
        meter.estimated = not exact

    def left(self) -> LeftAttempt | None:
        """What an attempt that has ended leaves for the next one; None if it is settled."""
        if not isinstance(self.run, Run) or not self.run.left:
            return None
        read, attempts = (0, 0) if self._before is None else (self._before.input_tokens, self._before.attempts)
        return LeftAttempt(self.run, read + estimated_input_tokens(self.call), attempts + 1)


def bills_nothing(status: int) -> bool:
    """A refusal bills nothing. Behind a time-out the model may have run."""
    return status >= 400 and status not in (408, 499, 504, 522, 524)

