"""Synthetic voices: a small labelled corpus made offline, for demos and tests.

A speaker is a random eSpeak NG voice (accent, formants and their bandwidths, pitch, intonation, roughness,
breathiness, spectral tilt, rhythm). The formants are those of the synthesiser itself, so a vocal tract's
length varies independently of the pitch. A session is a random channel (microphone response, room, noise) and
mood (pitch, tempo, effort), so that two sessions of a speaker differ as two recordings on two days do.
"""

import math
import wave
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soxr

from voxnest.audio import SAMPLE_RATE
from voxnest.corpora.trials import Trial
from voxnest.errors import CorpusError
from voxnest.files import writing
from voxnest.synthesis import espeak
from voxnest.synthesis.wordlist import sentence

ACCENTS = (
    "en-us",
    "en-gb",
    "en-gb-scotland",
    "en-029",
    "en-us-nyc",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
)
_FORMANTS = 7  # 0 is the glottal low-frequency peak, 1 to 6 are the vocal tract's


@dataclass(frozen=True)
class Voice:
    """One synthetic speaker.

    Args:
        definition: the eSpeak NG voice file.
        rate: usual tempo in words per minute.
        pitch_range: usual liveliness of the intonation, 0 to 100.
    """

    definition: str
    rate: float
    pitch_range: float


@dataclass(frozen=True)
class Session:
    """What the utterances of one recording session share.

    Args:
        response: microphone response, decibels at points evenly spaced on the mel scale from 0 to 8 kHz.
        reverberation: seconds to a decay of 60 dB.
        direct: share of the direct sound's energy, 0 to 1.
        snr: signal-to-noise ratio in decibels.
        noise_slope: decibels per octave of the noise.
        pitch: shift of the voice's pitch in steps of eSpeak NG.
        tempo: factor on the voice's rate.
        level: root mean square of the recording, decibels below full scale.
    """

    response: np.ndarray
    reverberation: float
    direct: float
    snr: float
    noise_slope: float
    pitch: float
    tempo: float
    level: float


def make_synthetic_corpus(
    output: str | Path,
    *,
    speakers: int = 40,
    utterances_per_speaker: int = 8,
    sessions: int = 2,
    seed: int = 0,
    first_speaker: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write `<output>/<speaker>/<session>/<utterance>.wav`: 16 kHz mono 16-bit, about 3 s each.

    The same arguments give the same bytes on the same machine. Speaker numbers count from `first_speaker`; a
    test set of unseen speakers is a second call whose numbers do not overlap:

        make_synthetic_corpus("demo/train", speakers=40)
        make_synthetic_corpus("demo/test", speakers=10, first_speaker=40)
        write_trials(make_synthetic_trials("demo/test"), "demo/trials.txt")

    The folder appears only when it is complete.

    Args:
        output: a folder that does not exist yet or is empty.
        speakers: how many.
        utterances_per_speaker: spread evenly over the sessions.
        sessions: per speaker.
        seed: of voices, sentences and channels.
        first_speaker: number of the first speaker.
        progress: called with the utterances done and their total.

    Returns:
        The files, sorted.

    Raises:
        CorpusError: the folder holds something, a count is not positive, or eSpeak NG cannot be used.
    """
    output = Path(output)
    if speakers < 1 or sessions < 1 or utterances_per_speaker < sessions or first_speaker < 0:
        found = f"{speakers} speakers with {utterances_per_speaker} utterances in {sessions} sessions"
        raise CorpusError(output, found, "at least one of each, and an utterance for every session")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CorpusError(output, "exists already and is not an empty folder", "a new folder, or delete this one")

    numbers = range(first_speaker, first_speaker + speakers)
    plan = [item for number in numbers for item in _plan(number, utterances_per_speaker, sessions, seed)]
    with writing(output, CorpusError):
        output.parent.mkdir(parents=True, exist_ok=True)
        with (
            TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-", ignore_cleanup_errors=True) as folder,
            closing(espeak.synthesize(request for _, request, _, _ in plan)) as spoken,
        ):
            building = Path(folder)
            for done, (speech, (name, _, session, stream)) in enumerate(zip(spoken, plan, strict=True), start=1):
                samples = np.frombuffer(speech, np.int16) / 32768.0
                samples = soxr.resample(samples, espeak.SAMPLE_RATE, SAMPLE_RATE)
                _write_wav(building / name, record(samples, session, stream))
                if progress:
                    progress(done, len(plan))
            building.chmod(0o755)
            building.replace(output)
    return [output / name for name, *_ in plan]


def make_synthetic_trials(corpus: str | Path, *, nontargets: int | None = None, seed: int = 0) -> list[Trial]:
    """Make trials of a corpus in the layout `<speaker>/<session>/<utterance>.wav`, target trials first.

    Target trials join different sessions of a speaker (all pairs if there is only one session): the same
    channel on both sides would make them easy. Paths are relative to `corpus`.

    Args:
        corpus: the folder of the speakers.
        nontargets: how many non-target trials to draw; all pairs when None.
        seed: of that draw.

    Raises:
        CorpusError: fewer than two speakers, or no two utterances of one speaker.
    """
    corpus = Path(corpus)
    files = sorted(path.relative_to(corpus) for path in corpus.glob("*/*/*.wav"))
    pairs = list(combinations(files, 2))
    same = [pair for pair in pairs if pair[0].parts[0] == pair[1].parts[0]]
    targets = [(a, b) for a, b in same if a.parts[1] != b.parts[1]] or same
    others = [(a, b) for a, b in pairs if a.parts[0] != b.parts[0]]
    if not targets or not others:
        raise CorpusError(corpus, f"no trials can be made from {len(files)} files", "two speakers, two utterances each")
    if nontargets is not None and nontargets < len(others):
        chosen = np.random.default_rng(seed).choice(len(others), size=nontargets, replace=False)
        others = [others[index] for index in sorted(chosen)]
    return [
        Trial(label, a.as_posix(), b.as_posix()) for label, kind in ((True, targets), (False, others)) for a, b in kind
    ]


def _plan(
    number: int, utterances: int, sessions: int, seed: int
) -> Iterator[tuple[Path, espeak.Request, Session, np.random.Generator]]:
    """What speaker `number` says, where, and the generator of each recording's chance."""
    rng = np.random.default_rng([seed, number])
    voice = draw_voice(rng, number)
    channels = [draw_session(rng) for _ in range(sessions)]
    for index in range(utterances):
        where = index * sessions // utterances
        session = channels[where]
        request = espeak.Request(
            voice=voice.definition,
            text=sentence(rng),
            rate=int(np.clip(voice.rate * session.tempo * rng.normal(1, 0.05), 90, 300)),
            pitch=int(np.clip(50 + session.pitch + rng.normal(0, 3), 10, 90)),
            pitch_range=int(np.clip(voice.pitch_range + rng.normal(0, 8), 5, 95)),
            seed=int(rng.integers(1, 2**31)),
        )
        yield Path(f"voice{number:04d}/session{where}/{index:04d}.wav"), request, session, rng.spawn(1)[0]


def draw_voice(rng: np.random.Generator, number: int) -> Voice:
    """Draw a speaker; odd numbers have a shorter vocal tract and a higher pitch on average."""
    high = number % 2
    tract = rng.normal(112 if high else 98, 4.0)  # formant frequencies, per cent of the synthesiser's own
    low = float(np.clip(rng.lognormal(math.log(165 if high else 92), 0.15), 66, 260))
    lines = [
        f"name voice{number:04d}",
        f"language {rng.choice(ACCENTS)}",
        f"pitch {low:.0f} {low * rng.uniform(1.12, 1.5):.0f}",
        f"flutter {rng.integers(1, 9)}",
        f"roughness {rng.integers(0, 5)}",
        f"voicing {rng.integers(80, 121)}",
        f"consonants {rng.integers(70, 131)} {rng.integers(80, 121)}",
        f"intonation {rng.integers(1, 5)}",
        "breath " + " ".join(str(rng.integers(0, 7)) for _ in range(_FORMANTS)),
        "stressLength " + " ".join(str(int(v * rng.uniform(0.9, 1.1))) for v in (150, 140, 180, 180, 0, 0, 230, 240)),
        f"tone 600 {rng.integers(130, 200)} 1300 {rng.integers(80, 160)} 2600 {rng.integers(40, 140)}",
    ]
    lines += [
        f"formant {f} {tract * rng.normal(1, 0.03):.0f} {rng.uniform(65, 135):.0f} {rng.uniform(75, 140):.0f}"
        for f in range(_FORMANTS)
    ]
    return Voice("\n".join(lines) + "\n", rate=rng.uniform(140, 200), pitch_range=rng.uniform(25, 75))


def draw_session(rng: np.random.Generator) -> Session:
    """Draw a channel and a mood."""
    return Session(
        response=np.cumsum(rng.normal(0, 1.6, 9)) + rng.normal(0, 1.5, 9),
        reverberation=rng.uniform(0.1, 0.6),
        direct=rng.uniform(0.6, 0.98),
        snr=rng.uniform(12, 32),
        noise_slope=rng.uniform(-8, 0),
        pitch=rng.normal(0, 5),
        tempo=rng.normal(1, 0.07),
        level=rng.uniform(-32, -18),
    )


def record(speech: np.ndarray, session: Session, rng: np.random.Generator) -> np.ndarray:
    """Send speech through a session's room and microphone.

    Args:
        speech: `[samples]` float at 16 kHz.
        session: the channel.
        rng: of the room's echo pattern and the noise.

    Returns:
        `[samples]` float32 in [-1, 1], a little longer than `speech` (silence at both ends).
    """
    speech = np.pad(speech, (rng.integers(800, 4800), rng.integers(800, 4800)))
    time = np.arange(int(session.reverberation * SAMPLE_RATE)) / SAMPLE_RATE
    echo = rng.normal(size=len(time)) * np.exp(-6.9 * time / session.reverberation)
    echo[: SAMPLE_RATE // 400] = 0  # the first reflection comes after the direct sound
    echo *= math.sqrt((1 - session.direct) / session.direct / np.sum(echo**2))
    echo[0] = 1
    size = 1 << (len(speech) + len(echo) - 1).bit_length()
    frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    mel = 2595 * np.log10(1 + frequency / 700)
    response = 10 ** (np.interp(mel, np.linspace(0, mel[-1], len(session.response)), session.response) / 20)
    slope = np.maximum(frequency / 500, 0.1) ** (session.noise_slope / 6.02)
    clean = np.fft.irfft(np.fft.rfft(speech, size) * np.fft.rfft(echo, size) * response)[: len(speech)]
    noise = np.fft.irfft(np.fft.rfft(rng.normal(size=size)) * slope * response)[: len(speech)]
    noise *= math.sqrt(np.mean(clean**2) / np.mean(noise**2)) * 10 ** (-session.snr / 20)
    recording = clean + noise
    recording *= 10 ** (session.level / 20) / math.sqrt(np.mean(recording**2))
    return np.clip(recording, -1, 1).astype(np.float32)


def _write_wav(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())
