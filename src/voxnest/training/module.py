"""The LightningModule: an encoder and its loss, the optimizer, freezing, validation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from voxnest.errors import CheckpointError, ConfigError, VoxnestError
from voxnest.evaluation import evaluate_exits, identify
from voxnest.hub.checkpoint import load_encoder
from voxnest.losses import ClassWeights, LinearSoftmax, OwnClasses
from voxnest.matryoshka import MatryoshkaLoss, with_dims
from voxnest.models.classifier import SpeakerClassifier
from voxnest.models.embedding import eval_mode
from voxnest.models.exits import named
from voxnest.training.adapters import AdapterTraining, base_of
from voxnest.training.auxiliary import AuxiliaryHeads
from voxnest.training.config import Model
from voxnest.training.criterion import build_criterion
from voxnest.training.distillation import Distiller, build_distiller, self_distillation
from voxnest.training.interruption import StoppedAtOnce, StopSignals
from voxnest.training.optimizers import MuonAdamW
from voxnest.training.schedules import dim_weights_at
from voxnest.zoo.registry import create_encoder

_CROPS_OF_A_CLASS = 4  # to begin with its mean

if TYPE_CHECKING:
    from voxnest.crops.dataset import CropDataset
    from voxnest.models.encoder import SpeakerEncoder
    from voxnest.training.config import TrainingConfig
    from voxnest.training.data import SpeakerData


@dataclass(frozen=True)
class Validation:
    """What a validation found, by sizes of embedding: "64" at the end, "64@2" at the exit after stage 2.

    Attributes:
        step: of the training.
        error: equal error rate of verification, Top-1 error of identification; a fraction.
        threshold: of the equal error rate; of identification there is none.
    """

    step: int
    error: dict[str, float]
    threshold: dict[str, float]


def build_encoder(config: TrainingConfig) -> SpeakerEncoder:
    """Make the encoder of a configuration, with the weights of `init_from` if it names a checkpoint.

    Without a name of a model, it is the one of `init_from` with the overrides.

    Raises:
        ConfigError: an unknown model or setting, or a `best_dim` that the model has not.
        CheckpointError: `init_from` cannot be read, or holds another architecture.
    """
    trained = None if config.init_from is None else load_encoder(config.init_from)
    model = config.model
    if model.name is None:
        assert trained is not None
        settings = {key: value for key, value in trained.config.items() if key != "dims"}
        overrides = {**settings, **model.overrides}
        model = Model(name=trained.architecture, dims=model.dims or list(trained.dims), overrides=overrides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        alone = config.adapter is not None and config.model == type(config.model)()
        encoder = base_of(str(config.init_from)) if alone else _create(model)
    if config.best_dim is not None and config.best_dim not in encoder.dims:
        raise ConfigError("best_dim", str(config.best_dim), f"one of {', '.join(map(str, encoder.dims))}")
    if trained is not None:
        if config.model.name is None:
            encoder.name = trained.name
        source = with_dims(trained, encoder.dims)
        own, found = encoder.state_dict(), source.state_dict()
        unfit = [key for key, value in own.items() if key not in found or found[key].shape != value.shape]
        if body := [key for key in unfit if not key.startswith(("head.", "exits.", "backbone.exits."))]:
            raise CheckpointError(
                config.init_from,
                f"is a {source.name} of which {len(body)} weights do not fit, such as {body[0]}",
                f"a {encoder.name} with the settings of `model`",
            )
        encoder.load_state_dict({key: found[key] for key in own if key not in unfit}, strict=False)
    return encoder


def _create(model: Model) -> SpeakerEncoder:
    assert model.name is not None
    try:
        return create_encoder(model.name, dims=model.dims, **model.overrides)
    except ConfigError as error:
        text = f"{error.subject}: {error.found}".removeprefix(f"{model.name}: ")
        if error.subject == "model":
            raise ConfigError("model.name", error.found, error.expected) from error
        asked = re.match(r"\w+", text)
        key = next((key for key in model.overrides if asked and key == asked[0]), None)
        if key is None and model.dims and text.startswith("dims"):
            raise ConfigError("model.dims", text.removeprefix("dims: "), error.expected) from error
        text = re.sub(rf"^{key}(: |(?=[=\[]))", "", text) if key else text
        raise ConfigError(
            "model.overrides" + (f".{key}" if key else ""), text.removeprefix("="), error.expected
        ) from error


class TrainingModule(L.LightningModule):
    """Trains a `SpeakerEncoder` to tell the speakers of a `SpeakerData` apart.

    Args:
        config: of the run.
        encoder: what is trained; by default, what the configuration describes.

    Attributes:
        criterion: the loss; it exists once the number of speakers is known.
        auxiliary: further questions; None if there are none.
        loss: of the last batch.
        losses: of the last batch, per dimension.
        exit_losses: of the last batch, per exit and dimension.
        further: what was added to the loss of the last batch, by name.
        fraction: how much of the training is done.
        grad_norm: of the last step, before clipping.
        bad_step: the first step whose loss or gradient was not finite; -1 while all were.
        validation: the outcome of the last validation; None if a signal cut it short.
        interrupted: that signal, on all processes; 0 if none.
        stop: this process's signals.
    """

    criterion: MatryoshkaLoss | None

    def __init__(self, config: TrainingConfig, encoder: SpeakerEncoder | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config) if encoder is None else encoder
        self.criterion = None
        self.auxiliary: AuxiliaryHeads | None = None
        self.loss: Tensor | None = None
        self.losses: dict[int, Tensor] = {}
        self.exit_losses: dict[int, dict[int, Tensor]] = {}
        self.further: dict[str, Tensor] = {}
        self.distiller: Distiller | None = None
        self.fraction = 0.0
        self.grad_norm: Tensor | None = None
        self.bad_step = torch.tensor(-1)
        self.validation: Validation | None = None
        self.interrupted = 0
        self.stop = StopSignals()
        self._embed = torch.compile(self._embed_eagerly) if config.trainer.compile else self._embed_eagerly
        self.frozen = False
        self.adapting = AdapterTraining(self.encoder, config) if config.adapter else None
        if self.adapting is not None:
            self.train()  # Lightning leaves modes as they are
        if config.stages.projection_only:
            self.set_frozen(True)

    def configure_model(self) -> None:
        """Make the loss, now that the data module has counted the speakers."""
        if self.criterion is None:
            data: SpeakerData = self.trainer.datamodule  # type: ignore[attr-defined]
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.config.seed)
                self.criterion = build_criterion(self.config.loss, self.encoder.dims, data.num_classes)
                self.distiller = build_distiller(self.config, data.training, self.encoder.dims)
                if self.config.auxiliary:
                    self.auxiliary = AuxiliaryHeads(self.config.auxiliary, data.training, self.encoder.embedding_dim)

    def on_fit_start(self) -> None:
        """Start the classes of a trained encoder where it puts them: random ones would undo what it knows."""
        if self.config.init_from is not None and self.trainer.ckpt_path is None:
            assert self.criterion is not None
            data: SpeakerData = self.trainer.datamodule  # type: ignore[attr-defined]
            self.criterion.base_loss.begin_at(self._class_centers(data.crops))  # type: ignore[operator]

    @torch.no_grad()
    def _class_centers(self, crops: CropDataset) -> Tensor:
        """Mean length-normalised embeddings of a few crops of each class: `[classes, embedding_dim]`.

        Processes of one training share the work.
        """
        centers = torch.zeros(crops.num_classes, self.encoder.embedding_dim, device=self.device)
        part, parts = self.trainer.global_rank, self.trainer.world_size
        with eval_mode(self.encoder):
            for batch in crops.of_each_class(_CROPS_OF_A_CLASS, 64, part, parts):
                inputs = (batch[name].to(self.device) if name in batch else None for name in ("waveform", "features"))
                embedding = nn.functional.normalize(self._embed_eagerly(*inputs)[None][self.encoder.embedding_dim])
                means = embedding.unflatten(0, (-1, _CROPS_OF_A_CLASS)).mean(dim=1)
                centers[batch["label"][::_CROPS_OF_A_CLASS].to(self.device)] = means
        if parts > 1:  # each has some classes, and zeros for the others
            torch.distributed.all_reduce(centers)
        return centers

    @property
    def body(self) -> tuple[nn.Module, ...]:
        """All of the encoder but its head: what is frozen in the first stage."""
        return self.encoder.frontend, self.encoder.backbone, self.encoder.pooling

    def set_frozen(self, frozen: bool) -> None:
        """Stop (or start again) the learning of all but the head, batch-norm statistics too."""
        self.frozen = frozen
        for part in self.body:
            part.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> TrainingModule:
        """Choose training or evaluation mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        if self.frozen:
            for part in self.body:
                part.eval()
        if self.adapting is not None:
            self.adapting.freeze_statistics()
        return self

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, Adam, SGD or Muon, over groups: head and classes or the rest of the encoder, decayed or not."""
        assert self.criterion is not None
        options, body = self.config.optimizer, {id(p) for part in self.body for p in part.parameters()}
        groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if self.adapting is not None and not parameter.requires_grad:
                continue
            # Of very thin matrices, and of class weights (a table of vectors), there is nothing to orthogonalise.
            sides = (len(parameter), parameter.numel() // len(parameter)) if parameter.ndim > 1 else (1, 1)
            muon = min(sides) >= 8 and name.startswith("encoder.")
            key = id(parameter) in body, parameter.ndim > 1, muon and options.name == "muon"
            groups.setdefault(key, []).append(parameter)
        described: list[dict[str, Any]] = [
            {
                "params": parameters,
                "lr": options.lr,
                "lr_scale": self.config.stages.backbone_lr if in_body else 1.0,
                "weight_decay": options.weight_decay if decayed else 0.0,
                "muon": muon,
            }
            for (in_body, decayed, muon), parameters in groups.items()
        ]
        # The loss scaler of float16 unscales gradients before clipping, which a fused optimizer forbids.
        fused = self.device.type in ("cpu", "cuda") and self.config.trainer.precision != "16-mixed"
        if options.name == "muon":
            return MuonAdamW(described, betas=options.betas, fused=fused)
        if options.name == "adam":
            return torch.optim.Adam(described, betas=options.betas, fused=fused)
        if options.name == "adamw":
            return torch.optim.AdamW(described, betas=options.betas, fused=fused)
        momentum = options.momentum
        return torch.optim.SGD(described, momentum=momentum, nesterov=momentum > 0, fused=fused)

    def _embed_eagerly(self, waveform: Tensor | None, features: Tensor | None) -> dict[int | None, dict[int, Tensor]]:
        """{stage of an exit, None for the end: prefixes} of a batch of waveforms, or of raw features that were kept."""
        frontend: Any = self.encoder.frontend
        if features is None:
            assert waveform is not None
            features = frontend.raw_features(waveform)
        return self.encoder.embed_exits(frontend.finish(features))

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch: `waveform [batch, samples]` or `features [batch, bins, frames]`, and `label [batch]`."""
        assert self.criterion is not None
        weights = dim_weights_at(self.fraction, batch["seconds"], self.config.loss, self.encoder.dims)
        found = self._embed(batch.get("waveform"), batch.get("features"))
        loss, self.losses = self.criterion(found[None], batch["label"], weights)
        if self.encoder.exits:
            early = {
                int(stage): self.criterion(found[int(stage)], batch["label"], weights) for stage in self.encoder.exits
            }
            self.exit_losses = {stage: losses for stage, (_, losses) in early.items()}
            share = self.config.loss.exit_weight
            loss = (loss + share * sum(each for each, _ in early.values())) / (1 + share * len(early))
        further = self._further_losses(found, batch)
        loss = loss + sum(further.values())
        self.further = {name: value.detach() for name, value in further.items()}
        if self.auxiliary is not None:
            loss = loss + self.auxiliary(found[None][self.encoder.embedding_dim], batch["utterance"])
        self.loss = loss.detach()
        self._note_finite(self.loss)
        return loss

    def _further_losses(
        self, found: Mapping[int | None, Mapping[int, Tensor]], batch: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """What is asked beside telling speakers apart, as it is added to the loss; by the names in `further_losses`."""
        asked, ends = {}, found[None]
        if self.distiller is not None:
            asked["distillation"] = self.distiller(ends, batch)
        if weight := self.config.loss.self_distillation:
            exits = [sizes for stage, sizes in found.items() if stage is not None]
            asked["self_distillation"] = weight * self_distillation(ends, exits)
        return asked

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient's norm, and keep it for the log."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.grad_norm = nn.utils.clip_grad_norm_(parameters, self.config.trainer.clip or float("inf"))
        if self.config.trainer.precision != "16-mixed":  # there, the loss scaler skips such steps
            self._note_finite(self.grad_norm)

    def _note_finite(self, value: Tensor) -> None:
        """Note the step if a value is not finite, without waiting for the device."""
        bad = (self.bad_step.to(value.device) < 0) & ~torch.isfinite(value)
        self.bad_step = torch.where(bad, self.trainer.global_step + 1, self.bad_step.to(value.device))

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Embed and score the trials, on the first process; the one batch means nothing."""
        data: SpeakerData = self.trainer.datamodule  # type: ignore[attr-defined]
        outcome: Validation | VoxnestError | int = 0
        if self.trainer.is_global_zero:
            try:
                # Not under the autocast of mixed precision, so that `voxnest evaluate` finds the same.
                with self.stop.at_once(), torch.autocast(self.device.type, enabled=False):
                    found = find_errors(data, self.encoder, self.classifier())
                    outcome = Validation(self.trainer.global_step, *found)
            except VoxnestError as error:
                outcome = error
            except StoppedAtOnce:
                outcome = self.stop.received
        outcome = self.trainer.strategy.broadcast(outcome)
        if isinstance(outcome, VoxnestError):
            raise outcome
        if isinstance(outcome, int):
            self.validation, self.interrupted = None, outcome
            return
        self.validation = outcome
        rates = {f"{self.config.measure}/{size}": value for size, value in outcome.error.items()}
        self.log_dict(rates, logger=False, batch_size=1)  # for other callbacks; logged by ours

    def classifier(self) -> SpeakerClassifier | None:
        """What tells the speakers of the training apart as they are now, if that is the task."""
        if self.config.task != "identification":
            return None
        assert self.criterion is not None
        data: SpeakerData = self.trainer.datamodule  # type: ignore[attr-defined]
        names = data.crops.speakers
        assert isinstance(self.criterion.base_loss, ClassWeights | OwnClasses)
        base = self.criterion.base_loss.largest
        plain = data.crops.plain_speed * len(names)
        weight = base.weight[plain * base.sub_centers : (plain + len(names)) * base.sub_centers]
        bias = base.bias[plain : plain + len(names)] if isinstance(base, LinearSoftmax) else None
        return SpeakerClassifier(names, weight, bias, scale=base.scale)


def find_errors(
    data: SpeakerData, encoder: SpeakerEncoder, classifier: SpeakerClassifier | None
) -> tuple[dict[str, float], dict[str, float]]:
    """What a validation finds of an encoder: errors, and thresholds if there are any; by names as of `Validation`.

    Args:
        data: what is validated on.
        encoder: in any mode.
        classifier: of identification, None of verification.
    """
    if classifier is not None:
        shares = named({stage: identify(part, classifier, data.known).top1 for stage, part in encoder.parts().items()})
        return {size: 1 - share.value for size, share in shares.items()}, {}
    reports = evaluate_exits(encoder, data.trials, data.trials_root)
    results = named({stage: report.dims for stage, report in reports.items()})
    return {size: item.eer for size, item in results.items()}, {size: item.threshold for size, item in results.items()}
