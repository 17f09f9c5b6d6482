"""voxnest under the names of sappho192/redimnet-mrl, for code that was written for it: change the import and it runs.

Everything here is a thin layer over the rest of voxnest, which has one name for each thing. What differs is for the
better: models come in eval mode, a Matryoshka model starts with the accuracy of its backbone instead of a random
head, and nothing falls back to random weights or leaves recordings out without a word.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest import losses
from voxnest.audio import SAMPLE_RATE, read_audio
from voxnest.errors import AudioError, ConfigError, TrialError
from voxnest.evaluation import Trial, evaluate
from voxnest.foreign.encoders import make_encoder
from voxnest.foreign.redimnet import ARGUMENTS
from voxnest.foreign.redimnet_mrl import describe_mrl
from voxnest.hub.checkpoint import load_encoder
from voxnest.hub.releases import names_release
from voxnest.inference import embed_files
from voxnest.matryoshka import loss as matryoshka_loss
from voxnest.matryoshka.rotation import pca_rotation, with_dims
from voxnest.models import head
from voxnest.models.encoder import Lengths, SpeakerEncoder, Waveform
from voxnest.models.redimnet import FAMILY

Device = str | torch.device


class MatryoshkaProjection(head.MatryoshkaProjection):
    """Our head with the original's arguments.

    Args:
        input_dim: size of the pooled vector.
        max_embed_dim: size of the full embedding.
        mrl_dims: sizes of all embeddings; the full one is added if it is not among them.

    Raises:
        ConfigError: if a dimension is larger than the full embedding, or not positive.
    """

    def __init__(self, input_dim: int, max_embed_dim: int, mrl_dims: Iterable[int] | None = None) -> None:
        super().__init__(input_dim, _all_dims(max_embed_dim, mrl_dims))
        self.input_dim, self.max_embed_dim, self.mrl_dims = input_dim, max_embed_dim, list(self.dims)

    def forward(self, pooled: Tensor, return_all_dims: bool = False, target_dim: int | None = None) -> Any:
        """`[batch, input_dim]` to the full embedding, its first `target_dim` numbers, or `{dim: [batch, dim]}`."""
        embedding = super().forward(pooled)
        if return_all_dims:
            return {dim: self.prefix(embedding, dim) for dim in self.dims}
        return embedding if target_dim is None else self.prefix(embedding, target_dim)


class AAMSoftmax(losses.AAMSoftmax):
    """`voxnest.AAMSoftmax` with the original's names of the arguments."""

    def __init__(
        self, embed_dim: int, num_classes: int, margin: float = 0.2, scale: float = 30.0, easy_margin: bool = False
    ) -> None:
        super().__init__(embed_dim, num_classes, margin, scale, easy_margin)
        self.embed_dim = embed_dim


class MatryoshkaLoss(nn.Module):
    """`voxnest.MatryoshkaLoss` with the original's arguments and its dictionary for logging.

    Args:
        base_loss: called as `base_loss(embedding [batch, dim], labels [batch])` for each dimension.
        mrl_dims: the prefixes to train.
        mrl_weights: how much each counts, in the order of `mrl_dims`; all the same if not given.
        normalize_embeddings: scale each prefix to length 1 before the base loss.

    Raises:
        ConfigError: if there are not as many weights as dimensions, or none is positive.
    """

    def __init__(
        self,
        base_loss: nn.Module,
        mrl_dims: Sequence[int],
        mrl_weights: Sequence[float] | None = None,
        normalize_embeddings: bool = True,
    ) -> None:
        super().__init__()
        weights = [1.0] * len(mrl_dims) if mrl_weights is None else list(mrl_weights)
        self.loss = matryoshka_loss.MatryoshkaLoss(base_loss, mrl_dims, weights)
        self.mrl_dims, self.mrl_weights = sorted(mrl_dims), dict(zip(mrl_dims, weights, strict=True))
        self.normalize_embeddings = normalize_embeddings

    @property
    def base_loss(self) -> nn.Module:
        """The loss of each dimension; its parameters, such as class weights, are to be trained."""
        return self.loss.base_loss

    def forward(self, embeddings_dict: Mapping[int, Tensor], labels: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The weighted mean over `{dim: [batch, dim]}` for class indices `[batch]`, and numbers for logging.

        These are `loss_64d` and `weight_64d` of each dimension, `loss_total` and `total_weight`.
        """
        if self.normalize_embeddings:
            embeddings_dict = {dim: F.normalize(embeddings_dict[dim]) for dim in self.mrl_weights}
        total, parts = self.loss(embeddings_dict, labels)
        logged = {f"loss_{dim}d": parts[dim].item() for dim in self.mrl_dims}
        logged |= {f"weight_{dim}d": self.mrl_weights[dim] for dim in self.mrl_dims}
        return total, {**logged, "loss_total": total.item(), "total_weight": sum(self.mrl_weights.values())}


class ReDimNetMRL(SpeakerEncoder):
    """A `SpeakerEncoder` that can also be called as the original is, with audio `[B, 1, T]` and `target_dim`.

    Frozen parts (front end, backbone, pooling without a parameter to train) stay in eval mode in training, so that
    their batch-norm statistics are those they were trained with.

    Args:
        embed_dim: size of the full embedding.
        mrl_dims: sizes of all embeddings; by default those of 64, 128, 192 and 256 that fit, and `embed_dim`.
        arguments: of the official `ReDimNetWrap` (F, C, block_1d_type, stages_setup, ...). As there, a batch norm of
            the embedding (`emb_bn`) is left out.

    Raises:
        ConfigError: for an argument that the official class does not have, or dimensions that do not fit.

    Examples:
        >>> model = ReDimNetMRL(embed_dim=256, mrl_dims=[64, 128, 192, 256], F=72, C=12, out_channels=512)
        >>> model(torch.randn(2, 1, 48000), target_dim=64).shape
        torch.Size([2, 64])
    """

    def __init__(self, embed_dim: int = 256, mrl_dims: Iterable[int] | None = None, **arguments: Any) -> None:
        settings = {**ARGUMENTS.translate(arguments), "dims": _all_dims(embed_dim, mrl_dims), "out_norm": False}
        self._take(FAMILY.build(settings))

    @classmethod
    def from_encoder(cls, encoder: SpeakerEncoder) -> Self:
        """The same encoder, its modules and not copies of them, to be called as the original is."""
        model = cls.__new__(cls)
        model._take(encoder)
        return model

    def _take(self, encoder: SpeakerEncoder) -> None:
        projection = MatryoshkaProjection(encoder.head.linear.in_features, encoder.embedding_dim, encoder.dims)
        for name in ("norm", "linear", "out_norm"):
            setattr(projection, name, getattr(encoder.head, name))
        parts = encoder.frontend, encoder.backbone, encoder.pooling, projection, encoder.exits
        super().__init__(*parts, architecture=encoder.architecture, name=encoder.name, config=encoder.config)
        self.embed_dim, self.mrl_dims = projection.max_embed_dim, projection.mrl_dims
        self.thresholds, self.calibration = dict(encoder.thresholds), dict(encoder.calibration)
        self.train(encoder.training)

    @property
    def projection(self) -> MatryoshkaProjection:
        """The head."""
        assert isinstance(self.head, MatryoshkaProjection)
        return self.head

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """See `forward`."""
        return super().__call__(*args, **kwargs)

    def forward(
        self,
        waveform: Waveform,
        dim: int | None = None,
        all_dims: bool = False,
        *,
        target_dim: int | None = None,
        return_all_dims: bool = False,
        exit: int | None = None,
        lengths: Lengths = None,
    ) -> Tensor | dict[int, Tensor]:
        """Embed a batch of waveforms.

        Args:
            waveform: `[B, 1, T]` or `[B, T]` at `sample_rate`; numbers, and `lengths`, as of `SpeakerEncoder`.
            dim: give the first `dim` numbers only; one of `mrl_dims`. The original calls it `target_dim`.
            all_dims: give every prefix, `{dim: [B, dim]}`. The original calls it `return_all_dims`.
            exit: as of `SpeakerEncoder`; the original has none.

        Raises:
            AudioError: if the waveform is of another shape, or too short.
            ConfigError: if the model was not trained for `dim`; it lists those there are.
        """
        if waveform.ndim == 3:
            if waveform.shape[1] != 1:
                raise AudioError("waveform", f"shape {list(waveform.shape)}", "[B, 1, T] or [B, T], of one channel")
            waveform = waveform[:, 0]
        size, every = target_dim if dim is None else dim, all_dims or return_all_dims
        return super().forward(waveform, size, every, exit=exit, lengths=lengths)

    def train(self, mode: bool = True) -> Self:
        """Choose training or evaluation mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in (self.frontend, self.backbone, self.pooling):
            weights = list(part.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                part.eval()
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As of any module; also the `model_state_dict` of a checkpoint of redimnet-mrl.

        That one's training leaves the front end's hop at 160 samples whatever the backbone's was, so this does too.

        Raises:
            CheckpointError: if weights of redimnet-mrl are not those of a ReDimNet with a Matryoshka head.
            RuntimeError: if weights do not fit this model.
        """
        if not any(key.removeprefix("module.").startswith("projection.") for key in state_dict):
            return super().load_state_dict(state_dict, strict, assign)
        trained = make_encoder(describe_mrl({"model_state_dict": state_dict}, "model_state_dict"))
        result = super().load_state_dict(trained.state_dict(), strict, assign)
        self.frontend = trained.frontend.to(self.head.linear.weight.device).train(self.training)
        self.config = {**self.config, "hop_length": trained.config["hop_length"]}
        return result

    def extract_embedding(
        self, audio_path: str | Path, target_dim: int | None = None, device: Device | None = None
    ) -> Tensor:
        """The embedding of a whole recording, `[1, target_dim]` on the CPU; `device` moves the model there first.

        Raises:
            AudioError: if the recording cannot be used.
            ConfigError: if the model was not trained for `target_dim`.
        """
        size = self.head.check_dim(self.embed_dim if target_dim is None else target_dim)
        embeddings = embed_files(self.to(device), [audio_path])
        return torch.from_numpy(embeddings[str(audio_path)])[None, :size]


def load_pretrained_redimnet(
    model_name: str | Path = "b2", train_type: str = "ptn", dataset: str = "vox2", device: Device = "cpu"
) -> ReDimNetMRL:
    """Published weights of ReDimNet in eval mode, with the one size of embedding they were trained for.

    Args:
        model_name: "b0" to "b6", "S" or "M"; or a path of weights, for which `train_type` and `dataset` do not matter.
        train_type: "ptn" (pretrained), "ft_lm" (then large-margin fine-tuned) or "ft_mix" (on several corpora).
        dataset: "vox2", "vb2" or "vb2+vox2+cnc".
        device: where to put the model.

    Raises:
        ConfigError: if no such weights are published; it lists those that are.
        CheckpointError: if they cannot be downloaded or read.
    """
    path, name = Path(model_name), f"redimnet-{model_name}"
    if path.suffix or len(path.parts) > 1 or (path.exists() and not names_release(name)):
        encoder = load_encoder(path)
    else:
        encoder = load_encoder(name, train_type=train_type, dataset=dataset)
    return ReDimNetMRL.from_encoder(encoder).to(device)


def create_mrl_from_pretrained(
    model_name: str | Path = "b2",
    train_type: str = "ptn",
    dataset: str = "vox2",
    embed_dim: int = 256,
    mrl_dims: Iterable[int] | None = None,
    device: Device = "cpu",
    freeze_backbone: bool = False,
    recordings: Iterable[str | Path] | None = None,
) -> ReDimNetMRL:
    """A Matryoshka model on published weights, in eval mode; `train()` it on.

    It starts from the head that came with the weights, so unless `embed_dim` is smaller, its full embedding has their
    accuracy before any training. Numbers beyond that head's size are zero and grow in training.

    Args:
        model_name: as `train_type`, `dataset` and `device` of `load_pretrained_redimnet`.
        embed_dim: size of the full embedding.
        mrl_dims: see `ReDimNetMRL`.
        freeze_backbone: train the head only, until `unfreeze_backbone`.
        recordings: a few hundred recordings of speech, unlabelled. The embedding space is turned to their principal
            directions, which makes short prefixes good without training and leaves full-size scores as they are.

    Raises:
        ConfigError: as `load_pretrained_redimnet`, and if dimensions do not fit.
        CheckpointError: as there.
        AudioError: if a recording cannot be used.
    """
    dims = _all_dims(embed_dim, mrl_dims)
    pretrained = load_pretrained_redimnet(model_name, train_type, dataset, device)
    rotation = None
    if recordings is not None:
        embeddings = embed_files(pretrained, list(recordings))
        rotation = pca_rotation(torch.from_numpy(np.array(list(embeddings.values()))))
    model = ReDimNetMRL.from_encoder(with_dims(pretrained.cpu(), dims, rotation)).to(device)
    if freeze_backbone:
        model.requires_grad_(False)
        model.projection.requires_grad_(True)
    return model


def unfreeze_backbone(model: nn.Module) -> None:
    """Let every parameter be trained: the second stage after `freeze_backbone`. The mode of the model stays."""
    model.requires_grad_(True)
    model.train(model.training)


def get_model_info(model: SpeakerEncoder) -> dict[str, Any]:
    """Print what a model is, and give it back: type, parameters, sizes of embedding, and of a ReDimNet F, C, stages."""
    counts = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    total, trainable = sum(count for count, _ in counts), sum(count for count, trains in counts if trains)
    info: dict[str, Any] = {
        "type": type(model).__name__,
        "total_parameters": total,
        "trainable_parameters": trainable,
        "frozen_parameters": total - trainable,
        "embed_dim": model.embedding_dim,
        "mrl_dims": list(model.dims),
    }
    if "stages" in model.config:
        settings = model.config
        info |= {"F": settings["bins"], "C": settings["channels"], "stages": len(settings["stages"])}
    for key, value in info.items():
        print(f"{key.replace('_', ' ')}:", f"{value:,}" if isinstance(value, int) else value)
    return info


def load_trained_mrl(checkpoint: str | Path, device: Device = "cpu") -> ReDimNetMRL:
    """The model of a checkpoint of redimnet-mrl, or of any that `voxnest.load_encoder` reads, in eval mode.

    Raises:
        CheckpointError: if the file is missing, damaged, unsafe to read or of an unknown kind.
    """
    return ReDimNetMRL.from_encoder(load_encoder(checkpoint)).to(device)


def load_audio(path: str | Path, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """A whole recording as mono float32 `[1, T]`: a batch of one, or stacked with others of its length `[B, 1, T]`.

    Raises:
        AudioError: if the recording is missing, damaged, or not audio.
    """
    return torch.from_numpy(read_audio(path, sample_rate=sample_rate).samples)[None]


def evaluate_mrl_eer(
    model: SpeakerEncoder,
    test_pairs: str | Path | Iterable[Sequence[Any]],
    mrl_dims: Sequence[int] | None = None,
    data_root: str | Path | None = None,
) -> dict[int, dict[str, float]]:
    """Equal error rate per size of embedding: `{dim: {"eer": fraction, "threshold": cosine}}`.

    Args:
        model: the encoder to evaluate.
        test_pairs: a trial list such as VoxCeleb's, or `(file1, file2, label)` with label 1 for the same speaker.
        mrl_dims: some of the model's sizes; all if None.
        data_root: the folder that the paths are relative to. If None: for a list, its own folder or `wav` or `test`
            in it, wherever the recordings are; for pairs, the current folder.

    Raises:
        ConfigError: for a size that the model was not trained for.
        TrialError: for a malformed list, only one kind of pair, or a recording that is not there.
        AudioError: for a recording that cannot be used.
    """
    trials = Path(test_pairs) if isinstance(test_pairs, str | Path) else [_trial(pair) for pair in test_pairs]
    report = evaluate(model, trials, data_root, mrl_dims)
    return {dim: {"eer": result.eer, "threshold": result.threshold} for dim, result in report.dims.items()}


def _trial(pair: Sequence[Any]) -> Trial:
    if isinstance(pair, Trial):
        return pair
    if len(pair) != 3 or pair[2] not in (0, 1):
        raise TrialError("test_pairs", repr(pair), "(file1, file2, label) with label 1 (same speaker) or 0")
    return Trial(bool(pair[2]), str(pair[0]), str(pair[1]))


def _all_dims(full: int, dims: Iterable[int] | None) -> tuple[int, ...]:
    """Sizes of embedding, ascending, the full one among them."""
    usual = (dim for dim in (64, 128, 192, 256) if dim < full)
    every = tuple(sorted({*(usual if dims is None else dims), full}))
    if every[-1] > full:
        raise ConfigError("mrl_dims", f"{every[-1]}", f"at most the full embedding's {full}")
    return every
