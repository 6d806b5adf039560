"""One thread of the process with an event loop of its own. All calls run there: a lease is kept while the guarded code blocks its own
thread or event loop, and a settlement goes on when its caller has left, or the caller's event loop is closed."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from typing import Any, TypeVar

T = TypeVar("T")

# How long the end of the process waits for settlements that nobody waits for any more.
_EXIT_LIMIT_SECONDS = 30


class Engine:
    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.RLock()  # the collector may drop a stream of the thread that holds it
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._owed: set[Future[Any]] = set()

    def submit(self, work: Coroutine[Any, Any, T], owed: bool = False) -> Future[T]:
        """Starts work. The process does not end before work that is owed, or before 30 seconds."""
        if sys.is_finalizing():
            work.close()
            raise RuntimeError("the interpreter is shutting down")
        with self._lock:
            loop = self._loop or self._start()
        future = asyncio.run_coroutine_threadsafe(work, loop)
        if owed:
            self.owe(future)
        return future

    def owe(self, future: Future[Any]) -> None:
        self._owed.add(future)
        future.add_done_callback(self._owed.discard)

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=loop.run_forever, name="earmark", daemon=True)
        self._thread.start()
        return loop

    def is_here(self) -> bool:
        return threading.current_thread() is self._thread

    def _drain(self) -> None:
        while owed := list(self._owed):
            if wait(owed, timeout=_EXIT_LIMIT_SECONDS).not_done:
                return


engine = Engine()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=engine._forget)  # a child has no thread but the one that forked
# Before the standard library ends its own threads, which resolve the names of hosts: at exit that is too late.
getattr(threading, "_register_atexit", atexit.register)(engine._drain)


def wait_sync(future: Future[T]) -> T:
    if engine.is_here():
        raise RuntimeError("the client's own thread cannot wait for itself")
    return future.result()


async def wait_async(future: Future[T]) -> T:
    """Waits. Cancelling the wait leaves the work alone."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def finish() -> None:
        if not done.done():
            done.set_result(None)

    def wake(_: Future[T]) -> None:
        try:
            loop.call_soon_threadsafe(finish)
        except RuntimeError:
            pass  # the loop is closed, and nobody waits

    future.add_done_callback(wake)
    await done
    return future.result()
