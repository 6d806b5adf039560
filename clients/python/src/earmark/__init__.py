"""The Python client of Earmark, which reserves, settles and audits spending limits for AI requests. See docs/python.md."""

from . import _types as types
from ._async_client import AsyncEarmark, AsyncGuard, AsyncGuardedStream, each_item_async
from ._client import Earmark, Guard, GuardedStream, each_item
from ._errors import DeniedError, EarmarkError, KeyInUseError, NothingSentError, UnsettledError
from ._guard import GuardRequest, Run, Settled
from ._guarded import AsyncGuardedTransport, Denial, GuardedTransport, denial_of
from ._late import FailOpen, LateCharges, LostCharge
from ._meter import Meter, ProviderResponse
from ._providers import ProviderCall
from ._scope import scope_ids, scope_of
from ._wrap import wrap

__all__ = [
    "AsyncEarmark",
    "AsyncGuard",
    "AsyncGuardedStream",
    "AsyncGuardedTransport",
    "Denial",
    "DeniedError",
    "Earmark",
    "EarmarkError",
    "FailOpen",
    "Guard",
    "GuardRequest",
    "GuardedStream",
    "GuardedTransport",
    "KeyInUseError",
    "LateCharges",
    "LostCharge",
    "Meter",
    "NothingSentError",
    "ProviderCall",
    "ProviderResponse",
    "Run",
    "Settled",
    "UnsettledError",
    "denial_of",
    "each_item",
    "each_item_async",
    "scope_ids",
    "scope_of",
    "types",
    "wrap",
]
