"""Make the default model that comes with voxnest from an encoder that was trained, turned and calibrated.

    python benchmarks/conditions.py runs/conditions --model runs/turned.safetensors --json runs/conditions.json
    voxnest calibrate runs/turned.safetensors --measures duration -o runs/calibrated.safetensors --trials ...
    python tools/default_model.py runs/calibrated.safetensors --conditions runs/conditions.json

Thresholds of cosines are those of the development lists of `crowd` together. The file gets its card: data with
licences and counts, and the error rates by condition.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from voxnest.evaluation import evaluate, find_trials, join_trials
from voxnest.hub.checkpoint import DEFAULT, DEFAULT_FILE, load_encoder, save_encoder

DATA = Path("../shared/data")
DEVELOPMENT = [DATA / "crowd" / f"dev-{name}.txt" for name in ("commonvoice", "speechocean", "commands")]
SOURCES = {
    "cv": ("Mozilla Common Voice 6.1 and parts of later releases", "CC0"),
    "gsc": ("Speech Commands v1 (P. Warden), words joined four by four", "CC BY 4.0"),
    "so": ("speechocean762 (J. Zhang et al.), English of Mandarin speakers, half of them children", "CC BY 4.0"),
    "alp": ("alphanumeric-audio-dataset, addresses read aloud", "MIT"),
    "libri": ("LibriSpeech train-clean-100 (V. Panayotov et al.)", "CC BY 4.0"),
    "asc": ("Arabic Speech Commands (A. Ghandoura et al.), words joined four by four; its noise", "CC BY 4.0"),
}
"""What the prefixes of speakers stand for, and its licence."""
CARD = {
    "license": "Apache-2.0",
    "teacher": "Resemblyzer 0.1.4 and CAM++ of 3D-Speaker (speech_campplus_sv_zh_en_16k-common_advanced), both "
    "Apache-2.0: their embeddings of the training data were learnt from, no weight is theirs; and a larger model of "
    "voxnest, which learnt from the same",
    "sex": "not told by the corpora as they are here",
    "commands": "docs/default-model.md",
    "not_for": "decisions about people. It is good for its size; published checkpoints make a fraction of its errors",
}
LARGEST = 8_000_000


def main() -> None:
    """Find thresholds, write the card, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", type=Path, help="what voxnest calibrate wrote")
    parser.add_argument("--conditions", type=Path, required=True, help="what benchmarks/conditions.py --json wrote")
    parser.add_argument("--output", type=Path, default=DEFAULT_FILE)
    options = parser.parse_args()
    encoder = load_encoder(options.encoder)
    if not encoder.calibration:
        parser.error(f"{options.encoder} has no calibration; expected what voxnest calibrate wrote")
    encoder.name = DEFAULT
    together = evaluate(encoder, join_trials([find_trials(path) for path in DEVELOPMENT]))
    encoder.thresholds = {dim: result.threshold for dim, result in together.dims.items()}
    card = {
        "data": list(count_data([DATA / "crowd" / "train", DATA / "voices" / "train"])),
        "languages": count_languages(DATA / "crowd" / "train"),
        **CARD,
        "error_rates": json.loads(options.conditions.read_text()),
    }
    save_encoder(encoder, options.output, {"card": card})
    size = options.output.stat().st_size
    if size > LARGEST:
        raise SystemExit(f"{options.output}: {size:,} bytes; expected at most {LARGEST:,}")
    print(f"{options.output}: {size:,} bytes\n")
    print("\n".join(as_tables(card)))


def count_data(corpora: Iterable[Path]) -> Iterable[dict[str, object]]:
    """Each source with its licence, speakers and recordings."""
    folders = [folder for corpus in corpora for folder in corpus.iterdir() if folder.is_dir()]
    for prefix, (name, license_) in SOURCES.items():
        own = [folder for folder in folders if folder.name.startswith(f"{prefix}-")]
        recordings = sum(path.is_file() for folder in own for path in folder.rglob("*"))
        yield {"name": name, "license": license_, "speakers": len(own), "recordings": recordings}


def count_languages(corpus: Path) -> dict[str, int]:
    """Speakers of Common Voice by language, which the names of their sessions begin with; the most frequent first."""
    spoken = {(path.parent.name, re.sub(r"g\d+$", "", path.name)) for path in corpus.glob("cv-*/*")}
    return dict(Counter(language for _, language in spoken).most_common())


def as_tables(card: Mapping[str, Any]) -> Iterable[str]:
    """The card's data and error rates as docs/default-model.md shows them."""
    yield from ("| source | licence | speakers | recordings |", "| --- | --- | ---: | ---: |")
    for source in card["data"]:
        yield f"| {source['name']} | {source['license']} | {source['speakers']:,} | {source['recordings']:,} |"
    yield ""
    yield ", ".join(f"{language} {count}" for language, count in card["languages"].items())
    yield ""
    sizes = list(next(iter(card["error_rates"].values())))
    yield f"| EER % of | {' | '.join(sizes)} | 95% of {sizes[-1]} |"
    yield f"| --- | {'---: | ' * len(sizes)}--- |"
    for condition, found in card["error_rates"].items():
        cells = (f"{100 * found[size]['eer']:.2f}" for size in sizes)
        low, high = found[sizes[-1]]["interval_95"]
        yield f"| {condition} | {' | '.join(cells)} | {100 * low:.2f} to {100 * high:.2f} |"


if __name__ == "__main__":
    main()
