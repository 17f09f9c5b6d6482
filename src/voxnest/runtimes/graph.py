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
BINARY = {"Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"}
REDUCTIONS = {"ReduceMean", "ReduceSum", "ReduceMax"}


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
    """Says a graph channels first and frames last, `[batch, channels, bins, frames]`, wherever that is possible.

    `[batch, frames, channels]` counts as an image of one bin. Long rows suit vector instructions, sums over frames are
    sums of neighbours in memory, and from 2-D to 1-D whole rows move.

    One pass in order of computation. Each value that is computed in the new order is also given in the old one, and the
    other way round where a node asks for it, by a transposition: those that nothing uses are left out afterwards.

    Args:
        graph: changed by `rewrite`.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.constants = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
        values = [*graph.input, *graph.output, *graph.value_info]
        self.shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
        self.shapes |= {name: list(array.shape) for name, array in self.constants.items()}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.first: dict[str, str] = {}  # of values channels last
        self.turned: dict[str, str] = {}  # of values [batch, channels, frames, bins], as the old graph convolves them
        self.flat: dict[str, str] = {}  # of images, the same memory as [batch, frames, bins * channels]
        self.without_bias: dict[str, onnx.NodeProto] = {}  # pointwise convolutions made here, by what they give
        self.nodes: list[onnx.NodeProto] = []
        self.rules: dict[str, Callable[[onnx.NodeProto], bool]] = {
            "Transpose": self._transpose,
            "Unsqueeze": self._view,
            "Squeeze": self._view,
            "Reshape": self._reshape,
            "Conv": self._convolve,
            "BatchNormalization": self._normalize,
            "MatMul": self._product,
            "Concat": self._concat,
            "LayerNormalization": self._layer_norm,
            "Softmax": self._softmax,
            **dict.fromkeys(REDUCTIONS, self._reduce),
            **dict.fromkeys(UNARY | BINARY, self._elementwise),
        }

    def rewrite(self) -> None:
        """Replace the nodes of the graph."""
        for node in list(self.graph.node):
            rule = self.rules.get(node.op_type)
            if rule is None or not rule(node):
                self.nodes.append(node)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)

    def _rank(self, name: str) -> int:
        return len(self.shapes.get(name, ()))

    def _add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _constant(self, name: str, array: Array) -> str:
        if name not in self.constants:
            self.constants[name] = array
            self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _integers(self, *values: int) -> str:
        return self._constant("integers_" + "_".join(map(str, values)), np.array(values, np.int64))

    def _channels_first(self, name: str) -> str:
        """The value in the new order; computed here if it is not known yet."""
        if name not in self.first and self._rank(name) == 4:
            self.first[name] = self._add("Transpose", [name], f"{name}_first", perm=[0, 3, 2, 1])
        elif name not in self.first:
            turned = self._add("Transpose", [name], f"{name}_turned", perm=[0, 2, 1])
            self.first[name] = self._add("Unsqueeze", [turned, self._integers(2)], f"{name}_first")
        return self.first[name]

    def _is_first(self, name: str, first: str) -> bool:
        """Note that the value is there in the new order, and give it in the old one too."""
        self.first[name] = first
        if self._rank(name) == 4:
            self._add("Transpose", [first], name, perm=[0, 3, 2, 1])
        else:
            row = self._add("Squeeze", [first, self._integers(2)], f"{name}_row")
            self._add("Transpose", [row], name, perm=[0, 2, 1])
        return True

    def _is_turned(self, name: str, turned: str) -> bool:
        self.turned[name] = turned
        self._add("Transpose", [turned], name, perm=[0, 1, 3, 2])
        return True

    def _transpose(self, node: onnx.NodeProto) -> bool:
        source, result, order = node.input[0], node.output[0], list(_attributes(node)["perm"])
        if order == TO_FIRST:
            return self._is_turned(result, self._channels_first(source))
        if order == TO_LAST and source in self.turned:
            return self._is_first(result, self.turned[source])
        return False

    def _view(self, node: onnx.NodeProto) -> bool:
        """`[batch, frames, channels]` to an image of one bin, or back: the same in the new order."""
        source, result = node.input[0], node.output[0]
        axes = self.constants.get(node.input[1]) if len(node.input) > 1 else None
        if axes is None or axes.tolist() != [2] or {self._rank(source), self._rank(result)} != {3, 4}:
            return False
        if source not in self.first and not self._wanted_first(result):
            return False
        return self._is_first(result, self._channels_first(source))

    def _reshape(self, node: onnx.NodeProto) -> bool:
        """`[batch, frames, bins * channels]` to `[batch, frames, bins, channels]`, back, or to other bins."""
        source, result = node.input[0], node.output[0]
        ranks = self._rank(source), self._rank(result)
        sizes = [math.prod(self.shapes.get(name, [0])[2:]) for name in (source, result)]
        same = sizes[0] == sizes[1] > 0 and not any(any(self.shapes[name][:2]) for name in (source, result))
        if not same or ranks not in ((3, 4), (4, 3), (4, 4)):
            return False
        if ranks == (4, 3):
            if source not in self.first:
                return False
            rows = self._add("Transpose", [self.first[source]], f"{result}_rows", perm=[0, 2, 1, 3])
            shape = self._integers(0, sizes[0], 1, 0)
            return self._is_first(result, self._add("Reshape", [rows, shape], f"{result}_first"))
        flat = self.flat.get(source, source)
        self.flat[result] = flat
        if self._rank(flat) != 3 or (flat not in self.first and not self._wanted_first(result)):
            return False
        shape = self._integers(0, *self.shapes[result][2:], 0)
        image = self._add("Reshape", [self._channels_first(flat), shape], f"{result}_image")
        return self._is_first(result, self._add("Transpose", [image], f"{result}_first", perm=[0, 2, 1, 3]))

    def _convolve(self, node: onnx.NodeProto) -> bool:
        if node.input[0] not in self.turned:
            return False
        attributes, weight = _attributes(node), node.input[1]
        if attributes.pop("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            return False
        pads = attributes.get("pads", [0, 0, 0, 0])
        attributes["pads"] = [pads[1], pads[0], pads[3], pads[2]]
        for name in ("kernel_shape", "dilations", "strides"):
            if name in attributes:
                attributes[name] = list(attributes[name])[::-1]
        turned = self._constant(f"{weight}_turned", self.constants[weight].swapaxes(2, 3))
        inputs = [self.turned[node.input[0]], turned, *node.input[2:]]
        return self._is_turned(node.output[0], self._add("Conv", inputs, f"{node.output[0]}_turned", **attributes))

    def _normalize(self, node: onnx.NodeProto) -> bool:
        if node.input[0] not in self.turned:
            return False
        inputs = [self.turned[node.input[0]], *node.input[1:]]
        result = self._add(node.op_type, inputs, f"{node.output[0]}_turned", **_attributes(node))
        return self._is_turned(node.output[0], result)

    def _product(self, node: onnx.NodeProto) -> bool:
        source, weight = node.input
        matrix, result = self.constants.get(weight), node.output[0]
        if matrix is None or matrix.ndim != 2 or self._rank(source) not in (3, 4):
            return False
        # An image begins with a convolution rather than after one: what is added to it later has its layout then.
        smaller = self._rank(source) == 4 or matrix.shape[1] < matrix.shape[0]
        if not ((source in self.first and smaller) or self._wanted_first(result)):
            return False
        kernel = self._constant(f"{weight}_kernel", matrix.T[:, :, None, None])
        output = self._add("Conv", [self._channels_first(source), kernel], f"{result}_first", kernel_shape=[1, 1])
        self.without_bias[output] = self.nodes[-1]
        return self._is_first(result, output)

    def _wanted_first(self, name: str) -> bool:
        """Whether the value is on its way to a convolution or to a softmax over frames.

        On its way are operations that any order suits.
        """
        for user in self.users.get(name, ()):
            if user.op_type == "Transpose" and list(_attributes(user)["perm"]) == TO_FIRST:
                return True
            if user.op_type == "Softmax" and self._rank(name) == 3 and _attributes(user).get("axis", -1) == 1:
                return True
            passing = UNARY | BINARY | {"MatMul", "Unsqueeze", "Reshape"}
            if user.op_type in passing and self._rank(user.output[0]) in (3, 4) and self._wanted_first(user.output[0]):
                return True
        return False

    def _elementwise(self, node: onnx.NodeProto) -> bool:
        result, rank = node.output[0], self._rank(node.output[0])
        values = [name for name in node.input if name and name not in self.constants]
        if not any(name in self.first for name in values) or any(self._rank(name) != rank for name in values):
            return False
        constants = [name for name in node.input if name in self.constants]
        if node.op_type == "Add" and constants and self._add_bias(values[0], constants[0], result):
            return True
        inputs = [
            self._constant_first(name, rank) if name in self.constants else name and self._channels_first(name)
            for name in node.input
        ]
        return self._is_first(result, self._add(node.op_type, inputs, f"{result}_first", **_attributes(node)))

    def _add_bias(self, value: str, constant: str, result: str) -> bool:
        """Add a vector in the convolution before, if that has none yet and nothing else sees what it gives."""
        first = self._channels_first(value)
        layer = self.without_bias.get(first)
        if layer is None or self.constants[constant].shape != (self.shapes[value][-1],) or len(self.users[value]) > 1:
            return False
        layer.input.append(constant)
        del self.without_bias[first]
        return self._is_first(result, first)

    def _constant_first(self, name: str, rank: int) -> str:
        array = self.constants[name]
        if array.size == 1:
            return name
        wide = array.reshape((1,) * (rank - array.ndim) + array.shape)
        turned = wide.transpose(0, 3, 2, 1) if rank == 4 else wide.transpose(0, 2, 1)[:, :, None]
        return self._constant(f"{name}_first{rank}", turned)

    def _concat(self, node: onnx.NodeProto) -> bool:
        result, rank = node.output[0], self._rank(node.output[0])
        if _attributes(node)["axis"] not in (-1, rank - 1) or not all(name in self.first for name in node.input):
            return False
        inputs = [self.first[name] for name in node.input]
        return self._is_first(result, self._add("Concat", inputs, f"{result}_first", axis=1))

    def _layer_norm(self, node: onnx.NodeProto) -> bool:
        """Over the channels of images: those alone move, which engines are fast at, rather than frames and channels."""
        source, result = node.input[0], node.output[0]
        if source not in self.first or self._rank(source) != 4 or _attributes(node).get("axis", -1) not in (-1, 3):
            return False
        last = self._add("Transpose", [self.first[source]], f"{result}_last", perm=TO_LAST)
        normal = self._add(node.op_type, [last, *node.input[1:]], f"{result}_normal", **_attributes(node))
        return self._is_first(result, self._add("Transpose", [normal], f"{result}_first", perm=TO_FIRST))

    def _softmax(self, node: onnx.NodeProto) -> bool:
        """Over frames."""
        source, result = node.input[0], node.output[0]
        if self._rank(source) != 3 or _attributes(node).get("axis", -1) != 1:
            return False
        return self._is_first(result, self._add("Softmax", [self._channels_first(source)], f"{result}_first", axis=3))

    def _reduce(self, node: onnx.NodeProto) -> bool:
        """Over frames, `[batch, channels]`; or over frames and channels of an image, `[batch, bins]`."""
        source, result, keep = node.input[0], node.output[0], _attributes(node).get("keepdims", 1)
        axes = self.constants.get(node.input[1]) if len(node.input) > 1 else None
        over = (self._rank(source), sorted(axes.tolist())) if axes is not None else None
        if source not in self.first or over not in ((3, [1]), (4, [1, 3])) or (keep and over[0] == 4):
            return False
        if keep:
            inputs = [self.first[source], self._integers(3)]
            return self._is_first(result, self._add(node.op_type, inputs, f"{result}_first", keepdims=1))
        inputs = [self.first[source], self._integers(*((2, 3) if over[0] == 3 else (1, 3)))]
        self._add(node.op_type, inputs, result, keepdims=0)
        return True


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}
