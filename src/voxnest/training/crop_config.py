"""The settings of what is trained on: crops, and what is done to them."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from voxnest.training.fields import (
    Count,
    Fraction,
    Gigabytes,
    Range,
    Reverberation,
    SafePath,
    Seconds,
    Section,
    Voices,
    Weight,
    ascending,
)


class Crops(Section):
    """The pieces of recordings that are trained on."""

    duration: Seconds = 2.0
    """Seconds."""
    lengthen: dict[Annotated[int, Field(ge=1)], Seconds] = {}
    """Epoch -> seconds from that epoch on, to end on longer crops (large-margin fine-tuning does)."""
    durations: dict[Seconds, Annotated[float, Field(gt=0, le=1e6)]] = {}
    """Seconds -> share of the batches whose crops are so long, in place of `duration`."""
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

    @model_validator(mode="after")
    def _one_length(self) -> "Crops":
        if self.durations and self.lengthen:
            raise ValueError("has both durations and lengthen; expected one of them")
        return self

    @property
    def mean_duration(self) -> float:
        """Seconds of a crop in the first epoch."""
        total = sum(self.durations.values())
        return sum(seconds * share / total for seconds, share in self.durations.items()) if total else self.duration


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
    babble_speakers: Annotated[tuple[Voices, Voices], AfterValidator(ascending)] = (3, 7)
    rirs: list[SafePath] = []
    """Room impulse responses or folders of them; none: synthetic rooms."""
    rt60: Annotated[tuple[Reverberation, Reverberation], AfterValidator(ascending)] = (0.1, 0.7)
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
    ramp_epochs: Annotated[tuple[Weight, Weight], AfterValidator(ascending)] = (0.0, 0.0)
    """The probabilities grow from 0 to their full size between these epochs: clean speech is learnt first."""

    @model_validator(mode="after")
    def _some_kind(self) -> "Augmentation":
        kinds = self.noise_kinds
        if kinds is not None and not any(kinds.values()):
            raise ValueError("has noise_kinds of no weight; expected one above 0")
        if kinds and kinds.get("files") and not self.noise:
            raise ValueError("has files among noise_kinds and no noise; expected recordings as noise")
        return self
