"""Make the default model that comes with voxnest from a trained encoder, and print the table of its card.

    python tools/default_model.py runs/default.safetensors \\
        --development runs/default-body/validation/trials.txt --trials ../shared/data/voices/trials.txt

It hears every recording at one level, by default the median of its training crops. Thresholds are those of the
development trials (training speakers that were held out); the error rates on the test trials go into the file's
metadata and into docs/default-model.md.
"""

import argparse
from pathlib import Path

from voxnest.evaluation import evaluate
from voxnest.hub.checkpoint import DEFAULT, DEFAULT_FILE, load_encoder, save_encoder
from voxnest.zoo.registry import LEVEL

CARD = {
    "data": "271 speakers, 3.1 hours: 251 of LibriSpeech train-clean-100 (one recording of about 14 s each) and 20 of "
    "Arabic Speech Commands; noise of the latter",
    "data_licenses": {"LibriSpeech": "CC BY 4.0", "Arabic Speech Commands": "CC BY 4.0"},
    "license": "Apache-2.0",
    "commands": "docs/default-model.md",
    "not_for": "deployment: it has heard 271 speakers, read speech in quiet rooms; load a published checkpoint instead",
}
LARGEST = 8_000_000


def main() -> None:
    """Evaluate, save, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder", type=Path)
    parser.add_argument("--development", type=Path, required=True)
    parser.add_argument("--trials", type=Path, required=True)
    parser.add_argument("--level", type=float, default=LEVEL, help="in dB relative to full scale")
    parser.add_argument("--output", type=Path, default=DEFAULT_FILE)
    options = parser.parse_args()
    encoder = load_encoder(options.encoder)
    encoder.name = DEFAULT
    encoder.frontend.level = encoder.config["level"] = options.level
    development = evaluate(encoder, options.development)
    encoder.thresholds = {dim: result.threshold for dim, result in development.dims.items()}
    report = evaluate(encoder, options.trials, interval=True)
    measured = {
        str(dim): {"eer": result.eer, "interval_95": result.eer_interval, "min_dcf_0.05": result.min_dcf[0.05]}
        for dim, result in report.dims.items()
    }
    save_encoder(encoder, options.output, {"card": {**CARD, "voices/trials.txt": measured}})
    size = options.output.stat().st_size
    if size > LARGEST:
        raise SystemExit(f"{options.output}: {size:,} bytes; expected at most {LARGEST:,}")
    print(f"{options.output}: {size:,} bytes\n")
    known = "EER | 95% over speakers | minDCF(0.05)"
    print(f"| dimension | {known} | threshold | false accepts | false rejects | EER, held-out training speakers |")
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for dim, result in report.dims.items():
        assert result.eer_interval is not None
        low, high = result.eer_interval
        own = development.dims[dim]
        accepted = report.scores[dim] >= own.threshold
        false_accepts, false_rejects = accepted[~report.labels].mean(), 1 - accepted[report.labels].mean()
        print(
            f"| {dim} | {result.eer:.2%} | {low:.2%} to {high:.2%} | {result.min_dcf[0.05]:.3f} | {own.threshold:.3f} "
            f"| {false_accepts:.2%} | {false_rejects:.2%} | {own.eer:.2%} |"
        )


if __name__ == "__main__":
    main()
