"""The settings of a training run: every option, its default and what it means.

`configs/example.yaml` shows them all. Files are read by `voxnest.training.settings.load_config`.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from voxnest.training.crop_config import Augmentation, Crops
from voxnest.training.fields import BelowOne, Count, Fraction, Gigabytes, Minutes, SafePath, Section, Weight
from voxnest.training.loss_config import Distillation, Loss

SHORTEST_SEGMENT = 1.0  # seconds
DEFAULT_EPOCHS = 20
DEFAULT_HELD_OUT_SPEAKERS = 10
DEFAULT_HELD_OUT_RECORDINGS = 0.1


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


class Model(Section):
    """The encoder to train; see `voxnest models`."""

    name: str | None = "redimnet-b0"
    """null: that of `init_from`, with its settings."""
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
    """Linear warm-up, and a fall to the final learning rate."""

    kind: Literal["cosine", "exponential"] = "cosine"
    """cosine: half of one, after the warm-up; exponential: by the same factor in every step, in the warm-up too, as in
    wespeaker."""
    warmup: Fraction = 0.05
    """Fraction of the training."""
    final_lr: Fraction = 0.01
    """Fraction of `optimizer.lr`."""

    @model_validator(mode="after")
    def _some_rate(self) -> "Schedule":
        if self.kind == "exponential" and not self.final_lr:
            raise ValueError("has kind exponential and final_lr 0; expected a final_lr above 0")
        return self


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
    average_last: Annotated[int, Field(ge=0, le=1000)] = 0
    """The mean of the weights at so many of the last validations is written as average.safetensors at the end, with its
    own error rates; 0: none."""
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
    distillation: Distillation = Distillation()
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

    @model_validator(mode="after")
    def _some_model(self) -> "TrainingConfig":
        if self.model.name is None and self.init_from is None:
            raise ValueError("has model.name null and no init_from; expected one of them")
        return self

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

    @property
    def further_losses(self) -> list[str]:
        """The names of what is added to the loss over speakers."""
        asked = {"distillation": self.distillation.teachers, "self_distillation": self.loss.self_distillation}
        return [name for name, value in asked.items() if value]

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
