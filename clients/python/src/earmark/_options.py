"""What both clients do with their arguments."""

from __future__ import annotations

import logging
import os
import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit

from ._errors import EarmarkError
from ._late import LateCalls, LateCharges, LostCharge
from ._meter import MAX_AMOUNT
from ._transport import Call, Transport
from ._types import Reservation, ReservationRequest

DEFAULT_BASE_URL = "http://127.0.0.1:8080"
DEFAULT_MAX_ATTEMPTS = 4
# An admission is decided within seconds; a call that takes longer will get no answer.
DEFAULT_TIMEOUT_SECONDS = 30.0
# Enough for a restart of Earmark.
DEFAULT_SETTLE_LIMIT_SECONDS = 30.0
_MAX_KEY_BYTES = 255


def base_url_of(text: str | None) -> str:
    text = text or os.environ.get("EARMARK_URL") or DEFAULT_BASE_URL
    try:
        url = urlsplit(text)
        _ = url.port  # raises where it is no number
    except ValueError:
        raise EarmarkError("invalid_request", "the base URL does not parse") from None
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment or url.username is not None:
        redacted = re.sub(r"//[^/@]*@", "//xxxxx@", text)
        raise EarmarkError("invalid_request", f'"{redacted}" is not a base URL such as {DEFAULT_BASE_URL}')
    return text.rstrip("/")


def api_key_of(key: str | None) -> str:
    """The argument, else EARMARK_API_KEY, else the content of the file EARMARK_API_KEY_FILE, else none. No error shows the key."""
    source = "api_key"
    if key is None:
        key, file = os.environ.get("EARMARK_API_KEY", ""), os.environ.get("EARMARK_API_KEY_FILE", "")
        source = "EARMARK_API_KEY"
        if key.strip() and file:
            raise EarmarkError("invalid_request", "EARMARK_API_KEY and EARMARK_API_KEY_FILE are both set; set one of them")
        if file:
            source = "EARMARK_API_KEY_FILE"
            try:
                key = Path(file).read_text()
            except OSError as error:
                raise EarmarkError("invalid_request", f"{source}: {error}") from error
    key = key.strip()
    if not re.fullmatch(r"[!-~]*", key):
        raise EarmarkError("invalid_request", f"the key in {source} holds a character that no key has")
    return key


def path_of(kind: str, id: str, *rest: str) -> str:
    return "/".join([f"/v1/{kind}", *(quote(part, safe="") for part in (id, *rest))])


def making(path: str, key: str, body: Mapping[str, Any], deadline: float | None = None) -> Call:
    """A call with an idempotency key."""
    check_key(key)
    check_amounts("amounts", body.get("amounts"))
    return Call("POST", path, key=key, body=body, repeat=True, deadline=deadline)


async def make(transport: Transport, path: str, key: str, body: Mapping[str, Any], deadline: float | None = None) -> Reservation:
    """A call that was sent more than once may find the reservation of its own first attempt."""
    answer = await transport.exchange(making(path, key, body, deadline))
    return cast(Reservation, {**answer.value, "replayed": answer.hit and answer.attempts == 1})


async def reserve(transport: Transport, request: ReservationRequest, key: str | None, deadline: float | None = None) -> Reservation:
    made = await make(transport, "/v1/reservations", str(uuid.uuid4()) if key is None else key, request, deadline)
    if key is None:
        made["replayed"] = False  # no other call has this key
    return made


def late_charges(transport: Transport, log: logging.Logger, on_lost: Callable[[LostCharge], object] | None) -> LateCharges:
    async def settle(id: str, verb: str, body: object) -> None:
        await transport.exchange(Call("POST", path_of("reservations", id, verb), body=body, repeat=True))

    calls = LateCalls(
        charge_usage=lambda request, key: make(transport, "/v1/usage", key, request),
        reserve=lambda request, key: make(transport, "/v1/reservations", key, request),
        commit=lambda id, usage: settle(id, "commit", usage),
        release=lambda id: settle(id, "release", {}),
    )
    return LateCharges(calls, log, on_lost or (lambda _: None))


def check_key(key: str) -> None:
    if not 1 <= len(key) <= _MAX_KEY_BYTES:
        raise EarmarkError("invalid_request", f"is {len(key)} bytes long; 1 to {_MAX_KEY_BYTES} are allowed", field="Idempotency-Key")
    if not re.fullmatch(r"[ -~]+", key):
        raise EarmarkError("invalid_request", "holds a character that is not printable ASCII", field="Idempotency-Key")


def check_amounts(field: str, amounts: Mapping[str, object] | None) -> None:
    for unit, amount in (amounts or {}).items():
        if not isinstance(amount, int) or isinstance(amount, bool) or abs(amount) > MAX_AMOUNT:
            raise EarmarkError("invalid_request", f"{amount!r} is not a whole number up to {MAX_AMOUNT}", field=f"{field}.{unit}")
