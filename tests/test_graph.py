"""Rewritten graphs give what the given ones give, channels first, and the given ones stay as they are."""

import io
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from voxnest.models.attentive_pooling import AttentiveStatisticsPooling
from voxnest.models.blocks_1d import TimeContext
from voxnest.models.layers import BatchNorm, TimeFrequencyConv
from voxnest.models.redimnet_blocks import ConvNeXtBlock, ResidualBlock, WeightedSum
from voxnest.runtimes.graph import fold_constants, optimize, remove_unused, suit_groups
from voxnest.runtimes.shapes import simplify

BINS, CHANNELS = 6, 8


class Network(nn.Module):
    """All that the rewrite knows: images, their 1-D view, sums of these, context, pooling."""

    def __init__(self) -> None:
        super().__init__()
        width = BINS * CHANNELS
        self.stem = TimeFrequencyConv(1, CHANNELS, (3, 5))
        self.norm = nn.LayerNorm(CHANNELS)
        self.weigh = WeightedSum(2, width)
        self.patch = nn.Linear(2 * CHANNELS, 24)
        self.blocks = nn.Sequential(
            ConvNeXtBlock(24, ((3, 3), (3, 1)), group_width=4),
            ResidualBlock(24, BINS // 2, frequency_se=True),
        )
        self.squeeze = nn.Sequential(
            TimeFrequencyConv(24, 2 * CHANNELS, (3, 3), groups=8),
            BatchNorm(2 * CHANNELS),
            TimeFrequencyConv(2 * CHANNELS, 4, (3, 3), groups=4, dilation=2),
            nn.GELU(),
            nn.Linear(4, 2 * CHANNELS),
        )
        self.context = TimeContext(width, 12, "conv+att")
        self.pooling = AttentiveStatisticsPooling(width, 16, global_context=True)

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, bins, frames]` to `[batch, 2 * bins * channels]`."""
        first = self.norm(self.stem(features.transpose(1, 2).unsqueeze(-1))).flatten(2)
        image = self.weigh([first, first.tanh()]).unflatten(-1, (BINS, CHANNELS))
        image = self.patch(image.flatten(2).unflatten(-1, (BINS // 2, 2 * CHANNELS)))
        second = self.context(self.squeeze(self.blocks(image)).flatten(2))
        return self.pooling(self.weigh([first, second]))


@cache
def exported() -> tuple[nn.Module, Any]:
    """The network with weights that are none of them 0 or 1, and its graph."""
    torch.manual_seed(0)
    network = Network().eval()
    with torch.no_grad():
        for value in (*network.parameters(), *network.buffers()):
            if value.is_floating_point():
                value.add_(0.2 * torch.rand_like(value))
    traced, free = io.BytesIO(), {0: "batch", 2: "frames"}
    torch.onnx.export(
        *(network, (torch.randn(2, BINS, 40),), traced),
        **{"dynamo": False, "opset_version": 20, "input_names": ["features"], "output_names": ["pooled"]},
        dynamic_axes={"features": free, "pooled": {0: "batch"}},
    )
    examples = [np.random.default_rng(0).standard_normal(size, np.float32) for size in ((1, BINS, 30), (2, BINS, 47))]
    return network, simplify(onnx.load_from_string(traced.getvalue()), examples)


def run(model: Any, features: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {session.get_inputs()[0].name: features.numpy()})[0]
    return result


@pytest.mark.parametrize("block", [1, 8, 16])
@pytest.mark.parametrize(("batch", "frames"), [(1, 25), (3, 61)])
def test_the_rewritten_graph_gives_the_same_at_any_batch_and_length(block: int, batch: int, frames: int) -> None:
    network, model = exported()
    features = torch.randn(batch, BINS, frames)
    with torch.inference_mode():
        expected = network(features).numpy()
    np.testing.assert_allclose(run(optimize(model, block), features), expected, rtol=1e-4, atol=1e-5)


def test_nothing_is_transposed_between_convolutions_of_images() -> None:
    _, model = exported()
    before = model.SerializeToString()
    rewritten = optimize(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(rewritten)
    makers = {name: node for node in rewritten.graph.node for name in node.output}
    for node in rewritten.graph.node:
        if node.op_type == "Conv" and "blocks" in node.input[1]:
            assert makers[node.input[0]].op_type != "Transpose"


@pytest.mark.parametrize(
    ("groups", "channels", "block", "left"),
    [
        (6, (24, 24), 8, [3]),  # two groups of 4 fill a block
        (6, (24, 24), 16, [6]),  # four do not divide six
        (3, (24, 24), 8, [3]),  # full already
        (8, (24, 8), 8, [24, 1]),  # one output each: a convolution per channel, and sums
        (24, (24, 24), 8, [24]),
        (1, (24, 24), 8, [1]),
    ],
)
def test_groups_are_widened_or_taken_apart(groups: int, channels: tuple[int, int], block: int, left: list[int]) -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(channels[1], channels[0] // groups, 3, 3)).astype(np.float32)
    bias = random.normal(size=channels[1]).astype(np.float32)
    make = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"], group=groups, pads=[1, 1, 1, 1])
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [make("x", onnx.TensorProto.FLOAT, ["batch", channels[0], "bins", "frames"])],
        [make("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(bias, "b")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    image = torch.from_numpy(random.normal(size=(2, channels[0], 5, 7)).astype(np.float32))
    expected = run(model, image)
    suit_groups(model.graph, block)
    found = [next((item.i for item in node.attribute if item.name == "group"), 1) for node in model.graph.node]
    assert found == left
    np.testing.assert_allclose(run(model, image), expected, rtol=1e-4, atol=1e-5)


def test_what_depends_on_weights_alone_is_computed_and_what_nothing_uses_is_left_out() -> None:
    weight = onnx.numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(3, 4), "w")
    sizes = onnx.numpy_helper.from_array(np.array([1, 3], np.int64), "sizes")
    make = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        onnx.helper.make_node("Split", ["t", "sizes"], ["a", "b"], axis=0),
        onnx.helper.make_node("MatMul", ["b", "x"], ["y"]),
        onnx.helper.make_node("Relu", ["y"], ["unused"]),
    ]
    inputs, outputs = [make("x", onnx.TensorProto.FLOAT, [3, 2])], [make("y", onnx.TensorProto.FLOAT, None)]
    graph = onnx.helper.make_graph(nodes, "small", inputs, outputs, [weight, sizes])
    fold_constants(graph)
    remove_unused(graph)
    assert [node.op_type for node in graph.node] == ["MatMul"]
    assert [value.name for value in graph.initializer] == ["b"]
    assert onnx.numpy_helper.to_array(graph.initializer[0]).tolist() == [[1, 5, 9], [2, 6, 10], [3, 7, 11]]
