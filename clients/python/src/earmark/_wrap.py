from __future__ import annotations

import copy
from typing import Any, TypeVar, cast

import httpx

from ._client import Earmark
from ._errors import EarmarkError
from ._guarded import AsyncGuardedTransport, GuardedTransport
from ._libraries import find_library

Client = TypeVar("Client")

_KNOWN = "openai, anthropic, google-genai"


def wrap(client: Client, **options: Any) -> Client:
    """Guards the client of a provider: each call of a model reserves before, and commits what the provider says was used. Use what it
    returns. It knows `openai`, `anthropic` and `google-genai`, synchronous and asynchronous. The first two return a guarded copy;
    Google's client has no copy, and is changed itself. For the options see GuardedTransport."""
    anything = cast(Any, client)
    options = {**options, "earmark": options.get("earmark") or Earmark()}
    if callable(getattr(client, "copy", None)) and _is_http(getattr(client, "_client", None)):
        return cast(Client, anything.copy(http_client=_guarded(anything._client, options)))
    google = getattr(client, "_api_client", None)
    if _is_http(getattr(google, "_httpx_client", None)):
        _wrap_google(google, options)
        return client
    raise _refused(
        f"{type(client).__name__} is no client that wrap knows ({_KNOWN}); where its package takes a client of httpx, give that a "
        "GuardedTransport"
    )


def _wrap_google(google: Any, options: dict[str, Any]) -> None:
    if google._use_google_auth_sync() or google._async_httpx_client is None:
        raise _refused("calls Vertex AI with a client certificate, which wrap cannot guard")
    http, http_async = _guarded(google._httpx_client, options), _guarded(google._async_httpx_client, options)
    google._httpx_client, google._async_httpx_client = http, http_async
    google._use_aiohttp = lambda: False  # it would pass the guard by


def _is_http(client: object) -> bool:
    return find_library(type(client)) is not None


def _guarded(client: Any, options: dict[str, Any]) -> Any:
    """An HTTP client that sends through the first one, which it keeps, and whose connections stay open when it is dropped: others may
    use them."""
    library = find_library(type(client))
    asynchronous = isinstance(client, library.AsyncClient)
    kind: Any = AsyncGuardedTransport if asynchronous else GuardedTransport
    if isinstance(client._transport, (GuardedTransport, AsyncGuardedTransport)):
        raise _refused("is guarded already; a second guard would hold and charge each call twice")
    base = library.AsyncClient if asynchronous else library.Client
    if type(client).send is not base.send:  # it may send past its transport, as Google's does
        through: Any = _AsyncThrough if asynchronous else _Through
        return base(transport=kind(through(client), **options), timeout=client.timeout)
    guarded = copy.copy(client)
    guarded.__class__ = type(type(client).__name__, (type(client),), {"__del__": lambda self: None})
    guarded._transport = kind(client._transport, **options)
    guarded._mounts = {pattern: mounted and kind(mounted, **options) for pattern, mounted in client._mounts.items()}
    guarded._earmark_keeps = client
    return guarded


class _Through(httpx.BaseTransport):
    """Sends through a client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return cast(httpx.Response, self._client.send(request, stream=True))

    def close(self) -> None:
        self._client.close()


class _AsyncThrough(httpx.AsyncBaseTransport):
    def __init__(self, client: Any) -> None:
        self._client = client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return cast(httpx.Response, await self._client.send(request, stream=True))

    async def aclose(self) -> None:
        await self._client.aclose()


def _refused(message: str) -> EarmarkError:
    return EarmarkError("invalid_request", message, field="client")
