"""How a `SpeakerEncoder` does what an `Embedder` does: eval mode and threads, windows, the digest of its weights."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from voxnest.errors import AudioError
from voxnest.models.embedder import Threads

if TYPE_CHECKING:
    from voxnest.models.encoder import SpeakerEncoder

_WINDOWS_AT_ONCE = 16
# Each thread holds the activations of a whole recording: hundreds of MB in the larger models.
_MOST_THREADS = 8
_WITHOUT_EFFECT = ("mask_bins", "mask_frames", "dims")
"""Settings of training, and which prefixes of an embedding are named."""


@functools.cache
def _keep_freed_memory() -> None:
    """Let what one call frees be there for the next: up to 64 MB that glibc would give back to the system.

    The system would have to find it again and fill it with zeros: a tenth of the time of many models. When a block that
    was mapped by itself is freed, glibc maps only larger ones from then on, and keeps twice as much (mallopt(3),
    M_MMAP_THRESHOLD; 32 MiB is the largest that counts). Nothing is written to this one, so that it takes no memory;
    another allocator takes no notice.
    """
    torch.empty(_LARGEST_THRESHOLD, dtype=torch.uint8)


_LARGEST_THRESHOLD = 32 * 2**20 - 2**16  # bytes, with room for what malloc adds


@contextmanager
def ready(encoder: SpeakerEncoder) -> Iterator[Threads]:
    """In eval mode; threads that start what they are told to compute in one thread each, until the end."""
    _keep_freed_memory()
    count = torch.get_num_threads()
    started = False

    def start() -> None:
        nonlocal started
        started = True
        torch.set_num_threads(1)

    with eval_mode(encoder):
        try:
            yield Threads(min(count, _MOST_THREADS), start)
        finally:
            if started:
                torch.set_num_threads(count)  # what a thread has set is also what later threads begin with


@contextmanager
def eval_mode(encoder: SpeakerEncoder) -> Iterator[None]:
    """Put every module in eval mode, then back as each was: a frozen part may have been in eval mode all along."""
    training = [module for module in encoder.modules() if module.training]
    if training:  # setting it costs more than looking
        encoder.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def window_embeddings(encoder: SpeakerEncoder, waveform: torch.Tensor, window: float) -> torch.Tensor:
    """Embeddings of windows that slide over a recording by half their length, `[windows, embedding_dim]` float32.

    The windows are cut from the features of the whole recording, and what is left at its end is shorter than half a
    window; a recording shorter than a window is repeated.

    Args:
        encoder: in eval mode.
        waveform: `[1, samples]`, on its device.
        window: in seconds.

    Raises:
        AudioError: a window is shorter than the encoder needs.

    Source: the tests of AutoSpeech (arXiv 2005.03215), which stretches recordings that are too short.
    """
    frontend: Any = encoder.frontend
    samples = round(window * encoder.sample_rate)
    if samples < encoder.min_samples:
        least = encoder.min_samples / encoder.sample_rate
        raise AudioError("window", f"{window:g} s", f"{least:g} s or more, which {encoder.name} needs")
    if waveform.shape[1] < samples:
        waveform = waveform.repeat(1, -(-samples // waveform.shape[1]))[:, :samples]
    raw = frontend.raw_features(waveform)
    frames = min(max(round(samples / frontend.hop_length), frontend.min_frames), raw.shape[2])
    windows = raw[0].unfold(1, frames, max(1, frames // 2)).transpose(0, 1)
    blocks: list[Any] = [encoder.embed_features(frontend.finish(part)) for part in windows.split(_WINDOWS_AT_ONCE)]
    return torch.cat(blocks).float()


def weights_digest(encoder: SpeakerEncoder) -> str:
    """SHA-256, in hexadecimal, of architecture, configuration and weights."""
    return _digest(encoder, encoder.architecture, encoder.config)


def base_digest(encoder: SpeakerEncoder) -> str:
    """As `weights_digest`, without what changes no embedding: what an adapter belongs to."""
    settings = {key: value for key, value in encoder.config.items() if key not in _WITHOUT_EFFECT}
    return _digest(encoder, encoder.architecture, settings)


def _digest(encoder: SpeakerEncoder, *described: Any) -> str:
    digest = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode())
    for key, value in sorted(encoder.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{key} {array.dtype} {list(array.shape)} ".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
