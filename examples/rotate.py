"""Give any encoder good prefixes without training it, and show what each size costs.

    python examples/rotate.py MODEL SPEECH TRIALS OUTPUT

MODEL is a file or the name of published weights, SPEECH a folder of recordings to learn the rotation from (fifty
speakers or more), TRIALS a trial list of other speakers whose recordings lie beside it, OUTPUT the new encoder's file.
"""

import sys

import voxnest
from voxnest.corpora.utterances import read_corpus
from voxnest.matryoshka.fit import fit

DIMS = (8, 16, 32, 64)


def main(model: str, speech: str, trials: str, output: str) -> None:
    """Rotate, write, evaluate before and after."""
    encoder = voxnest.load_encoder(model)
    dims = {*(dim for dim in DIMS if dim < encoder.embedding_dim), encoder.embedding_dim}
    turned = fit(encoder, read_corpus(speech), dims=dims)
    voxnest.save_encoder(turned, output)

    before = voxnest.evaluate(voxnest.with_dims(encoder, dims), trials)  # the same prefixes, cut off
    after = voxnest.evaluate(turned, trials)
    print("numbers  cut off  rotated")
    for dim in turned.dims:
        print(f"{dim:7}  {before.dims[dim].eer:7.1%}  {after.dims[dim].eer:7.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
