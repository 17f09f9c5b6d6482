"""What every test may ask for: the golden files, and the real speech that lies beside a developer's checkout."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from voxnest.cli.app import app
from voxnest.cli.main import run as run_app

# A shell that runs the tests in the background ignores Ctrl-C, and so would all processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of its own: tests keep no embeddings on the machine that they run on, and find none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOXNEST_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def golden() -> Path:
    """Small files made from reference implementations, kept in the repository."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared/` beside the checkout: golden files and real speech, not on a user's machine."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip(f"{path} is not there: it exists beside a developer's checkout and in CI only")
    return path


@pytest.fixture(scope="session")
def voices(shared: Path) -> Path:
    """Real speech: train/, test/, noise/ and trials.txt."""
    return shared / "data" / "voices"


@pytest.fixture(scope="session")
def speech(voices: Path) -> Path:
    """One real utterance, 16 kHz mono FLAC."""
    return voices / "test" / "libri-1688" / "142285" / "0000.flac"


@pytest.fixture
def run_bytes(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., tuple[int, bytes, str]]:
    """Run `voxnest ARGUMENTS...` in this process and give (exit status, the bytes on stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, bytes, str]:
        capfdbinary.readouterr()
        status = run_app(lambda: app(list(map(str, arguments)), standalone_mode=False))
        output, errors = capfdbinary.readouterr()
        return status, output, errors.decode()

    return run


@pytest.fixture
def run(run_bytes: Callable[..., tuple[int, bytes, str]]) -> Callable[..., tuple[int, str, str]]:
    """Run `voxnest ARGUMENTS...` in this process and give (exit status, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status, output, errors = run_bytes(*arguments)
        return status, output.decode(), errors

    return run
