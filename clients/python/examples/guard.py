from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from earmark import DeniedError, Earmark, GuardRequest, scope_of

earmark = Earmark()  # one for the whole process; EARMARK_URL and EARMARK_API_KEY


def chat(user: str, prompt: str, model: Model) -> str:
    request: GuardRequest = {"scopes": [scope_of("acme", "ml", user)], "amounts": {"tokens": 500}, "on_expiry": "commit"}
    try:
        with earmark.guard(request) as run:
            reply = model(prompt)
            run.meter.set({"tokens": reply.used_tokens})
        return reply.text
    except DeniedError:
        return "Your budget is used up."


class Reply(NamedTuple):
    text: str
    used_tokens: int


Model = Callable[[str], Reply]
