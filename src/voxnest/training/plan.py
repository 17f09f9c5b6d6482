"""What a training will be, before it is begun: sizes, memory and time, from steps that are really made."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from voxnest.errors import ConfigError
from voxnest.training.bench import Bench
from voxnest.training.checks import check_durations, check_places
from voxnest.training.folder import MEMORY, write_json
from voxnest.training.memory import CUDA_CONTEXT, GB, MemoryModel, measure, resident_bytes
from voxnest.training.settings import lasting_settings

if TYPE_CHECKING:
    import lightning.pytorch as L

    from voxnest.training.config import TrainingConfig

    MakeTrainer = Callable[[TrainingConfig], L.Trainer]

_HOUR = 0.115 * GB
"""Of decoded recordings that are kept."""
_SHARES = "{:.2f} process, {:.3f} weights and optimizer, {:.1f} MB each crop"
_PATIENCE = 600.0
"""Seconds that a further process waits for the first one's measurement."""


@dataclass(frozen=True)
class Plan:
    """A training in numbers.

    Attributes:
        config: with batch and accumulation as they will be.
        rows: what it is, in words: name -> text.
        memory: of a step.
        bytes: that the process will need on its device, by estimate.
        seconds_per_epoch: without validations.
    """

    config: TrainingConfig
    rows: dict[str, str]
    memory: MemoryModel
    bytes: float
    seconds_per_epoch: float


def make_plan(
    config: TrainingConfig, make_trainer: MakeTrainer, progress: Callable[[int, int], None] | None = None
) -> Plan:
    """Set a training up in a temporary folder, make a few steps, and tell what it will be.

    Args:
        config: of the run; its folder is not touched.
        make_trainer: gives the Lightning trainer of a configuration.
        progress: called with the files looked at and their total while a corpus is prepared.

    Raises:
        VoxnestError: what would keep the training from its first step.
    """
    with TemporaryDirectory() as folder:
        config = config.model_copy(update={"output": Path(folder)})
        check_places(config)
        bench = _bench(config, make_trainer, progress)
        model = _measure(bench)
        if config.trainer.memory is not None:
            config = with_batch(config, model.fitting(_crops(config), config.trainer.memory))
            bench = _bench(config, make_trainer)
        seconds = bench.seconds_per_batch() * len(bench.data.loader)
        needed = model.at(config.crops.batch_size) + model.beside
        return Plan(config, _rows(bench, model, needed, seconds), model, needed, seconds)


def fit_to_memory(config: TrainingConfig, make_trainer: MakeTrainer, *, first: bool) -> TrainingConfig:
    """Choose batch and accumulation by `trainer.memory`, once for a run: what was chosen is kept in its folder.

    Args:
        config: of the run; one without `trainer.memory` is given back as it is.
        make_trainer: see `make_plan`.
        first: this is the process that measures; others wait for what it found.

    Raises:
        ConfigError: no batch fits, or the first process has measured nothing.
    """
    if config.trainer.memory is None:
        return config
    assert config.output is not None
    path, settings = config.output / MEMORY, json.loads(json.dumps(lasting_settings(config)))
    end = time.monotonic() + (0 if first else _PATIENCE)
    while True:
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["settings"] == settings:
                return with_batch(config, content["batch_size"])
        if time.monotonic() >= end:
            break
        time.sleep(1)
    if not first:
        raise ConfigError(path, "not written by the first process", "the same command again")
    model = _measure(_bench(config, make_trainer))
    batch_size = model.fitting(_crops(config), config.trainer.memory)
    write_json(path, {"batch_size": batch_size, **model.to_dict(), "settings": settings})
    return with_batch(config, batch_size)


def with_batch(config: TrainingConfig, batch_size: int) -> TrainingConfig:
    """The same optimizer steps, in batches of another size."""
    crops = config.crops.model_copy(update={"batch_size": batch_size})
    trainer = config.trainer.model_copy(update={"accumulate": _crops(config) // batch_size})
    return config.model_copy(update={"crops": crops, "trainer": trainer})


def _crops(config: TrainingConfig) -> int:
    """Of an optimizer step, in one process."""
    return config.crops.batch_size * config.trainer.accumulate


def _bench(
    config: TrainingConfig, make_trainer: MakeTrainer, progress: Callable[[int, int], None] | None = None
) -> Bench:
    bench = Bench(config, make_trainer(config), progress)
    check_durations(config, bench.module.encoder)
    return bench


def _measure(bench: Bench) -> MemoryModel:
    if bench.device.type == "cuda":
        return measure(bench, CUDA_CONTEXT)
    recordings = min(bench.config.data.cache_gb * GB, bench.data.hours * _HOUR)
    return measure(bench, resident_bytes() + recordings)


def _rows(bench: Bench, model: MemoryModel, needed: float, seconds: float) -> dict[str, str]:
    config, data, encoder = bench.config, bench.data, bench.module.encoder
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    trained = sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)
    classes = f" · {data.num_classes:,} classes" if data.num_classes != len(data.crops.speakers) else ""
    batch, accumulate = config.crops.batch_size, config.trainer.accumulate
    processes = bench.trainer.world_size
    steps = len(data.loader) // accumulate
    limits = data.limits()
    ends = [f"{limits.steps:,} steps"] if limits.steps else []
    ends += [f"{limits.seconds / 60:g} min"] if limits.seconds else []
    together = f" · {processes} processes" if processes > 1 else ""
    speech = f"{data.utterances:,} utterances · {data.hours:.1f} h"
    shares = (model.beside / GB, model.fixed / GB, model.per_crop / 1e6)
    whole = ""
    if limits.steps and steps:
        whole = f" · {_time(seconds * limits.steps / steps)} to the end, without validations"
    return {
        "corpus": f"{len(data.crops.speakers):,} speakers · {speech}{classes}",
        **{f"  {name}": text for name, text in data.described.items()},
        "model": f"{encoder.name} · {trained:,} parameters trained · {parameters - trained:,} frozen",
        "batch": f"{batch} crops of {config.crops.duration:g} s{together} · {accumulate} to a step",
        "training": f"{' or '.join(ends)} · {steps:,} steps an epoch",
        "device": f"{bench.device.type.upper()} · precision {bench.trainer.precision.removesuffix('-true')}",
        "memory": f"{needed / GB:.2f} GB: " + _SHARES.format(*shares),
        "time": f"{_time(seconds)} an epoch{whole}",
    }


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
