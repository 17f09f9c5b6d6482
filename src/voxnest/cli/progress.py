"""How far a long command is, on the terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voxnest.inference.bulk import Counts


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


class Throughput:
    """How fast a run is, for `throughput_bar`: recordings a second, and seconds of them.

    Args:
        update: draws.
        count: gives how many recordings there will be, or None if nobody knows.
    """

    def __init__(self, update: Callable[..., None], count: Callable[[], int | None]) -> None:
        self._update, self._count = update, count
        self._total: int | None = None

    def count(self) -> None:
        """Find out how many there will be; what is wrong with them is told by those that embed."""
        with suppress(Exception):
            self._total = self._count()

    def __call__(self, counts: Counts) -> None:
        """Show how far it is."""
        done = counts.embedded + counts.failed
        left = None if self._total is None else max(self._total - counts.there, done)
        self._update(completed=done, total=left, rate=counts.rate())


@contextmanager
def throughput_bar(count: Callable[[], int | None]) -> Iterator[Throughput]:
    """As `progress_bar`, of a run of any length: how fast it is, and the time that is left as soon as that is known.

    Args:
        count: gives how many recordings there will be; it takes its time in a thread.
    """
    with _drawn("embedding", "{task.fields[rate]}", 2.0) as update:
        shown = Throughput(update, count)
        if sys.stderr.isatty():
            threading.Thread(target=shown.count, name="count", daemon=True).start()
        yield shown


@contextmanager
def _drawn(title: str, text: str, after: float) -> Iterator[Callable[..., None]]:
    """Give a function that changes what a bar shows, where there is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not (sys.stderr.isatty() and console.is_interactive):  # the latter alone can be forced by the environment
        yield lambda **_: None
        return
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn(text), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, speed_estimate_period=300)
    task = bar.add_task(title, total=None, rate="")
    timer = threading.Timer(after, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda **shown: bar.update(task, **shown)
    finally:
        timer.cancel()
        timer.join()  # it may just be starting the bar
        bar.stop()
