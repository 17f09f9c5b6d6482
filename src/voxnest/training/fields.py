"""What settings are made of: their types with bounds, and sections of them."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

# Bounds are wide: what lies beyond is a slip, which would fail in hours or fill the memory.
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Decibels = Annotated[float, Field(ge=-200, le=200)]
Gigabytes = Annotated[float, Field(ge=0, le=1e5)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Minutes = Annotated[float, Field(gt=0, le=1e7)]
Seconds = Annotated[float, Field(ge=0.05, le=600)]


def ascending(value: tuple[float, float]) -> tuple[float, float]:
    """Let through a range whose lower number comes first."""
    if value[0] > value[1]:
        raise ValueError(f"is {list(value)}; expected the lower number first")
    return value


def _readable(value: Path) -> Path:
    if "\0" in str(value):
        raise ValueError(f"is {str(value)!r}; expected a path")
    return value


Range = Annotated[tuple[Decibels, Decibels], AfterValidator(ascending)]
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
