"""What the pages tell a reader to type does what they say.

Every fenced block of a page is run, in order, in a fresh folder that holds what the blocks name (the scene). Commands
are run by `bash -e`, Python in one namespace per page, YAML is read as a training configuration. HTML comments direct
it, and no reader sees them:

    <!-- not run: REASON -->     the block below is left out
    <!-- before: CODE -->        Python that is run first: what a reader has, and the scene has not

Commands in the scene are the real ones, in processes that need not import torch anew (see `warm_commands`). To
`voxnest train` SMALL is added, for the length of a training is not what is tested here.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import soundfile
import torch

import voxnest
from conftest import ROOT
from release_server import official, serve
from voxnest.evaluation import write_trials
from voxnest.synthesis.corpus import make_synthetic_corpus, make_synthetic_trials
from warm_commands import warm_commands

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = {"": "bash", "bash": "bash", "python": "python", "yaml": "yaml"}
SMALL = "model.name=redimnet-tiny crops.duration=1 crops.batch_size=8 trainer.max_steps=2 trainer.accelerator=cpu"
SPEAKERS, UTTERANCES = 14, 2  # ten are held out where a training gets no trials
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENTS = re.compile(r"(?:<!-- (?:not run|before):\s(?:(?!-->).)+-->\n)+\Z", re.DOTALL)
COMMENT = re.compile(r"<!-- (not run|before):\s(.+?)\s-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block, where it stands, and what the comments above it say."""

    place: str
    language: str
    code: str
    not_run: str | None
    before: str


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    blocks = []
    for found in BLOCK.finditer(text):
        above = COMMENTS.search(text[: found.start()])
        said = dict(COMMENT.findall(above.group())) if above else {}
        place = f"{page.name}:{text[: found.start()].count(chr(10)) + 1}"
        language = LANGUAGES[found.group(1)]
        blocks.append(Block(place, language, found.group(2), said.get("not run"), said.get("before", "")))
    return blocks


def run_blocks(page: Path) -> None:
    """Run the blocks of a page in the current folder."""
    namespace: dict[str, object] = {}
    for block in read_blocks(page):
        if block.not_run:
            continue
        exec(block.before, namespace)
        if block.language == "python":
            exec(compile(block.code, block.place, "exec"), namespace)
        elif block.language == "yaml":
            Path("page.yaml").write_text(f"data: {{train: manifest}}\n{block.code}", encoding="utf-8")
            voxnest.load_config("page.yaml")
        else:
            done = subprocess.run(["bash", "-e", "-c", block.code], capture_output=True, text=True, timeout=250)
            assert done.returncode == 0, f"{block.place}\n{block.code}\nexit status {done.returncode}: {done.stderr}"


RUN = [page for page in PAGES if not all(block.not_run for block in read_blocks(page))]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What to write in a shell for `voxnest`."""
    with warm_commands(tmp_path_factory.mktemp("commands"), ROOT / "src") as words:
        yield shlex.join(words)


@pytest.fixture(scope="module")
def props(command: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Voices, a model, and the commands: made once, for all pages."""
    folder = tmp_path_factory.mktemp("props")
    make_synthetic_corpus(folder / "DIR", speakers=SPEAKERS, utterances_per_speaker=UTTERANCES)
    make_synthetic_corpus(folder / "demo" / "voices" / "test", speakers=2, first_speaker=40)  # as `voxnest demo` does
    write_trials(make_synthetic_trials(folder / "DIR", nontargets=40), folder / "trials.txt")
    torch.manual_seed(0)
    encoder = voxnest.create_encoder("redimnet-tiny", dims=(64, 128, 192, 256)).eval()
    voxnest.save_encoder(encoder, folder / "MODEL")
    bin = folder / "bin"
    bin.mkdir()
    _write_command(bin / "python", f'exec "{sys.executable}" "$@"')
    _write_command(bin / "voxnest", f'[ "$1" = train ] && set -- "$@" {SMALL}\nexec {command} "$@"')
    return folder


def _write_command(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/bash\n{line}\n")
    path.chmod(0o755)


@pytest.fixture(scope="module")
def releases(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where published weights are had: a server here, whose files are of the publishers' layout, weights apart."""
    folder = tmp_path_factory.mktemp("releases")
    with serve() as server:
        b2 = official(folder / "b2.pt", golden / "redimnet-b2.json.gz")
        b6 = official(folder / "b6.pt", golden / "redimnet2-b6.json.gz")
        server.files = {"b2-vox2-ft_lm.pt": b2, "b2-vox2-ptn.pt": b2, "b6-vb2+vox2_v0-lm.pt": b6}
        yield server.address


@pytest.fixture
def scene(tmp_path: Path, props: Path, releases: str, golden: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a reader stands in."""
    here = tmp_path / "scene"
    shutil.copytree(props, here)
    shutil.copytree(here / "DIR" / "voice0001", here / "FOLDER")
    shutil.copytree(here / "DIR", here / "recordings")
    shutil.copytree(here / "DIR", here / "wav")  # where a trial list's recordings are looked for
    (here / "path" / "to").mkdir(parents=True)
    (here / "path" / "to" / "voxnest").symlink_to(ROOT)
    (here / "more").mkdir()
    samples, rate = soundfile.read(next((here / "DIR").rglob("*.wav")))
    for name, volume in (("a", 1.0), ("b", 0.5)):  # of one speaker for any model: verify exits with 0
        for file in (f"{name}.wav", f"{name}.mp3", f"more/{name}.flac"):
            soundfile.write(here / file, volume * samples, rate)
        _write_m4a(here / f"{name}.m4a", here / f"{name}.wav")
    monkeypatch.chdir(here)
    monkeypatch.setenv("PATH", f"{here / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("VOXNEST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VOXNEST_MIRROR", releases)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return here


def _write_m4a(path: Path, source: Path) -> None:
    import av

    with av.open(str(source)) as reading, av.open(str(path), "w") as writing:
        stream = writing.add_stream("aac", rate=16000, layout="mono")
        for frame in reading.decode(audio=0):
            frame.pts = None
            writing.mux(stream.encode(frame))
        writing.mux(stream.encode(None))


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_every_block_of_a_page_does_what_it_says(page: Path, scene: Path) -> None:
    run_blocks(page)


@pytest.mark.parametrize(
    "block", ["```\nvoxnest verify a.wav gone.wav\n```\n", "```python\nraise_()\n```\n", "```yaml\nmodell: {}\n```\n"]
)
def test_a_block_that_fails_is_noticed_unless_the_page_says_that_it_is_not_run(
    block: str, scene: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n<!-- not run: of no use\nto anybody -->\n{block}\nthe end")
    run_blocks(page)
    page.write_text(f"<!-- not run: this is of the block above -->\n\n{block}")
    with pytest.raises((AssertionError, NameError, voxnest.VoxnestError)):
        run_blocks(page)


def test_the_overview_of_the_python_interface_names_all_of_it() -> None:
    named = set(re.findall(r"\b\w+\b", (ROOT / "docs" / "api" / "index.md").read_text()))
    assert set(voxnest.__all__) <= named
