"""The wheel, as a user has it: installed in an environment of its own, away from the checkout."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest

import voxnest
from conftest import ROOT
from release_server import official, serve
from voxnest.hub.checkpoint import DEFAULT_FILE
from voxnest.synthesis.corpus import make_synthetic_corpus

pytestmark = pytest.mark.slow

SCRIPT = """\
import voxnest

encoder: voxnest.SpeakerEncoder = voxnest.load_encoder("model.safetensors")
for name, embedding in voxnest.embed(encoder, ["a.wav"]).items():
    print(name.upper(), embedding.shape)
same: bool = voxnest.verify(encoder, "a.wav", "b.wav", dim=64).same
eer: float = voxnest.evaluate(encoder, "trials.txt").dims[64].eer
result = voxnest.train(voxnest.load_config("mine.yaml", ["output=runs/mine"]))
names: list[str] = voxnest.list_models()
exported = voxnest.load_encoder("model.onnx", runtime="onnx")
print(exported.encode(["a.wav"], dim=64).shape, exported.stream(hop=0.5), voxnest.embed(exported, ["a.wav"]))
voxnest.load_encoder("model.onnx").encode("a.wav")
voxnest.load_encoder("redimnet-b2", runtime="torch", device="cpu").train()
"""
WRONG = """
seconds: str = voxnest.read_audio("a.wav").duration
voxnest.load_encoder(3)
voxnest.load_audio("a.wav")
voxnest.load_encoder("model.onnx", runtime="onnx").train()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with what is installed, if it is; else pip fetches the build system."""
    folder = tmp_path_factory.mktemp("wheel")
    here = all(map(importlib.util.find_spec, ("hatchling", "hatch_fancy_pypi_readme")))
    isolation = ["--no-build-isolation"] if here else []
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *isolation, "--wheel-dir", folder, ROOT]
    built = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    return next(folder.glob("voxnest-*.whl"))


class Installed:
    """An environment with the wheel and, of everything else, what the tests' own has; and a folder to work in."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        venv.create(folder / "env")
        self.bin, self.work = folder / "env" / "bin", folder / "work"
        self.work.mkdir()
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        self.environment["VOXNEST_HOME"] = str(folder / "home")
        packages = Path(self.run("python", "-c", "import site; print(site.getsitepackages()[0])").stdout.strip())
        # Read as a list of folders: the .pth files in them, of which one may name the checkout, are not.
        (packages / "tests.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        pip = [sys.executable, "-m", "pip", "--python", self.bin / "python", "install", "--quiet", "--ignore-installed"]
        subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True, timeout=120, env=self.environment)

    def run(self, command: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.bin / command, *map(str, arguments)],
            cwd=self.work,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    there = Installed(tmp_path_factory.mktemp("installed"), wheel)
    first, second, *_ = make_synthetic_corpus(there.work / "voices", speakers=1, utterances_per_speaker=2, sessions=1)
    shutil.copy(first, there.work / "a.wav")
    shutil.copy(second, there.work / "b.wav")
    return there


def test_it_holds_what_is_needed_and_nothing_of_the_checkout(installed: Installed) -> None:
    code = "import voxnest, sys, pathlib; print(pathlib.Path(voxnest.__file__).parent); print(*sys.path, sep='\\n')"
    package, *path = installed.run("python", "-c", code).stdout.splitlines()
    assert Path(package).is_relative_to(installed.bin.parent)
    assert str(ROOT / "src") not in path
    assert {"style.css", "script.js"} <= {item.name for item in (Path(package) / "evaluation" / "page").iterdir()}
    assert {"py.typed", "__init__.pyi", "configs", "hub", "zoo"} <= {item.name for item in Path(package).iterdir()}


def test_commands_do_their_work_without_a_network(installed: Installed) -> None:
    nowhere = {"VOXNEST_MIRROR": "http://127.0.0.1:9/"}
    assert installed.run("voxnest", "--version").stdout.strip() == f"voxnest {voxnest.__version__}"
    assert installed.run("voxnest", "config", "example").stdout == (ROOT / "configs" / "example.yaml").read_text()
    assert "redimnet-b2" in installed.run("voxnest", "models").stdout
    answer = installed.run("voxnest", "verify", "a.wav", "b.wav", **nowhere)
    assert (answer.returncode, answer.stdout.split("  ")[0]) == (0, "same speaker"), answer.stderr


def test_the_readme_runs_as_it_stands(installed: Installed, golden: Path, tmp_path: Path) -> None:
    """Its Python; tests/test_docs.py runs its commands too."""
    shutil.copy(installed.work / "a.wav", installed.work / "a.m4a")  # what a file holds decides, not its name
    shutil.copy(DEFAULT_FILE, installed.work / "nested.safetensors")  # stands for what `matryoshka fit` makes
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL))
    with serve() as server:
        server.files = {"b2-vox2-ft_lm.pt": official(tmp_path / "b2.pt", golden / "redimnet-b2.json.gz")}
        shown = installed.run(
            "python", "-c", f"{code}\nprint(embeddings.shape)", VOXNEST_MIRROR=server.address, no_proxy="127.0.0.1"
        )
    assert shown.stdout.strip() == "(2, 192)", shown.stderr


def test_its_page_at_the_registry_has_no_links_into_a_checkout(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        description = message_from_bytes(archive.read(name)).get_payload()
    assert "# voxnest" in description
    links = re.findall(r"\]\(([^)]+)\)", description)
    assert [link for link in links if not re.match(r"https?://|#", link)] == []


def test_a_type_checker_knows_the_public_names(installed: Installed, tmp_path: Path) -> None:
    (installed.work / "right.py").write_text(SCRIPT)
    (installed.work / "wrong.py").write_text(SCRIPT + WRONG)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", installed.bin / "python"]
    checked = subprocess.run(
        [*command, "--cache-dir", tmp_path, "right.py", "wrong.py"],
        cwd=installed.work,
        env=installed.environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    errors = [line for line in checked.stdout.splitlines() if ": error:" in line]
    lines = len(SCRIPT.splitlines())
    places = [f"wrong.py:{lines + line}" for line in (2, 3, 4, 5)]
    assert [line.split(": ")[0] for line in errors] == places, checked.stdout + checked.stderr


def test_the_types_are_those_of_the_names_that_are_there() -> None:
    stub = (ROOT / "src" / "voxnest" / "__init__.pyi").read_text()
    typed = re.findall(r" as (\w+)$|^(\w+) = |^(\w+): ", stub, re.MULTILINE)
    assert sorted(map("".join, typed)) == sorted(voxnest.__all__)
    assert all(getattr(voxnest, name) for name in voxnest.__all__)
