"""Train from a configuration into a run folder; continue what was interrupted."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NoReturn

import lightning.pytorch as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console

from voxnest.errors import ConfigError, VoxnestError
from voxnest.locks import locked
from voxnest.training.auxiliary import accuracy_name
from voxnest.training.averaging import LastWeights
from voxnest.training.callbacks import AtomicCheckpointIO, MovingAverage, RunCheckpoints, RunControl
from voxnest.training.checks import check_durations, check_places, check_trainer
from voxnest.training.config import TrainingConfig
from voxnest.training.data import SpeakerData
from voxnest.training.folder import RunFolder, TrainingResult
from voxnest.training.interruption import TrainingInterruptedError, end_with_parent
from voxnest.training.logs import Display, MetricsLog
from voxnest.training.metrics import Events, MetricsFile, metric_names
from voxnest.training.module import TrainingModule
from voxnest.training.plan import fit_to_memory
from voxnest.training.precision import find_precision


def train(
    config: TrainingConfig,
    *,
    console: Console | None = None,
    callbacks: Sequence[L.Callback] = (),
    end_process: bool = False,
) -> TrainingResult:
    """Train, or continue the unfinished run in the configuration's run folder.

    The folder then holds `config.yaml`, `environment.json`, `metrics.csv`, TensorBoard events,
    `best.safetensors` and `last.safetensors` (encoders, with error rates and thresholds), `average.safetensors` if
    `trainer.average_last` asks for it, `checkpoints/` (to continue from), `unreadable.tsv` if files were skipped, and
    `result.json` when the run is finished.

    Args:
        config: as `load_config` gives it.
        console: where progress is shown.
        callbacks: further Lightning callbacks.
        end_process: when interrupted at the start, while a library is busy, end the process: for a command.

    Raises:
        ConfigError: a wrong setting, a run folder of another configuration, or in which another process trains.
        CorpusError: a corpus that is empty, of one speaker, or of which nothing can be read.
        TrialError: trials that are malformed or whose recordings are missing.
        CheckpointError: a checkpoint that cannot be read or written.
        TrainingError: the loss is not finite.
        TrainingInterruptedError: by Ctrl-C or SIGTERM; a checkpoint was written.
    """
    assert config.output is not None
    folder = RunFolder(config.output)
    folder.check(config)
    if (finished := folder.read_result()) is not None:
        return finished
    end_with_parent()
    control = RunControl(config)
    with (
        locked(folder.path, "is trained in") if _is_first_start() else nullcontext(),
        control.stop.taken_over(end_process),
        quiet(),
    ):
        try:
            return _train(config, folder, control, console or Console(), callbacks)
        except KeyboardInterrupt as error:
            saved = folder.saved_step() or None
            raise TrainingInterruptedError(saved, 128 + (control.stop.received or signal.SIGINT)) from error


def _train(
    config: TrainingConfig,
    folder: RunFolder,
    control: RunControl,
    console: Console,
    callbacks: Sequence[L.Callback],
) -> TrainingResult:
    check_places(config)
    step, given = folder.saved_step(), config
    config = fit_to_memory(config, make_trainer, first=_is_first_start())
    module = TrainingModule(config)
    check_durations(config, module.encoder)
    module.stop = control.stop
    log = MetricsLog(config, control)
    display = Display(config, control, log, console)
    data = SpeakerData(config, display.preparing, control.stop, module.encoder.frontend)  # type: ignore[arg-type]
    checkpoints = RunCheckpoints(config, control)
    average: list[L.Callback] = [MovingAverage(config.ema)] if config.ema else []
    last_weights = LastWeights(config)
    if config.trainer.average_last:
        average.append(last_weights)
    columns = metric_names(
        module.encoder.dims,
        config.measure,
        exits=[int(stage) for stage in module.encoder.exits],
        losses=config.further_losses,
        accuracies=[accuracy_name(question.column) for question in config.auxiliary],
    )
    trainer = make_trainer(
        config,
        callbacks=[control, *average, log, display, *callbacks, checkpoints],
        logger=[MetricsFile(folder.metrics, columns, step), Events(folder.path, step)],
    )
    control.stop.end_others = partial(_end_others, trainer)
    if is_first_process():
        folder.describe(given, step)
    unreadable = folder.read_unreadable()
    try:
        trainer.fit(module, data, ckpt_path=folder.checkpoint if step else None, weights_only=True)
    except (VoxnestError, TrainingInterruptedError) as error:
        _leave(trainer, error)
    except SystemExit as error:
        if error.code != 1:  # what Lightning makes of a KeyboardInterrupt
            raise
        saved = checkpoints.saved_step or step or None
        _leave(trainer, TrainingInterruptedError(saved, 128 + (control.stop.received or signal.SIGINT)))
    finally:
        unreadable |= checkpoints.unreadable or data.failures_here()
        if is_first_process():
            folder.write_unreadable(unreadable)
        data.close()
    assert checkpoints.last is not None
    assert checkpoints.best is not None
    result = TrainingResult(
        folder=folder.path,
        step=trainer.global_step,
        minutes=control.clock.elapsed / 60,
        last=checkpoints.last["error"],
        best=checkpoints.best["error"],
        best_step=checkpoints.best["step"],
        average=last_weights.error,
        unreadable=unreadable,
    )
    if trainer.is_global_zero:
        folder.write_result(result)
    return result


def is_first_process() -> bool:
    """Whether this is the process, of several, that prints and writes."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _is_first_start() -> bool:
    """Whether this is the first process of the first machine, before Lightning knows of the others."""
    node = os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK") or "0"
    return is_first_process() and node == "0"


def make_trainer(config: TrainingConfig, callbacks: Sequence[L.Callback] = (), logger: Sequence[Any] = ()) -> L.Trainer:
    """Lightning's trainer as a configuration asks for it.

    Raises:
        ConfigError: devices cannot do what is asked of them.
    """
    options = config.trainer
    strategy = options.strategy
    several = options.num_nodes > 1 or options.devices not in (1, "auto") or torch.cuda.device_count() > 1
    later = config.loss.classes == "own" and (config.loss.dim_starts or config.loss.duration_weights)
    if (config.stages.frozen_steps or later) and several and strategy in ("auto", "ddp"):
        strategy = "ddp_find_unused_parameters_true"  # those that are frozen at first, or of prefixes that do not count
    try:
        trainer = L.Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            num_nodes=options.num_nodes,
            strategy=strategy,
            precision=find_precision(options.precision, options.accelerator),  # type: ignore[arg-type]
            plugins=[AtomicCheckpointIO()],
            callbacks=list(callbacks),
            logger=list(logger),
            max_epochs=-1,  # RunControl ends the run
            accumulate_grad_batches=options.accumulate,
            val_check_interval=options.val_every_steps * options.accumulate,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_model_summary=False,
            default_root_dir=config.output,
        )
    except (MisconfigurationException, ValueError, RuntimeError, ImportError) as error:
        raise ConfigError("trainer", " ".join(str(error).split())) from error
    check_trainer(config, trainer)
    return trainer


def _leave(trainer: L.Trainer, error: Exception) -> NoReturn:
    """Raise an error; of one that all processes have, the first tells and ends the others."""
    _end_others(trainer)
    if not trainer.is_global_zero:
        time.sleep(10)  # who is still there then is the only one that knows
    raise error


def _end_others(trainer: L.Trainer) -> None:
    if isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher):
        trainer.strategy.launcher.kill(signal.SIGKILL)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the hints of Lightning and torch to programmers."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        for message in ("Grad strides do not match", "Torchinductor does not support code generation for complex"):
            warnings.filterwarnings("ignore", message)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        hook = threading.excepthook
        threading.excepthook = lambda args: None if issubclass(args.exc_type, OSError) else hook(args)  # TensorBoard's
        try:
            yield
        finally:
            threading.excepthook = hook
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
