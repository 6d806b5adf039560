from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from earmark import AsyncEarmark, AsyncGuardedStream, GuardRequest, Run

earmark = AsyncEarmark()


def stream(prompt: str, model: StreamingModel) -> AsyncGuardedStream[str]:
    request: GuardRequest = {"scopes": ["acme/ml/u1"], "amounts": {"tokens": 500}, "on_expiry": "commit"}

    async def chunks(run: Run) -> AsyncIterator[str]:
        run.meter.add({"tokens": len(prompt.encode())})  # spent as soon as it is sent; a token has a byte or more
        async for chunk in model(prompt):
            run.meter.add({"tokens": 1})
            if chunk.used_tokens is not None:
                run.meter.set({"tokens": chunk.used_tokens})  # the model's own count
            yield chunk.text

    return earmark.guard_stream(request, chunks)


class Chunk(NamedTuple):
    text: str
    used_tokens: int | None = None


StreamingModel = Callable[[str], AsyncIterator[Chunk]]
