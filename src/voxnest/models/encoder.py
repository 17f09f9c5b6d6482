"""`SpeakerEncoder`: the one noun that training, evaluation, export, search and the command line know."""

from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from voxnest.errors import AudioError
from voxnest.models.head import MatryoshkaProjection


class SpeakerEncoder(nn.Module):
    """Front end, backbone, pooling and head: `waveform [batch, samples]` to `embedding [batch, dim]`.

    Args:
        frontend: `[batch, samples]` to features `[batch, bins, frames]`; see `voxnest.frontends`.
        backbone: features `[batch, bins, frames]` to `[batch, frames', channels]`.
        pooling: `[batch, frames', channels]` to `[batch, statistics]`.
        head: `[batch, statistics]` to the full embedding; its prefixes of `dims` numbers are embeddings too.
        name: what the registry calls it.
        config: what `create_encoder(name, **config)` needs to build the same again.

    Scores are cosine similarities; embeddings are not length-normalised here.
    """

    def __init__(
        self,
        frontend: nn.Module,
        backbone: nn.Module,
        pooling: nn.Module,
        head: MatryoshkaProjection,
        *,
        name: str,
        config: dict[str, Any],
    ) -> None:
        super().__init__()
        self.frontend, self.backbone, self.pooling, self.head = frontend, backbone, pooling, head
        self.name, self.config = name, config
        self.thresholds: dict[int, float] = {}
        """Cosine threshold at the equal error rate, per dimension, if known from an evaluation."""

    @property
    def dims(self) -> tuple[int, ...]:
        """The sizes of embedding the model was trained for, ascending."""
        return self.head.dims

    @property
    def embedding_dim(self) -> int:
        """The size of the full embedding."""
        return self.head.dims[-1]

    @property
    def sample_rate(self) -> int:
        """Of the waveforms the model takes, in Hz."""
        return int(self.frontend.sample_rate)  # type: ignore[arg-type]

    @property
    def min_samples(self) -> int:
        """The shortest waveform the model takes, in samples."""
        return int(self.frontend.min_samples)  # type: ignore[arg-type]

    @overload
    def __call__(self, waveform: Tensor, dim: int | None = None, all_dims: Literal[False] = False) -> Tensor: ...
    @overload
    def __call__(self, waveform: Tensor, dim: None = None, *, all_dims: Literal[True]) -> dict[int, Tensor]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """See `forward`."""
        return super().__call__(*args, **kwargs)

    def forward(self, waveform: Tensor, dim: int | None = None, all_dims: bool = False) -> Tensor | dict[int, Tensor]:
        """Embed a batch of waveforms.

        Args:
            waveform: `[batch, samples]` float32 in [-1, 1] at `sample_rate`.
            dim: give the first `dim` numbers only; one of `dims`.
            all_dims: give every prefix, `{dim: [batch, dim]}`.

        Raises:
            AudioError: if the waveform is not of that shape or shorter than `min_samples`.
            ConfigError: if the model was not trained for `dim`; it lists those there are.
        """
        if waveform.ndim != 2:
            raise AudioError("waveform", f"shape {list(waveform.shape)}", "[batch, samples]")
        if waveform.shape[1] < self.min_samples:
            raise AudioError("waveform", f"{waveform.shape[1]} samples", f"at least {self.min_samples}")
        return self.embed_features(self.frontend(waveform), dim, all_dims)

    def embed_features(
        self, features: Tensor, dim: int | None = None, all_dims: bool = False
    ) -> Tensor | dict[int, Tensor]:
        """As `forward`, from features `[batch, bins, frames]` as the front end gives them."""
        if dim is not None:
            self.head.check_dim(dim)
        frames = self.backbone(features)
        pooled = self.pooling(frames)
        # The projection is a small part of the work and the last chance to round: float32 under autocast too.
        with torch.autocast(features.device.type, enabled=False):
            embedding = self.head(pooled)
        if all_dims:
            return {dim: self.head.prefix(embedding, dim) for dim in self.dims}
        return embedding if dim is None else self.head.prefix(embedding, dim)
