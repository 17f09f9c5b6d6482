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
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

SHORTEST_SEGMENT = 1.0  # seconds
DEFAULT_EPOCHS = 20
DEFAULT_HELD_OUT_SPEAKERS = 10
DEFAULT_HELD_OUT_RECORDINGS = 0.1
# Bounds are wide: what lies beyond is a slip, which would fail in hours or fill the memory.
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Decibels = Annotated[float, Field(ge=-200, le=200)]
Gigabytes = Annotated[float, Field(ge=0, le=1e5)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Minutes = Annotated[float, Field(gt=0, le=1e7)]
Seconds = Annotated[float, Field(ge=0.05, le=600)]


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"is {list(value)}; expected the lower number first")
    return value


def _readable(value: Path) -> Path:
    if "\0" in str(value):
        raise ValueError(f"is {str(value)!r}; expected a path")
    return value


Range = Annotated[tuple[Decibels, Decibels], AfterValidator(_ascending)]
Reverberation = Annotated[float, Field(ge=0.01, le=10)]
Voices = Annotated[int, Field(ge=1, le=100)]
SafePath = Annotated[Path, AfterValidator(_readable)]


class Section(BaseModel):
    """A part of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, value: Any) -> Any:
        return {} if value is None else value  # `loss:` with every line below it commented out


class ValidationData(Section):
    """What a validation measures on. Of verification, the equal error rate on a trial list, or on speakers held out of
    the training corpus; of identification, the Top-1 error on a manifest, or on recordings held out of it."""

    trials: SafePath | None = None
    """A trial list (VoxCeleb's or Kaldi's format)."""
    root: SafePath | None = None
    """The folder that the trials' paths are relative to; by default found from the list's own folder."""
    held_out_speakers: Annotated[int, Field(ge=2, le=10**6)] | None = None
    """Without `trials`: so many speakers are not trained on but make the trials; 10 if null."""
    segment: Annotated[float, Field(ge=SHORTEST_SEGMENT, le=600)] = 3.0
    """Length in seconds of the pieces that the held-out speakers' recordings are cut into."""
    segments_per_speaker: Annotated[int, Field(ge=2, le=10**6)] = 20
    """The most pieces of a held-out speaker."""
    utterances: SafePath | None = None
    """For identification: a manifest folder of other recordings of the training's speakers."""
    held_out_recordings: Annotated[float, Field(gt=0, lt=1)] | None = None
    """For identification, without `utterances`: the share of each speaker's sessions that is held out; 0.1 if null."""

    @model_validator(mode="after")
    def _one_kind(self) -> "ValidationData":
        if self.trials is not None and self.held_out_speakers is not None:
            raise ValueError("has both trials and held_out_speakers; expected one of them")
        if self.root is not None and self.trials is None:
            raise ValueError("has root without trials; expected both or neither")
        if self.utterances is not None and self.held_out_recordings is not None:
            raise ValueError("has both utterances and held_out_recordings; expected one of them")
        return self


class Corpus(Section):
    """One of several corpora."""

    path: SafePath
    """As `data.train`."""
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Its share of the crops is its part of all weights."""


class Data(Section):
    """Where the recordings are and how they are read."""

    train: Annotated[
        Annotated[SafePath, Tag("path")] | Annotated[list[Corpus], Field(min_length=1), Tag("corpora")],
        Discriminator(lambda value: "corpora" if isinstance(value, list) else "path"),  # errors of one of them alone
    ]
    """A manifest folder of `voxnest prepare`, or a folder of recordings, which is prepared first; or several of them
    with weights, `[{path: A, weight: 2}, {path: B}]`, whose speakers are different ones whatever they are called."""
    validation: ValidationData = ValidationData()
    workers: Annotated[int, Field(ge=0, le=1024)] | None = None
    """Processes that read and augment; 0: a thread does; null: 0 on a CPU, up to 12 for a GPU."""
    cache_gb: Gigabytes = 2.0
    """Memory for decoded recordings, so that each is decoded once; 0: none."""
    features: SafePath | None = None
    """A folder in which the features of all recordings are kept, computed before the first step; null: they are made of
    crops as they are needed, which costs less than it seems and allows augmentation."""


class Crops(Section):
    """The pieces of recordings that are trained on."""

    duration: Seconds = 2.0
    """Seconds."""
    lengthen: dict[Annotated[int, Field(ge=1)], Seconds] = {}
    """Epoch -> seconds from that epoch on, to end on longer crops (large-margin fine-tuning does)."""
    batch_size: Annotated[int, Field(ge=2, le=65536)] = 32
    """Crops per batch and process."""
    speeds: Annotated[list[Annotated[float, Field(ge=0.25, le=4)]], Field(min_length=1, max_length=100)] = [1.0]
    """Each speed other than 1.0 makes a copy of every speaker, taken for another speaker."""
    per_epoch: Count | None = None
    """Crops in an epoch, of all processes together; null: as many as cover all speech once."""
    balance: Fraction = 1.0
    """1: every speaker is drawn equally often; 0: every second of speech is; or between."""

    @field_validator("speeds")
    @classmethod
    def _different(cls, value: list[float]) -> list[float]:
        if len(set(value)) < len(value):
            raise ValueError(f"is {value}; expected different speeds, for each makes its own speakers")
        return value


class Augmentation(Section):
    """What is done to a crop, drawn anew for each; see `voxnest.crops.augmentation.Augmentation`."""

    noise: list[SafePath] = []
    """Noise recordings or folders of them."""
    noise_snr: Range = (5.0, 25.0)
    """Signal-to-noise ratio in dB of recorded and coloured noise, drawn from this range."""
    noise_probability: Fraction = 0.5
    """Share of crops that get noise."""
    noise_kinds: dict[Literal["files", "coloured", "babble"], Weight] | None = None
    """Weights of the kinds; null: files (coloured if there are none) 1, babble of other speakers 0.5."""
    babble_snr: Range = (13.0, 20.0)
    babble_speakers: Annotated[tuple[Voices, Voices], AfterValidator(_ascending)] = (3, 7)
    rirs: list[SafePath] = []
    """Room impulse responses or folders of them; none: synthetic rooms."""
    rt60: Annotated[tuple[Reverberation, Reverberation], AfterValidator(_ascending)] = (0.1, 0.7)
    """Reverberation time in seconds of the synthetic rooms."""
    direct_to_reverberant: Range = (-3.0, 12.0)
    """Energy ratio in dB of the synthetic rooms."""
    reverberation_probability: Fraction = 0.3
    """Share of crops that get reverberation."""
    telephone_probability: Fraction = 0.0
    """Share of crops that go through a telephone line."""
    reverse_probability: Fraction = 0.0
    """Share of crops that are played backwards."""
    volume_db: Range = (-6.0, 6.0)
    """Gain in dB, drawn from this range."""
    noise_cache_gb: Gigabytes = 1.0
    """Memory for noise recordings."""
    ramp_epochs: Annotated[tuple[Weight, Weight], AfterValidator(_ascending)] = (0.0, 0.0)
    """The probabilities grow from 0 to their full size between these epochs: clean speech is learnt first."""

    @model_validator(mode="after")
    def _some_kind(self) -> "Augmentation":
        kinds = self.noise_kinds
        if kinds is not None and not any(kinds.values()):
            raise ValueError("has noise_kinds of no weight; expected one above 0")
        if kinds and kinds.get("files") and not self.noise:
            raise ValueError("has files among noise_kinds and no noise; expected recordings as noise")
        return self


class Model(Section):
    """The encoder to train; see `voxnest models`."""

    name: str = "redimnet-b0"
    dims: Annotated[list[Annotated[int, Field(ge=1, le=65536)]], Field(min_length=1)] | None = None
    """Sizes of embedding, each a prefix of the largest; null: as the registry has it."""
    overrides: dict[str, Any] = {}
    """Settings that replace the registry's."""

    @field_validator("overrides")
    @classmethod
    def _other(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in ("name", "dims"):
            if key in value:
                raise ValueError(f"has {key}; expected it as model.{key}")
        return value


class Loss(Section):
    """Additive angular margin softmax over the speakers, or plain cross-entropy, asked of every prefix."""

    kind: Literal["aam", "subcenter", "softmax"] = "aam"
    """softmax: a linear classifier of the embedding as it is, not of its direction alone; without margin and scale."""
    margin: Annotated[float, Field(ge=0, lt=1.5)] = 0.2
    """In radians; 0 with `kind: aam` is the plain softmax of cosines."""
    margin_start: Annotated[float, Field(ge=0, lt=1.5)] = 0.0
    """The margin before it grows."""
    margin_ramp: Annotated[tuple[Fraction, Fraction], AfterValidator(_ascending)] = (0.0, 0.5)
    """The margin grows from `margin_start` to `margin` between these fractions of the training."""
    scale: Annotated[float, Field(gt=0, le=1000)] = 30.0
    easy_margin: bool = False
    sub_centers: Annotated[int, Field(ge=1, le=100)] = 3
    """Centers per speaker, for `kind: subcenter`."""
    label_smoothing: BelowOne = 0.0
    """Share of the target that is spread over all speakers, for `kind: softmax`."""
    dim_weights: list[Weight] | None = None
    """How much each prefix counts, in the order of the dims; null: all the same."""
    exit_weight: Weight = 1.0
    """How much the loss of each exit of the model (`model.overrides.exits`) counts beside that of its end."""
    dim_margins: list[Fraction] | None = None
    """How much of the margin is asked of each prefix; null: all from 64 numbers on, half at 32, none up to 16."""

    @field_validator("dim_weights")
    @classmethod
    def _some(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and not any(value):
            raise ValueError(f"is {value}; expected one above 0")
        return value


class Optimizer(Section):
    """AdamW, Adam, SGD, or Muon for matrices and AdamW for the rest. One-dimensional weights are never decayed."""

    name: Literal["adamw", "adam", "sgd", "muon"] = "adamw"
    lr: Annotated[float, Field(gt=0, le=100)] = 1e-3
    """The highest learning rate."""
    weight_decay: Annotated[float, Field(ge=0, le=100)] = 0.05
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.98)
    """For adamw and adam, and what muon leaves to it."""
    momentum: BelowOne = 0.9
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

    max_steps: Count | None = None
    max_epochs: Count | None = None
    max_minutes: Minutes | None = None
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = "auto"
    devices: Annotated[int, Field(ge=-1, le=1024)] | list[Annotated[int, Field(ge=0, le=1023)]] | Literal["auto"] = (
        "auto"
    )
    """How many processes on each node; "auto": one on a CPU, one per GPU."""
    num_nodes: Annotated[int, Field(ge=1, le=10**5)] = 1
    strategy: str = "auto"
    precision: Annotated[Literal["auto", "32", "bf16-mixed", "16-mixed"], BeforeValidator(str)] = "32"
    """auto: bf16-mixed where the device computes in it, else 32. A loss or gradient that is not finite stops the run;
    in 16-mixed, gradients that overflow are skipped."""
    accumulate: Annotated[int, Field(ge=1, le=10**6)] = 1
    """Batches per optimizer step."""
    memory: Annotated[float, Field(gt=0, le=1e5)] | None = None
    """GB of each GPU (such as 12, 16, 24, 40, 80) or of the machine with a CPU: how the crops of a step, `batch_size`
    times `accumulate`, are divided into batches is then found by measuring; null: as they say."""
    clip: Weight = 5.0
    """Largest norm of the gradient; 0: no limit."""
    compile: bool = False
    """Compile the encoder: minutes at the start, faster steps after."""
    val_every_steps: Count = 1000
    """Steps between validations; there is always one at the end."""
    log_every_steps: Count = 10
    save_every_minutes: Minutes = 10.0
    """A resumable checkpoint is written this often, and after each validation."""


class Stages(Section):
    """Freeze then unfreeze: train the head and the classes alone at first, everything later."""

    frozen_steps: Annotated[int, Field(ge=0, le=10**9)] = 0
    """All but the head is frozen for so many steps, batch-norm statistics too."""
    projection_only: bool = False
    """All but the head is frozen all the way."""
    backbone_lr: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Learning rate of all but the head, as a fraction of `optimizer.lr`."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Stages":
        if self.projection_only and self.frozen_steps:
            raise ValueError("has both projection_only and frozen_steps; expected one of them")
        return self


class Adapter(Section):
    """Learn a small change of the encoder of `init_from`, whose own weights stay: see `voxnest.models.low_rank`."""

    kind: Literal["lora"] = "lora"
    rank: Annotated[int, Field(ge=1, le=4096)] = 8
    """Of the change of each weight."""
    alpha: Annotated[float, Field(gt=0, le=1e6)] = 16.0
    """The change is scaled by alpha / rank."""
    targets: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)] = "auto"
    """Patterns of layers' names, such as "backbone.*"; auto: all that a change of this rank makes smaller."""
    train_head: bool = False
    """The head learns too, as a whole, and goes into the adapter's file."""
    train_norms: bool = False
    """Normalisation layers learn too: scales, offsets and batch statistics."""


class Auxiliary(Section):
    """A further question that is asked of the embedding in training: which value a column of the manifest has."""

    column: Annotated[str, Field(min_length=1)]
    """Such as gender, language or emotion; utterances without a value are not asked."""
    weight: Weight = 0.1
    """Of its cross-entropy, beside the loss of the speakers."""
    adversarial: bool = False
    """Turn its gradient around: the embedding learns to tell nothing about the column."""


class TrainingConfig(Section):
    """A training run. Paths are relative to the current folder."""

    task: Literal["verification", "identification"] = "verification"
    """identification: a validation asks which speaker of the training a recording is of, and the encoders that are
    written carry the classifier."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    output: SafePath | None = None
    """The run folder; null: `runs/<name of the configuration file>`."""
    data: Data
    crops: Crops = Crops()
    augmentation: Augmentation = Augmentation()
    model: Model = Model()
    loss: Loss = Loss()
    auxiliary: list[Auxiliary] = []
    """Further questions; the encoders that are written know nothing of them."""
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    trainer: Trainer = Trainer()
    stages: Stages = Stages()
    init_from: str | None = None
    """An encoder whose weights to start from (a file, a run folder, or a name of `voxnest models weights`), its head
    too: prefixes are those of its embedding, what goes beyond it starts at zero. Classes start at its mean embeddings
    of their speech."""
    adapter: Adapter | None = None
    """Train an adapter of `init_from`; null: the encoder itself. Where `model` is not given, it is that of the file."""
    ema: BelowOne = 0.0
    """Decay of a moving average of the weights, which is then validated and exported; 0: off."""
    best_dim: Count | None = None
    """The embedding size whose error decides which checkpoint is best; null: the largest."""

    @property
    def measure(self) -> str:
        """What a validation finds, by the name it has in files; the lower, the better."""
        return "eer" if self.task == "verification" else "top1_error"

    @field_validator("auxiliary")
    @classmethod
    def _asked_once(cls, value: list[Auxiliary]) -> list[Auxiliary]:
        columns = [item.column for item in value]
        if len(set(columns)) < len(columns):
            raise ValueError(f"asks of {columns}; expected every column once")
        return value

    @model_validator(mode="after")
    def _base_of_the_adapter(self) -> "TrainingConfig":
        if self.adapter is not None and self.init_from is None:
            raise ValueError("has adapter without init_from; expected the encoder that it is an adapter of")
        if self.adapter is not None and (self.stages.projection_only or self.stages.frozen_steps):
            raise ValueError("has both adapter and stages; expected one of them, adapter.train_head trains the head")
        return self

    @model_validator(mode="after")
    def _data_of_the_task(self) -> "TrainingConfig":
        validation = self.data.validation
        if self.data.features is not None:
            self._kept_features()
        other = ("utterances", "held_out_recordings")
        if self.task == "identification":
            other = ("trials", "held_out_speakers")
        for name in other:
            if getattr(validation, name) is not None:
                raise ValueError(f"has data.validation.{name} with task: {self.task}; expected none")
        return self

    def _kept_features(self) -> None:
        """Refuse what is done to waveforms, of which there are none when features are kept."""
        found = [f"crops.speeds {self.crops.speeds}"] if self.crops.speeds != [1.0] else []
        for name in ("noise_probability", "reverberation_probability", "telephone_probability", "volume_db"):
            value = getattr(self.augmentation, name)
            if value not in (0.0, (0.0, 0.0)):
                found.append(f"augmentation.{name} {value}")
        if found:
            raise ValueError(f"has data.features with {found[0]}; expected none: kept features cannot be augmented")
