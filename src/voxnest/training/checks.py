"""What can be wrong with a configuration beyond its values: places, durations, devices. Told before training."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import lightning.pytorch as L
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.plugins.environments import LightningEnvironment

from voxnest.audio import SAMPLE_RATE
from voxnest.errors import ConfigError

if TYPE_CHECKING:
    from voxnest.models.encoder import SpeakerEncoder
    from voxnest.training.config import TrainingConfig

PROCESSES_PER_CORE = 2
"""More of them on a CPU only wait for each other."""


def check_places(config: TrainingConfig) -> None:
    """See that what is read later is there.

    Raises:
        ConfigError: it is not.
    """
    places = [("data.validation.trials", config.data.validation.trials)]
    places += [("data.validation.root", config.data.validation.root)]
    places += [("data.validation.utterances", config.data.validation.utterances)]
    places += [("augmentation.noise", place) for place in config.augmentation.noise]
    places += [("augmentation.rirs", place) for place in config.augmentation.rirs]
    for key, place in places:
        if place is not None and not place.exists():
            raise ConfigError(key, f"{place} is not there", "a file or folder that is")


def check_durations(config: TrainingConfig, encoder: SpeakerEncoder) -> None:
    """See that crops and segments are long enough for the encoder.

    Raises:
        ConfigError: they are not, or it takes another sample rate.
    """
    if encoder.sample_rate != SAMPLE_RATE:
        raise ConfigError("model.overrides", f"a sample rate of {encoder.sample_rate}", f"{SAMPLE_RATE}")
    least = encoder.min_samples / SAMPLE_RATE
    durations = [("crops.duration", config.crops.duration)]
    durations += [("crops.durations", seconds) for seconds in config.crops.durations]
    durations += [("crops.lengthen", seconds) for seconds in config.crops.lengthen.values()]
    durations += [("data.validation.segment", config.data.validation.segment)]
    for key, seconds in durations:
        if round(seconds * SAMPLE_RATE) < encoder.min_samples:
            raise ConfigError(
                key, f"{seconds:g} s", f"{least:g} s or more, which {config.model.name or encoder.name} needs"
            )


def check_trainer(config: TrainingConfig, trainer: L.Trainer) -> None:
    """See that devices can do what is asked of them.

    Raises:
        ConfigError: a CPU is asked for 16-mixed or too many processes; nothing says where other machines are.
    """
    options = config.trainer
    if isinstance(trainer.accelerator, CPUAccelerator):
        if options.precision == "16-mixed":
            raise ConfigError("trainer.precision", "16-mixed on a CPU", "32 or bf16-mixed")
        cores = os.cpu_count() or 1
        if trainer.num_devices > PROCESSES_PER_CORE * cores:
            found = f"{trainer.num_devices} processes on {cores} cores"
            raise ConfigError("trainer.devices", found, f"at most {PROCESSES_PER_CORE * cores} on this CPU")
    alone = isinstance(getattr(trainer.strategy, "cluster_environment", None), LightningEnvironment)
    if options.num_nodes > 1 and alone and "MASTER_ADDR" not in os.environ:
        raise ConfigError("trainer.num_nodes", f"{options.num_nodes}, and MASTER_ADDR is not set", "torchrun or SLURM")
