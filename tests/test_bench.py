"""`voxnest bench`: what each size of embedding after each exit costs and gives."""

import json

import torch

from tones import make_corpus
from voxnest import create_encoder, evaluate, save_encoder

SMALL = {"bins": 24, "stages": [(1, 1, 2, 8), (2, 1, 1, 8), (1, 2, 2, None)]}


def test_every_size_after_every_exit_is_measured(run, tmp_path):
    torch.manual_seed(0)
    encoder = create_encoder("redimnet-tiny", dims=(8, 16), exits=[1], **SMALL).eval()
    save_encoder(encoder, tmp_path / "model.safetensors")
    make_corpus(tmp_path)
    arguments = ("bench", tmp_path / "model.safetensors", "--trials", tmp_path / "trials.txt", "--duration", 1)
    status, output, errors = run(*arguments, "--json")
    assert status == 0, errors
    found = json.loads(output)
    assert [(cost["exit"], cost["dim"], cost["size"]) for cost in found] == [
        (1, 8, 32), (1, 16, 64), (None, 8, 32), (None, 16, 64)
    ]  # fmt: skip
    early = evaluate(encoder.at_exit(1), tmp_path / "trials.txt")
    assert [cost["eer"] for cost in found[:2]] == [early.dims[8].eer, early.dims[16].eer]
    assert found[0]["gmacs"] < found[2]["gmacs"]
    assert found[2]["ratio"] == 1
    assert all(cost["seconds"] > 0 and cost["comparisons"] > 0 for cost in found)
    status, output, _ = run(*arguments[:2], "--duration", 1)
    assert status == 0
    assert "EER" not in output
    assert [line.split()[:2] for line in output.splitlines()[-4:]] == [
        ["1", "8"],
        ["1", "16"],
        ["end", "8"],
        ["end", "16"],
    ]
    assert max(map(len, output.splitlines())) <= 80


def test_what_cannot_be_measured_is_one_line(run, tmp_path):
    status, _, errors = run("bench", "default", "--trials", tmp_path / "none.txt")
    assert status == 2
    assert "none.txt" in errors
    assert run("bench", "default", "--duration", 99)[0] == 2
