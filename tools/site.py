"""Hooks of mkdocs: pages that lie outside docs/ become pages of the site."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {"CONTRIBUTING.md": "contributing.md"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links at pages of the site; what is not one of them is named, not linked."""
    for source, target in OUTSIDE.items():
        markdown = markdown.replace(f"](../{source})", f"]({target})")
    up = "../" * (page.file.src_uri.count("/") + 1)  # out of docs/
    return re.sub(rf"\[([^\]]+)\]\({re.escape(up)}[^)]+\)", r"`\1`", markdown)
