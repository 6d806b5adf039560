import httpx

from earmark import AsyncGuardedTransport, GuardedTransport

http = httpx.Client(transport=GuardedTransport(scopes=["acme/ml"], on_expiry="commit"))
http_async = httpx.AsyncClient(transport=AsyncGuardedTransport(scopes=["acme/ml"], on_expiry="commit"))
