"""A stream knows what was heard, whatever the chunks; in the end it is what the whole recording is."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxnest import load_encoder, similarity
from voxnest.errors import AudioError, CheckpointError, ConfigError
from voxnest.models.embedder import Threads
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.encoding import mean_embedding
from voxnest.models.streaming import Heard, Stream
from voxnest.zoo.registry import create_encoder

RATE = 1000


class Fake:
    """Cheap, at 1 kHz: the mean, the power and the first sample of what it hears."""

    name, dims, embedding_dim, sample_rate, min_samples, batch_size = "fake", (2, 3), 3, RATE, 150, 1
    heard: int = 0

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        self.heard += waveform.size
        return np.stack([1 + waveform.mean(axis=1), (waveform**2).mean(axis=1), waveform[:, 0]], axis=1)

    def for_dim(self, dim: int | None) -> "Fake":
        return self

    def check_dim(self, dim: int) -> int:
        if dim not in self.dims:
            raise ConfigError("dim", str(dim), "2, 3")
        return dim

    @contextmanager
    def ready(self) -> Iterator[Threads]:
        yield Threads(1, lambda: None)


def stream(fake: Any = None, **settings: Any) -> Stream:
    return Stream(fake or Fake(), **{"hop": 0.1, "window": 0.3, "history": 1.0, **settings})


def noise(samples: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(samples)).astype(np.float32)


def run(stream: Stream, samples: np.ndarray, cuts: list[int]) -> list[Heard]:
    found = [heard for chunk in np.split(samples, sorted(cuts)) for heard in stream.feed(chunk)]
    return [*found, stream.finish()]


def assert_same(found: list[Heard], expected: list[Heard]) -> None:
    assert [heard.seconds for heard in found] == [heard.seconds for heard in expected]
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.embedding, other.embedding)
        assert np.array_equal(one.window, other.window)


@settings(max_examples=60, deadline=None)
@given(st.integers(150, 2500), st.lists(st.integers(0, 2500), max_size=30), st.sampled_from([RATE, 1600, 800]))
def test_what_is_known_does_not_depend_on_the_chunks(length: int, cuts: list[int], rate: int) -> None:
    samples = noise(length * rate // RATE + 10)
    at_once = run(stream(sample_rate=rate), samples, [])
    assert_same(run(stream(sample_rate=rate), samples, cuts), at_once)
    history = samples[-rate:] if rate == RATE else soxr.resample(samples, rate, RATE)[-RATE:]
    expected = Fake().embed(history[None])[0]
    assert at_once[-1].embedding == pytest.approx(expected, abs=1e-5)
    assert at_once[-1].seconds == pytest.approx(len(samples) / rate, abs=1 / RATE)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 1500), max_size=10))
def test_whole_numbers_are_what_their_floats_are(cuts: list[int]) -> None:
    whole = (noise(1500) * 2**15).astype(np.int16)
    assert_same(run(stream(), whole, cuts), run(stream(), (whole / 2**15).astype(np.float32), cuts))


def test_a_running_embedding_is_of_all_that_was_heard_then_the_mean_of_the_windows() -> None:
    samples, fake = noise(750), Fake()
    found = run(stream(), samples, [])
    assert [heard.seconds for heard in found] == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75])
    ends = range(200, 701, 100)
    alone = [fake.embed(samples[max(0, end - 300) : end][None])[0] for end in ends]
    for number, heard in enumerate(found[:-1]):
        assert np.array_equal(heard.window, alone[number])
        expected = mean_embedding(np.stack(alone[1 : number + 1])) if number else alone[0]
        assert heard.embedding == pytest.approx(expected)
    assert np.array_equal(found[-1].embedding, fake.embed(samples[None])[0])
    assert np.array_equal(found[-1].window, fake.embed(samples[None, -300:])[0])
    assert np.array_equal(run(stream(dim=2), samples, [])[3].embedding, found[3].embedding[:2])


def test_what_is_older_than_the_history_is_forgotten() -> None:
    new = noise(1000)
    *_, known, final = run(stream(), np.append(noise(1234)[::-1], new), [])
    assert np.array_equal(final.embedding, stream().embedder.embed(new[None])[0])
    assert known.seconds == 2.2
    *_, known, final = run(stream(), np.append(noise(1200)[::-1], new), [])
    assert known.embedding == pytest.approx(run(stream(), new, [])[-2].embedding)


def test_memory_and_time_of_a_hop_do_not_grow() -> None:
    fake = Fake()
    endless, chunk = stream(fake), noise(100)
    for _ in range(50):
        endless.feed(chunk)
    tracemalloc.start()
    for _ in range(20):
        endless.feed(chunk)
    before, heard = tracemalloc.get_traced_memory()[0], fake.heard
    endless.feed(noise(30050))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 4000
    assert fake.heard - heard == 300 * 300
    assert endless.seconds == pytest.approx(37.05)


def test_a_muted_microphone_does_not_count_unless_there_is_nothing_else() -> None:
    muted = stream(history=10.0)
    for heard in muted.feed(np.zeros(1000)):
        assert heard.embedding.tolist() == heard.window.tolist() == [1, 0, 0]
    spoken = muted.feed(noise(600))[-1]
    silent = muted.feed(np.zeros(2000, np.int16))[-1]
    assert silent.window.tolist() == [1, 0, 0]
    assert similarity(silent.embedding, spoken.embedding) > 0.9999
    assert silent.embedding[1] > 0.004
    assert muted.finish().seconds == 3.6


def test_less_than_the_model_takes_is_known_late_and_cannot_be_finished() -> None:
    short = stream()
    assert short.feed(noise(149)) == []
    with pytest.raises(AudioError, match=r"149 samples at 1000 Hz .expected at least 150"):
        short.finish()
    with pytest.raises(AudioError, match="0 samples"):
        stream().finish()
    assert stream().feed(noise(0)) == []


def test_a_finished_stream_is_used_again_after_reset_only() -> None:
    one = stream(sample_rate=1600)
    expected = run(one, noise(900), [100])
    with pytest.raises(ConfigError, match=r"finished .expected reset"):
        one.feed(noise(10))
    with pytest.raises(ConfigError, match="finished"):
        one.finish()
    one.reset()
    assert one.seconds == 0
    assert_same(run(one, noise(900), [700, 800]), expected)


@pytest.mark.parametrize(
    ("chunk", "says"),
    [
        (np.zeros((10, 2)), r"shape \[10, 2\] .expected \[samples\]"),
        (np.full(3, np.nan), "NaN or infinite"),
        (np.zeros(3, np.int64), "an array of int64"),
        ([0.0], "a list"),
    ],
)
def test_a_bad_chunk_is_refused_and_leaves_the_stream_as_it_was(chunk: Any, says: str) -> None:
    one = stream()
    one.feed(noise(250))
    with pytest.raises(AudioError, match=says):
        one.feed(chunk)
    assert_same([*one.feed(noise(100)), one.finish()], run(stream(), np.append(noise(250), noise(100)), [])[1:])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"hop": 0}, "hop: 0 s .expected a sample or more"),
        ({"hop": float("inf")}, "hop: inf s"),
        ({"window": 0.1}, "window: 0.1 s .expected 0.15 s, which fake needs, to 1 s"),
        ({"window": 2}, "window: 2 s"),
        ({"window": 61, "history": 99}, "to 60 s"),
        ({"dim": 4}, "dim: 4"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        stream(**settings)


def test_windows_are_whole_hops() -> None:
    fake = Fake()
    found = run(stream(fake, hop=0.4, window=0.3, history=0.9), noise(1700), [])
    assert [heard.seconds for heard in found] == [0.4, 0.8, 1.2, 1.6, 1.7]
    assert fake.heard == 4 * 400 + 1200 + 400  # each hop once, then the history and its last window


def test_an_encoder_hears_a_stream_as_it_hears_the_whole() -> None:
    torch.manual_seed(0)
    encoder = create_encoder("redimnet-tiny", dims=(16, 64)).train()
    samples = (0.1 * np.random.default_rng(0).standard_normal(40000)).astype(np.float32)
    one = encoder.stream(hop=0.5, window=1.0, dim=16)
    *known, final = run(one, samples, [3, 5000, 30000])
    assert [heard.seconds for heard in known] == [0.5, 1, 1.5, 2, 2.5]
    assert np.array_equal(final.embedding, encoder.encode(samples, dim=16)[0])
    assert known[1].embedding == pytest.approx(encoder.encode(samples[:16000], dim=16)[0], abs=1e-5)
    assert encoder.training
    torch.nn.init.constant_(encoder.head.linear.bias, float("nan"))
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        encoder.stream().feed(samples)


def test_running_embeddings_of_real_speech_come_near_the_whole(speech: Path) -> None:
    encoder: SpeakerEncoder = load_encoder()
    samples, rate = soundfile.read(speech, dtype="int16", frames=96000)
    one = encoder.stream(hop=1.0, sample_rate=rate)
    *known, final = run(one, samples, list(range(1000, len(samples), 1000)))
    assert final.embedding == pytest.approx(encoder.encode((samples, rate))[0], abs=1e-5)
    assert similarity(known[-1].embedding, final.embedding) > 0.9
