"""Makes the calls that it reads, a line each, and writes the number of each one when it has ended. When there are no more, it waits for
the charges that are late. Every other call is asynchronous."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from earmark import AsyncGuardedTransport, Earmark, GuardedTransport

AT_ONCE = 16

earmark = Earmark(os.environ["EARMARK_URL"], logger=logging.Logger("quiet", logging.CRITICAL + 1))
options: dict[str, Any] = {"earmark": earmark, "scopes": ["guarded/calls"], "on_expiry": "commit", "ttl_seconds": 5}
clients = [httpx.Client(transport=GuardedTransport(fail_open=open, **options), timeout=60) for open in (False, True)]
async_clients = [httpx.AsyncClient(transport=AsyncGuardedTransport(fail_open=open, **options), timeout=60) for open in (False, True)]
writing = threading.Lock()


def request_of(call: dict[str, Any], retry: int) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", "X-Stainless-Retry-Count": str(retry)}
    return {"method": "POST", "url": call["url"], "content": call["body"].encode(), "headers": headers}


def attempt(call: dict[str, Any], retry: int) -> None:
    with clients[call["fail_open"]].stream(**request_of(call, retry)) as response:
        read = 0
        for chunk in response.iter_raw():
            read += len(chunk)
            if 0 <= call["leave"] <= read:
                break


async def attempt_async(call: dict[str, Any], retry: int) -> None:
    async with async_clients[call["fail_open"]].stream(**request_of(call, retry)) as response:
        read = 0
        async for chunk in response.aiter_raw():
            read += len(chunk)
            if 0 <= call["leave"] <= read:
                if call["cancel"]:
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                    await asyncio.sleep(60)
                break


def ended(call: dict[str, Any]) -> None:
    with writing:
        print(call["number"], flush=True)


def fail() -> None:
    traceback.print_exc()
    os._exit(1)


def make(call: dict[str, Any]) -> None:
    for retry in range(call["attempts"]):
        try:
            attempt(call, retry)
        except httpx.HTTPError:
            pass
        except BaseException:
            fail()
    ended(call)


async def make_async(call: dict[str, Any]) -> None:
    for retry in range(call["attempts"]):
        try:
            await asyncio.create_task(attempt_async(call, retry))
        except (httpx.HTTPError, asyncio.CancelledError):
            pass
        except BaseException:
            fail()
    ended(call)


async def main() -> None:
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Future[None]] = []
    with ThreadPoolExecutor(AT_ONCE) as threads, ThreadPoolExecutor(1) as reader:
        while line := await loop.run_in_executor(reader, sys.stdin.readline):
            call = json.loads(line)
            if call["cancel"] or call["number"] % 2:
                tasks.append(asyncio.ensure_future(make_async(call)))
            else:
                tasks.append(loop.run_in_executor(threads, make, call))
        await asyncio.gather(*tasks)
    for client in async_clients:
        await client.aclose()


asyncio.run(main())
earmark.late_charges.flush()
