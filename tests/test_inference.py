"""Embedding whole recordings: each alone, in order, within bounds, and with nothing lost on a bad one."""

import shutil
import signal
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tones import ToneEncoder
from voxnest import create_encoder, read_audio
from voxnest.audio import Audio
from voxnest.errors import AudioError, CheckpointError, ConfigError, VoxnestError
from voxnest.inference import (
    DEFAULT_THRESHOLD,
    archive,
    embed_files,
    embed_to_file,
    find_recordings,
    verify,
)
from voxnest.models.encoder import SpeakerEncoder


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    torch.manual_seed(0)
    return create_encoder("redimnet-tiny").eval()


def write_voice(path: Path, seconds: float, seed: int, rate: int = 16000) -> Path:
    """A buzz with formants that differ by seed: enough for an untrained network to tell apart."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    pitch = rng.uniform(90, 250)
    gains = rng.uniform(0.1, 1, 20) / np.arange(1, 21)
    buzz = sum(gain * np.sin(2 * np.pi * pitch * (k + 1) * t) for k, gain in enumerate(gains))
    soundfile.write(path, 0.1 * buzz + 0.003 * rng.standard_normal(len(t)), rate)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voices")
    for seed, seconds in enumerate((1.0, 2.5, 1.7, 1.0, 0.6)):
        write_voice(folder / f"{seed}.flac", seconds, seed)
    return folder


@pytest.fixture(autouse=True)
def quiet_threads() -> Iterator[None]:
    """One thread per operation in the tests' own calls: on a busy machine two wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def alone(encoder: SpeakerEncoder, path: Path) -> np.ndarray:
    with torch.inference_mode():
        return encoder(torch.from_numpy(read_audio(path).samples)[None])[0].numpy()


def test_an_embedding_is_that_of_the_whole_file_alone(encoder: SpeakerEncoder, folder: Path) -> None:
    paths = sorted(folder.iterdir())
    embeddings = embed_files(encoder, paths)
    assert list(embeddings) == [str(path) for path in paths]
    for path in paths:
        assert embeddings[str(path)].shape == (encoder.embedding_dim,)
        assert embeddings[str(path)].dtype == np.float32
        np.testing.assert_allclose(embeddings[str(path)], alone(encoder, path), atol=1e-4)
    assert embeddings.failures == []
    assert embeddings.silent == []


def test_an_embedding_does_not_depend_on_the_company(encoder: SpeakerEncoder, folder: Path) -> None:
    paths = sorted(folder.iterdir())
    torch.set_num_threads(3)
    together = embed_files(encoder, paths * 3)
    for path in paths:
        np.testing.assert_array_equal(embed_files(encoder, [path])[str(path)], together[str(path)])


def test_files_of_one_length_are_embedded_together_where_that_is_faster(
    encoder: SpeakerEncoder, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "short.wav", np.ones(100), 16000)
    copies = [shutil.copy(path, tmp_path / f"{number}-{path.name}") for path in folder.iterdir() for number in range(5)]
    names = [*copies[:7], str(tmp_path / "short.wav"), *copies[7:]]
    expected = embed_files(encoder, names, on_error="skip", max_duration=2.0)
    sizes: list[tuple[int, ...]] = []
    hook = encoder.register_forward_pre_hook(lambda _, arguments: sizes.append(arguments[0].shape))
    monkeypatch.setattr(SpeakerEncoder, "batch_size", 8)
    told: list[tuple[int, int]] = []
    try:
        found = embed_files(encoder, names, on_error="skip", max_duration=2.0, progress=lambda *now: told.append(now))
    finally:
        hook.remove()
    assert list(found) == list(expected)
    for name, embedding in found.items():
        np.testing.assert_allclose(embedding, expected[name], atol=1e-4)
    assert (found.failures, found.warnings) == (expected.failures, expected.warnings)
    assert [name for name, _ in found.failures] == [names[7]]
    assert (len(sizes), sum(size for size, _ in sizes)) == (6, 30)  # ten each of a second, five others, both parts
    assert told[-1] == (31, 31)


def test_names_are_kept_as_given_and_each_file_is_read_once(
    encoder: SpeakerEncoder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []

    def counted(path: Path, **arguments: float) -> Audio:
        reads.append(path)
        return read_audio(path, **arguments)

    monkeypatch.setattr("voxnest.inference.pipeline.read_audio", counted)
    embeddings = embed_files(encoder, [Path("0.flac"), "1.flac", "0.flac"], root=folder)
    assert list(embeddings) == ["0.flac", "1.flac"]
    assert sorted(reads) == [folder / "0.flac", folder / "1.flac"]


def test_real_speech_of_any_format_is_close_to_its_original(
    encoder: SpeakerEncoder, speech: Path, tmp_path: Path
) -> None:
    samples, rate = soundfile.read(speech)
    soundfile.write(tmp_path / "stereo.wav", np.stack([samples, samples], axis=1), rate, subtype="PCM_24")
    soundfile.write(tmp_path / "lossy.mp3", samples, rate)
    assert verify(encoder, speech, tmp_path / "stereo.wav").score == pytest.approx(1, abs=1e-4)
    assert verify(encoder, speech, tmp_path / "lossy.mp3").score > 0.95


def test_a_long_recording_is_embedded_in_equal_parts(
    encoder: SpeakerEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_voice(tmp_path / "long.wav", 4.5, 7)
    lengths = []

    def watched(path: Path, **arguments: float) -> Audio:
        audio = read_audio(path, **arguments)
        lengths.append(len(audio.samples))
        return audio

    monkeypatch.setattr("voxnest.inference.pipeline.read_audio", watched)
    embedding = embed_files(encoder, [path], max_duration=2.0)[str(path)]
    assert lengths == [24000, 24000, 24000]
    samples = torch.from_numpy(read_audio(path).samples)
    with torch.inference_mode():
        parts = [encoder(part[None])[0].numpy() for part in samples.split(24000)]
    norms = [np.linalg.norm(part) for part in parts]
    mean = np.mean([part / norm for part, norm in zip(parts, norms, strict=True)], axis=0)
    np.testing.assert_allclose(embedding, mean * np.mean(norms), atol=1e-4)


def test_a_part_of_the_length_of_the_limit_is_not_split(encoder: SpeakerEncoder, folder: Path) -> None:
    path = folder / "0.flac"
    np.testing.assert_allclose(
        embed_files(encoder, [path], max_duration=1.0)[str(path)], alone(encoder, path), atol=1e-4
    )
    with pytest.raises(ValueError, match="max_duration"):
        embed_files(encoder, [path], max_duration=0)


def test_a_bad_file_raises_with_its_name(encoder: SpeakerEncoder, folder: Path) -> None:
    with pytest.raises(AudioError, match=r"none\.wav: no such file"):
        embed_files(encoder, [folder / "0.flac", folder / "none.wav", folder / "1.flac"])


def test_bad_files_are_skipped_and_reported_when_asked(encoder: SpeakerEncoder, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("hello")
    soundfile.write(tmp_path / "short.wav", np.ones(100), 16000)
    names = [
        str(folder / "0.flac"),
        str(tmp_path / "text.wav"),
        str(tmp_path / "short.wav"),
        str(folder / "1.flac"),
    ]
    embeddings = embed_files(encoder, names, on_error="skip")
    assert list(embeddings) == [names[0], names[3]]
    least = f"{encoder.min_samples / 16000:.3g}"
    assert embeddings.failures == [
        (names[1], "is not audio, or its header is damaged or cut off"),
        (names[2], f"lasts 0.00625 s (expected at least {least} s)"),
    ]


class Picky(ToneEncoder):
    """Gives NaN for loud samples, and breaks at a recording of two seconds."""

    def forward(self, waveform: torch.Tensor, dim: int | None = None, all_dims: bool = False) -> torch.Tensor:
        if waveform.shape[1] == 32000:
            raise RuntimeError("kernel size\ncan't be greater")
        found: torch.Tensor = super().forward(waveform, dim, all_dims)
        return found * torch.where(waveform.abs().max() > 10, torch.nan, 1.0)


def test_whatever_is_wrong_with_one_recording_leaves_the_others(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path, **arguments: float) -> Audio:
        if path.stem == "huge":
            raise MemoryError
        if path.stem == "odd":
            raise KeyError("a decoder's mistake")
        return read_audio(path, **arguments)

    monkeypatch.setattr("voxnest.inference.pipeline.read_audio", broken)
    names = [str(tmp_path / f"{stem}.wav") for stem in ("loud", "huge", "odd", "breaks")]
    for name, seconds, level in zip(names, (1, 1, 1, 2), (20, 0.1, 0.1, 0.1), strict=True):
        soundfile.write(name, np.full(16000 * seconds, level, np.float32), 16000, subtype="FLOAT")
    good = [str(folder / "0.flac"), str(folder / "1.flac")]
    embeddings = embed_files(Picky(), [*names, *good], on_error="skip")
    assert list(embeddings) == good
    assert embeddings.failures == [
        (names[0], "its embedding is NaN or infinite (expected samples in [-1, 1])"),
        (names[1], "needs more memory than there is"),
        (names[2], 'cannot be used: KeyError: "a decoder\'s mistake"'),
        (names[3], "cannot be used: RuntimeError: kernel size can't be greater"),
    ]
    for name in names:
        with pytest.raises(AudioError, match=name):
            embed_files(Picky(), [good[0], name])


def test_absurd_samples_are_the_recordings_fault(encoder: SpeakerEncoder, folder: Path, tmp_path: Path) -> None:
    absurd, good = str(tmp_path / "absurd.wav"), str(folder / "0.flac")
    soundfile.write(absurd, np.full(16000, 1e30, np.float32), 16000, subtype="FLOAT")
    result = embed_to_file(encoder, [absurd, good], tmp_path / "out.npz")
    assert [name for name, _ in result.failures] == [absurd]
    with np.load(tmp_path / "out.npz") as archive:
        assert archive["names"].tolist() == [good]


def test_an_encoder_that_cannot_compute_is_not_blamed_on_recordings(folder: Path) -> None:
    class Broken(ToneEncoder):
        def forward(self, waveform: torch.Tensor, dim: int | None = None, all_dims: bool = False) -> torch.Tensor:
            raise RuntimeError("no kernel for this device")

    with pytest.raises(RuntimeError, match="no kernel"):
        embed_files(Broken(), [folder / "0.flac"], on_error="skip")


def test_one_path_and_an_iterator_of_paths_are_paths(folder: Path) -> None:
    first, second = folder / "0.flac", folder / "1.flac"
    assert list(embed_files(ToneEncoder(), str(first))) == [str(first)]
    assert list(embed_files(ToneEncoder(), first)) == [str(first)]
    assert list(embed_files(ToneEncoder(), (path for path in (second, first, second)))) == [str(second), str(first)]
    assert find_recordings(folder / "0.*") == [str(first)]


@pytest.mark.parametrize(
    ("paths", "kind"),
    [(np.zeros(16000, np.float32), "float32"), ([Path("a.wav"), 3], "int"), (None, "NoneType"), (b"a.wav", "bytes")],
)
def test_what_is_no_path_is_refused_in_one_line(paths: object, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"type {kind} .expected paths of recordings") as caught:
        embed_files(ToneEncoder(), paths)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_an_interruption_does_not_wait_and_stops_the_threads(tmp_path: Path) -> None:
    class Slow(ToneEncoder):
        entered, go_on = threading.Event(), threading.Event()

        def forward(self, waveform: torch.Tensor, dim: int | None = None, all_dims: bool = False) -> torch.Tensor:
            self.entered.set()
            assert self.go_on.wait(20)
            found: torch.Tensor = super().forward(waveform, dim, all_dims)
            return found

    def interrupt() -> None:
        slow.entered.wait(20)
        times.append(time.monotonic())
        signal.raise_signal(signal.SIGINT)

    slow, times = Slow().train(), list[float]()
    path = write_voice(tmp_path / "long.wav", 5, 0)
    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        embed_files(slow, path, max_duration=1.0)
    assert time.monotonic() - times[0] < 1
    assert not slow.training  # while a thread computes, batch norm must not begin to learn
    interrupter.join()
    slow.go_on.set()
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("embed")])
    assert len(slow.heard) == 1  # of five parts
    assert slow.training


def test_progress_is_told_by_the_parts_of_long_recordings(folder: Path, tmp_path: Path) -> None:
    path = write_voice(tmp_path / "long.wav", 3, 0)
    told: list[tuple[int, int]] = []
    embed_files(
        ToneEncoder(),
        [path, folder / "0.flac", tmp_path / "none.wav"],
        max_duration=1.0,
        on_error="skip",
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (5, 5)
    assert told == sorted(set(told))


def test_each_recording_has_its_length_and_what_is_wrong_with_it(encoder: SpeakerEncoder, tmp_path: Path) -> None:
    samples = 0.05 * np.random.default_rng(0).standard_normal(40000)
    good, bad, short = (str(tmp_path / f"{name}.wav") for name in ("good", "offset", "short"))
    soundfile.write(good, samples, 16000)
    soundfile.write(bad, samples + 0.4, 16000)
    soundfile.write(short, samples[:9600], 16000)
    embeddings = embed_files(ToneEncoder(), [good, bad, short], max_duration=1.0)
    assert embeddings.seconds == {good: 2.5, bad: 2.5, short: 0.6}
    (first, offset), (second, little) = embeddings.warnings
    assert (first, second) == (bad, short)
    assert offset == "has a constant offset, +40.0% of full scale"
    assert "0.60 s of speech" in little
    assert verify(encoder, good, bad).warnings == ((bad, offset),)


def test_loud_parts_of_a_recording_weigh_no_more_than_faint_ones(tmp_path: Path) -> None:
    t = np.arange(32000) / 16000
    samples = np.where(t < 1, 0.5 * np.sin(2 * np.pi * 150 * t), 0.01 * np.sin(2 * np.pi * 850 * t))
    soundfile.write(tmp_path / "two.wav", samples, 16000)
    embedding = embed_files(ToneEncoder(), tmp_path / "two.wav", max_duration=1.5)[str(tmp_path / "two.wav")]
    assert embedding[8] == pytest.approx(embedding[1], rel=0.02)


def test_a_score_does_not_depend_on_the_number_of_threads(encoder: SpeakerEncoder, folder: Path) -> None:
    scores = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        scores.append(verify(encoder, folder / "0.flac", folder / "1.flac").score)
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-6)


@pytest.mark.parametrize("name", ["long.wav", "long.mp3"])
def test_a_long_recording_is_never_in_memory_as_a_whole(tmp_path: Path, name: str) -> None:
    minutes = 20
    samples = np.tile((0.1 * np.random.default_rng(0).standard_normal(80000)).astype(np.float32), 6 * minutes)
    soundfile.write(tmp_path / name, samples, 8000)
    whole = 2 * samples.nbytes  # at 16 kHz
    del samples
    tracemalloc.start()
    try:
        embed_files(ToneEncoder(), tmp_path / name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < whole / 3


def test_silence_is_embedded_and_flagged(encoder: SpeakerEncoder, folder: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(16000), 16000)
    names = [str(tmp_path / "silence.wav"), str(folder / "0.flac")]
    embeddings = embed_files(encoder, names)
    assert embeddings.silent == names[:1]
    assert np.isfinite(embeddings[names[0]]).all()
    assert verify(encoder, *names).silent == (names[0],)


@pytest.mark.parametrize("fails", [False, True])
def test_modes_and_threads_are_as_before_afterwards(folder: Path, fails: bool) -> None:
    encoder = create_encoder("redimnet-tiny").train()
    encoder.backbone.eval()
    modes = {name: module.training for name, module in encoder.named_modules()}
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    torch.set_num_threads(threads := 2)
    paths = sorted(folder.iterdir())
    if fails:
        with pytest.raises(AudioError):
            embed_files(encoder, [folder / "none.wav", *paths])
    else:
        np.testing.assert_array_equal(
            embed_files(encoder, paths)[str(paths[0])], embed_files(encoder.eval(), paths)[str(paths[0])]
        )
        for name, module in encoder.named_modules():
            module.training = modes[name]
        embed_files(encoder, paths)
    assert {name: module.training for name, module in encoder.named_modules()} == modes
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, state[name])
    assert torch.get_num_threads() == threads
    assert not torch.is_inference_mode_enabled()


def test_an_encoder_that_diverged_is_told(folder: Path) -> None:
    encoder = create_encoder("redimnet-tiny").eval()
    with torch.no_grad():
        for parameter in encoder.head.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        embed_files(encoder, [folder / "0.flac"], on_error="skip")


def test_progress_is_told_and_nothing_is_drawn(
    encoder: SpeakerEncoder, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[tuple[int, int]] = []
    embed_files(encoder, [folder / "0.flac"], progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (1, 1)
    assert capsys.readouterr() == ("", "")


def test_no_files_are_no_embeddings(encoder: SpeakerEncoder) -> None:
    assert embed_files(encoder, []) == {}


def test_a_score_is_the_cosine_of_the_prefixes(encoder: SpeakerEncoder, folder: Path) -> None:
    a, b = alone(encoder, folder / "0.flac"), alone(encoder, folder / "1.flac")
    for dim in encoder.dims:
        answer = verify(encoder, folder / "0.flac", folder / "1.flac", dim=dim, threshold=0.25)
        expected = a[:dim] @ b[:dim] / np.linalg.norm(a[:dim]) / np.linalg.norm(b[:dim])
        assert answer.score == pytest.approx(expected, abs=1e-4)
        assert answer.same == (answer.score >= 0.25)
        assert (answer.threshold, answer.dim, answer.calibrated) == (0.25, dim, True)
    assert verify(encoder, folder / "0.flac", folder / "0.flac").score == pytest.approx(1)
    assert not verify(encoder, folder / "0.flac", folder / "1.flac", threshold=1.0).same


def test_the_threshold_is_the_encoders_own_where_it_has_one(folder: Path) -> None:
    encoder = create_encoder("redimnet-tiny").eval()
    paths = folder / "0.flac", folder / "1.flac"
    generic = verify(encoder, *paths)
    assert (generic.threshold, generic.calibrated) == (DEFAULT_THRESHOLD, False)
    encoder.thresholds = {encoder.dims[0]: 0.31}
    own = verify(encoder, *paths, dim=encoder.dims[0])
    assert (own.threshold, own.calibrated) == (0.31, True)
    assert not verify(encoder, *paths).calibrated


def test_what_cannot_be_verified_is_refused(encoder: SpeakerEncoder, folder: Path) -> None:
    paths = folder / "0.flac", folder / "1.flac"
    with pytest.raises(ConfigError, match=", ".join(map(str, encoder.dims))):
        verify(encoder, *paths, dim=17)
    for threshold in (1.5, float("nan")):
        with pytest.raises(ConfigError, match="threshold"):
            verify(encoder, *paths, threshold=threshold)
    with pytest.raises(AudioError, match="no such file"):
        verify(encoder, paths[0], folder / "none.wav")


def test_folders_and_patterns_are_expanded(tmp_path: Path) -> None:
    for name in ("b.wav", "a.FLAC", "deep/c.mp3", "deep/[1].m4a", ".hidden.wav", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(*places: object) -> list[str]:
        return [Path(name).name for name in find_recordings([str(place) for place in places])]

    assert names(tmp_path) == ["a.FLAC", "b.wav", "[1].m4a", "c.mp3"]
    assert names(tmp_path / "*.wav", tmp_path / "b.wav") == ["b.wav"]
    assert names(tmp_path / "**" / "*.m??") == ["[1].m4a", "c.mp3"]
    assert names(tmp_path / "deep" / "[1].m4a") == ["[1].m4a"]
    assert names(tmp_path / "none.wav") == ["none.wav"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="no recordings"):
        find_recordings([tmp_path / "empty"])


def test_an_archive_holds_names_prefixes_model_and_dim(encoder: SpeakerEncoder, folder: Path, tmp_path: Path) -> None:
    dim = encoder.dims[0]
    names = [str(folder / "1.flac"), str(tmp_path / "none.wav"), str(folder / "0.flac")]
    result = embed_to_file(encoder, names, tmp_path / "new" / "out.npz", dim=dim)
    with np.load(tmp_path / "new" / "out.npz") as archive:
        assert archive["names"].tolist() == [names[0], names[2]]
        assert archive["embeddings"].dtype == np.float32
        np.testing.assert_array_equal(archive["embeddings"][1], result[names[2]][:dim])
        assert str(archive["model"]) == encoder.name
        assert int(archive["dim"]) == dim
    assert result.failures == [(names[1], "no such file")]


def test_an_older_archive_survives_where_nothing_could_be_embedded(
    encoder: SpeakerEncoder, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.npz").write_text("older")
    assert len(embed_to_file(encoder, [tmp_path / "none.wav"], tmp_path / "out.npz").failures) == 1
    with pytest.raises(ConfigError):
        embed_to_file(encoder, [folder / "0.flac"], tmp_path / "out.npz", dim=17)
    assert (tmp_path / "out.npz").read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def test_an_output_that_cannot_be_written_is_told_before_the_work(
    encoder: SpeakerEncoder, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("embedded")

    monkeypatch.setattr(archive, "embed_spans", refuse)
    (tmp_path / "file").touch()
    for output in (tmp_path, tmp_path / "file" / "out.npz"):
        with pytest.raises(VoxnestError, match=str(tmp_path)):
            embed_to_file(encoder, [folder / "0.flac"], output)
