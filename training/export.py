"""Writes the network as one ONNX file: float16 weights, float32 arithmetic, raw pixels in, logits out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from training.backbone import PIXEL_MEAN, PIXEL_SCALE, RELU6_MAX, Block, Conv
from training.familiar import Plane
from training.head import Head

OPSET = 17


@dataclass
class _Graph:
    """Nodes and weights in the order they are added; `name` of a value is the name of the node that makes it."""

    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)

    def add(self, op: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: float) -> str:
        self.weights.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def half(self, name: str, array: np.ndarray) -> str:
        """Stored as float16. The cast to float32 is folded when onnxruntime loads the file."""
        self.weights.append(numpy_helper.from_array(array.astype(np.float16), f"{name}_half"))
        return self.add("Cast", [f"{name}_half"], name, to=TensorProto.FLOAT)


def write_features(path: Path, blocks: Sequence[Block], side: int, taps: Sequence[int]) -> None:
    """Input `pixels`: uint8 (n, side, side, 3), RGB. Output `features`: mean activations of taps and last block."""
    graph = _Graph()
    _features(graph, blocks, taps)
    _save(path, graph, side, {"features": ["n", "size"]})


def write_model(path: Path, blocks: Sequence[Block], side: int, taps: Sequence[int], head: Head, plane: Plane) -> None:
    """Input `pixels` as above. Outputs `logits`: (n, class), and `strangeness`: (n,)."""
    graph = _Graph()
    features = _features(graph, blocks, taps)
    graph.add("Gemm", [features, graph.half("w", head.weight), graph.half("b", head.bias)], "logits", transB=1)
    _strangeness(graph, features, plane)
    _save(path, graph, side, {"logits": ["n", len(head.bias)], "strangeness": ["n"]})


def _features(graph: _Graph, blocks: Sequence[Block], taps: Sequence[int]) -> str:
    value = _normalised(graph)
    low, high = graph.constant("zero", 0.0), graph.constant("six", RELU6_MAX)
    pooled: list[str] = []
    for index, block in enumerate(blocks):
        value = _block(graph, value, block, f"add{index}", (low, high))
        if index in taps or index == len(blocks) - 1:
            mean = graph.add("GlobalAveragePool", [value], f"mean{index}")
            pooled.append(graph.add("Flatten", [mean], f"pooled{index}"))
    return graph.add("Concat", pooled, "features", axis=1)


def _strangeness(graph: _Graph, features: str, plane: Plane) -> str:
    """The distance that `Plane.strangeness` computes."""
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


def _block(graph: _Graph, value: str, block: Block, name: str, clip: tuple[str, str]) -> str:
    out = value
    for conv in block.convs:
        out = _conv(graph, out, conv, clip)
    return graph.add("Add", [out, value], name) if block.residual else out


def _conv(graph: _Graph, value: str, conv: Conv, clip: tuple[str, str]) -> str:
    weight = graph.half(f"{conv.name}_w", conv.weight.numpy())
    bias = graph.half(f"{conv.name}_b", conv.bias.numpy())
    out = graph.add(
        "Conv",
        [value, weight, bias],
        conv.name,
        strides=[conv.stride, conv.stride],
        pads=list(conv.pads),
        group=conv.groups,
    )
    return graph.add("Clip", [out, *clip], f"{conv.name}_relu6") if conv.relu6 else out
