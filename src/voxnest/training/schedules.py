"""How learning rate and margin change over a training run, and when it ends.

Both are functions of the fraction of the training that is done, so that they end where the training ends,
whether that is given in steps, in epochs or in minutes.
"""

import math
import time
from collections.abc import Callable, Sequence

from voxnest.training.config import Schedule
from voxnest.training.crop_config import Crops
from voxnest.training.loss_config import Loss


def lr_factor(fraction: float, schedule: Schedule) -> float:
    """The learning rate as a fraction of the highest: linear warm-up, then half a cosine; or both, falling steadily."""
    # Not from zero: the first step shall learn something.
    warm = 0.01 + 0.99 * fraction / schedule.warmup if fraction < schedule.warmup else 1.0
    if schedule.kind == "exponential":
        return float(warm * schedule.final_lr**fraction)
    if warm < 1 or schedule.warmup == 1:
        return warm
    done = min(1.0, (fraction - schedule.warmup) / (1 - schedule.warmup))
    return schedule.final_lr + (1 - schedule.final_lr) * 0.5 * (1 + math.cos(math.pi * done))


def margin_at(fraction: float, loss: Loss) -> float:
    """The margin of the loss: it grows between the ends of its ramp; softmax has none."""
    if loss.kind == "softmax":
        return 0.0
    start, end = loss.margin_ramp
    done = float(fraction >= end) if start == end else min(1.0, max(0.0, (fraction - start) / (end - start)))
    if loss.margin_growth == "exponential" and done < 1:
        done = 1 - 0.001**done
    return loss.margin_start + (loss.margin - loss.margin_start) * done


def duration_at(epoch: int, crops: Crops) -> float:
    """Seconds of a crop in an epoch."""
    begun = [start for start in crops.lengthen if start <= epoch]
    return crops.lengthen[max(begun)] if begun else crops.mean_duration


def dim_weights_at(fraction: float, seconds: float, loss: Loss, dims: Sequence[int]) -> dict[int, float]:
    """How much each prefix counts in a batch of crops of so many seconds; the sum is 1, or 0 if none counts.

    Source: that short crops train short prefixes is DAME's (arXiv 2601.13999).
    """
    longer = [limit for limit in loss.duration_weights if limit >= seconds]
    weights = (loss.duration_weights[min(longer)] if longer else loss.dim_weights) or [1.0] * len(dims)
    starts = loss.dim_starts or [0.0] * len(dims)
    counting = {dim: weight * (fraction >= start) for dim, weight, start in zip(dims, weights, starts, strict=True)}
    total = sum(counting.values()) or 1.0
    return {dim: weight / total for dim, weight in counting.items()}


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
