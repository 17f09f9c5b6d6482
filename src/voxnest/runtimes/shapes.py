"""Which sizes of an exported graph are always the same, found by running it on waveforms of different sizes.

Tracing writes sizes down as what computes them. An engine cannot tell then that 60 bins of 10 channels are 600 numbers
whatever the waveform, and neither can `voxnest.runtimes.graph`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from voxnest.runtimes.engine import import_extra

FREE = 0
"""Stands for a size that depends on the waveform."""


def simplify(model: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> onnx.ModelProto:
    """The same function, with constants computed, the shapes of all values, and reshapes to constant sizes.

    Args:
        model: of one input.
        inputs: two or more, such as waveforms `[batch, samples]` float32, that differ in all sizes that are free.
    """
    model = _constants_folded(model)
    values = observe(model, inputs)
    graph = model.graph
    del graph.value_info[:]
    graph.value_info.extend(
        helper.make_tensor_value_info(name, value.kind, [size or None for size in value.shape])
        for name, value in values.items()
    )
    for node in graph.node:
        if node.op_type == "Reshape" and (sizes := _constant_sizes(node, values)) is not None:
            name = f"{node.output[0]}_sizes"
            graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), name))
            node.input[1] = name
    return model


class Value(NamedTuple):
    """What is known of a value.

    Attributes:
        kind: ONNX's number of its type.
        sizes: of each axis, for every input.
    """

    kind: int
    sizes: list[tuple[int, ...]]

    @property
    def shape(self) -> list[int]:
        """With `FREE` for sizes that were not the same for all inputs."""
        return [sizes[0] if len(set(sizes)) == 1 else FREE for sizes in self.sizes]


def observe(model: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> dict[str, Value]:
    """Run a graph, and tell of every value that has the same number of axes each time."""
    ort = import_extra("onnxruntime", "onnx")
    inferred = onnx.shape_inference.infer_shapes(model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    kinds |= {value.name: value.type.tensor_type.elem_type for value in [*model.graph.input, *model.graph.output]}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    given = {value.name for value in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name and name in kinds]
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in given)
    session = ort.InferenceSession(probe.SerializeToString(), _options(ort), providers=["CPUExecutionProvider"])
    wanted = [output.name for output in session.get_outputs()]
    seen: dict[str, list[tuple[int, ...]]] = {}
    source = model.graph.input[0].name
    for given_input in inputs:
        found = {source: given_input, **dict(zip(wanted, session.run(wanted, {source: given_input}), strict=True))}
        for name, value in found.items():
            seen.setdefault(name, []).append(np.shape(value))
    return {
        name: Value(kinds[name], list(zip(*shapes, strict=True)))
        for name, shapes in seen.items()
        if len({len(shape) for shape in shapes}) == 1
    }


def _constant_sizes(node: onnx.NodeProto, values: dict[str, Value]) -> list[int] | None:
    """What a reshape is to: sizes, 0 for one that stays as it is, -1 for one other; None if there are more."""
    if any(name not in values for name in (node.input[0], node.output[0])):
        return None
    before, after = values[node.input[0]].sizes, values[node.output[0]]
    stays = [position < len(before) and before[position] == sizes for position, sizes in enumerate(after.sizes)]
    sizes = [size or (0 if same else -1) for size, same in zip(after.shape, stays, strict=True)]
    return sizes if sizes.count(-1) <= 1 else None


def _constants_folded(model: onnx.ModelProto) -> onnx.ModelProto:
    ort = import_extra("onnxruntime", "onnx")
    with tempfile.TemporaryDirectory() as folder:
        options = _options(ort)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def _options(ort: Any) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return options
