"""Train a small Matryoshka encoder on synthetic voices, and evaluate it on speakers that it has never heard.

    python examples/train.py FOLDER [STEPS]

With speech of your own, leave the making of voices out and name your folder, in which every speaker has a folder, as
data.train. Run again, it continues what was interrupted.
"""

import sys
from pathlib import Path

import voxnest
from voxnest.evaluation import write_trials
from voxnest.synthesis.corpus import make_synthetic_corpus, make_synthetic_trials

CONFIG = """
output: {folder}/run
data:
  train: {folder}/train
  validation: {{trials: {folder}/trials.txt, root: {folder}/test}}
crops: {{duration: 1.5, batch_size: 16}}
model: {{name: redimnet-tiny, dims: [16, 32, 64]}}
optimizer: {{lr: 0.004}}
trainer: {{max_steps: {steps}, accelerator: cpu}}
"""


def main(folder: str, steps: str = "100") -> None:
    """Make voices, train, evaluate."""
    place = Path(folder)
    if not (place / "trials.txt").exists():
        make_synthetic_corpus(place / "train", speakers=20)
        make_synthetic_corpus(place / "test", speakers=6, first_speaker=20)
        write_trials(make_synthetic_trials(place / "test"), place / "trials.txt")
    (place / "config.yaml").write_text(CONFIG.format(folder=folder, steps=steps))
    voxnest.train(voxnest.load_config(place / "config.yaml"))

    encoder = voxnest.load_encoder(place / "run" / "best.safetensors")
    report = voxnest.evaluate(encoder, place / "trials.txt", place / "test")
    for dim, result in report.dims.items():
        print(f"{dim:3} numbers: EER {result.eer:.1%}, threshold {result.threshold:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
