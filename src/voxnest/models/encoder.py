"""`SpeakerEncoder`: the one noun that training, evaluation, export, search and the command line know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import numpy as np
import torch
from torch import Tensor, nn

from voxnest.errors import AudioError, ConfigError
from voxnest.frontends.base import in_float32
from voxnest.models.adapters import Adapter, AdapterRack
from voxnest.models.embedding import ready, weights_digest, window_embeddings
from voxnest.models.encoding import NUMBERS, Short, check_numbers, encode
from voxnest.models.exits import Exit, at_exit
from voxnest.models.head import MatryoshkaProjection
from voxnest.models.streaming import stream

if TYPE_CHECKING:
    from voxnest.models.embedder import Threads
    from voxnest.scoring import Calibration

Waveform = Tensor | np.ndarray
Lengths = Tensor | np.ndarray | Sequence[int] | None
Recording = str | Path | Waveform | tuple[Waveform, int]
Recordings = Recording | Sequence[Recording]


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


def all_finite(waveform: Tensor) -> bool:
    """Whether no sample of `[batch, samples]` is NaN or infinite."""
    # Neither gets lost in a sum, an eighth of the work. A sum of finite samples may overflow: then each is looked at.
    return bool(waveform.sum().isfinite() or waveform.isfinite().all())


class SpeakerEncoder(nn.Module):
    """Front end, backbone, pooling and head: `waveform [batch, samples]` to `embedding [batch, dim]`.

    Args:
        frontend: `[batch, samples]` to features `[batch, bins, frames]`; see `voxnest.frontends`.
        backbone: features `[batch, bins, frames]` to `[batch, frames', channels]`.
        pooling: `[batch, frames', channels]` to `[batch, statistics]`.
        head: `[batch, statistics]` to the full embedding; its prefixes of `dims` numbers are embeddings too.
        exits: {str(stage): `voxnest.models.exits.Exit`} of a backbone that has exits.
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
        exits: nn.ModuleDict | None = None,
        *,
        architecture: str,
        name: str,
        config: dict[str, Any],
    ) -> None:
        super().__init__()
        self.frontend, self.backbone, self.pooling, self.head = frontend, backbone, pooling, head
        self.exits = nn.ModuleDict() if exits is None else exits
        self.architecture, self.name, self.config = architecture, name, config
        self.thresholds: dict[int, float] = {}
        """Cosine threshold at the equal error rate, per dimension, if known; exits have their own."""
        self.calibration: dict[int, Calibration] = {}
        """What cosine scores mean, per dimension, if `voxnest calibrate` has found out."""
        self._rack = AdapterRack()

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

    @property
    def dim_exits(self) -> dict[int, int]:
        """After which stage a size of embedding is had unless something else is asked for."""
        return {int(dim): int(stage) for dim, stage in self.config.get("dim_exits", {}).items()}

    @property
    def ends(self) -> dict[int | None, SpeakerEncoder | Exit]:
        """What makes an embedding after each exit and (None) at the end: a pooling, a head, and what is known of it."""
        return {**{int(stage): cast(Exit, taken) for stage, taken in self.exits.items()}, None: self}

    def parts(self) -> dict[int | None, SpeakerEncoder]:
        """The part up to each exit as an encoder, and (None) this one."""
        return {stage: self if stage is None else self.at_exit(stage) for stage in self.ends}

    def check_exit(self, stage: int) -> str:
        """The key of an exit in `exits`.

        Raises:
            ConfigError: that lists those there are.
        """
        if str(stage) not in self.exits:
            expected = f"one of {', '.join(self.exits)}" if self.exits else f"none: {self.name} was made without"
            raise ConfigError("exit", str(stage), expected)
        return str(stage)

    def at_exit(self, stage: int) -> SpeakerEncoder:
        """The part up to an exit as an encoder; see `voxnest.models.exits.at_exit`."""
        return at_exit(self, stage)

    def for_dim(self, dim: int | None) -> SpeakerEncoder:
        """What gives embeddings of `dim` numbers at least cost: this encoder, or its part up to an exit."""
        stage = None if dim is None else self.dim_exits.get(dim)
        return self if stage is None else self.at_exit(stage)

    @overload
    def __call__(
        self,
        waveform: Waveform,
        dim: int | None = None,
        all_dims: Literal[False] = False,
        *,
        exit: int | None = None,
        lengths: Lengths = None,
    ) -> Tensor: ...
    @overload
    def __call__(
        self,
        waveform: Waveform,
        dim: None = None,
        *,
        all_dims: Literal[True],
        exit: int | None = None,
        lengths: Lengths = None,
    ) -> dict[int, Tensor]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """See `forward`."""
        return super().__call__(*args, **kwargs)

    def forward(
        self,
        waveform: Waveform,
        dim: int | None = None,
        all_dims: bool = False,
        *,
        exit: int | None = None,
        lengths: Lengths = None,
    ) -> Tensor | dict[int, Tensor]:
        """Embed a batch of waveforms, with gradient as of any module, in eval mode too; `encode` gives plain numbers.

        Args:
            waveform: `[batch, samples]` at `sample_rate`, a tensor or an array: floating point in [-1, 1], or whole
                numbers of 16 or 32 bits, whose full scale is 1.
            dim: give the first `dim` numbers only; one of `dims`.
            all_dims: give every prefix, `{dim: [batch, dim]}`.
            exit: after which stage the embedding is taken, of a model with exits; the later ones are not computed. If
                None, the one that is named for `dim` (`dim_exits`), else the end.
            lengths: how many samples of each item count, `[batch]`, in eval mode: each is embedded as if alone, those
                of one length together, for the reason given in `voxnest.models.workers`. Without, zeros that pad an
                item are silence that it ends in, and change its embedding.

        Raises:
            AudioError: if the waveform is not of that shape, shorter than `min_samples`, or (looked at in eval mode on
                a CPU) not finite; or if the lengths do not fit.
            ConfigError: if the model was not trained for `dim` (it lists those there are), or for lengths in training.
        """
        waveform = as_waveform(waveform, next(self.parameters()).device)
        if waveform.ndim != 2:
            raise AudioError("waveform", f"shape {list(waveform.shape)}", "[batch, samples]; waveform[None] for one")
        if lengths is not None:
            return self._embed_lengths(waveform, torch.as_tensor(lengths), dim, all_dims, exit)
        if waveform.shape[1] < self.min_samples:
            raise AudioError("waveform", f"{waveform.shape[1]} samples", f"at least {self.min_samples}")
        # While a graph is captured there are no numbers yet, a GPU would have to be waited for, and training looks at
        # the loss.
        captured = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if not (self.training or captured or waveform.device.type != "cpu" or all_finite(waveform)):
            raise AudioError("waveform", "NaN or infinite samples", "samples that are finite")
        return self.embed_features(self.frontend(waveform), dim, all_dims, exit=exit)

    def _embed_lengths(
        self, waveform: Tensor, lengths: Tensor, dim: int | None, all_dims: bool, exit: int | None
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
            embedding = embedding.index_copy(0, alike, self(waveform[alike, :length], exit=exit))
        return self._prefixes(embedding, dim, all_dims)

    def embed_features(
        self, features: Tensor, dim: int | None = None, all_dims: bool = False, *, exit: int | None = None
    ) -> Tensor | dict[int, Tensor]:
        """As `forward`, from features `[batch, bins, frames]` as the front end gives them."""
        if dim is not None:
            self.head.check_dim(dim)
            exit = self.dim_exits.get(dim) if exit is None else exit
        if exit is None:
            return self._prefixes(self._embedding(self.backbone(features), self.pooling, self.head), dim, all_dims)
        taken: Any = self.exits[self.check_exit(exit)]
        (frames,) = self.backbone.frames_after(features, [exit])  # type: ignore[operator]
        return self._prefixes(self._embedding(frames, taken.pooling, taken.head), dim, all_dims)

    def embed_exits(self, features: Tensor) -> dict[int | None, dict[int, Tensor]]:
        """Every prefix at every exit and (None) at the end, in one pass: `{stage: {dim: [batch, dim]}}`, to train."""
        if not self.exits:
            prefixes: Any = self.embed_features(features, all_dims=True)
            return {None: prefixes}
        ends = self.ends
        frames = self.backbone.frames_after(features, list(ends))  # type: ignore[operator]
        return {
            stage: {dim: self.head.prefix(embedding, dim) for dim in self.dims}
            for (stage, end), own in zip(ends.items(), frames, strict=True)
            for embedding in [self._embedding(own, end.pooling, end.head)]
        }

    def _embedding(self, frames: Tensor, pooling: nn.Module, head: nn.Module) -> Tensor:
        pooled = pooling(frames)
        # The projection is a small part of the work and the last chance to round: float32 under autocast too.
        with in_float32(frames):
            return head(pooled)

    def _prefixes(self, embedding: Tensor, dim: int | None, all_dims: bool) -> Tensor | dict[int, Tensor]:
        if all_dims:
            return {dim: self.head.prefix(embedding, dim) for dim in self.dims}
        return embedding if dim is None else self.head.prefix(embedding, dim)

    def encode(
        self,
        recordings: Recordings,
        dim: int | None = None,
        *,
        batch: int | None = None,
        progress: bool | Callable[[int, int], object] = False,
        sample_rate: int | None = None,
        short: Short = "error",
    ) -> np.ndarray[Any, Any]:
        """Embed recordings at their own lengths, whatever the mode: float32 numbers `[n, dim]`, without gradient.

        Args:
            recordings: a file, or samples `[samples]` or `[samples, channels]` (a mean of the channels is taken), or
                a pair (samples, rate in Hz), or a list of any of these; numbers as in `forward`.
            dim: give the first `dim` numbers only; all if None.
            batch: how many recordings of one length are embedded at once; `batch_size` if None. The embeddings do not
                depend on it.
            progress: show a bar on a terminal's stderr; or a function to call with how many recordings are done, and of
                how many.
            sample_rate: of all samples without a rate of their own, in Hz; that of the model if None.
            short: what becomes of a recording that is shorter than `min_samples`: "error", or "repeat" it until it is
                as long, as wespeaker does in training.

        Recordings above 60 s are embedded in equal parts, and several are decoded ahead of the network, as by
        `voxnest.inference.embed_files`, which skips what cannot be used and warns of what should not be relied on.

        Raises:
            AudioError: for a recording that cannot be used: damaged, too short, not finite, of another shape.
            ConfigError: if the model was not trained for `dim`, or `batch` or `short` are not as above.
            CheckpointError: if the model gives an embedding that is not finite.

        Examples:
            >>> encoder.encode(["a.m4a", "b.wav"], dim=64).shape
            (2, 64)
            >>> encoder.encode([(speech, 16000), soundfile.read("call.wav")], progress=True).shape
            (2, 256)
        """
        return encode(self, recordings, dim, batch=batch, progress=progress, sample_rate=sample_rate, short=short)

    stream = stream

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

    @property
    def adapters(self) -> Mapping[str, Adapter]:
        """The adapters that were loaded, by name."""
        return MappingProxyType(self._rack.loaded)

    @property
    def adapter(self) -> str | None:
        """The name of the adapter in use; None if none is."""
        return self._rack.used

    def load_adapter(self, path: str | Path, name: str | None = None) -> str:
        """Read an adapter of this encoder, to be used under a name; by default that of the file. It is not used yet.

        Returns:
            The name.

        Raises:
            CheckpointError: the file is missing, damaged, no adapter, or one of another encoder.

        Examples:
            >>> encoder.load_adapter("runs/telephone/best.adapter.safetensors", name="telephone")
            'telephone'
            >>> encoder.use_adapter("telephone")
        """
        return self._rack.load(self, path, name)

    def use_adapter(self, name: str | None) -> None:
        """Change the weights as an adapter says, in place; None for the weights as they were, to the last bit.

        Thresholds are then the adapter's, and there is no calibration.

        Raises:
            ConfigError: no adapter of that name was loaded; it lists those that were.
        """
        self._rack.use(self, name)

    def merge_adapter(self) -> SpeakerEncoder:
        """Let the adapter in use be part of this encoder, which then knows of no adapters; give the encoder.

        Raises:
            ConfigError: none is in use.
        """
        if self.adapter is None:
            raise ConfigError("adapter", "none in use", "use_adapter first")
        self._rack = AdapterRack()
        return self
