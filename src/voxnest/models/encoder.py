"""`SpeakerEncoder`: the one noun that training, evaluation, export, search and the command line know."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from torch import Tensor, nn

from voxnest.errors import AudioError, ConfigError
from voxnest.frontends.base import in_float32
from voxnest.models.embedding import ready, weights_digest, window_embeddings
from voxnest.models.encoding import NUMBERS, check_numbers, encode
from voxnest.models.head import MatryoshkaProjection

if TYPE_CHECKING:
    from voxnest.models.embedder import Threads
    from voxnest.scoring import Calibration

Waveform = Tensor | np.ndarray
Lengths = Tensor | np.ndarray | Sequence[int] | None
Recordings = str | Path | Waveform | Sequence[str | Path | Waveform]


def as_waveform(samples: Waveform, device: torch.device | None = None) -> Tensor:
    """Samples of any shape as a floating-point tensor; full scale of whole numbers becomes 1.

    Args:
        samples: a tensor stays on its device.
        device: where an array goes.

    Raises:
        AudioError: for numbers of another kind.
    """
    if isinstance(samples, np.ndarray):
        check_numbers(samples)
        # A copy where the array is read-only, has negative strides or the other byte order, which torch has not.
        samples = torch.from_numpy(np.require(samples, samples.dtype.newbyteorder("="), ["C", "W"])).to(device)
    if not isinstance(samples, Tensor):
        raise AudioError("waveform", f"a {type(samples).__name__}", "a tensor or an array")
    if samples.dtype in (torch.int16, torch.int32):
        return samples.float() / -float(torch.iinfo(samples.dtype).min)
    if not samples.is_floating_point():
        raise AudioError("waveform", f"a tensor of {samples.dtype}", NUMBERS)
    return samples


class SpeakerEncoder(nn.Module):
    """Front end, backbone, pooling and head: `waveform [batch, samples]` to `embedding [batch, dim]`.

    Args:
        frontend: `[batch, samples]` to features `[batch, bins, frames]`; see `voxnest.frontends`.
        backbone: features `[batch, bins, frames]` to `[batch, frames', channels]`.
        pooling: `[batch, frames', channels]` to `[batch, statistics]`.
        head: `[batch, statistics]` to the full embedding; its prefixes of `dims` numbers are embeddings too.
        architecture: the family of networks that it is of, such as "redimnet"; see `voxnest.models.families`.
        name: a label, such as that of a published size.
        config: what the family needs to build the same again.

    Scores are cosine similarities; embeddings are not length-normalised here.

    Examples:
        >>> encoder.encode("a.wav", dim=64)  # numbers [1, 64], to use
        >>> encoder(waveform)  # a tensor with gradient, to train
    """

    def __init__(
        self,
        frontend: nn.Module,
        backbone: nn.Module,
        pooling: nn.Module,
        head: MatryoshkaProjection,
        *,
        architecture: str,
        name: str,
        config: dict[str, Any],
    ) -> None:
        super().__init__()
        self.frontend, self.backbone, self.pooling, self.head = frontend, backbone, pooling, head
        self.architecture, self.name, self.config = architecture, name, config
        self.thresholds: dict[int, float] = {}
        """Cosine threshold at the equal error rate, per dimension, if known from an evaluation."""
        self.calibration: dict[int, Calibration] = {}
        """What cosine scores mean, per dimension, if `voxnest calibrate` has found out."""

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

    @property
    def batch_size(self) -> int:
        """How many waveforms of one length are best embedded at once; on a CPU, one by each thread."""
        return 1 if next(self.parameters()).device.type == "cpu" else 64

    def check_dim(self, dim: int) -> int:
        """See `MatryoshkaProjection.check_dim`."""
        return self.head.check_dim(dim)

    @overload
    def __call__(
        self, waveform: Waveform, dim: int | None = None, all_dims: Literal[False] = False, *, lengths: Lengths = None
    ) -> Tensor: ...
    @overload
    def __call__(
        self, waveform: Waveform, dim: None = None, *, all_dims: Literal[True], lengths: Lengths = None
    ) -> dict[int, Tensor]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """See `forward`."""
        return super().__call__(*args, **kwargs)

    def forward(
        self, waveform: Waveform, dim: int | None = None, all_dims: bool = False, *, lengths: Lengths = None
    ) -> Tensor | dict[int, Tensor]:
        """Embed a batch of waveforms, with gradient as of any module, in eval mode too; `encode` gives plain numbers.

        Args:
            waveform: `[batch, samples]` at `sample_rate`, a tensor or an array: floating point in [-1, 1], or whole
                numbers of 16 or 32 bits, whose full scale is 1.
            dim: give the first `dim` numbers only; one of `dims`.
            all_dims: give every prefix, `{dim: [batch, dim]}`.
            lengths: how many samples of each item count, `[batch]`, in eval mode: each is embedded as if alone, those
                of one length together. Without, zeros that pad an item are silence that it ends in, and change its
                embedding.

        Raises:
            AudioError: if the waveform is not of that shape, shorter than `min_samples`, or (looked at in eval mode on
                a CPU) not finite; or if the lengths do not fit.
            ConfigError: if the model was not trained for `dim` (it lists those there are), or for lengths in training.
        """
        waveform = as_waveform(waveform, next(self.parameters()).device)
        if waveform.ndim != 2:
            raise AudioError("waveform", f"shape {list(waveform.shape)}", "[batch, samples]; waveform[None] for one")
        if lengths is not None:
            return self._embed_lengths(waveform, torch.as_tensor(lengths), dim, all_dims)
        if waveform.shape[1] < self.min_samples:
            raise AudioError("waveform", f"{waveform.shape[1]} samples", f"at least {self.min_samples}")
        # While a graph is captured there are no numbers yet, a GPU would have to be waited for, and training looks at
        # the loss.
        captured = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if not (self.training or captured or waveform.device.type != "cpu" or waveform.isfinite().all()):
            raise AudioError("waveform", "NaN or infinite samples", "samples that are finite")
        return self.embed_features(self.frontend(waveform), dim, all_dims)

    def _embed_lengths(
        self, waveform: Tensor, lengths: Tensor, dim: int | None, all_dims: bool
    ) -> Tensor | dict[int, Tensor]:
        if self.training:
            raise ConfigError("lengths", "given in training mode", "eval(); batch statistics are those of one length")
        if lengths.shape != waveform.shape[:1] or lengths.is_floating_point():
            found = f"{lengths.dtype} of shape {list(lengths.shape)}"
            raise AudioError("lengths", found, f"a whole number for each of {len(waveform)} items")
        if len(lengths) and not self.min_samples <= int(lengths.min()) <= int(lengths.max()) <= waveform.shape[1]:
            found = f"{int(lengths.min())} to {int(lengths.max())} samples"
            raise AudioError("lengths", found, f"{self.min_samples} to {waveform.shape[1]}")
        embedding = next(self.parameters()).new_zeros(len(waveform), self.embedding_dim)
        for length in lengths.unique().tolist():
            alike = (lengths == length).nonzero()[:, 0].to(waveform.device)
            embedding = embedding.index_copy(0, alike, self(waveform[alike, :length]))
        return self._prefixes(embedding, dim, all_dims)

    def embed_features(
        self, features: Tensor, dim: int | None = None, all_dims: bool = False
    ) -> Tensor | dict[int, Tensor]:
        """As `forward`, from features `[batch, bins, frames]` as the front end gives them."""
        if dim is not None:
            self.head.check_dim(dim)
        frames = self.backbone(features)
        pooled = self.pooling(frames)
        # The projection is a small part of the work and the last chance to round: float32 under autocast too.
        with in_float32(features):
            embedding = self.head(pooled)
        return self._prefixes(embedding, dim, all_dims)

    def _prefixes(self, embedding: Tensor, dim: int | None, all_dims: bool) -> Tensor | dict[int, Tensor]:
        if all_dims:
            return {dim: self.head.prefix(embedding, dim) for dim in self.dims}
        return embedding if dim is None else self.head.prefix(embedding, dim)

    def encode(
        self, recordings: Recordings, dim: int | None = None, *, sample_rate: int | None = None
    ) -> np.ndarray[Any, Any]:
        """Embed recordings at their own lengths, whatever the mode: float32 numbers `[n, dim]`, without gradient.

        Args:
            recordings: a file, or samples `[samples]` or `[samples, channels]` (a mean of the channels is taken), or a
                list of these; numbers as in `forward`.
            dim: give the first `dim` numbers only; all if None.
            sample_rate: of all samples that are not in files, in Hz; that of the model if None.

        Files give what `voxnest.inference.embed_files` gives, which is faster for many. Recordings above 60 s are
        embedded in equal parts, as there.

        Raises:
            AudioError: for a recording that cannot be used: damaged, too short, not finite, of another shape.
            ConfigError: if the model was not trained for `dim`.
            CheckpointError: if the model gives an embedding that is not finite.

        Examples:
            >>> encoder.encode(["a.m4a", "b.wav"], dim=64).shape
            (2, 64)
            >>> encoder.encode(samples, sample_rate=48000).shape
            (1, 256)
        """
        return encode(self, recordings, dim, sample_rate)

    def ready(self) -> AbstractContextManager[Threads]:
        """See `voxnest.models.embedder.Embedder`, as the methods below."""
        return ready(self)

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """See `Embedder`; unlike `forward`, without gradient."""
        with torch.inference_mode():  # of this thread: PyTorch has one such mode per thread
            return self(waveform).float().cpu().numpy()

    def embed_windows(self, waveform: np.ndarray, window: float) -> np.ndarray:
        """See `Embedder` and `window_embeddings`."""
        with torch.inference_mode():
            placed = as_waveform(waveform, next(self.parameters()).device)
            return window_embeddings(self, placed, window).cpu().numpy()

    def digest(self) -> str:
        """See `Embedder`."""
        return weights_digest(self)
