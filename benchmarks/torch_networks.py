"""The paper's layers and networks on Algorithm 1, in PyTorch; maps are `[B, C, H, W]`.

Written from the paper (section 5, figures 2 and 3). Parameters carry the names of the authors'
state dicts, so that one dictionary fills both sides.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.algorithm1 import converse2d

_WIDTH = 64


class Converse2D(nn.Module):
    """The operator as a layer: `weight` starts as a softmax of normal values, `bias` (b) at 0."""

    def __init__(self, channels: int, kernel_size: int = 5, **options: Any) -> None:
        super().__init__()
        self.options = options
        taps = torch.randn(1, channels, kernel_size * kernel_size).softmax(dim=-1)
        self.weight = nn.Parameter(taps.reshape(1, channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return converse2d(x, self.weight, self.bias, **self.options)


class LayerNorm(nn.LayerNorm):
    """The same over axis 1: no transpose, since the FFT after it wants each map contiguous."""

    def forward(self, x: Tensor) -> Tensor:
        centered = x - x.mean(1, keepdim=True)
        std = torch.sqrt(centered.square().mean(1, keepdim=True) + self.eps)
        return self.weight[:, None, None] * (centered / std) + self.bias[:, None, None]


def _branch(channels: int, *between: nn.Module) -> nn.Sequential:
    widen, narrow = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(2 * channels, channels, 1)
    return nn.Sequential(LayerNorm(channels), widen, nn.GELU(), *between, narrow)


class ConverseBlock(nn.Module):
    """Fig. 2: `x + pw2(gelu(converse(gelu(pw1(ln(x))))))`, then `x + pw4(gelu(pw3(ln(x))))`.

    With `residual_scale`, a factor for each channel of both branches, starting at 0.
    """

    def __init__(
        self, channels: int, kernel_size: int = 5, *, residual_scale: bool = False, **border: Any
    ) -> None:
        super().__init__()
        operator = Converse2D(2 * channels, kernel_size, **{"padding": 4, **border})
        self.conv1 = _branch(channels, operator, nn.GELU())
        self.conv2 = _branch(channels)
        if residual_scale:
            self.alpha1 = nn.Parameter(torch.zeros(1, channels, 1, 1))
            self.alpha2 = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.residual_scale = residual_scale

    def forward(self, x: Tensor) -> Tensor:
        if self.residual_scale:
            x = x + self.alpha1 * self.conv1(x)
            return x + self.alpha2 * self.conv2(x)
        x = x + self.conv1(x)
        return x + self.conv2(x)


class ConverseDnCNN(nn.Module):
    """1x1 in, `num_blocks` Converse blocks, 1x1 out; no global residual."""

    def __init__(self, num_blocks: int) -> None:
        super().__init__()
        self.m_head = nn.Sequential(nn.Conv2d(1, _WIDTH, 1))
        self.m_body = nn.Sequential(*(ConverseBlock(_WIDTH) for _ in range(num_blocks)))
        self.m_tail = nn.Sequential(nn.Conv2d(_WIDTH, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.m_tail(self.m_body(self.m_head(x)))


class ConverseSRResNet(nn.Module):
    """Blocks at low resolution, then twice a block and Converse2D of stride 2; plus bilinear x4."""

    def __init__(self, num_blocks: int) -> None:
        super().__init__()

        def block() -> ConverseBlock:
            return ConverseBlock(_WIDTH, padding_mode="replicate")

        def enlarge() -> Converse2D:
            options = {"scale": 2, "padding": 2, "padding_mode": "replicate", "eps": 1e-3}
            return Converse2D(_WIDTH, 2, **options)

        self.conv_first = nn.Conv2d(3, _WIDTH, 1)
        self.conv_body = nn.Sequential(*(block() for _ in range(num_blocks)))
        self.upconv1, self.up1 = block(), enlarge()
        self.upconv2, self.up2 = block(), enlarge()
        self.conv_hres = block()
        self.conv_last = nn.Conv2d(_WIDTH, 3, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        enlarged = F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False)
        x = self.conv_body(F.gelu(self.conv_first(x)))
        x = F.gelu(self.up1(self.upconv1(x)))
        x = F.gelu(self.up2(self.upconv2(x)))
        return self.conv_last(F.gelu(self.conv_hres(x))) + enlarged


class ConverseUSRNet(nn.Module):
    """Data step and blocks in turn, from a blurred image and its kernel `[B, 1, 7, 7]`.

    The kernel becomes 16 maps of its size, and each iteration has its own 1x1 convolution of
    these to the kernels of the data step, which is Converse2D without padding. All iterations share
    the lambda logits of the data step, `d.alpha`, and the blocks, `p.m_body`.
    """

    def __init__(self, num_blocks: int, num_iterations: int) -> None:
        super().__init__()
        kernel_layers = {
            "fc1": nn.Linear(49, 64),
            "gelu1": nn.GELU(),
            "fc2": nn.Linear(64, 64),
            "gelu2": nn.GELU(),
            "fc3": nn.Linear(64, 16 * 49),
        }

        def block() -> ConverseBlock:
            return ConverseBlock(_WIDTH, 3, padding=2, residual_scale=True)

        self.conv1 = nn.Conv2d(3, _WIDTH, 1)
        self.kernelnet = nn.Sequential(OrderedDict(kernel_layers))
        self.convs = nn.ModuleList(nn.Conv2d(16, _WIDTH, 1) for _ in range(num_iterations))
        self.d = nn.ParameterDict({"alpha": torch.zeros(1, _WIDTH, 1, 1)})
        self.p = nn.ModuleDict({"m_body": nn.Sequential(*(block() for _ in range(num_blocks)))})
        self.conv2 = nn.Conv2d(_WIDTH, 3, 1)

    def forward(self, x: Tensor, kernel: Tensor) -> Tensor:
        maps = self.kernelnet(kernel.flatten(1)).unflatten(1, (16, 7, 7))
        x = self.conv1(x)
        for conv in self.convs:
            x = converse2d(x, conv(maps), self.d["alpha"], eps=1e-3)
            x = self.p["m_body"](x)
        return self.conv2(x)


def compile_blocks(model: nn.Module) -> nn.Module:
    """`torch.compile` for each block: one compilation for all that are alike."""
    for module in model.modules():
        if isinstance(module, ConverseBlock):
            # Its own choice of layout breaks the gradient: it cannot view a strided spectrum.
            module.compile(dynamic=False, options={"layout_optimization": False})
    return model
