"""Which precision `auto` is: bfloat16 where the device computes in it; elsewhere it would only be imitated."""

import torch


def find_precision(precision: str, accelerator: str) -> str:
    """A precision of Lightning's Trainer.

    Args:
        precision: of the configuration: "auto" or one of Lightning's, which is given back as it is.
        accelerator: of the configuration; "auto" is a GPU if there is one.
    """
    if precision != "auto":
        return precision
    if accelerator in ("cuda", "gpu") or (accelerator == "auto" and torch.cuda.is_available()):
        able = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = accelerator in ("auto", "cpu") and computes_bfloat16()
    return "bf16-mixed" if able else "32"


def computes_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16 (AVX512-BF16 or AMX); there is no public name for the question."""
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
