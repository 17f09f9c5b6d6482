"""Entries for `torch.hub.load`, named as users of IDRnD/ReDimNet and PalabraAI/redimnet2 know them.

>>> encoder = torch.hub.load(REPOSITORY, "ReDimNet", model_name="b2", train_type="ft_lm", dataset="vox2")
>>> encoder = torch.hub.load(REPOSITORY, "b2")
>>> encoder = torch.hub.load(REPOSITORY, "redimnet2", model_name="b6", train_type="lm")

Each gives a `voxnest.SpeakerEncoder` in eval mode: waveform `[batch, samples]` at 16 kHz to embedding.
"""

import importlib.util
import sys
from pathlib import Path

dependencies = ["torch", "numpy", "safetensors", "filelock", "rich", "pydantic"]

if importlib.util.find_spec("voxnest") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

import voxnest as _voxnest  # noqa: E402 - from beside this file if it is not installed


def ReDimNet(model_name: str, train_type: str = "ptn", dataset: str = "vox2") -> "_voxnest.SpeakerEncoder":
    """A pretrained ReDimNet: `model_name` "b0" to "b6", "S" or "M"; see `voxnest models weights` for what exists."""
    return _voxnest.load_encoder(f"redimnet-{model_name}", train_type=train_type, dataset=dataset)


def redimnet2(
    model_name: str = "b0", train_type: str = "lm", dataset: str = "vox2", pretrained: bool = True
) -> "_voxnest.SpeakerEncoder":
    """A ReDimNet2: `model_name` "b0" to "b6"; without `pretrained` its weights are random."""
    name = f"redimnet2-{model_name}"
    if not pretrained:
        return _voxnest.create_encoder(name).eval()
    return _voxnest.load_encoder(name, train_type=train_type, dataset=dataset)


def _vox2(size: str, pretrained: bool, finetuned: bool) -> "_voxnest.SpeakerEncoder":
    if not (pretrained or finetuned):
        return _voxnest.create_encoder(f"redimnet-{size}").eval()
    return ReDimNet(size, "ft_lm" if finetuned else "ptn")


def b0(pretrained: bool = False, finetuned: bool = True) -> "_voxnest.SpeakerEncoder":
    """ReDimNet-b0 of VoxCeleb2: fine-tuned with a large margin, only pretrained, or (neither) random."""
    return _vox2("b0", pretrained, finetuned)


def b1(pretrained: bool = False, finetuned: bool = True) -> "_voxnest.SpeakerEncoder":
    """As `b0`, size b1."""
    return _vox2("b1", pretrained, finetuned)


def b2(pretrained: bool = False, finetuned: bool = True) -> "_voxnest.SpeakerEncoder":
    """As `b0`, size b2."""
    return _vox2("b2", pretrained, finetuned)


def b3(pretrained: bool = False, finetuned: bool = True) -> "_voxnest.SpeakerEncoder":
    """As `b0`, size b3."""
    return _vox2("b3", pretrained, finetuned)


def b4(pretrained: bool = False, finetuned: bool = True) -> "_voxnest.SpeakerEncoder":
    """As `b0`, size b4."""
    return _vox2("b4", pretrained, finetuned)


def b5(pretrained: bool = False, finetuned: bool = True) -> "_voxnest.SpeakerEncoder":
    """As `b0`, size b5."""
    return _vox2("b5", pretrained, finetuned)


def b6(pretrained: bool = False, finetuned: bool = True) -> "_voxnest.SpeakerEncoder":
    """As `b0`, size b6."""
    return _vox2("b6", pretrained, finetuned)
