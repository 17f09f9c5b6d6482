"""Known trial lists: fetched, read, counted, their recordings found or named as missing."""

import json
from pathlib import Path

import numpy as np
import pytest

from release_server import ReleaseServer, serve
from tones import ToneEncoder, make_corpus
from voxnest.errors import CheckpointError, ConfigError, TrialError
from voxnest.evaluation import evaluate, find_protocol_trials
from voxnest.evaluation.protocols import Protocol, find_protocol, protocol_names
from voxnest.evaluation.protocols.reading import read_enrollment, read_list
from voxnest.evaluation.trial_sets import MissingRecordings, find_trials
from voxnest.scoring import cosine_similarity


def test_the_known_lists_are_data():
    assert protocol_names() == ["cnceleb", "sitw-core", "voices", "vox1-e", "vox1-h", "vox1-o", "vox1-o-original"]
    counts = {name: find_protocol(name).trials for name in protocol_names()}
    assert (counts["vox1-o"], counts["vox1-e"], counts["vox1-h"]) == (37611, 579818, 550894)
    assert counts["vox1-o-original"] == 37720
    assert find_protocol("vox1-h").address == "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/list_test_hard2.txt"
    with pytest.raises(ConfigError, match=r"vox1-0.*vox1-o"):
        find_protocol("vox1-0")


@pytest.mark.parametrize(("name", "file"), [("vox1-o", "veri_test2.txt"), ("vox1-o-original", "veri_test.txt")])
def test_the_published_lists_have_the_numbers_of_trials(shared: Path, name: str, file: str) -> None:
    listed = read_list(shared / "data" / "voxceleb" / file)
    assert len(listed.labels) == find_protocol(name).trials
    assert len({item.split("/")[0] for item in listed.names}) == 40
    assert abs(int(listed.labels.sum()) - len(listed.labels) / 2) < 60


def test_lists_of_every_protocol_are_read(tmp_path: Path) -> None:
    for text in (
        "1 a/1.wav b/2.wav\n0 a/1.wav c.wav\n",
        "\ufeffa/1.wav b/2.wav tgt\r\na/1.wav c.wav imp\r\n",
        "a/1.wav\tb/2.wav 1\n\na/1.wav c.wav 0",
        "a/1.wav b/2.wav target\na/1.wav c.wav nontarget\n",
    ):
        (tmp_path / "list").write_text(text, newline="")
        found = read_list(tmp_path / "list")
        assert found.names == ["a/1.wav", "b/2.wav", "c.wav"]
        assert found.labels.tolist() == [True, False]
        assert found.test.tolist() == [1, 2]
    for text, message in (("", "no trials"), ("a b 2\n", "list:1: 'a b 2'"), ("1 a b\na b 1\n", "list:2")):
        (tmp_path / "list").write_text(text)
        with pytest.raises(TrialError, match=message):
            read_list(tmp_path / "list")
    (tmp_path / "map").write_text("one a.wav b.wav\ntwo c.wav\none d.wav\n")
    assert read_enrollment(tmp_path / "map") == {"one": ("a.wav", "b.wav", "d.wav"), "two": ("c.wav",)}
    (tmp_path / "map").write_text("one\n")
    with pytest.raises(TrialError, match="map:1"):
        read_enrollment(tmp_path / "map")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("VOXNEST_HOME", str(tmp_path / "home"))
    with serve() as server:
        monkeypatch.setenv("VOXNEST_MIRROR", server.address)
        yield server


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    (root / "wav").mkdir(parents=True)
    make_corpus(root / "wav")
    return root


def small(corpus: Path, **values) -> Protocol:
    made = {"name": "small", "title": "a small one", "list": ("small.txt",), "folders": (".", "wav"), "trials": 276}
    return Protocol(**{**made, "address": "https://example.org/small.txt", **values})


def test_a_published_list_is_fetched_once_and_counted(server: ReleaseServer, corpus: Path) -> None:
    server.files["small.txt"] = (corpus / "wav" / "trials.txt").read_bytes()
    for _ in range(2):
        found = find_protocol_trials(small(corpus), corpus, progress=False)
    assert [name for name, _ in server.requests] == ["small.txt"]
    assert len(found.recordings) == 24
    assert Path(found.recordings[0]) == corpus / "wav" / "s0" / "0.wav"
    assert evaluate(ToneEncoder().eval(), found).dims[16].eer == 0
    with pytest.raises(TrialError, match=r"276 trials \(expected 300, which a small one has\)"):
        find_protocol_trials(small(corpus, trials=300), corpus, progress=False)


def test_a_page_in_place_of_a_list_is_not_kept(server: ReleaseServer, corpus: Path) -> None:
    server.files["small.txt"] = b"<!doctype html><p>Log in"
    with pytest.raises(CheckpointError, match="something else"):
        find_protocol_trials(small(corpus), corpus, progress=False)
    server.files["small.txt"] = (corpus / "wav" / "trials.txt").read_bytes()
    assert find_protocol_trials(small(corpus), corpus, progress=False)


def test_missing_recordings_are_named_and_can_be_left_out(corpus: Path) -> None:
    (corpus / "wav" / "s0" / "0.wav").unlink()
    (corpus / "wav" / "s1" / "1.wav").rename(corpus / "wav" / "s1" / "1.flac")  # converted: still there
    trials = corpus / "wav" / "trials.txt"
    with pytest.raises(MissingRecordings, match=r"s0/0.wav is not there .*--allow-missing") as caught:
        find_protocol_trials(small(corpus), corpus, trials)
    assert [Path(path).name for path in caught.value.missing] == ["0.wav"]
    found = find_protocol_trials(small(corpus), corpus, trials, allow_missing=True)
    assert (len(found.pairs.labels), found.dropped, len(found.missing)) == (253, 23, 1)
    assert len(found.recordings) == 23
    assert "23 of 276 trials are left out: 1 recordings are missing" in found.warnings[-1]
    plain = find_trials(trials, corpus / "wav", allow_missing=True)  # where s1/1.wav has that name alone
    assert len(plain.missing) == 2


def test_speakers_are_enrolled_by_the_mean_of_their_normalised_recordings(corpus: Path) -> None:
    enrolled = "".join(f"m{n} s{n}/0.wav s{n}/1.wav\n" for n in range(8))
    (corpus / "map").write_text(enrolled)
    lines = [f"m{a}-enroll s{b}/2.wav {int(a == b)}\n" for a in range(8) for b in range(8)]
    (corpus / "list").write_text("".join(lines))
    protocol = small(corpus, list=("list",), enrollment=("map",), trials=64, address=None, model_suffix="-enroll")
    found = find_protocol_trials(protocol, corpus)
    assert len(found.recordings) == 24
    encoder = ToneEncoder().eval()
    report = evaluate(encoder, found)
    assert report.recordings == 24
    rows = {path: encoder(_read(path))[0].detach().numpy() for path in found.recordings}
    for dim in (8, 16):
        one, two, test = (rows[str(corpus / "wav" / name)][:dim] for name in ("s3/0.wav", "s3/1.wav", "s5/2.wav"))
        model = one / np.linalg.norm(one) + two / np.linalg.norm(two)
        assert report.scores[dim][3 * 8 + 5] == pytest.approx(cosine_similarity(model, test), abs=1e-5)
    (corpus / "list").write_text("nobody s1/2.wav 1\nm1 s1/2.wav 0\n")
    with pytest.raises(TrialError, match="'nobody', who is not enrolled"):
        find_protocol_trials(small(corpus, list=("list",), enrollment=("map",), trials=2), corpus)
    (corpus / "map").unlink()
    with pytest.raises(TrialError, match=r"none of map is there .*--enrollment"):
        find_protocol_trials(protocol, corpus)


def _read(path: str):
    import torch

    from voxnest.audio import read_audio

    return torch.from_numpy(read_audio(path, sample_rate=16000).samples)[None]


def test_the_command_shows_what_is_missing(run, corpus: Path, shared: Path, tmp_path: Path) -> None:
    listed = shared / "data" / "voxceleb" / "veri_test2.txt"
    arguments = ["evaluate", "--protocol", "vox1-o", "--root", corpus, "--trials", listed]
    status, _, errors = run(*arguments, "--json", tmp_path / "r.json")
    assert status == 2
    assert "4,708 recordings are missing" in errors
    assert "and 4,698 others" in errors
    assert "id10270" in errors
    assert len(json.loads((tmp_path / "r.json").read_text())["missing"]) == 4708
    status, _, errors = run(*arguments, "--allow-missing")
    assert status == 2
    assert "after 37,611 whose recordings are missing" in errors
    status, _, errors = run("evaluate", "--protocol", "vox1-x", "--root", corpus)
    assert status == 2
    assert "vox1-o" in errors
    assert run("evaluate", "--protocol", "vox1-o")[0] == 2
