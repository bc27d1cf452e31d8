"""Writes the networks as ONNX files: int8 weights, float32 arithmetic, raw pixels in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from training.backbone import PIXEL_MEAN, PIXEL_SCALE, RELU6_MAX, Block, Conv, Network, scales
from training.head import Head
from training.ood import Plane
from training.tune import FIRST, Tail

OPSET = 17


@dataclass
class _Graph:
    """Nodes and weights in the order they are added; `name` of a value is the name of the node that makes it."""

    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)

    def add(self, op: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: object) -> str:
        self.weights.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def half(self, name: str, array: np.ndarray) -> str:
        """Stored as float16. The cast to float32 is folded when onnxruntime loads the file."""
        self.weights.append(numpy_helper.from_array(array.astype(np.float16), f"{name}_half"))
        return self.add("Cast", [f"{name}_half"], name, to=TensorProto.FLOAT)

    def int8(self, name: str, array: np.ndarray, scale: np.ndarray) -> str:
        """Stored as int8 with a scale for each output channel; this, too, is folded."""
        steps = np.round(array / scale.reshape(-1, *[1] * (array.ndim - 1))).astype(np.int8)
        self.weights.append(numpy_helper.from_array(steps, f"{name}_int8"))
        self.weights.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}_scale"))
        self.weights.append(numpy_helper.from_array(np.zeros(len(scale), np.int8), f"{name}_zero"))
        return self.add("DequantizeLinear", [f"{name}_int8", f"{name}_scale", f"{name}_zero"], name, axis=0)


def write_features(path: Path, network: Network, side: int, taps: Sequence[int]) -> None:
    """Input `pixels`: uint8 (n, side, side, 3), RGB. Output `features`: mean activations of taps and last block, and
    `activations`: (n, channel, y, x), the input of the tuned blocks.
    """
    graph = _Graph()
    _features(graph, network.blocks, taps)
    channels = len(network.blocks[FIRST - 1].convs[-1].bias)
    _save(path, graph, side, {"features": ["n", "size"], "activations": ["n", channels, "y", "x"]})


def write_model(
    path: Path, network: Network, side: int, taps: Sequence[int], heads: tuple[Head, Tail, float], plane: Plane
) -> None:
    """Input `pixels` as above. Outputs `logits`: (n, class), `things`: (n, 1000) and `strangeness`: (n,).

    `heads` are the one on frozen features, the tuned one, and the share of the tuned one in `logits`.
    """
    graph = _Graph()
    head, tail, share = heads
    features = _features(graph, network.blocks, taps)
    frozen = _gemm(graph, features, "frozen", Head(head.weight * (1 - share), head.bias * (1 - share)))
    value = "activations"
    for index, block in enumerate(tail.blocks):
        value = _block(graph, value, block, f"tuned{index}", "tuned_")
    tuned = Head(tail.head.weight * share, tail.head.bias * share)
    graph.add("Add", [frozen, _gemm(graph, _mean(graph, value, "tuned_mean"), "tuned", tuned)], "logits")
    weight = network.weight.numpy()
    things = [f"mean{len(network.blocks) - 1}_flat", graph.int8("things_w", weight, scales(network.weight).numpy())]
    graph.add("Gemm", [*things, graph.half("things_b", network.bias.numpy())], "things", transB=1)
    _strangeness(graph, features, plane)
    outputs = {"logits": ["n", len(head.bias)], "things": ["n", len(weight)], "strangeness": ["n"]}
    _save(path, graph, side, outputs)


def _gemm(graph: _Graph, value: str, name: str, head: Head) -> str:
    inputs = [value, graph.half(f"{name}_w", head.weight), graph.half(f"{name}_b", head.bias)]
    return graph.add("Gemm", inputs, f"{name}_logits", transB=1)


def _mean(graph: _Graph, value: str, name: str) -> str:
    return graph.add("Flatten", [graph.add("GlobalAveragePool", [value], name)], f"{name}_flat")


def _features(graph: _Graph, blocks: Sequence[Block], taps: Sequence[int]) -> str:
    value = _normalised(graph)
    graph.constant("zero", 0.0)
    graph.constant("six", RELU6_MAX)
    pooled: list[str] = []
    for index, block in enumerate(blocks):
        value = _block(graph, value, block, f"add{index}")
        if index == FIRST - 1:
            graph.add("Identity", [value], "activations")
        if index in taps or index == len(blocks) - 1:
            pooled.append(_mean(graph, value, f"mean{index}"))
    return graph.add("Concat", pooled, "features", axis=1)


def _strangeness(graph: _Graph, features: str, plane: Plane) -> str:
    """The distance that `Plane.ood_score` computes, under the output name that shipped files have."""
    centred = graph.add("Sub", [features, graph.half("plane_mean", plane.mean)], "off_mean")
    offsets = graph.add("Div", [centred, graph.half("plane_spread", plane.spread)], "offsets")
    basis = graph.half("plane_basis", plane.basis)
    basis_back = graph.add("Transpose", [basis], "plane_basis_back", perm=[1, 0])
    within = graph.add("MatMul", [graph.add("MatMul", [offsets, basis], "components"), basis_back], "within")
    rest = graph.add("Sub", [offsets, within], "rest")
    squares = graph.add("Mul", [rest, rest], "squares")
    mean = graph.add("ReduceMean", [squares], "mean_square", axes=[1], keepdims=0)
    return graph.add("Sqrt", [mean], "strangeness")


def _save(path: Path, graph: _Graph, side: int, outputs: Mapping[str, Sequence[str | int]]) -> None:
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "trashnet",
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", side, side, 3])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
        producer_name="bunri training",
    )
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _normalised(graph: _Graph) -> str:
    floats = graph.add("Cast", ["pixels"], "floats", to=TensorProto.FLOAT)
    centred = graph.add("Sub", [floats, graph.constant("pixel_mean", PIXEL_MEAN)], "centred")
    scaled = graph.add("Div", [centred, graph.constant("pixel_scale", PIXEL_SCALE)], "scaled")
    return graph.add("Transpose", [scaled], "channels_first", perm=[0, 3, 1, 2])


def _block(graph: _Graph, value: str, block: Block, name: str, prefix: str = "") -> str:
    out = value
    for conv in block.convs:
        out = _conv(graph, out, conv, f"{prefix}{conv.name}")
    return graph.add("Add", [out, value], name) if block.residual else out


def _conv(graph: _Graph, value: str, conv: Conv, name: str) -> str:
    weight = graph.int8(f"{name}_w", conv.weight.numpy(), scales(conv.weight).numpy())
    bias = graph.constant(f"{name}_b", conv.bias.numpy())
    out = graph.add(
        "Conv",
        [value, weight, bias],
        name,
        strides=[conv.stride, conv.stride],
        pads=list(conv.pads),
        group=conv.groups,
    )
    return graph.add("Clip", [out, "zero", "six"], f"{name}_relu6") if conv.relu6 else out
