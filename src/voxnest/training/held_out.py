"""What is held out of training: speakers, and the trials made of their recordings; or recordings of each speaker."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import soundfile

from voxnest.audio import SAMPLE_RATE, read_audio
from voxnest.corpora.manifest import Utterance
from voxnest.corpora.trials import make_trials, write_trials
from voxnest.errors import AudioError, CorpusError
from voxnest.files import atomic_write
from voxnest.training.config import (
    DEFAULT_HELD_OUT_RECORDINGS,
    DEFAULT_HELD_OUT_SPEAKERS,
    SHORTEST_SEGMENT,
    TrainingConfig,
)
from voxnest.training.folder import writing
from voxnest.training.mixing import place_of


def check_speakers(corpus: str | Path, speakers: Collection[str]) -> None:
    """Raise `CorpusError` for a corpus of one speaker."""
    if len(speakers) < 2:
        raise CorpusError(corpus, f"only one speaker, {min(speakers)!r}", "two or more speakers")


def split_speakers(utterances: Sequence[Utterance], config: TrainingConfig) -> tuple[list[Utterance], list[Utterance]]:
    """Divide into utterances to train on and those of speakers that are held out.

    Raises:
        CorpusError: there are not enough speakers.
    """
    count = config.data.validation.held_out_speakers or DEFAULT_HELD_OUT_SPEAKERS
    speakers = sorted({utterance.speaker for utterance in utterances})
    check_speakers(place_of(config.data.train), speakers)
    if len(speakers) < count + 2:
        found = f"{len(speakers)} speakers, of whom {count} shall be held out for validation"
        expected = f"{count + 2} or more; or set data.validation.held_out_speakers or .trials"
        raise CorpusError(place_of(config.data.train), found, expected)
    rng = np.random.default_rng(config.seed)
    chosen = {speakers[number] for number in rng.permutation(len(speakers))[-count:]}
    parts: tuple[list[Utterance], list[Utterance]] = [], []
    for utterance in utterances:
        parts[utterance.speaker in chosen].append(utterance)
    return parts


def split_recordings(
    utterances: Sequence[Utterance], config: TrainingConfig
) -> tuple[list[Utterance], list[Utterance]]:
    """Divide into utterances to train on and others of the same speakers, for identification.

    Whole sessions are held out; of a speaker with one session, recordings; of one with one recording, nothing.

    Raises:
        CorpusError: nothing can be held out.
    """
    share = config.data.validation.held_out_recordings or DEFAULT_HELD_OUT_RECORDINGS
    rng = np.random.default_rng(config.seed)
    sessions: dict[str, set[str]] = {}
    for utterance in utterances:
        sessions.setdefault(utterance.speaker, set()).add(utterance.session)

    def group(utterance: Utterance) -> tuple[str, str]:
        several = len(sessions[utterance.speaker]) > 1
        return utterance.speaker, utterance.session if several else str(utterance.path)

    groups: dict[str, set[str]] = {}
    for utterance in utterances:
        groups.setdefault(utterance.speaker, set()).add(group(utterance)[1])
    chosen: set[tuple[str, str]] = set()
    for speaker, names in sorted(groups.items()):
        count = min(len(names) - 1, max(1, round(share * len(names))))
        listed = sorted(names)
        chosen |= {(speaker, listed[number]) for number in rng.permutation(len(listed))[:count]}
    parts: tuple[list[Utterance], list[Utterance]] = [], []
    for utterance in utterances:
        parts[group(utterance) in chosen].append(utterance)
    if not parts[1]:
        expected = "a speaker with two or more, or data.validation.utterances"
        raise CorpusError(place_of(config.data.train), "one recording of each speaker, none to hold out", expected)
    return parts


def write_segments(utterances: Sequence[Utterance], trials: Path, config: TrainingConfig) -> dict[Path, str]:
    """Cut recordings of held-out speakers to segments in the folder of `trials`, and make trials of these.

    Returns:
        The recordings that could not be read, whole or in part, and why.

    Raises:
        TrainingError: the files cannot be written.
        TrialError: too little is left to make trials.
    """
    options = config.data.validation
    unreadable: dict[Path, str] = {}
    rng = np.random.default_rng(config.seed)
    by_speaker: dict[str, list[tuple[int, Utterance]]] = {}
    for number in rng.permutation(len(utterances)):
        utterance = utterances[number]
        windows = max(1, int(utterance.duration / options.segment))
        by_speaker.setdefault(utterance.speaker, []).extend((n, utterance) for n in range(windows))
    segments = []
    for index, speaker in enumerate(sorted(by_speaker)):
        # The first window of every recording, then the second, ...: as many recordings as there are.
        pieces = sorted(by_speaker[speaker], key=lambda piece: piece[0])
        name = f"{index:03d}-{re.sub(r'[^A-Za-z0-9_.-]', '_', speaker)}"
        written = 0
        for window, utterance in pieces:
            if written == options.segments_per_speaker:
                break
            start = window * options.segment
            duration = min(options.segment, utterance.duration - start)
            if duration < SHORTEST_SEGMENT:
                continue
            try:
                audio = read_audio(
                    utterance.path, offset=utterance.offset + start, duration=duration, min_duration=SHORTEST_SEGMENT
                )
            except AudioError as error:
                unreadable.setdefault(utterance.path, error.found)
                continue
            path = Path(name, f"{written:04d}.wav")
            _write_wav(trials.parent / path, audio.samples)
            segments.append(Utterance(str(path), speaker, utterance.session, path, duration))
            written += 1
    with writing(trials):
        write_trials(make_trials(segments, seed=config.seed), trials)
    return unreadable


def _write_wav(path: Path, samples: np.ndarray) -> None:
    buffer = io.BytesIO()  # soundfile does not tell why it could not write
    soundfile.write(buffer, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    with writing(path), atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
