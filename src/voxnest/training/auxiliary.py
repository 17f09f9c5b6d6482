"""Further questions to the embedding in training: gender, language, or to tell nothing about them.

Source of the gradient reversal: Ganin and Lempitsky, Unsupervised Domain Adaptation by Backpropagation
(arXiv 1409.7495).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.corpora.manifest import Utterance
from voxnest.errors import ConfigError, one_of

if TYPE_CHECKING:
    from voxnest.training.config import Auxiliary

_HIDDEN = 128
_UNKNOWN = -100
"""Of an utterance without a value: what torch's cross-entropy passes over."""


class AuxiliaryHeads(nn.Module):
    """A small classifier of the embedding for each column, and which value each utterance has.

    Args:
        questions: of the configuration.
        utterances: that are trained on, as batches number them.
        embedding_dim: of the encoder.

    Attributes:
        values: column -> its values, sorted.

    Raises:
        ConfigError: a column that no utterance has, or of which all have the same value.
    """

    def __init__(self, questions: Sequence[Auxiliary], utterances: Sequence[Utterance], embedding_dim: int) -> None:
        super().__init__()
        self.questions = list(questions)
        labels = [dict(utterance.labels) for utterance in utterances]
        self.values: dict[str, list[str]] = {}
        self.heads = nn.ModuleList()
        table = torch.full((len(labels), len(self.questions)), _UNKNOWN)
        for number, question in enumerate(self.questions):
            values = sorted({told[question.column] for told in labels if question.column in told})
            if len(values) < 2:
                raise ConfigError("auxiliary", *_lacking(question.column, values, labels))
            self.values[question.column] = values
            index = {value: place for place, value in enumerate(values)}
            table[:, number] = torch.tensor([index.get(told.get(question.column, ""), _UNKNOWN) for told in labels])
            self.heads.append(
                nn.Sequential(nn.Linear(embedding_dim, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, len(values)))
            )
        self.table: Tensor
        self.register_buffer("table", table, persistent=False)
        self._right: Tensor
        self.register_buffer("_right", torch.zeros(len(self.questions), 2), persistent=False)

    def forward(self, embedding: Tensor, utterance: Tensor) -> Tensor:
        """The weighted sum of all losses of a batch.

        Args:
            embedding: `[batch, embedding_dim]`.
            utterance: `[batch]`, their numbers.
        """
        total = embedding.new_zeros((), dtype=torch.float32)
        unit = F.normalize(embedding.float())  # what is compared is the direction
        for number, (question, head) in enumerate(zip(self.questions, self.heads, strict=True)):
            label = self.table[utterance, number]
            known = label != _UNKNOWN
            logits = head(_Reversed.apply(unit) if question.adversarial else unit).float()
            loss = F.cross_entropy(logits, label, ignore_index=_UNKNOWN, reduction="sum") / known.sum().clamp(min=1)
            total = total + question.weight * loss
            with torch.no_grad():
                right = ((logits.argmax(dim=1) == label) & known).sum()
                self._right[number] += torch.stack([right, known.sum()]).to(self._right)
        return total

    def accuracies(self) -> dict[str, float]:
        """Share of right answers per column since this was asked last, of this process; none without any question."""
        counts = self._right.tolist()
        self._right.zero_()
        return {
            accuracy_name(question.column): right / asked
            for question, (right, asked) in zip(self.questions, counts, strict=True)
            if asked
        }


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient is turned around."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """What was given."""
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The other way."""
        return -gradients[0]


def accuracy_name(column: str) -> str:
    """What a column's accuracy is called in `metrics.csv`."""
    return f"accuracy/{column}"


def _lacking(column: str, values: Sequence[str], labels: Sequence[Mapping[str, str]]) -> tuple[str, str]:
    """What is wrong with a column, and what would be right."""
    if values:
        return f"{column} is {values[0]!r} of all utterances that have it", "a column of two or more values"
    known = sorted({key for told in labels for key in told})
    return f"no utterance has a {column!r}", one_of(column, known) if known else "a corpus with such labels"
