"""Search an architecture from a configuration into a run folder; continue what was interrupted."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from rich.console import Console

from voxnest.errors import ConfigError
from voxnest.files import atomic_write
from voxnest.locks import locked
from voxnest.models.genotype import Genotype
from voxnest.nas.config import SearchConfig
from voxnest.nas.control import SearchControl, metric_names
from voxnest.nas.data import SearchData
from voxnest.nas.display import SearchDisplay
from voxnest.nas.drawing import draw_genotype
from voxnest.nas.module import SearchModule
from voxnest.training.callbacks import AtomicCheckpointIO
from voxnest.training.folder import RunFolder, write_json, writing
from voxnest.training.interruption import TrainingInterruptedError
from voxnest.training.metrics import Events, MetricsFile
from voxnest.training.precision import find_precision
from voxnest.training.run import quiet


@dataclass(frozen=True)
class Found:
    """What one search found.

    Attributes:
        cost_weight: of the search.
        genotype: of its last epoch, in text form.
        accuracy: of the cells it sampled in its last epoch, on the half of the architecture, 0 to 1.
        gmacs: of the genotype's operations at the size of the supernet, for one crop.
        entropy: of the normal and of the reduction cell, in nats.
    """

    cost_weight: float
    genotype: str
    accuracy: float
    gmacs: float
    entropy: Sequence[float]


@dataclass(frozen=True)
class SearchResult:
    """A finished search.

    Attributes:
        folder: of the run.
        step: the last one.
        epochs: how many there were.
        minutes: spent.
        found: for each cost weight, in their order.
        already_finished: it was finished before; nothing was done now.
    """

    folder: Path
    step: int
    epochs: float
    minutes: float
    found: Sequence[Found]
    already_finished: bool = False

    def file(self, number: int, kind: str) -> Path:
        """The file of a search's genotype ("genotype", .txt) or of its picture ("cell", .svg)."""
        suffix = {"genotype": "txt", "cell": "svg"}[kind]
        return self.folder / (f"{kind}-{number + 1}.{suffix}" if len(self.found) > 1 else f"{kind}.{suffix}")


class SearchFolder(RunFolder):
    """The files of a search.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, SearchConfig)

    @property
    def longer(self) -> str:
        """What to do for a longer search."""
        return "output=NEW for a longer search"

    def read_search(self) -> SearchResult | None:
        """The result of a finished search; None of an unfinished one."""
        if not (self.result.exists() and self.checkpoint.exists()):
            return None
        content = json.loads(self.result.read_text(encoding="utf-8"))
        found = [Found(**item) for item in content.pop("found")]
        return SearchResult(folder=self.path, found=found, already_finished=True, **content)

    def write_search(self, result: SearchResult) -> None:
        """Write genotypes and pictures, and mark the search as finished."""
        for number, found in enumerate(result.found):
            path = result.file(number, "genotype")
            with writing(path), atomic_write(path) as temporary:
                temporary.write_text(found.genotype + "\n", encoding="utf-8")
            draw_genotype(Genotype.parse(found.genotype), result.file(number, "cell"))
        content = asdict(result)
        write_json(self.result, {key: content[key] for key in ("step", "epochs", "minutes", "found")})


def search(
    config: SearchConfig,
    *,
    console: Console | None = None,
    callbacks: Sequence[L.Callback] = (),
    end_process: bool = False,
) -> SearchResult:
    """Search, or continue the unfinished search in the configuration's run folder.

    The folder then holds `config.yaml`, `environment.json`, `metrics.csv`, TensorBoard events, `genotypes.jsonl` (those
    of every epoch), `checkpoints/`, `genotype.txt` and `cell.svg` (of several cost weights: `genotype-1.txt` and so
    on), and `result.json` when the search is finished.

    Args:
        config: as `load(SearchConfig, ...)` gives it.
        console: where progress is shown.
        callbacks: further Lightning callbacks.
        end_process: when interrupted at the start, while a library is busy, end the process: for a command.

    Raises:
        ConfigError: a wrong setting, a run folder of another configuration, or in which another process works.
        CorpusError: a corpus that is empty, of one speaker, or of which nothing can be read.
        CheckpointError: a checkpoint that cannot be read or written.
        TrainingError: the loss is not finite, or a file cannot be written.
        TrainingInterruptedError: by Ctrl-C or SIGTERM; a checkpoint was written.
    """
    assert config.output is not None
    folder = SearchFolder(config.output)
    folder.check(config)
    if (finished := folder.read_search()) is not None:
        return finished
    control = SearchControl(config)
    with locked(folder.path, "is trained in"), control.stop.taken_over(end_process), quiet():
        try:
            return _search(config, folder, control, console or Console(), callbacks)
        except KeyboardInterrupt as error:
            saved = folder.saved_step() or None
            raise TrainingInterruptedError(saved, 128 + (control.stop.received or signal.SIGINT)) from error


def _search(
    config: SearchConfig,
    folder: SearchFolder,
    control: SearchControl,
    console: Console,
    callbacks: Sequence[L.Callback],
) -> SearchResult:
    step = folder.saved_step()
    module = SearchModule(config)
    display = SearchDisplay(config, control, console)
    data = SearchData(config, display.preparing, control.stop, module.frontend)  # type: ignore[arg-type]
    columns = metric_names(len(config.cost.weights))
    trainer = _make_trainer(
        config,
        callbacks=[control, display, *callbacks],
        logger=[MetricsFile(folder.metrics, columns, step), Events(folder.path, step)],
    )
    folder.describe(config, step)
    unreadable = folder.read_unreadable()
    try:
        trainer.fit(module, data, ckpt_path=folder.checkpoint if step else None, weights_only=True)
    except SystemExit as error:
        if error.code != 1:  # what Lightning makes of a KeyboardInterrupt
            raise
        saved = control.saved_step or step or None
        raise TrainingInterruptedError(saved, 128 + (control.stop.received or signal.SIGINT)) from error
    finally:
        folder.write_unreadable(unreadable | data.failures_here())
        data.close()
    last = control.records[-1]
    keys = ("cost_weight", "genotype", "accuracy", "gmacs", "entropy")
    found = [Found(**{key: row[key] for key in keys}) for row in last["searches"]]
    result = SearchResult(folder.path, trainer.global_step, last["epoch"], control.clock.elapsed / 60, found)
    folder.write_search(result)
    return result


def _make_trainer(config: SearchConfig, callbacks: list[L.Callback], logger: list[Any]) -> L.Trainer:
    options = config.trainer
    try:
        return L.Trainer(
            accelerator=options.accelerator,
            devices=1,
            precision=find_precision(options.precision, options.accelerator),  # type: ignore[arg-type]
            plugins=[AtomicCheckpointIO()],
            callbacks=callbacks,
            logger=logger,
            max_epochs=-1,  # SearchControl ends the search
            num_sanity_val_steps=0,
            enable_checkpointing=False,  # SearchControl writes them
            enable_model_summary=False,
            default_root_dir=config.output,
        )
    except (MisconfigurationException, ValueError, RuntimeError, ImportError) as error:
        raise ConfigError("trainer", " ".join(str(error).split())) from error
