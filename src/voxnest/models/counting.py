"""Count what a model holds and does."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from voxnest.models.encoder import SpeakerEncoder


def count_parameters(encoder: SpeakerEncoder) -> int:
    """Number of trainable numbers."""
    return sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)


def count_macs(encoder: SpeakerEncoder, seconds: float = 2.0) -> int:
    """Multiply-accumulates of convolutions, matrix products and attention for one utterance of `seconds`.

    From the features on: papers leave the front end out. Measured on a forward pass, not computed from a formula.
    """
    training = encoder.training
    encoder.eval()
    device = next(encoder.parameters()).device
    try:
        with torch.inference_mode():
            features = encoder.frontend(torch.zeros(1, int(seconds * encoder.sample_rate), device=device))
            with FlopCounterMode(display=False) as counter:
                encoder.embed_features(features)
    finally:
        encoder.train(training)
    return counter.get_total_flops() // 2
