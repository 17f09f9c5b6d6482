"""Embeddings that are kept: found again for the same model and bytes, and for nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tones import ToneEncoder, make_corpus
from voxnest.errors import VoxnestError
from voxnest.evaluation import evaluate
from voxnest.inference import embed_files
from voxnest.inference.cache import EmbeddingCache, embed_kept
from voxnest.inference.pipeline import Span


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("tones"))


def spans(corpus: Path) -> dict[str, Span]:
    return {str(path): Span(path) for path in sorted(corpus.rglob("*.wav"))}


def test_a_second_evaluation_embeds_nothing(corpus: Path, tmp_path: Path) -> None:
    encoder = ToneEncoder().eval()
    reports = [
        evaluate(encoder, corpus / "trials.txt", cache=EmbeddingCache(encoder, folder=tmp_path)) for _ in range(2)
    ]
    assert len(encoder.heard) == 24
    assert [report.cached for report in reports] == [0, 24]
    assert reports[0].dims == reports[1].dims
    assert reports[1].audio_seconds == pytest.approx(24)
    assert reports[1].real_time_factor is None


def test_what_is_found_is_what_was_computed(corpus: Path, tmp_path: Path) -> None:
    silent = tmp_path / "silent.wav"
    import soundfile

    soundfile.write(silent, np.zeros(16000), 16000)
    wanted = {**spans(corpus), str(silent): Span(silent)}
    encoder = ToneEncoder().eval()
    plain = embed_files(encoder, list(wanted))
    for _ in range(2):
        kept = embed_kept(encoder, wanted, EmbeddingCache(encoder, folder=tmp_path / "cache"))
        assert list(kept) == list(plain)
        assert all(np.array_equal(kept[name], plain[name]) for name in plain)
        assert (kept.seconds, kept.silent, kept.warnings) == (plain.seconds, plain.silent, plain.warnings)


def test_other_weights_windows_and_bytes_are_embedded_anew(corpus: Path, tmp_path: Path) -> None:
    def heard(encoder: ToneEncoder, wanted: dict[str, Span], window: float | None = None) -> int:
        before = len(encoder.heard)
        embed_kept(encoder, wanted, EmbeddingCache(encoder, window, tmp_path / "cache"))
        return len(encoder.heard) - before

    first = ToneEncoder().eval()
    assert heard(first, spans(corpus)) == 24
    other = ToneEncoder().eval()
    assert heard(other, spans(corpus)) == 0
    with torch.no_grad():
        other.scale.mul_(1.0001)
    assert heard(other, spans(corpus)) == 24
    copy = tmp_path / "copy.wav"
    copy.write_bytes((corpus / "s0" / "0.wav").read_bytes())
    assert heard(first, {"copy": Span(copy)}) == 0  # wherever it lies
    assert heard(first, {"part": Span(copy, 0.25, 0.5)}) == 1
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    assert heard(first, {"copy": Span(copy)}) == 1
    assert EmbeddingCache(first, 0.5, tmp_path).path != EmbeddingCache(first, folder=tmp_path).path


def test_a_damaged_cache_is_one_line(corpus: Path, tmp_path: Path) -> None:
    encoder = ToneEncoder().eval()
    cache = EmbeddingCache(encoder, folder=tmp_path)
    cache.path.write_bytes(b"no table" * 1000)
    with pytest.raises(VoxnestError, match=r"cannot be used as a cache .*--no-cache"):
        embed_kept(encoder, spans(corpus), cache)
