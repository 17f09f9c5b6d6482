"""`voxnest demo`: the whole tool on voices made here, with the very commands that a user would type."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

TRAIN_SPEAKERS, TEST_SPEAKERS = 40, 12
UTTERANCES = 8

CONFIG = """\
# A small Matryoshka ReDimNet on synthetic voices, for one minute. For real speech see configs/voices.yaml.
output: {folder}/run
data:
  train: {folder}/manifest
  validation: {{trials: {folder}/trials.txt, root: {folder}/voices/test}}
crops: {{duration: 1.5, batch_size: 32}}
augmentation: {{noise_probability: 0.3, reverberation_probability: 0.2}}
model: {{name: redimnet-tiny, dims: [16, 32, 64]}}
optimizer: {{lr: 0.004}}
trainer: {{max_minutes: {minutes}, precision: auto, accelerator: cpu, devices: 1, log_every_steps: 50}}
"""


def demo(
    folder: Annotated[Path, typer.Argument(help="Where everything is put; made if it is not there.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(help="How long to train.")] = 1.0,
) -> None:
    """Make synthetic voices, prepare, train, evaluate and verify: no data and no network needed.

    Each step shows the command that does it. Run again, it takes up what is already in the folder.
    """
    from rich.console import Console
    from rich.markup import escape

    from voxnest.files import atomic_write

    console = Console(soft_wrap=True, highlight=False)

    def step(title: str) -> None:
        console.print(f"\n[bold]{title}[/]")

    def run(*arguments: str | Path) -> None:
        words = [str(argument) for argument in arguments]
        console.print(f"[cyan]$ voxnest {escape(shlex.join(words))}[/]")
        from voxnest.cli.app import app

        app(words, standalone_mode=False)

    step(f"1. Make voices: {TRAIN_SPEAKERS} synthetic speakers to train on, {TEST_SPEAKERS} others to test on")
    trials = _make_voices(folder)
    console.print(f"{folder}/voices, {trials:,} trials of the test speakers in {folder}/trials.txt")

    step("2. Describe the training corpus")
    run("prepare", folder / "voices" / "train", "-o", folder / "manifest")

    step(f"3. Train a small encoder whose first 16 and 32 numbers are embeddings too ({minutes:g} min)")
    config = folder / "demo.yaml"
    with atomic_write(config) as temporary:
        temporary.write_text(CONFIG.format(folder=folder, minutes=minutes), encoding="utf-8")
    run("train", config)

    step("4. Evaluate it on speakers it has never heard, at every size of embedding")
    model = folder / "run" / "best.safetensors"
    files: list[str | Path] = ["--json", folder / "results.json", "--plot", folder / "det.png"]
    run("evaluate", model, "--trials", folder / "trials.txt", "--root", folder / "voices" / "test", *files)

    step("5. Are two recordings of one speaker?")
    first, second, *_, other = sorted((folder / "voices" / "test").glob("*/*/*.wav"))
    run("verify", first, second, "--model", model)
    run("verify", first, other, "--model", model)

    console.print("\n[bold]Next[/]: your own recordings, in folders named by speaker")
    console.print("  voxnest prepare YOUR_FOLDER -o manifest")
    console.print(f"  voxnest train {config} data.train=manifest data.validation=null output=runs/mine")
    console.print(f"  voxnest verify A.wav B.wav --model {model} --dim 16")
    console.print("  voxnest models                     what else can be trained")


def _make_voices(folder: Path) -> int:
    """Make the corpus and the trials, unless an earlier run has; give the number of trials."""
    import shutil

    from voxnest.corpora.trials import write_trials
    from voxnest.synthesis.corpus import make_synthetic_corpus, make_synthetic_trials

    trials, voices = folder / "trials.txt", folder / "voices"
    if not trials.exists():  # written last: without it, what is there may be half a corpus
        shutil.rmtree(voices, ignore_errors=True)
        make_synthetic_corpus(voices / "train", speakers=TRAIN_SPEAKERS, utterances_per_speaker=UTTERANCES)
        make_synthetic_corpus(
            voices / "test",
            speakers=TEST_SPEAKERS,
            utterances_per_speaker=UTTERANCES,
            first_speaker=TRAIN_SPEAKERS,
        )
        write_trials(make_synthetic_trials(voices / "test"), trials)
    return len(trials.read_text(encoding="utf-8").splitlines())
