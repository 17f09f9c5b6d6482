"""Recordings in groups of one length: together where possible, in order, within bounds, each to its own fault."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxnest.models.embedder import Threads
from voxnest.models.workers import Recording, workers


class Fake:
    """Its embedding is the first sample and the length; it remembers what it was given at once."""

    name, dims, embedding_dim, sample_rate, min_samples, batch_size = "fake", (2,), 2, 100, 1, 8

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int]] = []
        self.is_ready = False

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        assert self.is_ready
        self.shapes.append((waveform.shape[0], waveform.shape[1]))
        if (waveform < 0).any():
            raise RuntimeError("negative")
        return np.stack([waveform[:, 0], np.full(len(waveform), float(waveform.shape[1]))], axis=1)

    @contextmanager
    def ready(self) -> Iterator[Threads]:
        self.is_ready = True
        yield Threads(3, lambda: None)
        self.is_ready = False


def recording(first: float, lengths: list[int]) -> Recording[list[list[float]]]:
    """Parts of these lengths; the first sample of part k is `first + k`."""
    found = []
    for part, length in enumerate(lengths):
        embedding = yield np.full(length, first + part, np.float32)
        found.append(embedding.tolist())
    return found


def outcomes(fake: Any, recordings: Any, batch: int) -> list[Any]:
    with workers(fake) as team:
        return [done.exception() or done.result() for done in team.embed(recordings, batch)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 4), max_size=4), max_size=80), st.sampled_from([1, 2, 3, 8]))
def test_each_recording_gets_its_own_embeddings_in_order(parts: list[list[int]], batch: int) -> None:
    fake = Fake()
    found = outcomes(fake, (recording(10.0 * index, lengths) for index, lengths in enumerate(parts)), batch)
    assert found == [
        [[10.0 * index + part, length] for part, length in enumerate(lengths)] for index, lengths in enumerate(parts)
    ]
    assert sum(size for size, _ in fake.shapes) == sum(map(len, parts))
    assert all(size <= batch for size, _ in fake.shapes)
    again = Fake()
    outcomes(again, (recording(10.0 * index, lengths) for index, lengths in enumerate(parts)), batch)
    assert batch == 1 or again.shapes == fake.shapes  # threads do not decide what is embedded together


def test_those_of_one_length_are_embedded_together() -> None:
    fake = Fake()
    outcomes(fake, (recording(0, [1 + index % 4]) for index in range(320)), 8)
    assert len(fake.shapes) == 40
    assert {size for size, _ in fake.shapes} == {8}


def test_long_ones_are_fewer_at_once() -> None:
    fake = Fake()
    outcomes(fake, (recording(0, [6000]) for _ in range(16)), 8)  # a minute each
    assert {size for size, _ in fake.shapes} == {4}


@pytest.mark.parametrize("seconds", [1, 60])
def test_what_is_decoded_ahead_is_bounded(seconds: int) -> None:
    alive, most, lock = 0, 0, threading.Lock()

    def counted(length: int) -> Recording[None]:
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        yield np.zeros(length, np.float32)
        with lock:
            alive -= 1

    fake = Fake()
    done = outcomes(fake, (counted(100 * seconds + index) for index in range(300)), 8)
    assert len(done) == 300
    assert [length for _, length in fake.shapes] == [100 * seconds + index for index in range(300)]
    assert most <= 8 * 8 + 1 + 2 * 3
    if seconds == 60:
        assert most <= 1200 / 60 + 1 + 2 * 3


def test_an_odd_length_at_the_front_does_not_hold_up_the_others_for_ever() -> None:
    with workers(Fake()) as team:
        begun = []

        def noted(index: int) -> Recording[int]:
            begun.append(index)
            yield np.zeros(7 if index == 0 else 5, np.float32)
            return index

        results = team.embed((noted(index) for index in range(1000)), 8)
        assert next(results).result() == 0
        assert len(begun) <= 16 * 8 + 8
        assert [done.result() for done in results] == list(range(1, 1000))


@pytest.mark.parametrize("batch", [1, 8])
def test_one_that_fails_leaves_the_others_of_its_group(batch: int) -> None:
    closed = []

    def careful(first: float) -> Recording[float]:
        try:
            return float((yield np.full(5, first, np.float32))[0])
        finally:
            closed.append(first)

    def unreadable() -> Recording[float]:
        raise KeyError("odd")
        yield

    found = outcomes(Fake(), [careful(1), careful(-1), unreadable(), careful(2)], batch)
    assert (found[0], found[3]) == (1.0, 2.0)
    assert [str(found[1]), repr(found[2])] == ["negative", "KeyError('odd')"]
    assert sorted(closed) == [-1, 1, 2]


@pytest.mark.parametrize("batch", [1, 8])
def test_an_error_outside_ends_the_threads_and_the_readiness(batch: int) -> None:
    fake, before = Fake(), threading.active_count()
    with pytest.raises(ValueError, match="enough"), workers(fake) as team:  # noqa: PT012
        next(team.embed((recording(0, [5] * 50) for _ in range(100)), batch))
        raise ValueError("enough")
    assert not fake.is_ready
    assert threading.active_count() == before
