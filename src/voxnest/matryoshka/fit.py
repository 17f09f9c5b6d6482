"""Fit a rotation on a corpus: `voxnest matryoshka fit`."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from voxnest.audio import read_audio
from voxnest.corpora.manifest import Utterance
from voxnest.errors import AudioError, ConfigError, CorpusError
from voxnest.matryoshka.rotation import discriminative_rotation, pca_rotation, with_dims
from voxnest.models.encoder import SpeakerEncoder

PIECE = 3.0
"""Seconds. Prefixes have to bear what short recordings vary by."""
PIECES_PER_UTTERANCE = 4
_BATCH = 16

Method = Literal["pca", "discriminative"]


def fit(
    encoder: SpeakerEncoder,
    utterances: Sequence[Utterance],
    *,
    dims: Iterable[int] | None = None,
    method: Method | None = None,
    count: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> SpeakerEncoder:
    """A Matryoshka encoder from any encoder, without training.

    Args:
        encoder: on the device it shall run on.
        utterances: of a corpus; those used are drawn with every speaker as often as the others.
        dims: sizes of embedding of the result; by default 8, 16, 32, 64, 128, ... below the encoder's own, and those.
        method: "pca", which needs no speakers, or "discriminative"; by default that where there are two or more.
        count: the most utterances to embed.
        seed: of the draw.
        progress: called with the utterances embedded so far, and their number.

    Raises:
        CorpusError: none of the utterances can be used.
        ConfigError: "discriminative" with a single speaker, or a size beyond the encoder's own.
    """
    size = encoder.embedding_dim
    if dims is None:
        dims = {2**power for power in range(3, 12) if 2**power < size} | set(encoder.dims)
    elif max(dims := set(dims), default=0) > size:
        raise ConfigError("dims", str(max(dims)), f"at most {size}, the size of the encoder's embedding")
    chosen = draw(utterances, count, seed)
    embeddings, speakers = embed_pieces(encoder, chosen, progress)
    if method is None:
        method = "discriminative" if len(speakers.unique()) > 1 else "pca"
    rotation = pca_rotation(embeddings) if method == "pca" else discriminative_rotation(embeddings, speakers)
    return with_dims(encoder, dims, rotation)


def draw(utterances: Sequence[Utterance], count: int, seed: int = 0) -> list[Utterance]:
    """At most `count` utterances at random, as equally many of each speaker as there are."""
    random = np.random.default_rng(seed)
    by_speaker: dict[str, list[Utterance]] = {}
    for index in random.permutation(len(utterances)):
        by_speaker.setdefault(utterances[index].speaker, []).append(utterances[index])
    rounds = max(map(len, by_speaker.values()), default=0)
    order = (of_one[turn] for turn in range(rounds) for of_one in by_speaker.values() if turn < len(of_one))
    return [utterance for utterance, _ in zip(order, range(count), strict=False)]


@torch.inference_mode()
def embed_pieces(
    encoder: SpeakerEncoder, utterances: Sequence[Utterance], progress: Callable[[int, int], None] | None = None
) -> tuple[Tensor, Tensor]:
    """Embed pieces of `PIECE` seconds of utterances: embeddings `[n, d]` and the number of each one's speaker `[n]`.

    At most `PIECES_PER_UTTERANCE` of each; of one that is shorter than a piece, all of it. What cannot be read, or is
    shorter than the encoder takes, is left out.

    Raises:
        CorpusError: nothing is left.
    """
    device = next(encoder.parameters()).device
    numbers: dict[str, int] = {}
    found: list[tuple[Tensor, int]] = []
    pending: list[tuple[np.ndarray, int]] = []
    reason = ""

    def embed(pieces: Sequence[tuple[np.ndarray, int]]) -> None:
        waveform = torch.from_numpy(np.stack([samples for samples, _ in pieces])).to(device)
        found.extend(zip(encoder(waveform).float().cpu(), [speaker for _, speaker in pieces], strict=True))

    training = encoder.training
    encoder.eval()
    try:
        for done, utterance in enumerate(utterances):
            speaker = numbers.setdefault(utterance.speaker, len(numbers))
            try:
                for samples in _pieces(utterance, encoder):
                    if len(samples) == round(PIECE * encoder.sample_rate):
                        pending.append((samples, speaker))
                    else:
                        embed([(samples, speaker)])
            except AudioError as error:
                reason = reason or str(error)
            if len(pending) >= _BATCH:
                embed(pending)
                pending.clear()
            if progress is not None:
                progress(done + 1, len(utterances))
        if pending:
            embed(pending)
    finally:
        encoder.train(training)
    if len(found) < 2:
        raise CorpusError("corpus", f"{len(found)} usable pieces of speech" + (f" ({reason})" if reason else ""), "two")
    return torch.stack([embedding for embedding, _ in found]), torch.tensor([speaker for _, speaker in found])


def _pieces(utterance: Utterance, encoder: SpeakerEncoder) -> list[np.ndarray]:
    """Samples of pieces that lie evenly in an utterance and do not overlap."""
    rate = encoder.sample_rate
    longest = (PIECES_PER_UTTERANCE + 1) * PIECE  # of hours of speech, the beginning will do
    audio = read_audio(
        utterance.path,
        sample_rate=rate,
        offset=utterance.offset,
        duration=min(utterance.duration, longest),
        min_duration=encoder.min_samples / rate,
    )
    size = round(PIECE * rate)
    count = min(len(audio.samples) // size, PIECES_PER_UTTERANCE)
    if not count:
        return [audio.samples]
    starts = np.linspace(0, len(audio.samples) - size, count).astype(int)
    return [audio.samples[start : start + size] for start in starts]
