"""The process of benchmarks/peers.py in which Resemblyzer runs: samples come in, embeddings and their cost go out."""

import json
import sys
import time

import numpy as np
import torch
from resemblyzer import VoiceEncoder, preprocess_wav, sampling_rate
from resemblyzer.hparams import partials_n_frames


def main() -> None:
    """Embed waveforms, each after its length in samples (8 bytes), until there are no more."""
    torch.set_num_threads(1)
    encoder = VoiceEncoder("cpu", verbose=False)
    matrices = [weight for weight in encoder.parameters() if weight.ndim == 2]
    per_frame = sum(weight.numel() for weight in matrices if weight is not encoder.linear.weight)
    give({"parameters": sum(weight.numel() for weight in encoder.parameters())})
    while head := sys.stdin.buffer.read(8):
        samples = np.frombuffer(sys.stdin.buffer.read(4 * int.from_bytes(head, "little")), "<f4")
        start = time.process_time()
        waveform = preprocess_wav(samples, source_sr=sampling_rate)
        embedding, parts, _ = encoder.embed_utterance(waveform, return_partials=True)
        seconds = time.process_time() - start
        macs = len(parts) * (partials_n_frames * per_frame + encoder.linear.weight.numel())
        give({"embedding": embedding.tolist(), "seconds": seconds, "macs": macs})


def give(answer: dict[str, object]) -> None:
    """A line of JSON."""
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
