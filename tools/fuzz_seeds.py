"""The good files that `fuzz.py` damages, made here: recordings, checkpoints, configurations, lists."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import torch
import yaml

from voxnest.corpora.prepare import prepare
from voxnest.hub.checkpoint import save_encoder
from voxnest.zoo.registry import create_encoder

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
golden_files = import_module("golden_files")  # of the tests: weights in the layouts of others

RATE = 16000
SECONDS = 1.3


@dataclass(frozen=True)
class Sample:
    """A good file: its name (in a folder of its own) and content, unpacked if it is called `.gz`."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Recipe:
    """A kind of input.

    Attributes:
        samples: good files of it.
        commands: that read one; `{file}`, `{parent}` (its folder), `{folder}` and names of `Seeds.places` are put in.
        text: whether it is damaged as text.
        beside: files that lie beside it, by relative name.
    """

    samples: list[Sample]
    commands: list[list[str]]
    text: bool = False
    beside: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Seeds:
    """All kinds, and the good files that commands need besides."""

    recipes: dict[str, Recipe]
    places: dict[str, str]


def make_seeds(folder: Path, only: str | None = None) -> Seeds:
    """Make all seeds; `only` keeps those of one kind."""
    torch.set_num_threads(1)  # before anything forks
    voices = folder / "voices"
    for speaker in range(4):
        for number in range(2):
            path = voices / f"s{speaker}" / "a" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, voice(speaker, number), RATE)
    model = folder / "model.safetensors"
    save_encoder(create_encoder("redimnet-tiny").eval(), model)
    prepare(voices, folder / "manifest")
    trials = "".join(f"{int(a == b)} s{a}/a/0.wav s{b}/a/1.wav\n" for a in range(4) for b in range(4))
    (folder / "trials.txt").write_text(trials)
    config = {
        "data": {
            "train": str(voices),
            "workers": 0,
            "validation": {"trials": str(folder / "trials.txt"), "root": str(voices)},
        },
        "crops": {"duration": 1.0, "batch_size": 4, "speeds": [1.0], "per_epoch": 8, "balance": 1.0},
        "augmentation": {"noise_probability": 0.3, "reverberation_probability": 0.1, "volume_db": [-6, 6]},
        "model": {"name": "redimnet-tiny", "dims": [16, 64], "overrides": {"channels": 16}},
        "loss": {"kind": "subcenter", "margin": 0.2, "scale": 30.0, "dim_weights": [1, 2]},
        "optimizer": {"name": "adamw", "lr": 0.001, "betas": [0.9, 0.98], "weight_decay": 0.05},
        "schedule": {"warmup": 0.05, "final_lr": 0.01},
        "trainer": {"precision": "32", "clip": 5.0, "val_every_steps": 1, "accumulate": 1},
        "stages": {"frozen_steps": 0, "backbone_lr": 1.0},
        "ema": 0.5,
        "seed": 1,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    places = {
        "good": str(voices / "s0" / "a" / "0.wav"),
        "voices": str(voices),
        "model": str(model),
        "trials": str(folder / "trials.txt"),
        "config": str(folder / "config.yaml"),
    }
    manifest = folder / "manifest"
    recipes = {
        "audio": Recipe([Sample(f"s/a/x.{ending}", make()) for ending, make in RECORDINGS.items()], AUDIO),
        "checkpoint": Recipe(_checkpoints(model), CHECKPOINT),
        "wespeaker": _wespeaker(),
        "config": Recipe([Sample("c.yaml", yaml.safe_dump(config).encode())], TRAIN, text=True),
        "trials": Recipe(
            [Sample("t.txt", trials.encode()), Sample("t.txt", _kaldi_trials().encode())], TRIALS, text=True
        ),
        "lists": Recipe(
            [
                Sample("l/list.csv", _csv(voices).encode()),
                Sample("l/segments", b"u0 r0 0.0 0.6\nu1 r0 0.6 1.2\nu2 r1 0 -1\n"),
            ],
            [["prepare", "{parent}", "-o", "{folder}/m", "--layout", layout] for layout in ("auto", "csv", "kaldi")],
            text=True,
            beside={
                "l/wav.scp": f"r0 {voices}/s0/a/0.wav\nr1 {voices}/s1/a/0.wav\n".encode(),
                "l/utt2spk": b"u0 s0\nu1 s0\nu2 s1\n",
            },
        ),
        "manifest": Recipe(
            [Sample(f"m/{name}.jsonl", _unpacked(manifest / f"{name}.jsonl.gz")) for name in MANIFESTS],
            [
                ["matryoshka", "fit", "{model}", "--corpus", "{parent}", "-o", "{folder}/o.safetensors", *FEW],
                ["train", "{config}", "data.train={parent}", *TRAIN[0][2:]],
            ],
            text=True,
            beside={f"m/{name}.jsonl": _unpacked(manifest / f"{name}.jsonl.gz") for name in MANIFESTS},
        ),
    }
    if only:
        recipes = {only: recipes[only]}
    return Seeds(recipes, places)


FEW = ["--utterances", "4"]
AUDIO = [
    ["verify", "{file}", "{good}", "-m", "{model}"],
    ["embed", "{file}", "{good}", "-m", "{model}", "-o", "{folder}/e.npz"],
    ["prepare", "{folder}", "-o", "{folder}/m"],
]
CHECKPOINT = [
    ["verify", "{good}", "{good}", "-m", "{file}"],
    ["embed", "{good}", "-m", "{file}", "-o", "{folder}/e.npz", "--dim", "64"],
    ["evaluate", "{file}", "--trials", "{trials}", "--root", "{voices}"],
    ["matryoshka", "fit", "{file}", "--corpus", "{voices}", "-o", "{folder}/o.safetensors", *FEW],
]
TRAIN = [["train", "{file}", "output={folder}/run", "trainer.max_steps=1", "trainer.accelerator=cpu"]]
TRIALS = [
    ["evaluate", "{model}", "--trials", "{file}", "--root", "{voices}", "--json", "{folder}/r.json"],
    ["evaluate", "{model}", "--trials", "{file}", "--root", "{voices}", "--interval", "--plot", "{folder}/r.svg"],
]
MANIFESTS = ("recordings", "supervisions")


def voice(speaker: int, number: int, rate: int = RATE) -> np.ndarray:
    """Something with a pitch and pauses: `[samples]` float32."""
    rng = np.random.default_rng((speaker, number))
    time = np.arange(int(SECONDS * rate)) / rate
    pitch = 90 + 40 * speaker + 5 * np.sin(2 * np.pi * 3 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    tones = sum(np.sin(order * phase) / (order + speaker) for order in range(1, 20))
    envelope = 0.5 + 0.5 * np.sin(2 * np.pi * 2.5 * time + number)
    samples = 0.1 * tones * envelope + 0.001 * rng.standard_normal(len(time))
    return samples.astype(np.float32)


def _sound(format: str, subtype: str | None = None, rate: int = RATE, channels: int = 1) -> Callable[[], bytes]:
    def make() -> bytes:
        file = io.BytesIO()
        samples = voice(1, 1, rate)
        soundfile.write(file, np.stack([samples] * channels, axis=1), rate, format=format, subtype=subtype)
        return file.getvalue()

    return make


def _packed(container: str, codec: str, rate: int = RATE) -> Callable[[], bytes]:
    def make() -> bytes:
        file = io.BytesIO()
        with av.open(file, "w", format=container) as output:
            stream: Any = output.add_stream(codec, rate=rate)
            stream.layout = "mono"
            samples = (voice(1, 1, rate) * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate = rate
            for part in av.AudioResampler(stream.format, "mono", rate, 1024).resample(frame):
                output.mux(stream.encode(part))
            output.mux(stream.encode(None))
        return file.getvalue()

    return make


RECORDINGS: dict[str, Callable[[], bytes]] = {
    "wav": _sound("WAV", "PCM_16"),
    "float.wav": _sound("WAV", "FLOAT", 44100, 2),
    "ulaw.wav": _sound("WAV", "ULAW", 8000),
    "flac": _sound("FLAC", "PCM_16"),
    "ogg": _sound("OGG", "VORBIS"),
    "opus": _sound("OGG", "OPUS"),
    "aiff": _sound("AIFF", "PCM_24"),
    "au": _sound("AU", "PCM_16"),
    "caf": _sound("CAF", "PCM_16"),
    "mp3": _packed("mp3", "libmp3lame"),
    "m4a": _packed("mp4", "aac"),
    "aac": _packed("adts", "aac"),
    "webm": _packed("webm", "libopus", 48000),
    "mkv": _packed("matroska", "pcm_s16le"),
}


def _checkpoints(own: Path) -> list[Sample]:
    golden = ROOT / "tests" / "golden"
    file = golden_files.read(golden / "redimnet-b0.json.gz")
    official = {"model_config": file["config"], "state_dict": golden_files.make_state_dict(file)}
    bare = golden_files.make_state_dict(golden_files.read(golden / "eres2netv2-small.json.gz"))
    samples = [Sample("own.safetensors", own.read_bytes())] * 3
    for name, contents in (("b0-vox2-ptn.pt", official), ("bare.ckpt", bare)):
        samples.append(Sample(name, _saved(contents)))
        samples.append(Sample(name, _saved(contents, _use_new_zipfile_serialization=False)))
    return samples


def _saved(contents: object, **options: bool) -> bytes:
    file = io.BytesIO()
    torch.save(contents, file, **options)
    return file.getvalue()


def _wespeaker() -> Recipe:
    file = golden_files.read(ROOT / "tests" / "golden" / "resnet18.json.gz")
    settings = {
        "dataset_args": {
            "fbank_args": {"frame_length": 25, "frame_shift": 10, "num_mel_bins": 80},
            "resample_rate": RATE,
        },
        "model": "ResNet18",
        "model_args": file["config"],
    }
    return Recipe(
        [Sample("w/config.yaml", yaml.safe_dump(settings).encode())],
        [["verify", "{good}", "{good}", "-m", "{parent}"]],
        text=True,
        beside={"w/avg_model.pt": _saved(golden_files.make_state_dict(file))},
    )


def _kaldi_trials() -> str:
    pairs = ((a, b) for a in range(4) for b in range(4))
    return "".join(f"s{a}/a/0.wav s{b}/a/1.wav {'target' if a == b else 'nontarget'}\n" for a, b in pairs)


def _csv(voices: Path) -> str:
    rows = (f"{path},{path.parts[-3]},{path.parts[-2]},0.1,0.9\n" for path in sorted(voices.rglob("*.wav")))
    return "path,speaker,session,offset,duration\n" + "".join(rows)


def _unpacked(path: Path) -> bytes:
    import gzip

    lines = gzip.decompress(path.read_bytes()).splitlines()
    items = [json.loads(line) for line in lines]
    for item in items:  # absolute, for the file will lie elsewhere
        for source in item.get("sources", []):
            source["source"] = str((path.parent / source["source"]).resolve())
    return "".join(json.dumps(item) + "\n" for item in items).encode()
