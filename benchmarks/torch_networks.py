"""The paper's layers and networks on Algorithm 1, in PyTorch; maps are `[B, C, H, W]`.

Written from the paper (section 5, figures 2 and 3). Parameters carry the names of the authors'
state dicts, so that one dictionary fills both sides.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.torch_operators import algorithm1

_WIDTH = 64


class Converse2D(nn.Module):
    """The operator as a layer: `weight` starts as a softmax of normal values, `bias` (b) at 0."""

    def __init__(self, channels: int, kernel_size: int, **options: Any) -> None:
        super().__init__()
        self.options = options
        taps = torch.randn(1, channels, kernel_size * kernel_size).softmax(dim=-1)
        self.weight = nn.Parameter(taps.reshape(1, channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return algorithm1(x, self.weight, self.bias, **self.options)


class LayerNorm(nn.LayerNorm):
    """The same over axis 1: no transpose, since the FFT after it wants each map contiguous."""

    def forward(self, x: Tensor) -> Tensor:
        centered = x - x.mean(1, keepdim=True)
        std = torch.sqrt(centered.square().mean(1, keepdim=True) + self.eps)
        return self.weight[:, None, None] * (centered / std) + self.bias[:, None, None]


def _branch(*between: nn.Module) -> nn.Sequential:
    widen, narrow = nn.Conv2d(_WIDTH, 2 * _WIDTH, 1), nn.Conv2d(2 * _WIDTH, _WIDTH, 1)
    return nn.Sequential(LayerNorm(_WIDTH), widen, nn.GELU(), *between, narrow)


class ConverseBlock(nn.Module):
    """Fig. 2: `x + pw2(gelu(converse(gelu(pw1(ln(x))))))`, then `x + pw4(gelu(pw3(ln(x))))`.

    With `scaled`, a factor for each channel of both branches, starting at 0.
    """

    def __init__(self, kernel_size: int, mode: str = "circular", *, scaled: bool = False) -> None:
        super().__init__()
        border = {"padding": kernel_size - 1, "padding_mode": mode}
        self.conv1 = _branch(Converse2D(2 * _WIDTH, kernel_size, **border), nn.GELU())
        self.conv2 = _branch()
        self.scaled = scaled
        if scaled:
            self.alpha1 = nn.Parameter(torch.zeros(1, _WIDTH, 1, 1))
            self.alpha2 = nn.Parameter(torch.zeros(1, _WIDTH, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.scaled:
            x = x + self.alpha1 * self.conv1(x)
            return x + self.alpha2 * self.conv2(x)
        x = x + self.conv1(x)
        return x + self.conv2(x)


def _blocks(count: int, *args: Any, **options: Any) -> nn.Sequential:
    return nn.Sequential(*(ConverseBlock(*args, **options) for _ in range(count)))


class ConverseDnCNN(nn.Sequential):
    """1x1 in, `num_blocks` Converse blocks, 1x1 out; no global residual."""

    def __init__(self, num_blocks: int) -> None:
        super().__init__()
        self.m_head = nn.Sequential(nn.Conv2d(1, _WIDTH, 1))
        self.m_body = _blocks(num_blocks, 5)
        self.m_tail = nn.Sequential(nn.Conv2d(_WIDTH, 1, 1))


class ConverseSRResNet(nn.Module):
    """Blocks at low resolution, then twice a block and Converse2D of stride 2; plus bilinear x4."""

    def __init__(self, num_blocks: int) -> None:
        super().__init__()
        border = {"padding": 2, "padding_mode": "replicate"}
        self.conv_first = nn.Conv2d(3, _WIDTH, 1)
        self.conv_body = _blocks(num_blocks, 5, "replicate")
        self.upconv1, self.upconv2, self.conv_hres = _blocks(3, 5, "replicate")
        self.up1 = Converse2D(_WIDTH, 2, scale=2, eps=1e-3, **border)
        self.up2 = Converse2D(_WIDTH, 2, scale=2, eps=1e-3, **border)
        self.conv_last = nn.Conv2d(_WIDTH, 3, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        enlarged = F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False)
        x = self.conv_body(F.gelu(self.conv_first(x)))
        x = F.gelu(self.up1(self.upconv1(x)))
        x = F.gelu(self.up2(self.upconv2(x)))
        return self.conv_last(F.gelu(self.conv_hres(x))) + enlarged


class ConverseUSRNet(nn.Module):
    """Data step and blocks in turn, from a blurred image and its kernel `[B, 1, 7, 7]`.

    The kernel becomes 16 maps of its size, and each iteration has its own 1x1 convolution that
    turns them into the kernels of the data step, Converse2D without padding. All iterations share
    the lambda logits of the data step, `d.alpha`, and the blocks, `p.m_body`.
    """

    def __init__(self, num_blocks: int, num_iterations: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _WIDTH, 1)
        self.kernelnet = nn.Sequential()
        self.kernelnet.fc1, self.kernelnet.gelu1 = nn.Linear(49, 64), nn.GELU()
        self.kernelnet.fc2, self.kernelnet.gelu2 = nn.Linear(64, 64), nn.GELU()
        self.kernelnet.fc3 = nn.Linear(64, 16 * 49)
        self.convs = nn.ModuleList(nn.Conv2d(16, _WIDTH, 1) for _ in range(num_iterations))
        self.d = nn.ParameterDict({"alpha": torch.zeros(1, _WIDTH, 1, 1)})
        self.p = nn.ModuleDict({"m_body": _blocks(num_blocks, 3, scaled=True)})
        self.conv2 = nn.Conv2d(_WIDTH, 3, 1)

    def forward(self, x: Tensor, kernel: Tensor) -> Tensor:
        maps = self.kernelnet(kernel.flatten(1)).unflatten(1, (16, 7, 7))
        x = self.conv1(x)
        for conv in self.convs:
            x = algorithm1(x, conv(maps), self.d["alpha"], eps=1e-3)
            x = self.p["m_body"](x)
        return self.conv2(x)


def compile_blocks(model: nn.Module) -> nn.Module:
    """`torch.compile` for each block: one compilation for all that are alike."""
    for module in model.modules():
        if isinstance(module, ConverseBlock):
            # The layout it would choose breaks the gradient: it cannot view a strided spectrum.
            module.compile(dynamic=False, options={"layout_optimization": False})
    return model
