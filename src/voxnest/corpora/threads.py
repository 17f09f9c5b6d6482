"""Work in threads that nobody waits for when the program is told to stop."""

import contextlib
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_unordered(function: Callable[[T], R], items: Iterator[T], jobs: int) -> Generator[R, None, None]:
    """What `function` gives for each item, in threads, in the order in which it is ready.

    The threads of a `ThreadPoolExecutor` are waited for when the program ends, however long they take for a file on
    a slow disk. These are not: after Ctrl-C there is nothing in them to be saved.
    """
    tasks: SimpleQueue[T | None] = SimpleQueue()
    results: SimpleQueue[R | BaseException] = SimpleQueue()

    def work() -> None:
        while (item := tasks.get()) is not None:
            try:
                results.put(function(item))
            except BaseException as error:
                results.put(error)

    for _ in range(jobs):
        Thread(target=work, daemon=True).start()
    try:
        waiting = 0
        while True:
            for item in islice(items, 2 * jobs - waiting):
                tasks.put(item)
                waiting += 1
            if not waiting:
                return
            result = results.get()
            waiting -= 1
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        with contextlib.suppress(Empty):
            while True:  # what no thread has begun
                tasks.get_nowait()
        for _ in range(jobs):
            tasks.put(None)
