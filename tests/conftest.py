"""What every test may ask for: the golden files, and the real speech that lies beside a developer's checkout."""

import signal
from pathlib import Path

import pytest

# A shell that runs the tests in the background ignores Ctrl-C, and so would all processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]


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
