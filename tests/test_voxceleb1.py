"""VoxCeleb1's folder and lists become the sets of its two protocols, and what is missing is told."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from voxnest.cli.app import app
from voxnest.corpora.manifest import read_manifest
from voxnest.corpora.prepare import MISSING, prepare
from voxnest.corpora.trials import find_root, read_trials
from voxnest.corpora.voxceleb1 import PARTS
from voxnest.errors import CorpusError, TrialError

SIDES = {"dev": ("id10001", "id10002", "id10003"), "test": ("id10270", "id10271")}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five speakers, three recordings each: the first trains, the second validates, the third tests."""
    root, split, meta = tmp_path / "VoxCeleb1", [], ["VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"]
    for side, speakers in SIDES.items():
        for speaker in speakers:
            meta.append(f"{speaker}\tSome_Body\tf\tIreland\t{side}")
            for part, video in enumerate(("1zcIwhmdeo4", "7gWzIy6yIIk", "zELwAz2W6hM"), start=1):
                name = f"{speaker}/{video}/00001.wav"
                (root / side / "wav" / name).parent.mkdir(parents=True)
                soundfile.write(root / side / "wav" / name, np.full(8000, 0.1), 16000)
                split.append(f"{part} {name}")
    (root / "iden_split.txt").write_text("\n".join(split) + "\n")
    (root / "vox1_meta.csv").write_text("\n".join(meta) + "\n")
    first, second = (f"{speaker}/1zcIwhmdeo4/00001.wav" for speaker in SIDES["test"])
    (root / "veri_test.txt").write_text(f"0 {first} {second}\n1 {first} id10270/7gWzIy6yIIk/00001.wav\n")
    return root


def test_each_part_is_a_manifest_of_its_own_and_all_together_are_one(root: Path, tmp_path: Path) -> None:
    report = prepare(root, tmp_path / "manifest", layout="voxceleb1")
    assert report.statistics.utterances == 15
    found = {name: read_manifest(tmp_path / "manifest" / name) for name in PARTS}
    assert {name: len(utterances) for name, utterances in found.items()} == {
        "identification/train": 5,
        "identification/validation": 5,
        "identification/test": 5,
        "verification/dev": 9,
        "verification/test": 6,
    }
    assert {u.session for u in found["identification/test"]} == {"zELwAz2W6hM"}
    assert {u.speaker for u in found["verification/test"]} == set(SIDES["test"])
    assert all(utterance.path.exists() for utterances in found.values() for utterance in utterances)
    numbers = {count.what: (count.found, count.official) for count in report.counts}
    assert numbers["identification/train: utterances"] == (5, 138361)
    assert numbers["identification/test: speakers"] == (5, 1251)
    assert numbers["verification/test: trials"] == (2, 37720)
    assert report.missing == 0
    assert prepare(root, tmp_path / "manifest", layout="voxceleb1").opened == 0
    trials = read_trials(root / "veri_test.txt")
    assert find_root(root / "veri_test.txt", trials) == root / "test" / "wav"


def test_what_is_missing_unreadable_or_in_no_list_is_told(root: Path, tmp_path: Path) -> None:
    (root / "dev/wav/id10001/1zcIwhmdeo4/00001.wav").unlink()
    (root / "test/wav/id10270/7gWzIy6yIIk/00001.wav").write_text("no audio")
    extra = root / "dev/wav/id10002/extra/00009.wav"
    extra.parent.mkdir()
    soundfile.write(extra, np.full(8000, 0.1), 16000)
    with (root / "vox1_meta.csv").open("a") as file:
        file.write("id19999\tNo_Body\tm\tUK\tdev\n")
    output = tmp_path / "manifest"
    result = CliRunner().invoke(app, ["prepare", str(root), "--layout", "voxceleb1", "-o", str(output)])
    assert result.exit_code == 0, result.output
    assert re.search(r"identification/train: utterances\s+4\s+138,361\s+138,357", result.output)
    assert re.search(r"verification/test: trials\s+1\s+37,720\s+37,719", result.output)
    assert "missing or unlisted" in result.output
    rows = [line.split("\t") for line in (output / MISSING).read_text().splitlines()[1:]]
    assert rows == [
        ["vox1_meta.csv", "id19999"],
        ["iden_split.txt", "id10001/1zcIwhmdeo4/00001.wav"],
        ["iden_split.txt", "id10270/7gWzIy6yIIk/00001.wav"],
        ["veri_test.txt", "id10270/7gWzIy6yIIk/00001.wav"],
        ["in no list", "dev/wav/id10002/extra/00009.wav"],
    ]
    assert json.loads((output / "verification" / "dev" / "statistics.json").read_text())["utterances"] == 9


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("iden_split.txt", None, "iden_split.txt: missing"),
        ("iden_split.txt", "1 id10001/1zcIwhmdeo4/00001.wav\n4 id10001/a/00001.wav\n", "iden_split.txt:2: '4 id"),
        ("iden_split.txt", "1 id10001.wav\n", "iden_split.txt:1: .* speaker/video/utterance"),
        ("iden_split.txt", "1 a/b/c.wav\n2 a/b/c.wav\n", "iden_split.txt:2: a/b/c.wav again"),
        ("vox1_meta.csv", "header\nid10001,Some_Body\n", "vox1_meta.csv:2: 1 columns"),
        ("veri_test.txt", "2 a b\n", "veri_test.txt:1"),
        ("dev/wav/stray.wav", "", "does not fit the layout voxceleb1 .*dev/wav/<speaker>/<video>"),
    ],
)
def test_a_list_that_is_not_there_or_malformed_is_one_line(
    root: Path, tmp_path: Path, name: str, text: str | None, told: str
) -> None:
    (root / name).write_text(text or "")
    if text is None:
        (root / name).unlink()
    with pytest.raises((CorpusError, TrialError), match=told):
        prepare(root, tmp_path / "manifest", layout="voxceleb1")
