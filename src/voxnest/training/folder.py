"""The folder of a run: what is in it, whether it is finished, and what is written beside the checkpoints."""

from __future__ import annotations

import json
import os
import pickle
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

import voxnest
from voxnest import files
from voxnest.errors import CheckpointError, ConfigError, TrainingError
from voxnest.files import atomic_write
from voxnest.locks import LOCK, RUNNING
from voxnest.training.config import TrainingConfig
from voxnest.training.settings import LENGTH_KEYS, dump_config, first_difference, load

MEMORY = "memory.json"
EARLY = {LOCK, RUNNING, MEMORY, "manifest", "manifests", "validation", "feature-statistics.json"}
"""What may be there before a run has begun: `trainer.memory` makes steps first."""
LIBRARIES = ("voxnest", "torch", "lightning", "numpy", "lhotse", "soundfile", "av", "soxr")


@dataclass(frozen=True)
class TrainingResult:
    """A finished run.

    Attributes:
        folder: the run folder.
        step: the last step.
        minutes: spent on training and validation.
        last: equal error rates (fractions) of the last weights, by size of embedding: "64", "64@2" at an exit.
        best: the same of the best weights.
        best_step: when these were reached.
        unreadable: training files that were skipped -> why.
        average: the rates of the mean of the last weights, if `trainer.average_last` asked for it.
        already_finished: the run was finished before; nothing was done now.
    """

    folder: Path
    step: int
    minutes: float
    last: dict[str, float]
    best: dict[str, float]
    best_step: int
    unreadable: dict[Path, str]
    average: dict[str, float] | None = None
    already_finished: bool = False


class RunFolder:
    """The files of a run.

    Args:
        path: of the folder.
        kind: of configuration that the run has.
    """

    def __init__(self, path: Path, kind: type[BaseModel] = TrainingConfig) -> None:
        self.path, self.kind = path, kind
        self.config = path / "config.yaml"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.csv"
        self.result = path / "result.json"
        self.unreadable = path / "unreadable.tsv"
        self.checkpoint = path / "checkpoints" / "last.ckpt"

    def check(self, config: BaseModel) -> None:
        """Make sure that a run of this configuration can begin or continue here.

        Raises:
            ConfigError: the folder has a run of another configuration, or is something else.
        """
        if not self.config.exists():
            if self.path.exists() and (not self.path.is_dir() or {p.name for p in self.path.iterdir()} - EARLY):
                raise ConfigError(self.path, "is not empty and no run folder", "a new folder as `output`")
        elif self.checkpoint.exists():  # without it nothing is lost if another configuration takes the folder
            difference = first_difference(load(self.kind, self.config), config)
            if difference is not None:
                key, old, new = difference
                found = f"holds a run with {key} = {json.dumps(old)}, this one has {json.dumps(new)}"
                expected = "the same settings to continue, or another folder as `output`"
                if key in LENGTH_KEYS:
                    found += "; schedules follow the length of a training, so this is another run"
                    expected = self.longer
                raise ConfigError(self.path, found, expected)

    @property
    def longer(self) -> str:
        """How to train on from what the run has learnt."""
        return f"init_from={self.path / 'last.safetensors'} output=NEW to train on from its weights"

    def saved_step(self) -> int:
        """The step to continue from; 0 if there is no checkpoint.

        Raises:
            CheckpointError: the checkpoint is damaged.
        """
        if not self.checkpoint.exists():
            return 0
        try:
            content = torch.load(self.checkpoint, weights_only=True, mmap=True, map_location="cpu")
            return int(content["global_step"])
        except (RuntimeError, OSError, EOFError, KeyError, pickle.UnpicklingError) as error:
            expected = "one of `voxnest train`; copy best.ckpt over it, or delete it to start anew"
            raise CheckpointError(self.checkpoint, "a damaged checkpoint", expected) from error

    def read_result(self) -> TrainingResult | None:
        """The result of a finished run; None of an unfinished one."""
        if not (self.result.exists() and self.checkpoint.exists()):
            return None
        content = json.loads(self.result.read_text(encoding="utf-8"))
        content["unreadable"] = {Path(path): reason for path, reason in content["unreadable"].items()}
        return TrainingResult(folder=self.path, already_finished=True, **content)

    def write_result(self, result: TrainingResult) -> None:
        """Mark the run as finished."""
        content = {
            "step": result.step,
            "minutes": round(result.minutes, 3),
            "last": result.last,
            "best": result.best,
            "best_step": result.best_step,
            "average": result.average,
            "unreadable": {str(path): reason for path, reason in result.unreadable.items()},
        }
        write_json(self.result, content)

    def write_unreadable(self, files: Mapping[Path, str]) -> None:
        """List the files that were skipped, and why."""
        if files:
            with writing(self.unreadable), atomic_write(self.unreadable) as temporary:
                lines = (f"{path}\t{' '.join(reason.split())}\n" for path, reason in sorted(files.items()))
                temporary.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")

    def read_unreadable(self) -> dict[Path, str]:
        """The files that earlier parts of the run skipped."""
        if not self.unreadable.exists():
            return {}
        lines = self.unreadable.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        return {Path(path): reason for path, _, reason in (line.partition("\t") for line in lines)}

    def describe(self, config: BaseModel, step: int) -> None:
        """Write the resolved configuration, and add this start of the run to `environment.json`."""
        if step == 0 and self.config.exists() and first_difference(load(self.kind, self.config), config):
            shutil.rmtree(self.path / "validation", ignore_errors=True)  # of a run that saved nothing
            self.unreadable.unlink(missing_ok=True)
        with writing(self.config):
            dump_config(config, self.config)
        starts = []
        if step and self.environment.exists():
            starts = json.loads(self.environment.read_text(encoding="utf-8"))["starts"]
        gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        start = {
            "step": step,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "seed": config.seed,  # type: ignore[attr-defined]
            "git": _git_revision(),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": gpus,
            "libraries": {name: version(name) for name in LIBRARIES},
        }
        write_json(self.environment, {"starts": [*starts, start]})


def writing(path: Path) -> AbstractContextManager[None]:
    """Around the writing of a file of the run.

    Raises:
        TrainingError: it cannot be written.
    """
    return files.writing(path, TrainingError, "room and permission to write; the same command continues the run")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a small file of the run."""
    with writing(path), atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _git_revision() -> str | None:
    """The revision of the checkout that voxnest runs from, with "+" if files were changed."""
    git = ["git", "-C", str(Path(voxnest.__file__).parent)]
    try:
        revision = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if revision.returncode != 0:
        return None
    return revision.stdout.strip() + ("+" if changes.stdout else "")
