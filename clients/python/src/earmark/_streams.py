"""What differs between the streams of the two clients."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

from ._guard import AsyncOpen, Open, Run

T = TypeVar("T")


def open_sync(open: Open[T], run: Run) -> Iterator[T]:
    return iter(open(run))


def next_sync(source: Iterator[T]) -> T:
    return next(source)


def close_sync(source: Iterator[T] | None) -> None:
    close = getattr(source, "close", None)
    if close is not None:
        close()


async def open_async(open: AsyncOpen[T], run: Run) -> AsyncIterator[T]:
    opened = open(run)
    source = await opened if inspect.isawaitable(opened) else opened
    return source.__aiter__()


async def next_async(source: AsyncIterator[T]) -> T:
    return await source.__anext__()


async def close_async(source: AsyncIterator[T] | None) -> None:
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()
