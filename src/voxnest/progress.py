"""How far a long command is, on the terminal."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(title: str, after: float = 2.0) -> Iterator[Callable[[int, int], None]]:
    """Give a function to call with how much is done, and of how much; a bar on stderr shows it and goes away.

    Args:
        title: what is being done, such as "embedding".
        after: the seconds before the bar appears; what takes less shows none.

    There is no bar where stderr is not a terminal.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not (sys.stderr.isatty() and console.is_interactive):  # the latter alone can be forced by the environment
        yield lambda done, total: None
        return
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task(title, total=None)
    timer = threading.Timer(after, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda done, total: bar.update(task, completed=done, total=total)
    finally:
        timer.cancel()
        timer.join()  # it may just be starting the bar
        bar.stop()
