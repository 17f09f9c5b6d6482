"""Fit a rotation on a corpus: `voxnest matryoshka fit`."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from voxnest.audio import read_audio
from voxnest.corpora.manifest import Utterance
from voxnest.errors import AudioError, ConfigError, CorpusError
from voxnest.matryoshka.learning import learned_rotation
from voxnest.matryoshka.rotation import discriminative_rotation, pca_rotation, with_dims
from voxnest.models.blame import blame_recording, one_line
from voxnest.models.embedding import eval_mode
from voxnest.models.encoder import SpeakerEncoder

PIECES = (1.5, 3.0)
"""Their lengths in seconds. Prefixes have to bear what short recordings vary by."""
PIECES_PER_UTTERANCE = 4
"""Of each length, at most."""
MIN_SPEAKERS = 50
"""Fewer are warned about. With 10, 50, 200 speakers of LibriSpeech (32, 165, 1086 pieces of 3 s), 16 numbers of the
default model of then, its space turned at random before, had an EER of 5.7%, 3.3%, 1.6% on others; 13.7% without."""
_BATCH = 16

Method = Literal["pca", "discriminative", "learned"]
Warn = Callable[[str, str], None]
"""Called with what it is about (a recording, or "corpus") and what is wrong with it."""


def fit(
    encoder: SpeakerEncoder,
    utterances: Sequence[Utterance],
    *,
    dims: Iterable[int] | None = None,
    method: Method | None = None,
    center: bool = False,
    count: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    warn: Warn | None = None,
) -> SpeakerEncoder:
    """A Matryoshka encoder from any encoder, without training.

    Args:
        encoder: on the device it shall run on.
        utterances: of a corpus; those used are drawn with every speaker as often as the others.
        dims: sizes of embedding of the result; by default 8, 16, 32, 64, 128, ... below the encoder's own, and those.
        method: "pca", which needs no speakers, "discriminative", which does, or "learned", which wants many of them; by
            default "discriminative" where there are two or more.
        center: take the mean embedding away too, in which all voices agree (each speaker counts the same): full-size
            cosines change then.
        count: the most utterances to embed.
        seed: of what is drawn.
        progress: called with the utterances embedded so far, and their number.
        warn: called for every utterance that is left out, and if those used are few.

    Raises:
        CorpusError: none of the utterances can be used.
        CheckpointError: the encoder gives no finite embeddings.
        ConfigError: "discriminative" or "learned" with a single speaker, a size beyond the encoder's own, or a mean
            that its last layer cannot hold.
    """
    size = encoder.embedding_dim
    if dims is None:
        dims = {2**power for power in range(3, 12) if 2**power < size} | set(encoder.dims)
    elif max(dims := set(dims), default=0) > size:
        raise ConfigError("dims", str(max(dims)), f"at most {size}, the size of the encoder's embedding")
    chosen = draw(utterances, count, seed)
    embeddings, speakers, recordings = embed_pieces(encoder, chosen, progress, warn)
    number = len(speakers.unique())
    if method is None:
        method = "discriminative" if number > 1 else "pca"
    if warn is not None:
        if len(embeddings) < size:
            warn("corpus", f"{len(embeddings)} pieces of speech; with fewer than {size} some directions are arbitrary")
        if 1 < number < MIN_SPEAKERS:
            warn("corpus", f"{number} speakers; short embeddings get much better with {MIN_SPEAKERS} or more")
    mean = _mean_voice(embeddings, speakers) if center else None
    if mean is not None:
        embeddings = embeddings - mean
    if method == "pca":
        rotation = pca_rotation(embeddings)
    elif method == "discriminative":
        rotation = discriminative_rotation(embeddings, speakers)
    else:
        rotation = learned_rotation(embeddings, speakers, dims, recordings=recordings, seed=seed)
    return with_dims(encoder, dims, rotation, mean).to(next(encoder.parameters()).device)


def _mean_voice(embeddings: Tensor, speakers: Tensor) -> Tensor:
    """The mean `[d]` of the speakers' mean embeddings: who says more is no more of what voices have in common."""
    _, index, counts = speakers.unique(return_inverse=True, return_counts=True)
    sums = embeddings.new_zeros(len(counts), embeddings.shape[1]).index_add_(0, index, embeddings)
    return (sums / counts[:, None]).mean(dim=0)


def draw(utterances: Sequence[Utterance], count: int, seed: int = 0) -> list[Utterance]:
    """At most `count` utterances at random, as equally many of each speaker as there are."""
    random = np.random.default_rng(seed)
    by_speaker: dict[str, list[Utterance]] = {}
    for index in random.permutation(len(utterances)):
        by_speaker.setdefault(utterances[index].speaker, []).append(utterances[index])
    rounds = max(map(len, by_speaker.values()), default=0)
    order = (of_one[turn] for turn in range(rounds) for of_one in by_speaker.values() if turn < len(of_one))
    return [utterance for utterance, _ in zip(order, range(count), strict=False)]


class Pieces(NamedTuple):
    """Pieces of utterances.

    Attributes:
        embeddings: `[n, d]`.
        speakers: the number of each one's speaker, `[n]`.
        recordings: which utterance it is of, `[n]`.
    """

    embeddings: Tensor
    speakers: Tensor
    recordings: Tensor


@torch.inference_mode()
def embed_pieces(
    encoder: SpeakerEncoder,
    utterances: Sequence[Utterance],
    progress: Callable[[int, int], None] | None = None,
    warn: Warn | None = None,
) -> Pieces:
    """Embed pieces of utterances, of each of the lengths `PIECES`.

    At most `PIECES_PER_UTTERANCE` of each length; of an utterance that is shorter than all, the whole. What cannot be
    read, is shorter than the encoder takes, or has no finite embedding, is left out.

    Raises:
        CorpusError: nothing is left.
        CheckpointError: the encoder gives no finite embeddings.
    """
    device = next(encoder.parameters()).device
    numbers = {name: index for index, name in enumerate(dict.fromkeys(each.speaker for each in utterances))}
    found: list[tuple[Tensor, int]] = []  # of which utterance
    pending: dict[int, list[tuple[np.ndarray, int]]] = {size: [] for size in _sizes(encoder)}
    failures: dict[int, AudioError] = {}

    def leave_out(index: int, error: AudioError) -> None:
        if index not in failures and warn is not None:
            warn(error.subject, str(error).removeprefix(f"{error.subject}: "))
        failures.setdefault(index, error)

    def embed(pieces: Sequence[tuple[np.ndarray, int]]) -> None:
        try:
            embeddings = encoder(torch.from_numpy(np.stack([samples for samples, _ in pieces])).to(device))
        except Exception as error:
            if len(pieces) > 1:
                for piece in pieces:
                    embed([piece])
            else:
                index = pieces[0][1]
                leave_out(index, blame_recording(encoder, utterances[index].path, error))
            return
        for embedding, (_, index) in zip(embeddings.float().cpu(), pieces, strict=True):
            if embedding.isfinite().all():
                found.append((embedding, index))
            elif index not in failures:
                leave_out(index, blame_recording(encoder, utterances[index].path))

    with eval_mode(encoder):
        for index, utterance in enumerate(utterances):
            try:
                pieces = _pieces(utterance, encoder)
            except AudioError as error:
                leave_out(index, error)
            except Exception as error:  # a decoder's, or no memory
                leave_out(index, AudioError(utterance.path, one_line(error)))
            else:
                for samples in pieces:
                    if len(samples) in pending:
                        pending[len(samples)].append((samples, index))
                    else:
                        embed([(samples, index)])
            for alike in pending.values():
                if len(alike) >= _BATCH:
                    embed(alike)
                    alike.clear()
            if progress is not None:
                progress(index + 1, len(utterances))
        for alike in pending.values():
            if alike:
                embed(alike)
    found = [(embedding, index) for embedding, index in found if index not in failures]
    if len(found) < 2:
        reasons = [f" ({error})" for error in failures.values()][:1]
        raise CorpusError("corpus", "".join([f"{len(found)} usable pieces of speech", *reasons]), "two")
    speakers = torch.tensor([numbers[utterances[index].speaker] for _, index in found])
    recordings = torch.tensor([index for _, index in found])
    return Pieces(torch.stack([embedding for embedding, _ in found]), speakers, recordings)


def _sizes(encoder: SpeakerEncoder) -> list[int]:
    """`PIECES` in samples, those that the encoder takes."""
    sizes = (round(seconds * encoder.sample_rate) for seconds in PIECES)
    return [size for size in sizes if size >= encoder.min_samples]


def _pieces(utterance: Utterance, encoder: SpeakerEncoder) -> list[np.ndarray]:
    """Samples of pieces that lie evenly in an utterance; those of one length do not overlap."""
    rate = encoder.sample_rate
    longest = (PIECES_PER_UTTERANCE + 1) * max(PIECES)  # of hours of speech, the beginning will do
    samples = read_audio(
        utterance.path,
        sample_rate=rate,
        offset=utterance.offset,
        duration=min(utterance.duration, longest),
        min_duration=encoder.min_samples / rate,
    ).samples
    pieces = []
    for size in _sizes(encoder):
        count = min(len(samples) // size, PIECES_PER_UTTERANCE)
        starts = np.linspace(0, len(samples) - size, count).astype(int)
        pieces += [samples[start : start + size] for start in starts]
    return pieces or [samples]
