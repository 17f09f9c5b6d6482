"""Training crops: the same for any workers, ranks and resumes; balanced; and whole although files are not."""

import multiprocessing
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import get_worker_info

from voxnest.corpora.manifest import Utterance
from voxnest.crops.augmentation import Augmentation
from voxnest.crops.dataset import CropDataset, stratified_order
from voxnest.crops.loading import CropLoader, make_loader
from voxnest.crops.store import AudioStore
from voxnest.errors import AudioError, ConfigError, CorpusError

RATE = 16000
SPEAKERS, EACH = 5, 3
Batch = dict[str, torch.Tensor]


def noise(seconds: float, seed: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE)).clip(-4, 4)


@pytest.fixture
def corpus(tmp_path: Path) -> list[Utterance]:
    """Five speakers with three utterances of 1 to 1.8 s; every file sounds different."""
    utterances = []
    for number in range(SPEAKERS * EACH):
        speaker, path = f"s{number // EACH}", tmp_path / f"{number}.wav"
        seconds = 1 + 0.2 * (number % 5)
        soundfile.write(path, noise(seconds, number), RATE)
        utterances.append(Utterance(str(number), speaker, "x", path, seconds))
    return utterances


def crops_of(loader: CropLoader) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """All waveforms, and (label, utterance) of each."""
    batches = list(loader)
    waveforms = torch.cat([batch["waveform"] for batch in batches]).numpy()
    labels, utterances = (torch.cat([batch[name] for batch in batches]).tolist() for name in ("label", "utterance"))
    return waveforms, list(zip(labels, utterances, strict=True))


def test_a_crop_is_a_piece_of_its_utterance(corpus: list[Utterance]) -> None:
    dataset = CropDataset(corpus, duration=0.5, crops_per_epoch=40)
    for i in range(40):
        crop = dataset[i]
        assert crop.waveform.shape == (8000,)
        assert crop.waveform.dtype == np.float32
        assert dataset.speakers[crop.label] == corpus[crop.utterance].speaker
        whole, _ = soundfile.read(corpus[crop.utterance].path, dtype="float32")
        start = np.flatnonzero(np.abs(whole[: len(whole) - 7999] - crop.waveform[0]) < 1e-4)
        assert any(np.allclose(whole[at : at + 8000], crop.waveform, atol=1e-4) for at in start)


def test_crops_start_anywhere_in_the_utterance(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 4 * RATE)
    soundfile.write(tmp_path / "ramp.wav", ramp, RATE)
    utterances = [Utterance("a", "s", "x", tmp_path / "ramp.wav", 4.0)]
    dataset = CropDataset(utterances, duration=1.0, crops_per_epoch=200)
    starts = np.array([dataset[i].waveform[0] for i in range(200)]) * 4
    assert starts.min() < 0.1
    assert 2.9 < starts.max() <= 3.0
    assert np.histogram(starts, bins=3, range=(0, 3))[0].min() > 40


def test_another_epoch_takes_other_pieces(corpus: list[Utterance]) -> None:
    dataset = CropDataset(corpus[:1], duration=0.5, crops_per_epoch=10)
    first = [dataset[i].waveform for i in range(10)]
    dataset.set_epoch(1)
    assert not any(np.array_equal(dataset[i].waveform, first[i]) for i in range(10))


def test_only_the_utterance_is_cut_out_of_a_long_recording(tmp_path: Path) -> None:
    samples = np.concatenate([np.full(RATE, 0.1), np.full(RATE, 0.2), np.full(RATE, 0.3)])
    soundfile.write(tmp_path / "long.wav", samples, RATE)
    utterances = [Utterance(s, s, "x", tmp_path / "long.wav", 1.0, offset=float(i)) for i, s in enumerate("abc")]
    for cache_gb in (1.0, 0.0):
        dataset = CropDataset(utterances, duration=0.7, crops_per_epoch=30, cache_gb=cache_gb)
        for i in range(30):
            crop = dataset[i]
            np.testing.assert_allclose(crop.waveform, 0.1 * (crop.label + 1), atol=1e-4)


def test_short_utterances_are_repeated(corpus: list[Utterance]) -> None:
    dataset = CropDataset(corpus[:1], duration=2.5, crops_per_epoch=2)
    waveform = dataset[0].waveform
    assert waveform.shape == (40000,)
    np.testing.assert_array_equal(waveform[:RATE], waveform[RATE : 2 * RATE])
    np.testing.assert_array_equal(waveform[: RATE // 2], waveform[2 * RATE :])


def test_memory_and_disk_give_the_same_crops(corpus: list[Utterance]) -> None:
    arguments = {"duration": 0.8, "speeds": (1.0, 0.9), "crops_per_epoch": 30, "augmentation": Augmentation()}
    memory, disk = (CropDataset(corpus, cache_gb=size, **arguments) for size in (1.0, 0.0))
    for i in range(30):
        assert memory[i][1:] == disk[i][1:]
        np.testing.assert_allclose(memory[i].waveform, disk[i].waveform, atol=1e-3)


@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_speed_shifts_the_pitch_by_its_factor_and_makes_new_speakers(speed: float, tmp_path: Path) -> None:
    time = np.arange(4 * RATE) / RATE
    soundfile.write(tmp_path / "tone.wav", 0.3 * np.sin(2 * np.pi * 1000 * time), RATE)
    utterances = [Utterance(name, name, "x", tmp_path / "tone.wav", 4.0) for name in ("ann", "bob")]
    dataset = CropDataset(utterances, duration=1.0, speeds=(1.0, speed), crops_per_epoch=40)
    assert dataset.num_classes == 4
    for i in range(40):
        waveform, label, utterance = dataset[i]
        assert waveform.shape == (RATE,)
        peak = int(np.abs(np.fft.rfft(waveform * np.hanning(RATE))).argmax())
        assert peak == round(1000 * (1.0, speed)[label // 2])
        assert label % 2 == utterance
        assert np.abs(waveform[-400:]).max() == pytest.approx(0.3, abs=0.02)


def test_every_speaker_and_speed_comes_equally_often(corpus: list[Utterance]) -> None:
    dataset = CropDataset(corpus, duration=0.2, speeds=(1.0, 0.9, 1.1), crops_per_epoch=150)
    for epoch in range(3):
        dataset.set_epoch(epoch)
        counts = Counter(dataset[i].label for i in range(150))
        assert counts == dict.fromkeys(range(15), 10)


def test_classes_are_mixed_within_every_stretch() -> None:
    order = stratified_order(np.ones(50), 500, np.random.default_rng(0))
    for start in range(0, 500, 50):
        assert sorted(order[start : start + 50]) == list(range(50))
    assert not np.array_equal(order[:50], order[50:100])


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_balance_weighs_speech_against_speakers(balance: float, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(0.5, 0), RATE)
    seconds = {"few": 1.0, "some": 4.0, "much": 16.0}
    utterances = [Utterance(name, name, "x", tmp_path / "a.wav", long) for name, long in seconds.items()]
    dataset = CropDataset(utterances, duration=0.5, crops_per_epoch=7000, balance=balance)
    weights = np.array([seconds[name] for name in dataset.speakers]) ** (1 - balance)
    counts = np.bincount(dataset.plan(), minlength=3)
    np.testing.assert_allclose(counts, 7000 * weights / weights.sum(), atol=1)


def test_long_utterances_of_a_speaker_are_drawn_more_often(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(3, 0), RATE)
    utterances = [Utterance(str(long), "s", "x", tmp_path / "a.wav", long) for long in (0.5, 2.5)]
    dataset = CropDataset(utterances, duration=0.2, crops_per_epoch=600)
    share = np.mean([dataset[i].utterance for i in range(600)])
    assert share == pytest.approx(2.5 / 3, abs=0.06)


@pytest.mark.parametrize(
    "arguments",
    [{"workers": 1}, {"workers": 2}, {"prefetch": True}, {"batch_size": 4}],
    ids=["1 worker", "2 workers", "thread", "other batch size"],
)
def test_crops_do_not_depend_on_who_makes_them(corpus: list[Utterance], arguments: dict[str, int]) -> None:
    def epochs(**changes: int) -> list[tuple[np.ndarray, list[tuple[int, int]]]]:
        dataset = CropDataset(corpus, duration=0.4, speeds=(1.0, 1.1), augmentation=Augmentation(), crops_per_epoch=24)
        loader = make_loader(dataset, **{"batch_size": 8, **changes})
        found = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            found.append(crops_of(loader))
        return found

    expected, found = epochs(), epochs(**arguments)
    for (waveforms, names), (other_waveforms, other_names) in zip(expected, found, strict=True):
        assert names == other_names
        np.testing.assert_array_equal(waveforms, other_waveforms)
    assert expected[0][1] != expected[1][1]


def test_workers_persist_and_see_a_new_epoch_and_duration(corpus: list[Utterance]) -> None:
    dataset = CropDataset(corpus, duration=0.4, crops_per_epoch=16)
    loader = make_loader(dataset, batch_size=8, workers=1)
    first, _ = crops_of(loader)
    workers = [process.pid for process in loader._iterator._workers]
    dataset.duration = 0.6
    dataset.set_epoch(7)
    second, names = crops_of(loader)
    assert [process.pid for process in loader._iterator._workers] == workers
    assert (first.shape, second.shape) == ((16, 6400), (16, 9600))
    assert names == [tuple(dataset[i][1:]) for i in range(16)]


def test_a_loader_that_is_closed_in_the_middle_of_a_pass_leaves_no_worker(corpus: list[Utterance]) -> None:
    loader = make_loader(CropDataset(corpus, duration=0.5, crops_per_epoch=40), batch_size=8, workers=2)
    half = iter(loader)
    next(half)
    loader.close()
    assert not multiprocessing.active_children()
    assert len(list(loader)) == 5
    loader.close()
    loader.close()
    assert not multiprocessing.active_children()


def test_iterating_again_gives_the_same_crops(corpus: list[Utterance]) -> None:
    loader = make_loader(CropDataset(corpus, duration=0.4, crops_per_epoch=16), batch_size=8)
    np.testing.assert_array_equal(crops_of(loader)[0], crops_of(loader)[0])


def test_ranks_share_an_epoch_out(corpus: list[Utterance]) -> None:
    dataset = CropDataset(corpus, duration=0.2, crops_per_epoch=48)
    whole = list(make_loader(dataset, batch_size=12))
    shares = [list(make_loader(dataset, batch_size=4, rank=rank, world_size=3)) for rank in range(3)]
    for number, batch in enumerate(whole):
        together = torch.stack([share[number]["waveform"] for share in shares], dim=1).flatten(0, 1)
        assert torch.equal(together, batch["waveform"])
    assert [len(share) for share in shares] == [4, 4, 4]


def test_a_last_smaller_batch_is_kept_on_request_and_alike_on_all_ranks(corpus: list[Utterance]) -> None:
    dataset = CropDataset(corpus, duration=0.2, crops_per_epoch=23)
    sizes = [len(batch["label"]) for batch in make_loader(dataset, batch_size=8)]
    assert sizes == [8, 8]
    loader = make_loader(dataset, batch_size=8, drop_last=False)
    assert [len(batch["label"]) for batch in loader] == [8, 8, 7]
    assert len(loader) == 3
    ranks = [make_loader(dataset, batch_size=4, rank=rank, world_size=2, drop_last=False) for rank in range(2)]
    found = [crops_of(loader)[1] for loader in ranks]
    assert [len(names) for names in found] == [12, 12]
    everything = [tuple(dataset[i][1:]) for i in range(23)]
    assert Counter(found[0] + found[1]) == Counter([*everything, everything[0]])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_resumes_in_its_middle(corpus: list[Utterance], workers: int) -> None:
    dataset = CropDataset(corpus, duration=0.3, crops_per_epoch=40, augmentation=Augmentation())
    whole = list(make_loader(dataset, batch_size=8))
    loader = make_loader(dataset, batch_size=8, workers=workers, start_batch=3)
    rest = list(loader)
    assert len(loader) == len(whole) == 5
    assert len(rest) == 2
    for batch, expected in zip(rest, whole[3:], strict=True):
        assert torch.equal(batch["waveform"], expected["waveform"])
    assert len(list(loader)) == 5, "only the first pass resumes"


def test_the_state_of_a_loader_brings_another_to_the_same_place(corpus: list[Utterance]) -> None:
    dataset = CropDataset(corpus, duration=0.3, crops_per_epoch=40)
    dataset.set_epoch(2)
    loader = make_loader(dataset, batch_size=8, workers=1)  # works ahead of what it has handed out
    batches = iter(loader)
    next(batches), next(batches)
    state = pickle.loads(pickle.dumps(loader.state_dict()))
    expected = [batch["waveform"] for batch in batches]

    fresh = make_loader(CropDataset(corpus, duration=0.3, crops_per_epoch=40), batch_size=8)
    fresh.load_state_dict(state)
    iterator = iter(fresh)
    fresh.sampler.set_epoch(2)  # Lightning calls iter() first
    found = [batch["waveform"] for batch in iterator]
    assert len(found) == len(expected) == 3
    assert all(map(torch.equal, found, expected))

    fresh.load_state_dict(loader.state_dict())  # saved at the end of epoch 2: the next epoch is whole
    fresh.sampler.set_epoch(3)
    assert len(list(fresh)) == 5


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache_gb", [1.0, 0.0])
def test_unreadable_files_are_replaced_and_noted(corpus: list[Utterance], workers: int, cache_gb: float) -> None:
    corpus[0].path.write_bytes(b"nothing that can be heard")
    corpus[4].path.unlink()
    for utterance in corpus[6:9]:  # all of speaker s2
        utterance.path.write_bytes(b"")
    dataset = CropDataset(corpus, duration=0.4, crops_per_epoch=200, cache_gb=cache_gb)
    loader = make_loader(dataset, batch_size=20, workers=workers)
    _, names = crops_of(loader)
    lost = {0, 4, 6, 7, 8}
    assert {utterance for _, utterance in names} == set(range(15)) - lost
    assert all(dataset.speakers[label] == corpus[utterance].speaker for label, utterance in names)
    counts = Counter(label for label, _ in names)
    assert counts[2] == 0
    assert min(counts[label] for label in (0, 1, 3, 4)) >= 40
    assert set(dataset.failures) == {corpus[number].path for number in lost}
    assert all(reason for reason in dataset.failures.values())
    again = CropDataset(corpus, duration=0.4, crops_per_epoch=200, cache_gb=cache_gb)
    assert [tuple(again[i][1:]) for i in range(199, -1, -1)] == names[::-1]


@pytest.mark.parametrize("arguments", [{}, {"workers": 1}, {"prefetch": True}], ids=["in line", "worker", "thread"])
def test_nothing_readable_is_an_error_of_one_line(corpus: list[Utterance], arguments: dict[str, int]) -> None:
    missing = [replace(utterance, path=Path("/nowhere") / utterance.id) for utterance in corpus]
    loader = make_loader(CropDataset(missing, crops_per_epoch=8), batch_size=8, **arguments)
    with pytest.raises(CorpusError, match="none of the 15 utterances can be read"):
        next(iter(loader))


def test_a_file_shorter_than_the_manifest_says_still_fills_the_crop(corpus: list[Utterance]) -> None:
    for cache_gb in (1.0, 0.0):
        dataset = CropDataset([replace(corpus[0], duration=1.2)], duration=0.9, crops_per_epoch=10, cache_gb=cache_gb)
        assert all(dataset[i].waveform.shape == (14400,) for i in range(10))


def test_silence_goes_through_everything(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(RATE), RATE)
    utterances = [Utterance(name, name, "x", tmp_path / "silence.wav", 1.0) for name in "ab"]
    dataset = CropDataset(
        utterances,
        duration=1.5,
        speeds=(1.0, 0.9),
        crops_per_epoch=20,
        augmentation=Augmentation(noise_probability=1.0, reverberation_probability=1.0),
    )
    assert not any(dataset[i].waveform.any() for i in range(20))


def test_one_utterance_is_a_corpus(corpus: list[Utterance]) -> None:
    dataset = CropDataset(corpus[:1], duration=0.3, augmentation=Augmentation(noise_kinds={"babble": 1}))
    assert (dataset.speakers, dataset.num_classes, len(dataset)) == (["s0"], 1, 3)
    assert len(list(make_loader(dataset, batch_size=3))) == 1


def test_babble_is_of_other_speakers(tmp_path: Path) -> None:
    frequencies = {"ann": 500, "bob": 2000}
    utterances = []
    for name, frequency in frequencies.items():
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * frequency * np.arange(2 * RATE) / RATE), RATE)
        utterances.append(Utterance(name, name, "x", path, 2.0))
    babble = Augmentation(
        noise_probability=1.0, noise_kinds={"babble": 1}, babble_snr=(10, 10), reverberation_probability=0
    )
    dataset = CropDataset(utterances, duration=1.0, crops_per_epoch=10, augmentation=babble)
    for i in range(10):
        waveform, label, _ = dataset[i]
        spectrum = np.abs(np.fft.rfft(waveform))
        own, other = frequencies[dataset.speakers[label]], frequencies[dataset.speakers[1 - label]]
        assert 20 * np.log10(spectrum[own] / spectrum[other]) == pytest.approx(10, abs=0.3)


def test_recordings_are_decoded_once_for_all_processes(corpus: list[Utterance], tmp_path: Path) -> None:
    dataset = CropDataset(corpus, duration=0.4, crops_per_epoch=100)
    list(make_loader(dataset, batch_size=20, workers=2))
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    assert all(dataset[i].waveform.any() for i in range(100))
    assert get_worker_info() is None
    assert dataset.failures == {}


def test_a_store_larger_than_its_memory_keeps_the_favoured_and_reads_the_rest(
    corpus: list[Utterance],
) -> None:
    paths, seconds = [u.path for u in corpus], [u.duration for u in corpus]
    store = AudioStore(paths, seconds, cache_gb=0.0001, favoured=[3, 1])  # 3.1 s
    before = [store.read(number, 100, 50) for number in (1, 3, 2)]
    for utterance in corpus:
        utterance.path.unlink()
    np.testing.assert_array_equal(store.read(1, 100, 50), before[0])
    np.testing.assert_array_equal(store.read(3, 100, 50), before[1])
    with pytest.raises(AudioError, match=r"2\.wav"):
        store.read(2, 100, 50)
    assert list(store.failures) == [corpus[2].path]


def test_a_pickled_dataset_gives_the_same_crops(corpus: list[Utterance]) -> None:
    dataset = CropDataset(corpus, duration=0.4, crops_per_epoch=10)
    copy = pickle.loads(pickle.dumps(dataset))
    for i in range(10):
        assert copy[i][1:] == dataset[i][1:]
        np.testing.assert_allclose(copy[i].waveform, dataset[i].waveform, atol=1e-4)


def test_a_file_beyond_full_scale_is_scaled_not_clipped(tmp_path: Path) -> None:
    tone = 2 * np.sin(2 * np.pi * 50 * np.arange(RATE) / RATE)
    soundfile.write(tmp_path / "loud.wav", tone, RATE, subtype="FLOAT")
    utterances = [Utterance("a", "a", "x", tmp_path / "loud.wav", 1.0)]
    for cache_gb in (1.0, 0.0):
        waveform = CropDataset(utterances, duration=1.0, cache_gb=cache_gb)[0].waveform
        np.testing.assert_allclose(waveform, tone / 2, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"duration": 0}, "duration: 0"),
        ({"speeds": ()}, "speeds"),
        ({"speeds": (1.0, 1.0)}, "different speeds"),
        ({"speeds": (0.0,)}, "speeds"),
        ({"balance": 2}, "balance: 2"),
        ({"crops_per_epoch": 0}, "crops_per_epoch"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments_are_named(corpus: list[Utterance], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CropDataset(corpus, **arguments)


def test_a_wrong_corpus_is_named(corpus: list[Utterance]) -> None:
    with pytest.raises(CorpusError, match="no utterances"):
        CropDataset([])
    with pytest.raises(CorpusError, match=r"3\.wav: utterance 3 lasts 0 s"):
        CropDataset([*corpus[:3], replace(corpus[3], duration=0)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 11}, "an epoch of 10 crops is less than a batch of 11"),
        ({"batch_size": 0}, "batch_size: 0"),
        ({"batch_size": 2, "rank": 2, "world_size": 2}, "rank: 2 of 2"),
        ({"batch_size": 2, "workers": -1}, "workers"),
    ],
)
def test_a_wrong_loader_is_named(corpus: list[Utterance], arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_loader(CropDataset(corpus, crops_per_epoch=10), **arguments)


def test_crops_are_clean_at_first_where_augmentation_has_a_ramp(corpus: list[Utterance]) -> None:
    options = {"noise_probability": 1.0, "reverberation_probability": 0.0, "volume_db": (0.0, 0.0)}
    ramped = CropDataset(corpus, duration=0.5, augmentation=Augmentation(ramp_epochs=(1, 2), **options), seed=3)
    clean = CropDataset(corpus, duration=0.5, seed=3)
    np.testing.assert_allclose(ramped[0].waveform, clean[0].waveform, atol=1e-6)
    ramped.set_epoch(2)
    clean.set_epoch(2)
    assert np.abs(ramped[0].waveform - clean[0].waveform).max() > 1e-4
