"""Results that programs read: `--json` means the same in every command."""

import json
from pathlib import Path
from typing import Any

from voxnest.files import atomic_write, is_stream, writing


def give_json(results: Any, output: Path | None) -> bool:
    """Write results to where `--json` says, if it says so.

    Returns:
        Whether that was a stream, such as the standard output, on which nothing else may then be written.

    Raises:
        VoxnestError: it cannot be written.
    """
    if output is None:
        return False
    with writing(output), atomic_write(output) as temporary:
        temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return is_stream(output)
