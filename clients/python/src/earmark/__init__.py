"""The Python client of Earmark, which reserves, settles and audits spending limits for AI requests. See docs/python.md."""

from . import _types as types
from ._async_client import AsyncEarmark, AsyncGuard, AsyncGuardedStream, each_item_async
from ._client import Earmark, Guard, GuardedStream, each_item
from ._errors import DeniedError, EarmarkError, KeyInUseError, NothingSentError, UnsettledError
from ._guard import GuardRequest, Run, Settled
from ._meter import Meter, ProviderResponse
from ._scope import scope_ids, scope_of

__all__ = [
    "AsyncEarmark",
    "AsyncGuard",
    "AsyncGuardedStream",
    "DeniedError",
    "Earmark",
    "EarmarkError",
    "Guard",
    "GuardRequest",
    "GuardedStream",
    "KeyInUseError",
    "Meter",
    "NothingSentError",
    "ProviderResponse",
    "Run",
    "Settled",
    "UnsettledError",
    "each_item",
    "each_item_async",
    "scope_ids",
    "scope_of",
    "types",
]
