"""The settings of a search: every option, its default and what it means. The defaults are the original's.

Source: exps/search.yaml, architect.py and loss.py of AutoSpeech's implementation (TAMU-VITA/AutoSpeech). It sets a
weight decay and betas of Adam which its code does not use; here are those that it uses.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from voxnest.training.crop_config import Augmentation, Crops
from voxnest.training.fields import (
    BelowOne,
    Count,
    Fraction,
    Gigabytes,
    Minutes,
    Range,
    SafePath,
    Seconds,
    Section,
    Weight,
)

Rate = Annotated[float, Field(gt=0, le=100)]
Temperature = Annotated[float, Field(ge=1e-3, le=1e3)]
Betas = tuple[BelowOne, BelowOne]


class Corpus(Section):
    """Where the recordings are and how they are read."""

    train: SafePath
    """A manifest folder of `voxnest prepare`, or a folder of recordings, which is prepared first. Half of each
    speaker's speech trains the weights, half the architecture."""
    workers: Annotated[int, Field(ge=0, le=1024)] | None = None
    """Processes that read and augment; 0: a thread does; null: 0 on a CPU, up to 12 for a GPU."""
    cache_gb: Gigabytes = 2.0
    """Memory for decoded recordings of each half; 0: none."""


class Features(Section):
    """What the supernet hears."""

    frontend: str = "autospeech_spectrogram"
    bins: Annotated[int, Field(ge=1, le=8192)] = 257
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the front end."""


class SearchCrops(Crops):
    """The pieces of recordings that are trained on: 300 frames, two in a batch."""

    duration: Seconds = 3.0
    batch_size: Annotated[int, Field(ge=2, le=65536)] = 2


class SearchAugmentation(Augmentation):
    """As in training, but time reversal alone if nothing is said."""

    noise_probability: Fraction = 0.0
    reverberation_probability: Fraction = 0.0
    volume_db: Range = (0.0, 0.0)
    reverse_probability: Fraction = 0.5


class SearchModel(Section):
    """The supernet."""

    space: str = "s2"
    """s1, s2, s3, or a YAML file of operations; see docs/autospeech.md."""
    channels: Annotated[int, Field(ge=1, le=4096)] = 16
    """Of a node in the first cells."""
    layers: Annotated[int, Field(ge=3, le=100)] = 8
    """Cells."""
    dims: Annotated[list[Annotated[int, Field(ge=1, le=65536)]], Field(min_length=1)] | None = None
    """Sizes of a Matryoshka head that the search's loss is asked of; null: the pooled vector itself."""
    drop_path: BelowOne = 0.2
    """The probability, at the end, that an edge is left out for an item; it grows from 0."""


class SearchLoss(Section):
    """Softmax over the speakers."""

    label_smoothing: BelowOne = 0.1
    dim_weights: list[Weight] | None = None
    """How much each of `model.dims` counts; null: all the same."""

    @field_validator("dim_weights")
    @classmethod
    def _some(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and not any(value):
            raise ValueError(f"is {value}; expected one above 0")
        return value


class WeightOptimizer(Section):
    """Adam for the weights of the operations."""

    lr: Rate = 0.01
    final_lr: Annotated[float, Field(ge=0, le=100)] = 0.001
    """Half a cosine leads from `lr` to it."""
    betas: Betas = (0.9, 0.999)
    weight_decay: Weight = 0.0


class ArchitectureOptimizer(Section):
    """Adam for the architecture parameters, and the sampling."""

    lr: Rate = 0.001
    betas: Betas = (0.5, 0.999)
    weight_decay: Weight = 0.001
    temperature: tuple[Temperature, Temperature] = (1.0, 1.0)
    """Of the Gumbel softmax at the beginning and at the end, with the same factor between any two epochs."""


class Cost(Section):
    """The price of computing."""

    weights: Annotated[list[Weight], Field(min_length=1, max_length=16)] = Field(default_factory=lambda: [0.0])
    """The loss grows by this times the expected cost of the sampled cells, in units of that of cells drawn at random.
    Several weights are several searches on the same operations, step by step in turn: a front by accuracy and cost."""

    @field_validator("weights")
    @classmethod
    def _different(cls, value: list[float]) -> list[float]:
        if len(set(value)) < len(value):
            raise ValueError(f"is {value}; expected different weights")
        return value


class Settle(Section):
    """When to stop before the end."""

    epochs: Annotated[int, Field(ge=0, le=10**6)] = 10
    """Stop when for so many epochs no genotype changed and no entropy moved by more than `change`; 0: never."""
    change: Annotated[float, Field(ge=0, le=100)] = 0.01
    """In nats."""


class SearchTrainer(Section):
    """How long and on what. The search ends at the first limit."""

    max_epochs: Count = 50
    max_minutes: Minutes | None = None
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    precision: Annotated[Literal["auto", "32", "bf16-mixed"], BeforeValidator(str)] = "32"
    log_every_steps: Count = 10
    save_every_minutes: Minutes = 10.0


class SearchConfig(Section):
    """A search. Paths are relative to the current folder."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 3
    output: SafePath | None = None
    """The run folder; null: `runs/<name of the configuration file>`."""
    data: Corpus
    crops: SearchCrops = SearchCrops()
    augmentation: SearchAugmentation = SearchAugmentation()
    features: Features = Features()
    model: SearchModel = SearchModel()
    loss: SearchLoss = SearchLoss()
    weights: WeightOptimizer = WeightOptimizer()
    architecture: ArchitectureOptimizer = ArchitectureOptimizer()
    cost: Cost = Cost()
    settle: Settle = Settle()
    trainer: SearchTrainer = SearchTrainer()
    training: SafePath | None = None
    """A configuration of `voxnest train`, of an `autospeech` network: `voxnest search` then trains the first genotype
    that it found by it, in the folder `training` of the search."""
