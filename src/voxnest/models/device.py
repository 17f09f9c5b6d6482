"""Where a model computes."""

import torch

from voxnest.errors import ConfigError, one_of

KINDS = ("auto", "cpu", "cuda", "mps")


def find_device(name: str | torch.device = "auto") -> torch.device:
    """The device that a name means, if it is there.

    Args:
        name: "cpu", "cuda" or "mps"; "cuda:1" of several; "auto" for a CUDA device if there is one, else the CPU.

    Raises:
        ConfigError: an unknown name, or a device that is not there or that this build of PyTorch cannot use.
    """
    kind, _, number = str(name).partition(":")
    if kind not in KINDS or (number and not (number.isdecimal() and kind in ("cuda", "mps"))):
        raise ConfigError("device", repr(str(name)), one_of(name, [*KINDS, "cuda:0"]))
    if kind == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= count:
            found = f"{count} CUDA devices" if count else "no CUDA device, or a PyTorch built without CUDA"
            raise ConfigError("device", f"{str(name)!r}, and there is {found}", "cpu" if not count else "one of these")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device", "'mps', which this machine or this build of PyTorch has not", "cpu")
    return torch.device(str(name))
