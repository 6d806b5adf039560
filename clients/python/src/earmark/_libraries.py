"""httpx, and httpx2, to which the SDKs of OpenAI, Anthropic and Google have moved. Their classes differ, but not in what they do."""

from __future__ import annotations

import sys
from typing import Any

_NAMES = ("httpx", "httpx2")
# Errors of a connection that was never made.
_UNSENT = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"}


def library_of(thing: object) -> Any:
    """The module whose class a client, a request or a response has."""
    found = find_library(type(thing))
    if found is None:
        raise TypeError(f"{type(thing).__name__} is of neither httpx nor httpx2")
    return found


def find_library(kind: type) -> Any:
    for base in kind.__mro__:
        name = base.__module__.partition(".")[0]
        if name in _NAMES:
            return sys.modules[name]
    return None


def is_unsent(error: BaseException) -> bool:
    """Whether the connection was never made."""
    return any(base.__name__ in _UNSENT and base.__module__.partition(".")[0] in _NAMES for base in type(error).__mro__)
