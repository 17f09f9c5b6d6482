"""What a student learns from frozen teachers, and prefixes from the whole embedding of the same model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.audio import SAMPLE_RATE
from voxnest.corpora.manifest import Utterance
from voxnest.errors import ConfigError
from voxnest.hub.checkpoint import load_encoder
from voxnest.inference.archive import read_embeddings
from voxnest.models.embedder import Embedder
from voxnest.training.config import TrainingConfig
from voxnest.training.loss_config import Distillation


class Teacher(Protocol):
    """Gives the embeddings that a student shall agree with."""

    @property
    def embedding_dim(self) -> int:
        """Of them."""

    def embeddings(self, batch: Mapping[str, Any]) -> Tensor:
        """`[batch, embedding_dim]` float32, without gradient, of a batch of crops."""


class LiveTeacher:
    """Embeds every crop as it is, augmented.

    Args:
        embedder: a `SpeakerEncoder`, or anything else that embeds. Never trained.
    """

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        if isinstance(embedder, nn.Module):
            embedder.requires_grad_(False).eval()

    @property
    def embedding_dim(self) -> int:
        """Of the embedder."""
        return self.embedder.embedding_dim

    def embeddings(self, batch: Mapping[str, Any]) -> Tensor:
        """See `Teacher`; the batch has `waveform [batch, samples]`."""
        waveform: Tensor = batch["waveform"]
        if isinstance(self.embedder, nn.Module):
            # On the device of the crops, in the precision of the training.
            with torch.no_grad():
                return self.embedder.to(waveform.device)(waveform).float()
        with self.embedder.ready():
            found = self.embedder.embed(waveform.float().cpu().numpy())
        return torch.from_numpy(found).to(waveform.device)

    def __deepcopy__(self, memo: object) -> LiveTeacher:
        return self  # it never changes: an average of the student's weights needs no copy


class StoredTeacher:
    """Knows an embedding of each recording, computed once: of the whole of it, as it was recorded or played faster.

    Args:
        path: an archive of `voxnest embed`.
        utterances: of the training, in the order of the numbers in its batches; found in the archive by id or by path,
            and for a speed other than 1.0 by that and "@" and the speed.
        speeds: of the training, in the order of its classes (see `CropDataset`).

    Raises:
        ConfigError: the archive has not all of them.
        CorpusError: it cannot be read.
    """

    def __init__(self, path: Path, utterances: Sequence[Utterance], speeds: Sequence[float] = (1.0,)) -> None:
        names, matrix = read_embeddings(path)
        rows = {name: row for row, name in enumerate(names)}
        rows |= {str(Path(name).resolve()): row for row, name in enumerate(names)}
        self.speakers = len({item.speaker for item in utterances})
        tables = []
        for speed in speeds:
            ending = "" if speed == 1 else f"@{speed:g}"
            keys = [(item.id, str(item.path), str(item.path.resolve())) for item in utterances]
            found = [next((rows[key + ending] for key in each if key + ending in rows), None) for each in keys]
            if None in found:
                example = f"{utterances[found.index(None)].path}{ending}"
                missing = f"{found.count(None)} of {len(found)} utterances, such as {example}"
                raise ConfigError(
                    "distillation.teachers", f"{path} has no embedding of {missing}", "all that are trained on"
                )
            tables.append(matrix[np.array(found)])
        self.tables = torch.from_numpy(np.stack(tables))

    @property
    def embedding_dim(self) -> int:
        """Of those that are stored."""
        return self.tables.shape[2]

    def embeddings(self, batch: Mapping[str, Any]) -> Tensor:
        """See `Teacher`; the batch has `utterance [batch]`, their numbers, and `label [batch]`, their speeds."""
        number: Tensor = batch["utterance"]
        self.tables = self.tables.to(number.device)
        return self.tables[batch["label"] // self.speakers, number]

    def __deepcopy__(self, memo: object) -> StoredTeacher:
        return self  # it never changes


class Distiller(nn.Module):
    """The losses of a student against its teachers.

    Args:
        options: the weights of these losses.
        teachers: not part of the module's state: they never change.
        dims: sizes of the student's embeddings.

    Source: relations are those of Park et al., Relational Knowledge Distillation (arXiv 1904.05068), between all pairs
    of a batch as in Tung and Mori, Similarity-Preserving Knowledge Distillation (arXiv 1907.09682), of cosines.
    """

    def __init__(self, options: Distillation, teachers: Sequence[Teacher], dims: Sequence[int]) -> None:
        super().__init__()
        self.options, self.teachers, self.dims = options, tuple(teachers), tuple(dims)
        sizes = [teacher.embedding_dim for teacher in teachers]
        self.maps = nn.ModuleList(
            nn.Linear(dims[-1], size, bias=False) if options.cosine and size != dims[-1] else nn.Identity()
            for size in sizes
        )

    def forward(self, embeddings: Mapping[int, Tensor], batch: Mapping[str, Any]) -> Tensor:
        """The weighted sum of the losses, each the mean over the teachers.

        Args:
            embeddings: of the student, `{dim: [batch, dim]}`.
            batch: of crops, as the training step gets it.
        """
        whole = embeddings[self.dims[-1]]
        total = torch.zeros((), device=whole.device)
        shorter = [embeddings[dim] for dim in self.dims[:-1]]
        for teacher, mapped in zip(self.teachers, self.maps, strict=True):
            target = teacher.embeddings(batch)
            if self.options.cosine:
                total = total + self.options.cosine * (1 - F.cosine_similarity(mapped(whole).float(), target)).mean()
            if self.options.relational:
                total = total + self.options.relational * relational_loss([whole], target)
            if self.options.prefix and shorter:
                total = total + self.options.prefix * relational_loss(shorter, target)
        return total / len(self.teachers)


def relational_loss(embeddings: Iterable[Tensor], target: Tensor) -> Tensor:
    """How much cosines between the items of a batch differ from those of the target.

    Args:
        embeddings: each `[batch, dim]`, of any size.
        target: `[batch, dim]`; it gets no gradient.

    Returns:
        The mean of the squared differences over all pairs, and over the embeddings.
    """
    wanted = _cosines(target.detach())
    different = ~torch.eye(len(target), dtype=torch.bool, device=target.device)
    return torch.stack([(_cosines(item) - wanted)[different].square().mean() for item in embeddings]).mean()


def self_distillation(embeddings: Mapping[int, Tensor], exits: Iterable[Mapping[int, Tensor]] = ()) -> Tensor:
    """`relational_loss` of shorter prefixes, and of all at exits, against the whole embedding; 0 if there are none."""
    *shorter, whole = sorted(embeddings)
    others = [embeddings[dim] for dim in shorter] + [found for sizes in exits for found in sizes.values()]
    if not others:
        return torch.zeros((), device=embeddings[whole].device)
    return relational_loss(others, embeddings[whole])


def _cosines(embeddings: Tensor) -> Tensor:
    unit = F.normalize(embeddings.float())
    with torch.autocast(unit.device.type, enabled=False):
        return unit @ unit.T


def build_distiller(config: TrainingConfig, utterances: Sequence[Utterance], dims: Sequence[int]) -> Distiller | None:
    """Make what a configuration asks for; None if it names no teachers.

    Raises:
        ConfigError: crops that a teacher cannot be asked about.
        CheckpointError: a teacher cannot be read.
    """
    key, found = "distillation.teachers", config.distillation.teachers
    teachers: list[Teacher] = []
    for name in found:
        if name.endswith(".npz"):
            teachers.append(StoredTeacher(Path(name), utterances, config.crops.speeds))
            continue
        if config.data.features is not None:
            raise ConfigError(key, f"{name} with data.features, without waveforms", "archives of `voxnest embed`")
        encoder = load_encoder(name)
        crops = config.crops
        shortest = min(crops.durations or [crops.duration, *crops.lengthen.values()])
        if encoder.sample_rate != SAMPLE_RATE or encoder.min_samples > round(shortest * SAMPLE_RATE):
            needs = f"{encoder.min_samples / encoder.sample_rate:g} s at {encoder.sample_rate} Hz"
            raise ConfigError(
                key, f"{name}, which takes {needs} or more", f"one for {shortest:g} s at {SAMPLE_RATE} Hz"
            )
        teachers.append(LiveTeacher(encoder))
    return Distiller(config.distillation, teachers, dims) if teachers else None
