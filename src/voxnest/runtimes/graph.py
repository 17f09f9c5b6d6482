"""Rewrites of an exported ONNX graph that change its speed and not its numbers.

Networks here keep channels last, `[batch, frames, bins, channels]`, which suits training and PyTorch. An exported graph
of them holds a transposition before and after every convolution, and products of matrices in between, and neither
onnxruntime nor OpenVINO finds a way around them. Both are fastest with convolutions alone, channels first: they then
choose blocked layouts of their own, and fuse normalisation, activation and residual sum into the convolution before.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray

TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
"""From channels last to channels first, and back."""

UNARY = {"Relu", "Gelu", "Sigmoid", "Tanh", "Clip", "Sqrt", "Abs", "HardSigmoid", "LeakyRelu", "Elu", "Softplus"}
BINARY = {"Add", "Sub", "Mul", "Div", "Max", "Min"}


def optimize(model: onnx.ModelProto, block: int = 16) -> onnx.ModelProto:
    """The same function as a graph that runs faster; the given model stays as it is.

    Convolutions, and all between them that can be said channels first, become so. Values of three axes,
    `[batch, frames, channels]`, count as images of one row, `[batch, channels, 1, frames]`, where a convolution takes
    them as such.

    Args:
        model: as `torch.onnx.export` writes it, with shapes of its values.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    fold_constants(result.graph)
    ChannelsFirst(result.graph).rewrite()
    suit_groups(result.graph, block)
    remove_unused(result.graph)
    return result


def fold_constants(graph: onnx.GraphProto) -> None:
    """Compute what depends on weights alone: transposed and split weights."""
    constants = {value.name: value for value in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type in ("Transpose", "Split") and all(name in constants for name in node.input):
            arrays = [numpy_helper.to_array(constants[name]) for name in node.input]
            attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
            if node.op_type == "Transpose":
                parts = [arrays[0].transpose(attributes["perm"])]
            else:
                parts = np.split(arrays[0], np.cumsum(arrays[1])[:-1], attributes.get("axis", 0))
            for name, part in zip(node.output, parts, strict=True):
                constants[name] = numpy_helper.from_array(np.ascontiguousarray(part), name)
        else:
            kept.append(node)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(constants.values())


def remove_unused(graph: onnx.GraphProto) -> None:
    """Leave out nodes and weights that no output depends on."""
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    constants = [value for value in graph.initializer if value.name in wanted]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)


def suit_groups(graph: onnx.GraphProto, block: int) -> None:
    """Say grouped convolutions with forms that engines are fast at.

    They are fast at groups that fill the blocks of channels that vector instructions work on, and at one channel per
    group. So narrow groups become wider ones with zeros between them, and those that each make one channel of several
    become one convolution per channel and a sum.

    Args:
        graph: changed.
        block: channels in a block.
    """
    constants = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    nodes = list(graph.node)
    del graph.node[:]

    def constant(name: str, array: Array) -> str:
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    for node in nodes:
        attributes = _attributes(node)
        weight = constants.get(node.input[1]) if node.op_type == "Conv" else None
        groups, result = attributes.get("group", 1), node.output[0]
        if weight is None or groups == 1 or weight.shape[1] == 1:
            graph.node.append(node)
            continue
        outputs, inputs = weight.shape[0] // groups, weight.shape[1]
        merged = block // math.gcd(block, math.gcd(inputs, outputs))
        if outputs == 1:
            each = constant(f"{result}_each", weight.reshape(-1, 1, *weight.shape[2:]))
            attributes["group"] = groups * inputs
            graph.node.append(helper.make_node("Conv", [node.input[0], each], [f"{result}_each_out"], **attributes))
            total = constant(f"{result}_sum", np.kron(np.eye(groups), np.ones((1, inputs)))[:, :, None, None])
            graph.node.append(helper.make_node("Conv", [f"{result}_each_out", total, *node.input[2:]], [result]))
        elif merged > 1 and groups % merged == 0:
            wide = np.zeros((weight.shape[0], inputs * merged, *weight.shape[2:]), weight.dtype)
            for group in range(groups):
                column = group % merged * inputs
                rows = slice(group * outputs, (group + 1) * outputs)
                wide[rows, column : column + inputs] = weight[rows]
            node.input[1] = constant(f"{result}_wide", wide)
            next(item for item in node.attribute if item.name == "group").i = groups // merged
            graph.node.append(node)
        else:
            graph.node.append(node)


class ChannelsFirst:
    """Says a graph channels first wherever that is possible.

    One pass in order of computation. Each value that is computed channels first is also given channels last, and the
    other way round where a node asks for it, by a transposition: those that nothing uses are left out afterwards.

    Args:
        graph: changed by `rewrite`.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.constants = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
        values = [*graph.input, *graph.output, *graph.value_info]
        self.ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
        self.ranks |= {name: array.ndim for name, array in self.constants.items()}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.first: dict[str, str] = {}  # of a value channels last, the same channels first
        self.rows: dict[str, str] = {}  # of an image of one column, in either order, the same as a row, channels first
        self.without_bias: dict[str, onnx.NodeProto] = {}  # pointwise convolutions made here, by what they give
        self.nodes: list[onnx.NodeProto] = []
        self.rules: dict[str, Callable[[onnx.NodeProto], bool]] = {
            "Transpose": self._transpose,
            "Unsqueeze": self._unsqueeze,
            "Squeeze": self._squeeze,
            "Conv": self._convolve_row,
            "BatchNormalization": self._normalize_row,
            "MatMul": self._product,
            "Concat": self._concat,
            "ReduceMean": self._mean,
            **dict.fromkeys(UNARY, self._elementwise),
            **dict.fromkeys(BINARY, self._elementwise),
        }

    def rewrite(self) -> None:
        """Replace the nodes of the graph."""
        for node in list(self.graph.node):
            rule = self.rules.get(node.op_type)
            if rule is None or not rule(node):
                self.nodes.append(node)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)

    def _add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _constant(self, name: str, array: Array) -> str:
        if name not in self.constants:
            self.constants[name] = array
            self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _axes(self, *axes: int) -> str:
        return self._constant("axes_" + "_".join(map(str, axes)), np.array(axes, np.int64))

    def _channels_first(self, name: str) -> str:
        """The value channels first; computed here if it is not known yet."""
        if name not in self.first and self.ranks[name] == 4:
            self.first[name] = self._add("Transpose", [name], f"{name}_first", perm=TO_FIRST)
        elif name not in self.first:
            turned = self._add("Transpose", [name], f"{name}_turned", perm=[0, 2, 1])
            self.first[name] = self._add("Unsqueeze", [turned, self._axes(2)], f"{name}_first")
        return self.first[name]

    def _is_first(self, name: str, first: str) -> bool:
        """Note that the value is there channels first, and give it channels last too."""
        self.first[name] = first
        if self.ranks[name] == 4:
            self._add("Transpose", [first], name, perm=TO_LAST)
        else:
            turned = self._add("Squeeze", [first, self._axes(2)], f"{name}_turned_back")
            self._add("Transpose", [turned], name, perm=[0, 2, 1])
        return True

    def _is_row(self, name: str, row: str) -> bool:
        self.rows[name] = row
        self._add("Transpose", [row], name, perm=[0, 1, 3, 2])
        return True

    def _transpose(self, node: onnx.NodeProto) -> bool:
        source, result, order = node.input[0], node.output[0], list(_attributes(node)["perm"])
        if source in self.rows and order in (TO_FIRST, TO_LAST):
            self.rows[result] = self.rows[source]
        elif order == TO_LAST:
            self.first[result] = source
        elif order == TO_FIRST and source in self.first:
            self._add("Identity", [self.first[source]], result)
            return True
        elif order == TO_FIRST:
            self.first[source] = result
        return False

    def _unsqueeze(self, node: onnx.NodeProto) -> bool:
        source, axes = node.input[0], self.constants.get(node.input[1])
        if self.ranks.get(source) == 3 and axes is not None and axes.tolist() == [2] and self._is_convolved(node):
            self.rows[node.output[0]] = self._channels_first(source)
        return False

    def _is_convolved(self, node: onnx.NodeProto) -> bool:
        """Whether a value with one more axis goes on, channels first, to a convolution or a normalisation."""
        return any(user.op_type == "Transpose" for user in self.users.get(node.output[0], ()))

    def _squeeze(self, node: onnx.NodeProto) -> bool:
        axes = self.constants.get(node.input[1]) if len(node.input) > 1 else None
        if node.input[0] in self.rows and axes is not None and axes.tolist() == [2]:
            return self._is_first(node.output[0], self.rows[node.input[0]])
        return False

    def _convolve_row(self, node: onnx.NodeProto) -> bool:
        if node.input[0] not in self.rows:
            return False
        attributes, weight = _attributes(node), node.input[1]
        pads = attributes.pop("pads", [0, 0, 0, 0])
        attributes["pads"] = [pads[1], pads[0], pads[3], pads[2]]
        for name in ("kernel_shape", "dilations", "strides"):
            if name in attributes:
                attributes[name] = list(attributes[name])[::-1]
        turned = self._constant(f"{weight}_row", self.constants[weight].swapaxes(2, 3))
        inputs = [self.rows[node.input[0]], turned, *node.input[2:]]
        return self._is_row(node.output[0], self._add("Conv", inputs, f"{node.output[0]}_row", **attributes))

    def _normalize_row(self, node: onnx.NodeProto) -> bool:
        if node.input[0] not in self.rows:
            return False
        inputs = [self.rows[node.input[0]], *node.input[1:]]
        result = self._add(node.op_type, inputs, f"{node.output[0]}_row", **_attributes(node))
        return self._is_row(node.output[0], result)

    def _product(self, node: onnx.NodeProto) -> bool:
        source, weight = node.input
        matrix, result = self.constants.get(weight), node.output[0]
        if matrix is None or matrix.ndim != 2 or self.ranks.get(source) not in (3, 4):
            return False
        # An image begins with a convolution rather than after one: what is added to it later has its layout then.
        if not ((source in self.first and self.ranks[source] == 4) or self._wanted_first(result)):
            return False
        kernel = self._constant(f"{weight}_kernel", matrix.T[:, :, None, None])
        output = self._add("Conv", [self._channels_first(source), kernel], f"{result}_first", kernel_shape=[1, 1])
        self.without_bias[output] = self.nodes[-1]
        return self._is_first(result, output)

    def _wanted_first(self, name: str) -> bool:
        """Whether the value is on its way to a convolution, through operations that any order suits."""
        for user in self.users.get(name, ()):
            if user.op_type == "Transpose" and list(_attributes(user)["perm"]) == TO_FIRST:
                return True
            if user.op_type == "Unsqueeze" and self._is_convolved(user):
                return True
            if user.op_type in UNARY | BINARY | {"MatMul"} and self._wanted_first(user.output[0]):
                return True
        return False

    def _elementwise(self, node: onnx.NodeProto) -> bool:
        rank, result = self.ranks.get(node.output[0]), node.output[0]
        values = [name for name in node.input if name and name not in self.constants]
        if not any(name in self.first for name in values) or any(self.ranks.get(name) != rank for name in values):
            return False
        constants = [name for name in node.input if name in self.constants]
        if node.op_type == "Add" and constants and self._add_bias(values[0], constants[0], result):
            return True
        inputs = [
            self._constant_first(name, rank) if name in self.constants else name and self._channels_first(name)
            for name in node.input
        ]
        return self._is_first(result, self._add(node.op_type, inputs, f"{result}_first", **_attributes(node)))

    def _add_bias(self, value: str, bias: str, result: str) -> bool:
        layer = self.without_bias.get(self.first[value])
        size = self.constants[bias].shape
        if layer is None or len(self.users[value]) > 1 or size != self.constants[layer.input[1]].shape[:1]:
            return False
        layer.input.append(bias)
        del self.without_bias[self.first[value]]
        return self._is_first(result, self.first[value])

    def _constant_first(self, name: str, rank: int | None) -> str:
        array = self.constants[name]
        if array.size == 1:
            return name
        if rank == 4:
            turned = array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(TO_FIRST)
        else:
            turned = array.reshape((1,) * (3 - array.ndim) + array.shape).swapaxes(1, 2)[:, :, None]
        return self._constant(f"{name}_first{rank}", turned)

    def _concat(self, node: onnx.NodeProto) -> bool:
        rank, result = self.ranks.get(node.output[0]), node.output[0]
        if _attributes(node)["axis"] not in (-1, (rank or 0) - 1) or not all(name in self.first for name in node.input):
            return False
        inputs = [self.first[name] for name in node.input]
        return self._is_first(result, self._add("Concat", inputs, f"{result}_first", axis=1))

    def _mean(self, node: onnx.NodeProto) -> bool:
        """Over frames and channels, as squeeze-and-excitation of bins takes it, without turning the whole value."""
        axes = self.constants.get(node.input[1])
        if node.input[0] not in self.first or axes is None or sorted(axes.tolist()) != [1, 3]:
            return False
        if self.ranks[node.input[0]] != 4 or _attributes(node).get("keepdims", 1):
            return False
        self._add("ReduceMean", [self.first[node.input[0]], self._axes(1, 2)], node.output[0], keepdims=0)
        return True


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}
