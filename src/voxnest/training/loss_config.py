"""The settings of what is asked of embeddings in training: the loss over speakers, and teachers."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from voxnest.training.fields import BelowOne, Fraction, Seconds, Section, Weight, ascending


def _some_weight(value: list[float]) -> list[float]:
    if not any(value):
        raise ValueError(f"is {value}; expected one above 0")
    return value


class Loss(Section):
    """What is asked of every prefix: to tell the speakers of the training apart, with a margin."""

    kind: Literal["aam", "subcenter", "sphereface2", "softmax"] = "aam"
    """aam: additive angular margin softmax; subcenter: with several centers per speaker; sphereface2: a yes or no for
    each speaker; softmax: a linear classifier of the embedding as it is, not of its direction alone; without margin and
    scale."""
    margin: Annotated[float, Field(ge=0, lt=1.5)] = 0.2
    """In radians; 0 with `kind: aam` is the plain softmax of cosines. Of `kind: sphereface2`, see `margin_type`."""
    margin_start: Annotated[float, Field(ge=0, lt=1.5)] = 0.0
    """The margin before it grows."""
    margin_ramp: Annotated[tuple[Fraction, Fraction], AfterValidator(ascending)] = (0.0, 0.5)
    """The margin grows from `margin_start` to `margin` between these fractions of the training."""
    margin_growth: Literal["linear", "exponential"] = "linear"
    """exponential: fast at first, so that half of it is there after a tenth of the ramp, as in wespeaker."""
    scale: Annotated[float, Field(gt=0, le=1000)] = 30.0
    easy_margin: bool = False
    sub_centers: Annotated[int, Field(ge=1, le=100)] = 3
    """Centers per speaker, for `kind: subcenter`."""
    top_k: Annotated[int, Field(ge=0, le=10**6)] = 0
    """So many of the nearest other speakers are made harder, for `kind: aam` and `subcenter` (inter-top-k)."""
    top_margin: Annotated[float, Field(ge=0, lt=1.5)] = 0.06
    """By how much, in radians, at a margin of 0.2; it follows the margin."""
    margin_type: Literal["A", "C"] = "C"
    """Of `kind: sphereface2`: A: the margin is an angle in radians; C: a difference."""
    positive_weight: Annotated[float, Field(gt=0, lt=1)] = 0.7
    """Of `kind: sphereface2`: what the own speaker counts; each other one counts the rest. Its lambda."""
    exponent: Annotated[float, Field(ge=1, le=100)] = 3.0
    """Of `kind: sphereface2`: how finely cosines near 1 are told apart. Its t."""
    label_smoothing: BelowOne = 0.0
    """Share of the target that is spread over all speakers, for `kind: softmax`."""
    classes: Literal["shared", "own"] = "shared"
    """Of each speaker, one vector of which prefixes are compared with the prefix, or one for each prefix."""
    dim_weights: list[Weight] | None = None
    """How much each prefix counts, in the order of the dims; null: all the same."""
    exit_weight: Weight = 1.0
    """How much the loss of each exit of the model (`model.overrides.exits`) counts beside that of its end."""
    dim_margins: list[Fraction] | None = None
    """How much of the margin is asked of each prefix; null: all from 64 numbers on, half at 32, none up to 16."""
    dim_starts: list[BelowOne] | None = None
    """From which fraction of the training on each prefix counts; null: all of it. Long ones may go first."""
    duration_weights: dict[Seconds, Annotated[list[Weight], AfterValidator(_some_weight)]] = {}
    """Seconds -> a weight for each dim, in place of `dim_weights` where crops are so long or shorter: short ones may
    train short prefixes; see `crops.durations`."""
    self_distillation: Weight = 0.0
    """Weight of a loss by which the cosines among a batch are at every prefix what they are at whole embeddings."""

    @field_validator("dim_weights")
    @classmethod
    def _some(cls, value: list[float] | None) -> list[float] | None:
        return value if value is None else _some_weight(value)

    @field_validator("dim_starts")
    @classmethod
    def _one_from_the_start(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and 0 not in value:
            raise ValueError(f"is {value}; expected a 0, for a prefix that is trained from the start")
        return value


class Distillation(Section):
    """Frozen encoders, or embeddings of them, that the student's embeddings learn to agree with.

    The weights are of three losses that are added to `loss`; each is the mean over the teachers.
    """

    teachers: list[str] = []
    """Encoders (files, run folders, names of `voxnest models weights`), which embed every crop; or archives (.npz) that
    `voxnest embed` made of the recordings of the training, once for all."""
    cosine: Weight = 1.0
    """Of one less the cosine with the teacher's embedding, through a learned linear map where sizes differ."""
    relational: Weight = 0.0
    """Of the difference of cosines among the batch, squared: the student's against the teacher's."""
    prefix: Weight = 0.0
    """The same, of every shorter prefix of the student."""

    @model_validator(mode="after")
    def _something(self) -> "Distillation":
        if self.teachers and not (self.cosine or self.relational or self.prefix):
            raise ValueError("has teachers and no weight; expected cosine, relational or prefix above 0")
        return self
