#!/usr/bin/env bash
# httpx: the raw bytes of an answer that a transport made from its content cannot be read.
# Guess:  a transport of one's own (a cache, a denial, a test's provider) may answer Response(200, content=…); a caller that
#         asked for a stream reads it raw or decoded, as it likes.
# Seen:   iter_raw() and aiter_raw() raise StreamConsumed on the first read, although nothing has been read; iter_bytes() works.
#         The same bytes given as stream=ByteStream(…) can be read either way.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check httpx==0.28.1
cat >try.py <<'PY'
import asyncio, sys
from importlib.metadata import version
import httpx

answers = {
    "content": lambda _: httpx.Response(200, content=b"data: 1\n\n"),
    "stream": lambda _: httpx.Response(200, stream=httpx.ByteStream(b"data: 1\n\n")),
}

def sync(answer, method):
    with httpx.Client(transport=httpx.MockTransport(answer)) as client, client.stream("GET", "http://provider.test/") as response:
        return b"".join(getattr(response, method)())

async def concurrent(answer, method):
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        async with client.stream("GET", "http://provider.test/") as response:
            return b"".join([part async for part in getattr(response, "a" + method)()])

seen = {}
for name, answer in answers.items():
    for method in ("iter_raw", "iter_bytes"):
        for kind, run in (("sync", sync), ("async", lambda *args: asyncio.run(concurrent(*args)))):
            try:
                run(answer, method)
                seen[name, method, kind] = "read"
            except Exception as error:
                seen[name, method, kind] = type(error).__name__
print("httpx", version("httpx"))
for case, what in seen.items():
    print(*case, what)
failing = {case for case, what in seen.items() if what != "read"}
if failing != {("content", "iter_raw", "sync"), ("content", "iter_raw", "async")} or seen["content", "iter_raw", "sync"] != "StreamConsumed":
    sys.exit("CHANGED: other reads fail")
PY
venv/bin/python try.py
