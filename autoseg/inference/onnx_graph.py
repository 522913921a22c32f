"""A network as an ONNX graph, node by node from torch's exported program.

The network is traced on torch's "meta" device, where tensors have shapes and no values. So the tricks that keep activations channels-last
on the CPU (`autoseg.networks.norm`, `pointwise`) stay out of the graph, no memory is needed, and the weights are written as they are. What
is left are the few operations below; another one is an error that names it. torch's own exporter would need the package onnxscript.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from autoseg.errors import ModelError

if TYPE_CHECKING:
    import onnx

OPSET = 17
IR_VERSION = 8
"""What onnxruntime reads from release 1.12 on; nothing newer is needed."""

INPUT, OUTPUT, BATCH = "image", "logits", "batch"


def onnx_model(network: nn.Module, channels: int, patch: Sequence[int], *, name: str, facts: Mapping[str, str]) -> onnx.ModelProto:
    """The network of one patch as a checked ONNX model: `image` (batch, channels, *patch) -> `logits` (batch, outputs, *patch), float32.

    Args:
        network: in evaluation mode; it stays as it is.
        channels, patch: the input's size; the batch is free.
        name: of the graph.
        facts: key -> text in the model's own metadata.

    Raises:
        ModelError: the network holds an operation that is not translated.
    """
    import onnx
    from onnx import TensorProto, helper

    program = _traced(network, channels, patch)
    parameters = {**program.graph_signature.inputs_to_parameters, **program.graph_signature.inputs_to_buffers}
    graph = _Graph(parameters, {key: value.detach().cpu() for key, value in network.state_dict().items()})
    for node in program.graph.nodes:
        graph.add(node)
    shapes = {INPUT: [BATCH, channels, *patch], OUTPUT: [BATCH, *graph.output_shape[1:]]}
    proto = helper.make_graph(
        graph.nodes,
        name,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shapes[INPUT])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shapes[OUTPUT])],
        graph.weights(),
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="autoseg")
    helper.set_model_props(model, dict(facts))
    onnx.checker.check_model(model, full_check=True)
    return model


def _traced(network: nn.Module, channels: int, patch: Sequence[int]) -> Any:
    shapes_only = copy.deepcopy(network).to("meta").eval()
    example = torch.empty((2, channels, *patch), device="meta")
    with warnings.catch_warnings():  # torch's exporter warns about torch's own internals
        warnings.simplefilter("ignore")
        # The batch may stay fixed here: none of the operations that are translated depends on its size.
        program = torch.export.export(shapes_only, (example,), strict=False)
        return program.run_decompositions({})  # without in-place operations, nothing split up


class _Graph:
    """ONNX nodes, one for each of the traced operations, and the weights that they name."""

    def __init__(self, parameters: Mapping[str, str], state: Mapping[str, torch.Tensor]):
        self.parameters, self.state = parameters, state
        self.nodes: list[onnx.NodeProto] = []
        self.output_shape: tuple[int, ...] = ()
        self._names: dict[str, str] = {}
        self._used: dict[str, None] = {}

    def add(self, node: Any) -> None:
        """Translates one node of the traced graph."""
        if node.op == "placeholder":
            self._names[node.name] = self.parameters.get(node.name, INPUT)
        elif node.op == "output":
            (logits,) = node.args[0]
            self.output_shape = tuple(logits.meta["val"].shape)
            self._emit("Identity", [logits], OUTPUT)
        elif node.op == "call_function" and (translate := _OPERATIONS.get(_operation_name(node.target))):
            self._names[node.name] = node.name
            translate(self, node)
        else:
            known = ", ".join(sorted(_OPERATIONS))
            raise ModelError(f"the network's operation {_operation_name(node.target)} has no translation to ONNX; known: {known}")

    def emit(self, kind: str, node: Any, inputs: Sequence[Any], **attributes: Any) -> None:
        """Appends the ONNX node that computes `node`."""
        self._emit(kind, inputs, node.name, **attributes)

    def weights(self) -> list[onnx.TensorProto]:
        """The weights that nodes use, in the order of their first use."""
        from onnx import numpy_helper

        return [numpy_helper.from_array(self.state[name].float().contiguous().numpy(), name) for name in self._used]

    def _emit(self, kind: str, inputs: Sequence[Any], output: str, **attributes: Any) -> None:
        from onnx import helper

        names = [self._names[value.name] for value in inputs if value is not None]
        self._used |= dict.fromkeys(name for name in names if name in self.state)
        self.nodes.append(helper.make_node(kind, names, [output], name=f"{kind}_{len(self.nodes)}", **attributes))


def _operation_name(target: Any) -> str:
    return str(target).removeprefix("aten.") if hasattr(target, "_schema") else getattr(target, "__name__", str(target))


def _arguments(node: Any, **defaults: Any) -> dict[str, Any]:
    """The node's arguments by name, in the order of `defaults`, which tells those that were not given."""
    given = dict(zip(defaults, node.args, strict=False)) | dict(node.kwargs)
    return {name: given.get(name, default) for name, default in defaults.items()}


def _each_axis(value: Any, count: int) -> list[int]:
    """One number an axis, from one for all or a list of one or of all."""
    numbers = [value] if isinstance(value, int) else list(value)
    return numbers * count if len(numbers) == 1 else numbers


def _spatial_axes(node: Any) -> int:
    return len(node.meta["val"].shape) - 2


def _convolution(graph: _Graph, node: Any) -> None:
    found = _arguments(node, x=None, weight=None, bias=None, stride=1, padding=0, dilation=1, groups=1)
    axes = _spatial_axes(node)
    padding = _each_axis(found["padding"], axes)
    graph.emit(
        "Conv",
        node,
        [found["x"], found["weight"], found["bias"]],
        kernel_shape=list(found["weight"].meta["val"].shape[2:]),
        strides=_each_axis(found["stride"], axes),
        pads=padding * 2,
        dilations=_each_axis(found["dilation"], axes),
        group=found["groups"],
    )


def _transposed_convolution(graph: _Graph, node: Any) -> None:
    found = _arguments(node, x=None, weight=None, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1)
    axes = _spatial_axes(node)
    graph.emit(
        "ConvTranspose",
        node,
        [found["x"], found["weight"], found["bias"]],
        kernel_shape=list(found["weight"].meta["val"].shape[2:]),
        strides=_each_axis(found["stride"], axes),
        pads=_each_axis(found["padding"], axes) * 2,
        output_padding=_each_axis(found["output_padding"], axes),
        dilations=_each_axis(found["dilation"], axes),
        group=found["groups"],
    )


def _instance_norm(graph: _Graph, node: Any) -> None:
    found = _arguments(node, x=None, weight=None, bias=None, mean=None, variance=None, use_input_stats=True, momentum=0.1, eps=1e-5)
    assert found["use_input_stats"], "instance norm with running statistics"
    graph.emit("InstanceNormalization", node, [found["x"], found["weight"], found["bias"]], epsilon=found["eps"])


def _leaky_relu(graph: _Graph, node: Any) -> None:
    found = _arguments(node, x=None, slope=0.01)
    graph.emit("LeakyRelu", node, [found["x"]], alpha=found["slope"])


def _relu(graph: _Graph, node: Any) -> None:
    graph.emit("Relu", node, node.args[:1])


def _add(graph: _Graph, node: Any) -> None:
    assert node.kwargs.get("alpha", 1) == 1, "a sum with a factor"
    graph.emit("Add", node, node.args[:2])


def _concatenation(graph: _Graph, node: Any) -> None:
    found = _arguments(node, tensors=None, dim=0)
    graph.emit("Concat", node, found["tensors"], axis=found["dim"])


def _average_pool(graph: _Graph, node: Any) -> None:
    found = _arguments(node, x=None, kernel=None, stride=None, padding=0)
    axes = _spatial_axes(node)
    kernel = _each_axis(found["kernel"], axes)
    graph.emit(
        "AveragePool",
        node,
        [found["x"]],
        kernel_shape=kernel,
        strides=_each_axis(found["stride"] or kernel, axes),
        pads=_each_axis(found["padding"], axes) * 2,
        count_include_pad=1,
    )


_OPERATIONS: dict[str, Callable[[_Graph, Any], None]] = {
    "conv2d.default": _convolution,
    "conv3d.default": _convolution,
    "conv_transpose2d.input": _transposed_convolution,
    "conv_transpose3d.input": _transposed_convolution,
    "instance_norm.default": _instance_norm,
    "leaky_relu.default": _leaky_relu,
    "relu.default": _relu,
    "add.Tensor": _add,
    "cat.default": _concatenation,
    "avg_pool2d.default": _average_pool,
    "avg_pool3d.default": _average_pool,
}
"""torch operation -> what appends its ONNX node."""
