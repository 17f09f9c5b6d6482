"""The settings of a training run: every option, its default and what it means.

`configs/example.yaml` shows them all. Files are read by `voxnest.training.settings.load_config`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"is {list(value)}; expected the lower number first")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
SHORTEST_SEGMENT = 1.0  # seconds
DEFAULT_EPOCHS = 20
DEFAULT_HELD_OUT_SPEAKERS = 10


class Section(BaseModel):
    """A part of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, value: Any) -> Any:
        return {} if value is None else value  # `loss:` with every line below it commented out


class ValidationData(Section):
    """What the equal error rate is measured on: a trial list, or speakers held out of the training corpus."""

    trials: Path | None = None
    """A trial list (VoxCeleb's or Kaldi's format)."""
    root: Path | None = None
    """The folder that the trials' paths are relative to; by default found from the list's own folder."""
    held_out_speakers: Annotated[int, Field(ge=2)] | None = None
    """Without `trials`: so many speakers are not trained on but make the trials; 10 if null."""
    segment: PositiveFloat = 3.0
    """Length in seconds of the pieces that the held-out speakers' recordings are cut into."""
    segments_per_speaker: Annotated[int, Field(ge=2)] = 20
    """The most pieces of a held-out speaker."""

    @model_validator(mode="after")
    def _one_kind(self) -> "ValidationData":
        if self.trials is not None and self.held_out_speakers is not None:
            raise ValueError("has both trials and held_out_speakers; expected one of them")
        if self.root is not None and self.trials is None:
            raise ValueError("has root without trials; expected both or neither")
        return self


class Data(Section):
    """Where the recordings are and how they are read."""

    train: Path
    """A manifest folder of `voxnest prepare`, or a folder of recordings, which is prepared first."""
    validation: ValidationData = ValidationData()
    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that read and augment; 0: a thread does; null: 0 on a CPU, up to 12 for a GPU."""
    cache_gb: NonNegative = 2.0
    """Memory for decoded recordings, so that each is decoded once; 0: none."""


class Crops(Section):
    """The pieces of recordings that are trained on."""

    duration: PositiveFloat = 2.0
    """Seconds."""
    lengthen: dict[Annotated[int, Field(ge=1)], PositiveFloat] = {}
    """Epoch -> seconds from that epoch on, to end on longer crops (large-margin fine-tuning does)."""
    batch_size: Annotated[int, Field(ge=2)] = 32
    """Crops per batch and process."""
    speeds: Annotated[list[PositiveFloat], Field(min_length=1)] = [1.0]
    """Each speed other than 1.0 makes a copy of every speaker, taken for another speaker."""
    per_epoch: PositiveInt | None = None
    """Crops in an epoch, of all processes together; null: as many as cover all speech once."""
    balance: Fraction = 1.0
    """1: every speaker is drawn equally often; 0: every second of speech is; or between."""


class Augmentation(Section):
    """What is done to a crop, drawn anew for each; see `voxnest.corpora.augmentation.Augmentation`."""

    noise: list[Path] = []
    """Noise recordings or folders of them."""
    noise_snr: Range = (5.0, 25.0)
    """Signal-to-noise ratio in dB of recorded and coloured noise, drawn from this range."""
    noise_probability: Fraction = 0.5
    """Share of crops that get noise."""
    noise_kinds: dict[Literal["files", "coloured", "babble"], NonNegative] | None = None
    """Weights of the kinds; null: files (coloured if there are none) 1, babble of other speakers 0.5."""
    babble_snr: Range = (13.0, 20.0)
    babble_speakers: tuple[PositiveInt, PositiveInt] = (3, 7)
    rirs: list[Path] = []
    """Room impulse responses or folders of them; none: synthetic rooms."""
    rt60: Range = (0.1, 0.7)
    """Reverberation time in seconds of the synthetic rooms."""
    direct_to_reverberant: Range = (-3.0, 12.0)
    """Energy ratio in dB of the synthetic rooms."""
    reverberation_probability: Fraction = 0.3
    """Share of crops that get reverberation."""
    telephone_probability: Fraction = 0.0
    """Share of crops that go through a telephone line."""
    volume_db: Range = (-6.0, 6.0)
    """Gain in dB, drawn from this range."""
    noise_cache_gb: NonNegative = 1.0
    """Memory for noise recordings."""
    ramp_epochs: Range = (0.0, 0.0)
    """The probabilities grow from 0 to their full size between these epochs: clean speech is learnt first."""


class Model(Section):
    """The encoder to train; see `voxnest models`."""

    name: str = "redimnet-b0"
    dims: Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    """Sizes of embedding, each a prefix of the largest; null: as the registry has it."""
    overrides: dict[str, Any] = {}
    """Settings that replace the registry's."""


class Loss(Section):
    """Additive angular margin softmax over the speakers, asked of every prefix."""

    kind: Literal["aam", "subcenter"] = "aam"
    margin: Annotated[float, Field(ge=0, lt=1.5)] = 0.2
    """In radians; 0 with `kind: aam` is the plain softmax of cosines."""
    margin_start: Annotated[float, Field(ge=0, lt=1.5)] = 0.0
    """The margin before it grows."""
    margin_ramp: Annotated[tuple[Fraction, Fraction], AfterValidator(_ascending)] = (0.0, 0.5)
    """The margin grows from `margin_start` to `margin` between these fractions of the training."""
    scale: PositiveFloat = 30.0
    easy_margin: bool = False
    sub_centers: PositiveInt = 3
    """Centers per speaker, for `kind: subcenter`."""
    dim_weights: list[NonNegative] | None = None
    """How much each prefix counts, in the order of the dims; null: all the same."""
    dim_margins: list[NonNegative] | None = None
    """How much of the margin is asked of each prefix; null: all from 64 numbers on, half at 32, none up to 16."""


class Optimizer(Section):
    """AdamW, SGD, or Muon for matrices and AdamW for the rest. One-dimensional weights are never decayed."""

    name: Literal["adamw", "sgd", "muon"] = "adamw"
    lr: PositiveFloat = 1e-3
    """The highest learning rate."""
    weight_decay: NonNegative = 0.05
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    """For adamw, and what muon leaves to it."""
    momentum: Fraction = 0.9
    """For sgd (Nesterov)."""


class Schedule(Section):
    """Linear warm-up, then half a cosine down to the final learning rate."""

    warmup: Fraction = 0.05
    """Fraction of the training."""
    final_lr: Fraction = 0.01
    """Fraction of `optimizer.lr`."""


class Trainer(Section):
    """How long, on what and how exactly; most of it goes to Lightning's Trainer.

    Training ends at the first of the limits that are set, and schedules follow the one that is nearest to its
    end; 20 epochs if none is set. `max_minutes` counts training and validation, over interruptions.
    """

    max_steps: PositiveInt | None = None
    max_epochs: PositiveInt | None = None
    max_minutes: PositiveFloat | None = None
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = "auto"
    devices: Annotated[int, Field(ge=-1)] | list[Annotated[int, Field(ge=0)]] | Literal["auto"] = "auto"
    """How many processes on each node; "auto": one on a CPU, one per GPU."""
    num_nodes: PositiveInt = 1
    strategy: str = "auto"
    precision: Annotated[Literal["32", "bf16-mixed", "16-mixed"], BeforeValidator(str)] = "32"
    """A loss or gradient that is not finite stops the run; in 16-mixed, gradients that overflow are skipped."""
    accumulate: PositiveInt = 1
    """Batches per optimizer step."""
    clip: NonNegative = 5.0
    """Largest norm of the gradient; 0: no limit."""
    compile: bool = False
    """Compile the encoder: minutes at the start, faster steps after."""
    val_every_steps: PositiveInt = 1000
    """Steps between validations; there is always one at the end."""
    log_every_steps: PositiveInt = 10
    save_every_minutes: PositiveFloat = 10.0
    """A resumable checkpoint is written this often, and after each validation."""


class Stages(Section):
    """Freeze then unfreeze: train the head and the classes alone at first, everything later."""

    frozen_steps: Annotated[int, Field(ge=0)] = 0
    """All but the head is frozen for so many steps, batch-norm statistics too."""
    projection_only: bool = False
    """All but the head is frozen all the way."""
    backbone_lr: NonNegative = 1.0
    """Learning rate of all but the head, as a fraction of `optimizer.lr`."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Stages":
        if self.projection_only and self.frozen_steps:
            raise ValueError("has both projection_only and frozen_steps; expected one of them")
        return self


class TrainingConfig(Section):
    """A training run. Paths are relative to the current folder."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    output: Path | None = None
    """The run folder; null: `runs/<name of the configuration file>`."""
    data: Data
    crops: Crops = Crops()
    augmentation: Augmentation = Augmentation()
    model: Model = Model()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    trainer: Trainer = Trainer()
    stages: Stages = Stages()
    init_from: Path | None = None
    """An encoder (.safetensors) whose weights to start from, its head too: prefixes are those of its embedding, what
    goes beyond it starts at zero. Classes start at its mean embeddings of their speech."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of a moving average of the weights, which is then validated and exported; 0: off."""
    best_dim: PositiveInt | None = None
    """The embedding size whose equal error rate decides which checkpoint is best; null: the largest."""
