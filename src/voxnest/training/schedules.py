"""How learning rate and margin change over a training run, and when it ends.

Both are functions of the fraction of the training that is done, so that they end where the training ends,
whether that is given in steps, in epochs or in minutes.
"""

import math
import time
from collections.abc import Callable

from voxnest.training.config import Crops, Loss, Schedule


def lr_factor(fraction: float, schedule: Schedule) -> float:
    """The learning rate as a fraction of the highest: linear warm-up, then half a cosine."""
    if fraction < schedule.warmup:
        # Not from zero: the first step shall learn something.
        return 0.01 + 0.99 * fraction / schedule.warmup
    if schedule.warmup == 1:
        return 1.0
    done = min(1.0, (fraction - schedule.warmup) / (1 - schedule.warmup))
    return schedule.final_lr + (1 - schedule.final_lr) * 0.5 * (1 + math.cos(math.pi * done))


def margin_at(fraction: float, loss: Loss) -> float:
    """The margin of the loss in radians: linear between the ends of its ramp; softmax has none."""
    if loss.kind == "softmax":
        return 0.0
    start, end = loss.margin_ramp
    done = float(fraction >= end) if start == end else min(1.0, max(0.0, (fraction - start) / (end - start)))
    return loss.margin_start + (loss.margin - loss.margin_start) * done


def duration_at(epoch: int, crops: Crops) -> float:
    """Seconds of a crop in an epoch."""
    begun = [start for start in crops.lengthen if start <= epoch]
    return crops.lengthen[max(begun)] if begun else crops.duration


class Clock:
    """Seconds that a run has trained, over all its interruptions.

    Args:
        now: gives the time in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._before = 0.0
        self._start: float | None = None

    def start(self, before: float = 0.0) -> None:
        """Begin to count, from the `before` seconds of earlier parts of the run."""
        self._before, self._start = before, self._now()

    @property
    def elapsed(self) -> float:
        """Seconds so far."""
        return self._before + (0.0 if self._start is None else self._now() - self._start)


class Limits:
    """When a run ends: after so many steps or so many seconds, whichever comes first.

    Args:
        steps: optimizer steps, or None.
        seconds: of training and validation together, or None.
    """

    def __init__(self, steps: int | None, seconds: float | None) -> None:
        self.steps, self.seconds = steps, seconds

    def fraction(self, step: int, elapsed: float) -> float:
        """How much of the training is done, 0 to 1, after `step` steps and `elapsed` seconds."""
        by_steps = step / self.steps if self.steps else 0.0
        by_time = elapsed / self.seconds if self.seconds else 0.0
        return min(1.0, max(by_steps, by_time))
