"""The quickstart goes from nothing to a training, from wherever it was left, and stops with one line where it must."""

import io
import shutil
import tarfile
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from release_server import ReleaseServer, serve
from voxnest.cli.config import find_config
from voxnest.cli.quickstart import _published
from voxnest.errors import ConfigError, CorpusError, VoxnestError
from voxnest.hub import download
from voxnest.training.quickstart import pieces as table
from voxnest.training.quickstart import running
from voxnest.training.quickstart.pieces import CORPORA, Download, Piece, Pieces, with_prefix
from voxnest.training.quickstart.planning import Plan, look, make_plan
from voxnest.training.quickstart.unpacking import Parts, unpack

Run = Callable[..., tuple[int, str, str]]
Usage = namedtuple("Usage", "total used free")

PARTS = ("vox2_dev_aac_partaa", "vox2_dev_aac_partab", "vox2_dev_aac_partac")
SPEAKERS, UTTERANCES = 3, 3
CONFIG = """\
data: {train: manifest, cache_gb: 0.1, workers: 0}
crops: {duration: 1.0, batch_size: 4}
augmentation: {noise_cache_gb: 0.1, noise_kinds: {files: 1}, noise_probability: 1, reverberation_probability: 1}
model: {name: redimnet-tiny, dims: [8, 16]}
trainer: {max_steps: 2, accelerator: cpu, devices: 1, val_every_steps: 2}
"""


def tone(number: int, suffix: str = ".wav") -> bytes:
    """1.2 s of a voice of a kind, as a file."""
    random = np.random.default_rng(number)
    samples = 0.1 * np.sin(np.arange(19200) * (0.02 + 0.01 * number)) + 0.02 * random.standard_normal(19200)
    file = io.BytesIO()
    if suffix == ".wav":
        soundfile.write(file, samples, 16000, format="WAV")
        return file.getvalue()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            output.mux(packet)
    return file.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """What the servers have: the layouts of the true archives, with a dozen recordings."""
    speech = {
        f"dev/aac/id0001{speaker}/video/0000{number}.m4a": tone(10 * speaker + number, ".m4a")
        for speaker in range(SPEAKERS)
        for number in range(UTTERANCES)
    }
    tests = {f"wav/id1027{speaker}/video/0000{number}.wav": tone(int(speaker)) for speaker in "01" for number in "12"}
    names = [name.removeprefix("wav/") for name in tests]
    trials = [f"{int(a[:7] == b[:7])} {a} {b}\n" for a in names for b in names if a < b]
    whole = zipped(speech)
    third = len(whole) // 3
    return {
        **dict(zip(PARTS, (whole[:third], whole[third : 2 * third], whole[2 * third :]), strict=True)),
        "vox1_test_wav.zip": zipped(tests),
        "musan.tar.gz": tarred({"musan/noise/free/a.wav": tone(7), "musan/music/b.wav": tone(8)}),
        "rirs_noises.zip": zipped({"RIRS_NOISES/simulated_rirs/smallroom/Room001/Room001-00001.wav": tone(9)}),
        "voxceleb1_test_v2.txt": "".join(trials).encode(),
        "vox1_meta.csv": b"ID\tName\tGender\tNationality\tSet\nid10270\tA\tm\tUK\ttest\nid10271\tB\tf\tUK\ttest\n",
        "vox2_meta.csv": b"ID ,VGG ID ,Gender ,Set \nid00010 ,a ,m ,dev\nid00011 ,b ,f ,dev\nid00012 ,c ,f ,dev\n",
    }


@pytest.fixture
def server(contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[ReleaseServer]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "VOXNEST_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "BACKOFF", 0.01)
    with serve() as running_server:
        running_server.files = dict(contents)
        yield running_server


@pytest.fixture
def pieces(server: ReleaseServer, monkeypatch: pytest.MonkeyPatch) -> Pieces:
    """The table, with the addresses, sizes and counts of this server; the command finds it too."""

    def item(name: str, guarded: bool = False) -> Download:
        return Download(server.address + name, name, len(server.files[name]), guarded)

    def piece(title: str, names: tuple[str, ...], folder: str, corpus: str, recordings: int, **more: object) -> Piece:
        downloads = tuple(item(name, guarded="speakers" in more) for name in names)
        return Piece(title, downloads, 100_000, folder, corpus, recordings, **more)  # type: ignore[arg-type]

    made = Pieces(
        train=piece(
            "VoxCeleb2 dev",
            PARTS,
            "voxceleb2",
            "voxceleb2/dev/aac",
            SPEAKERS * UTTERANCES,
            speakers=SPEAKERS,
            meta=("vox2_meta.csv", "dev"),
        ),
        test=piece(
            "VoxCeleb1 test",
            ("vox1_test_wav.zip",),
            "voxceleb1",
            "voxceleb1/wav",
            4,
            speakers=2,
            meta=("vox1_meta.csv", "test"),
        ),
        noise=piece("MUSAN", ("musan.tar.gz",), ".", "musan", 2),
        rooms=piece("RIRS_NOISES", ("rirs_noises.zip",), ".", "RIRS_NOISES/simulated_rirs", 1),
        noises=("musan/noise", "musan/music"),
        trials=item("voxceleb1_test_v2.txt"),
        other_trials=("veri_test2.txt",),
        trial_counts=(6,),
        metas=(item("vox1_meta.csv"), item("vox2_meta.csv")),
    )
    monkeypatch.setitem(CORPORA, "voxceleb", lambda: made)
    return made


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    return path


def plan_of(pieces: Pieces, root: Path, config: Path, *, allow_missing: bool = False) -> Plan:
    return make_plan(pieces, root, config, allow_missing=allow_missing)


def silent(_: str) -> object:
    from contextlib import nullcontext

    return nullcontext(lambda done, total: None)


def set_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - free, free))


def test_one_command_goes_from_nothing_to_a_training_and_again_finds_all_done(
    pieces: Pieces, server: ReleaseServer, config: Path, tmp_path: Path, run: Run
) -> None:
    root = tmp_path / "vox"
    status, output, errors = run("quickstart", "voxceleb", "--root", root, "--config", config, "--yes")
    assert (status, output.count("finished: 2 steps")) == (0, 1), errors
    assert len(list((root / "voxceleb2" / "dev" / "aac").rglob("*.m4a"))) == SPEAKERS * UTTERANCES
    assert (root / "run" / "best.safetensors").exists()
    assert "tensorboard --logdir" in output
    assert "expect    no error rates are published of redimnet-tiny" in output
    assert len(server.requests) == len(server.files)

    shutil.rmtree(root / "archives")  # as the command says that one may
    status, output, _ = run("quickstart", "voxceleb", "--root", root)
    assert status == 0
    assert "already finished: 2 steps" in output
    assert len(server.requests) == len(server.files)


def test_a_dry_run_tells_sizes_and_touches_nothing(
    pieces: Pieces, server: ReleaseServer, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_free(monkeypatch, 10**9)
    monkeypatch.setitem(CORPORA, "voxceleb", table.voxceleb)  # the true ones
    status, output, _ = run("quickstart", "voxceleb", "--root", tmp_path / "vox", "--dry-run")
    assert status == 0
    for text in ("VoxCeleb2 dev", "77.5 GB", "MUSAN", "RIRS_NOISES", "1.0 GB free: not enough", "redimnet-b2"):
        assert text in output
    assert not (tmp_path / "vox").exists()
    assert server.requests == []


def test_the_rates_that_are_published_of_the_model_are_told(tmp_path: Path) -> None:
    plan = make_plan(CORPORA["voxceleb"](), tmp_path, find_config("quickstart"), ())
    told = _published(plan)
    assert "redimnet-b2, with AS-norm in brackets: Vox1-O 0.57 (0.52), Vox1-E 0.76 (0.74), Vox1-H 1.32 (1.27)" in told
    assert told.endswith("source: arXiv 2407.18223, large-margin fine-tuned on VoxCeleb2")


def test_the_true_table_has_the_official_numbers() -> None:
    true = table.voxceleb()
    assert (true.train.speakers, true.train.recordings) == (5994, 1092009)
    assert (true.test.speakers, true.test.recordings) == (40, 4874)
    assert true.trial_counts == (37611, 37720)
    assert [item.name[-2:] for item in true.train.downloads] == ["aa", "ab", "ac", "ad", "ae", "af", "ag", "ah"]
    assert all(item.address.startswith("https://") and item.guarded for item in true.train.downloads)


@pytest.mark.parametrize("short", ["disk", "memory"])
def test_too_little_room_is_an_error_before_anything_is_asked_for(
    short: str,
    pieces: Pieces,
    server: ReleaseServer,
    config: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if short == "disk":
        set_free(monkeypatch, 10**9)
    else:
        monkeypatch.setattr(Plan, "memory", 10**9)
    status, _, errors = run("quickstart", "voxceleb", "--root", tmp_path / "vox", "--config", config, "--yes")
    assert (status, errors.count("\n")) == (2, 1)
    assert "1.0 GB" in errors
    assert server.requests == []


def test_nothing_is_downloaded_without_consent(
    pieces: Pieces, server: ReleaseServer, config: Path, tmp_path: Path, run: Run
) -> None:
    status, _, errors = run("quickstart", "voxceleb", "--root", tmp_path / "vox", "--config", config)
    assert status == 2
    assert "--yes" in errors
    assert server.requests == []


def test_a_download_that_was_cut_goes_on_with_the_next_command(
    pieces: Pieces, server: ReleaseServer, config: Path, tmp_path: Path
) -> None:
    plan = plan_of(pieces, tmp_path, config)
    server.cuts = [None, None, None, None, 1000, *[0] * download.ATTEMPTS]  # lists and test come first
    with pytest.raises(CorpusError, match="1000 bytes"):
        running.download(plan, progress=False)
    again = plan_of(pieces, tmp_path, config)
    assert again.download == sum(len(server.files[name]) for name in (*PARTS, "musan.tar.gz", "rirs_noises.zip")) - 1000
    before = len(server.requests)
    running.download(again, progress=False)
    assert server.requests[before] == (PARTS[0], "bytes=1000-")
    assert b"".join((tmp_path / "archives" / name).read_bytes() for name in PARTS) == b"".join(
        server.files[name] for name in PARTS
    )


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_what_was_unpacked_before_a_kill_is_not_unpacked_again(kind: str, tmp_path: Path) -> None:
    files = {f"a/{number}": bytes([number]) * 1000 for number in range(8)}
    archive = tmp_path / f"x.{kind}"
    archive.write_bytes(zipped(files) if kind == "zip" else tarred(files))

    def kill(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack([archive], tmp_path / "out", progress=kill)
    (tmp_path / "out" / "a" / "1").write_bytes(b"half")
    assert unpack([archive], tmp_path / "out") == 6
    assert {f"a/{path.name}": path.read_bytes() for path in (tmp_path / "out" / "a").iterdir()} == files
    assert unpack([archive], tmp_path / "out") == 0


def test_parts_are_read_as_the_file_that_they_were_cut_from(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).bytes(1000)
    paths = [tmp_path / name for name in "abcd"]
    for path, (start, end) in zip(paths, ((0, 300), (300, 300), (300, 301), (301, 1000)), strict=True):
        path.write_bytes(whole[start:end])
    with io.BufferedReader(Parts(paths), 64) as file:
        assert file.read() == whole
        for start, count in ((0, 10), (295, 10), (299, 2), (300, 1), (301, 5), (990, 20)):
            file.seek(start)
            assert file.read(count) == whole[start : start + count]
        assert file.seek(-5, io.SEEK_END) == 995


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/voxnest-out.txt", "a/../../out.txt"])
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_member_that_leaves_the_folder_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    archive, folder = tmp_path / f"x.{kind}", tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)
    archive.write_bytes((zipped if kind == "zip" else tarred)({name: b"x"}))
    with pytest.raises(CorpusError, match="leaves the folder"):
        unpack([archive], folder)
    assert not list(tmp_path.rglob("*out.txt"))


@pytest.mark.parametrize("harm", ["cut", "changed", "lost part"])
def test_a_damaged_archive_is_one_line(harm: str, contents: dict[str, bytes], tmp_path: Path) -> None:
    paths = [tmp_path / name for name in PARTS]
    for path in paths:
        path.write_bytes(contents[path.name])
    middle = contents[PARTS[1]]
    if harm == "cut":
        paths[2].write_bytes(contents[PARTS[2]][:-40])
    elif harm == "changed":
        paths[1].write_bytes(middle[:500] + bytes(200) + middle[700:])
    else:
        paths[1].write_bytes(middle[:-200])
    with pytest.raises(CorpusError, match=r"partaa to vox2_dev_aac_partac: is damaged.*again to download") as error:
        unpack(paths, tmp_path / "out")
    assert "\n" not in str(error.value)


def test_a_damaged_tar_archive_is_one_line(contents: dict[str, bytes], tmp_path: Path) -> None:
    archive = tmp_path / "musan.tar.gz"
    archive.write_bytes(contents["musan.tar.gz"][:-3000])
    with pytest.raises(CorpusError, match="is damaged"):
        unpack([archive], tmp_path / "out")


def test_room_is_looked_for_again_before_unpacking(
    contents: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "vox1_test_wav.zip"
    archive.write_bytes(contents[archive.name])
    set_free(monkeypatch, 1000)
    with pytest.raises(ConfigError, match="free"):
        unpack([archive], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_asks_for_a_password_is_explained(
    status: int, pieces: Pieces, server: ReleaseServer, config: Path, tmp_path: Path
) -> None:
    plan = plan_of(pieces, tmp_path, config)
    for item in plan.lists:
        (tmp_path / "lists").mkdir(exist_ok=True)
        (tmp_path / "lists" / item.name).write_bytes(server.files[item.name])
    server.status = status
    with pytest.raises(CorpusError, match=f"asks for a password .{status} ") as error:
        running.download(plan_of(pieces, tmp_path, config), progress=False)
    assert table.ACCESS in str(error.value)
    assert str(tmp_path / "archives") in str(error.value)
    assert "--from" in str(error.value)
    assert len(server.requests) == 1


def test_a_link_with_a_key_stands_in_for_the_guarded_addresses(pieces: Pieces) -> None:
    moved = with_prefix(pieces, "https://host/get?key=K&file=")
    assert moved.train.downloads[1].address == f"https://host/get?key=K&file={PARTS[1]}"
    assert moved.noise == pieces.noise


def obtained(pieces: Pieces, root: Path, config: Path) -> Plan:
    plan = plan_of(pieces, root, config)
    running.download(plan, progress=False)
    running.unpack_all(plan, silent)  # type: ignore[arg-type]
    return plan


def test_what_is_missing_is_named_and_goes_on_only_if_allowed(
    pieces: Pieces, server: ReleaseServer, config: Path, tmp_path: Path
) -> None:
    obtained(pieces, tmp_path, config)
    shutil.rmtree(tmp_path / "voxceleb2" / "dev" / "aac" / "id00011")
    (tmp_path / "voxceleb1" / "wav" / "id10271" / "video" / "00002.wav").unlink()
    shutil.rmtree(tmp_path / "archives")
    plan = plan_of(pieces, tmp_path, config)
    assert [state.piece.title for state in plan.unfinished] == ["VoxCeleb1 test", "VoxCeleb2 dev"]
    with pytest.raises(CorpusError, match="speakers: 2 of 3; VoxCeleb2 dev: recordings: 6 of 9; no speaker id00011"):
        running.count(plan, plan.states)
    allowed = plan_of(pieces, tmp_path, config, allow_missing=True)
    assert not allowed.unfinished
    counts = running.count(allowed, allowed.states)
    assert {count.what: (count.found, count.official) for count in counts}["VoxCeleb1 test: recordings"] == (3, 4)
    written = running.write_config(allowed)
    assert (tmp_path / "lists" / "scorable-voxceleb1_test_v2.txt").read_text().count("\n") == 3
    assert "scorable-" in written.read_text()


def test_a_trial_list_of_another_length_is_told(pieces: Pieces, config: Path, tmp_path: Path) -> None:
    wanted = replace(pieces, trial_counts=(37_611,))
    plan = obtained(wanted, tmp_path, config)
    with pytest.raises(VoxnestError, match="trials: 6 of 37,611"):
        running.count(plan, [look(piece, tmp_path) for piece in wanted.archived])


def test_a_list_put_there_by_hand_does_as_well(pieces: Pieces, config: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "veri_test2.txt").write_text("1 a b\n")
    plan = plan_of(pieces, tmp_path, config)
    assert pieces.trials not in plan.lists
    assert plan.config.data.validation.trials == tmp_path / "lists" / "veri_test2.txt"


def test_an_unknown_corpus_is_told(run: Run, tmp_path: Path) -> None:
    status, _, errors = run("quickstart", "voxcelebb", "--root", tmp_path)
    assert status == 2
    assert "'voxceleb'?" in errors
