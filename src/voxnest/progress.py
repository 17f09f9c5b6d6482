"""How far a long command is, on the terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def progress_bar(title: str, after: float = 2.0) -> Iterator[Callable[[int, int], None]]:
    """Give a function to call with how much is done, and of how much; a bar on stderr shows it and goes away.

    Args:
        title: what is being done, such as "embedding".
        after: the seconds before the bar appears; what takes less shows none.

    There is no bar where stderr is not a terminal.
    """
    with _drawn(title, "", after) as update:
        yield lambda done, total: update(completed=done, total=total)


@contextmanager
def throughput_bar(title: str, count: Callable[[], int | None]) -> Iterator[Callable[[int, int, str], None]]:
    """As `progress_bar`, of work of any length: how fast it is, and the time that is left as soon as that is known.

    The function that it gives is called with how much is done, how much of all was done before, and how fast it is.

    Args:
        title: what is being done.
        count: tells how much there is in all, or None if nobody knows; it takes its time in a thread. What it raises
            does not matter, for the work itself will.
    """
    total: list[int] = []

    def find_total() -> None:
        with suppress(Exception):
            total.extend(filter(None, [count()]))

    with _drawn(title, "{task.fields[rate]}", 2.0) as update:
        if sys.stderr.isatty():
            threading.Thread(target=find_total, name="count", daemon=True).start()

        def show(done: int, before: int, rate: str) -> None:
            update(completed=done, total=max(total[0] - before, done) if total else None, rate=rate)

        yield show


@contextmanager
def _drawn(title: str, text: str, after: float) -> Iterator[Callable[..., None]]:
    """Give a function that changes what a bar shows, where there is a terminal."""
    if not sys.stderr.isatty():
        yield lambda **_: None
        return
    latest: dict[str, Any] = {}
    bars: list[Progress] = []

    def begin() -> None:  # only now is imported what draws: most commands are done before
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        if console.is_interactive:
            columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn(text), TimeRemainingColumn())
            bar = Progress(*columns, console=console, transient=True, speed_estimate_period=300)
            task = bar.add_task(title, total=None, rate="")
            bars.append(bar)
            bar.update(task, **latest)
            bar.start()

    def update(**shown: Any) -> None:
        latest.update(shown)
        for bar in bars:
            bar.update(bar.task_ids[0], **shown)

    timer = threading.Timer(after, begin)
    timer.daemon = True
    timer.start()
    try:
        yield update
    finally:
        timer.cancel()
        timer.join()  # it may just be starting the bar
        for bar in bars:
            bar.stop()
