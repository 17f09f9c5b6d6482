"""Searching: spaces, samples and their gradients, costs, derivation."""

import json

import numpy as np
import pytest
import torch
import yaml

import golden_files
from voxnest.errors import ConfigError
from voxnest.models.genotype import Genotype
from voxnest.nas.cost import edge_costs, expected_gmacs, genotype_gmacs, operation_macs
from voxnest.nas.derivation import derive
from voxnest.nas.spaces import EDGES, SPACES, find_space
from voxnest.nas.supernet import Supernet

CASES = json.loads((golden_files.Path(__file__).parent / "golden" / "autospeech-genotypes.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['space']}-{case['seed']}")
def test_derivation_agrees_with_the_original(case):
    rng = np.random.default_rng(case["seed"])
    alphas = [torch.from_numpy(rng.standard_normal(case["shape"]).astype(np.float32)) for _ in range(2)]
    assert str(derive(SPACES[case["space"]], *alphas)) == case["genotype"]


def test_of_equal_edges_the_earlier_and_of_equal_operations_the_first_win():
    genotype = derive(SPACES["s2"], torch.zeros(14, 8), torch.zeros(14, 8))
    assert list(genotype.normal) == [("max_pool_3x3", 0), ("max_pool_3x3", 1)] * 4


def test_none_is_never_derived_however_probable():
    alphas = torch.zeros(14, 8)
    alphas[:, 0] = 20.0
    alphas[1, 5] = 1.0
    assert list(derive(SPACES["s2"], alphas, alphas).normal)[:2] == [("sep_conv_5x5", 1), ("max_pool_3x3", 0)]


@pytest.mark.parametrize(("name", "width"), [("s1", 2), ("s2", 8), ("s3", 10)])
def test_published_spaces_have_their_operations(name, width):
    assert SPACES[name].width == width
    assert len(SPACES[name].normal) == len(SPACES[name].reduce) == len(EDGES) == 14


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("sep_conv_3x3", "the space is 'sep_conv_3x3'"),
        (["sep_conv_3x4"], "unknown operation 'sep_conv_3x4'"),
        (["none"], "nothing to choose"),
        (["none", "none", "skip_connect"], "twice"),
        ([["skip_connect"]] * 13, "lists for 13 edges"),
        ({"normal": ["skip_connect"]}, "'reduce' is missing"),
        ({"normal": ["skip_connect"], "reduction": ["skip_connect"]}, "unknown key 'reduction'"),
        ({"normal": [["skip_connect"]] * 13 + ["skip_connect"], "reduce": ["skip_connect"]}, "edge 13 of normal"),
    ],
)
def test_a_malformed_space_is_told(tmp_path, content, found):
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=found) as error:
        find_space(str(path))
    assert str(path) in str(error.value)


def test_an_unknown_space_names_those_there_are():
    with pytest.raises(ConfigError, match="one of s1, s2, s3"):
        find_space("s4")


@pytest.fixture(params=["s1", "s2", "s3", "mixed"])
def supernet(request, tmp_path):
    name = request.param
    if name == "mixed":
        path = tmp_path / "mixed.yaml"
        edges = [["skip_connect", "conv_7x1_1x7"], ["none", "sep_conv_7x7", "max_pool_3x3"]] * 7
        path.write_text(yaml.safe_dump({"normal": edges, "reduce": ["dil_conv_1x3", "avg_pool_3x3"]}))
        name = str(path)
    torch.manual_seed(0)
    return Supernet(find_space(name), channels=4, layers=3).double()


@pytest.mark.parametrize("drop_path", [0.0, 0.4])
def test_gradients_equal_those_of_the_dense_straight_through_form(supernet, drop_path):
    features = torch.randn(3, 14, 17, dtype=torch.float64)
    target = torch.randn(3, supernet.out_channels, dtype=torch.float64)

    def gradients(kind: str):
        torch.manual_seed(1)
        supernet.zero_grad()
        sample = supernet.sample(temperature=0.7)
        torch.manual_seed(2)
        if kind == "dense":
            output = supernet.dense(features, sample.weights, drop_path=drop_path)
        else:
            output = supernet(features, sample, architecture=kind == "architecture", drop_path=drop_path)
        ((output - target) ** 2).sum().backward()
        # What has no gradient has a zero one in the dense form.
        return output, {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in supernet.named_parameters()}

    output, dense = gradients("dense")
    statistics = {name: value.clone() for name, value in supernet.named_buffers() if "running" in name}
    for name, value in supernet.named_buffers():
        if "running" in name:
            value.fill_(0.0 if name.endswith("mean") else 1.0)
    assert dense["alphas.0"].abs().max() > 0
    for kind in ("architecture", "weights"):
        same, found = gradients(kind)
        torch.testing.assert_close(same, output)
        if kind == "architecture":
            for name, value in supernet.named_buffers():
                if "running" in name:
                    torch.testing.assert_close(value, statistics[name])
        else:
            del found["alphas.0"]
        for name, value in found.items():
            torch.testing.assert_close(value, dense[name], rtol=1e-9, atol=1e-11)


def test_a_weight_step_runs_the_chosen_operations_alone(supernet):
    sample = supernet.sample()
    supernet(torch.randn(2, 14, 17, dtype=torch.float64), sample).sum().backward()
    for cell, chosen in zip(supernet.cells, sample.chosen, strict=True):
        for edge, choice in zip(cell.edges, chosen, strict=True):
            for number, operation in enumerate(edge):
                ran = [int(value) for name, value in operation.named_buffers() if name.endswith("batches_tracked")]
                assert set(ran) <= {int(number == choice)}


def test_samples_follow_the_probabilities():
    torch.manual_seed(0)
    supernet = Supernet(SPACES["s1"], channels=2, layers=3)
    with torch.no_grad():
        supernet.alphas[0][..., 0] += 1.0
    first = np.mean([np.mean(np.array(supernet.sample(temperature=0.3).chosen) == 0) for _ in range(200)])
    assert first == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item(), abs=0.02)


def test_the_reference_supernet_gives_its_output(golden):
    file = golden_files.read(golden / "autospeech-supernet-s2.json.gz")
    state = golden_files.make_state_dict(file)
    alphas = torch.stack([state.pop("alphas_normal"), state.pop("alphas_reduce")])
    supernet = Supernet(SPACES["s2"]).eval()
    own = supernet.state_dict()
    loaded = {}
    for key, value in state.items():
        if not key.startswith("classifier."):
            loaded.update(_translate(key, value, own))
    loaded["alphas.0"] = alphas
    supernet.load_state_dict(_joined(loaded))
    features = golden_files.make_input(file).transpose(1, 2)
    with torch.no_grad():
        output = supernet.dense(features, alphas[supernet.kinds])
    torch.testing.assert_close(output, golden_files.expected(file), rtol=0, atol=golden_files.bound(output))


def _translate(key: str, value: torch.Tensor, own: dict) -> dict:
    """The key of ours that a key of the reference's stands for; halves of a reducing convolution keep their number."""
    key = key.replace("preprocess", "inputs.").replace("._ops.", ".edges.", 1).replace("._ops.", ".", 1)
    key = key.replace(".op.", ".")
    for half in ("conv_1", "conv_2"):
        key = key.replace(f".{half}.", f".1.{half}.")
    return {key.replace(".bn.", ".2."): value}


def _joined(state: dict) -> dict:
    """Two convolutions that see the same positions are one of twice the channels."""
    result = {}
    for key, value in state.items():
        if ".conv_1." in key:
            result[key.replace(".conv_1", "")] = torch.cat([value, state[key.replace("conv_1", "conv_2")]])
        elif ".conv_2." not in key:
            result[key] = value
    return result


def test_costs_are_those_of_the_convolutions():
    assert operation_macs("none", 4, 1, 10, 12) == operation_macs("max_pool_3x3", 4, 2, 10, 12) == 0
    assert operation_macs("sep_conv_3x3", 4, 1, 10, 12) == 2 * (4 * 9 + 16) * 120
    assert operation_macs("dil_conv_5x5", 4, 2, 10, 12) == (4 * 25 + 16) * 30
    supernet = Supernet(SPACES["s2"], channels=4, layers=3)
    costs = edge_costs(supernet, 20, 16)
    sep = SPACES["s2"].normal[0].index("sep_conv_3x3")
    assert costs[0, 0, sep].item() == pytest.approx(2 * (4 * 9 + 16) * 10 * 8 / 1e9)
    with torch.no_grad():
        supernet.alphas[0][..., sep] = 50.0
    everywhere = expected_gmacs(supernet, costs)
    assert everywhere.item() == pytest.approx(costs[..., sep].sum().item())
    genotype = derive(SPACES["s2"], *supernet.alphas[0])
    assert {name for name, _ in genotype.normal} == {"sep_conv_3x3"}
    assert genotype_gmacs(supernet, costs, genotype) == pytest.approx(everywhere.item() * 8 / 14, rel=0.1)
    assert Genotype.parse(str(genotype)) == genotype
