"""The oldest and the newest versions of the libraries that pyproject.toml asks for; `make test-versions` uses it.

    python tools/versions.py oldest           # print constraints for pip: every lower bound
    python tools/versions.py check oldest     # exit 1 if the interpreter's libraries are not those
    python tools/versions.py check newest     # exit 1 if there are newer ones that pip would take

torch is left out: it is the pinned CPU build of constraints.txt.
"""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def lower_bounds() -> dict[str, str]:
    """Name and oldest allowed version of every library but torch."""
    wanted = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    bounds = dict(text.split(">=") for text in wanted)
    del bounds["torch"]
    return bounds


def numbers(text: str) -> list[int]:
    """A version without zeros at its end: 2.8.0 and 2.8 are one."""
    return [int(part) for part in re.sub(r"(\.0)+$", "", text).split(".")]


def not_oldest() -> list[str]:
    """Libraries that are not at their lower bound."""
    installed = {name: version(name) for name in lower_bounds()}
    return [
        f"{name} is {installed[name]}, its lower bound {bound}"
        for name, bound in lower_bounds().items()
        if numbers(installed[name]) != numbers(bound)
    ]


def not_newest() -> list[str]:
    """Libraries of which pip knows a newer version for this Python."""
    command = [sys.executable, "-m", "pip", "list", "--outdated", "--format=json", "--disable-pip-version-check"]
    outdated = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return [
        f"{item['name']} is {item['version']}, the newest {item['latest_version']}"
        for item in outdated
        if item["name"].lower() in lower_bounds()
    ]


def main() -> None:
    """Do what the command line says."""
    match sys.argv[1:]:
        case ["oldest"]:
            print("\n".join(f"{name}=={bound}" for name, bound in lower_bounds().items()))
        case ["check", "oldest" | "newest" as which]:
            wrong = not_oldest() if which == "oldest" else not_newest()
            sys.exit("\n".join(wrong) or 0)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
