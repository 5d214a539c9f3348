"""The paper's networks on Algorithm 1, in PyTorch.

Written from the paper (section 5, figure 3). Parameters carry the names of the authors' state
dicts, so that one dictionary fills both sides.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.algorithm1 import Converse2D, ConverseBlock, converse2d


class ConverseDnCNN(nn.Module):
    """1x1 in, `num_blocks` Converse blocks, 1x1 out; no global residual."""

    def __init__(self, num_features: int = 64, num_blocks: int = 20, in_channels: int = 1) -> None:
        super().__init__()
        self.m_head = nn.Sequential(nn.Conv2d(in_channels, num_features, 1))
        self.m_body = nn.Sequential(*(ConverseBlock(num_features) for _ in range(num_blocks)))
        self.m_tail = nn.Sequential(nn.Conv2d(num_features, in_channels, 1))
        start_small(self)

    def forward(self, x: Tensor) -> Tensor:
        """Noisy `[B, C, H, W]` to clean, of the same shape."""
        return self.m_tail(self.m_body(self.m_head(x)))


class ConverseSRResNet(nn.Module):
    """Blocks at low resolution, then twice a block and Converse2D of stride 2; plus bilinear x4."""

    def __init__(self, num_features: int = 64, num_blocks: int = 16, in_channels: int = 3) -> None:
        super().__init__()

        def block() -> ConverseBlock:
            return ConverseBlock(num_features, padding_mode="replicate")

        def enlarge() -> Converse2D:
            options = {"scale": 2, "padding": 2, "padding_mode": "replicate", "eps": 1e-3}
            return Converse2D(num_features, 2, **options)

        self.conv_first = nn.Conv2d(in_channels, num_features, 1)
        self.conv_body = nn.Sequential(*(block() for _ in range(num_blocks)))
        self.upconv1, self.up1 = block(), enlarge()
        self.upconv2, self.up2 = block(), enlarge()
        self.conv_hres = block()
        self.conv_last = nn.Conv2d(num_features, in_channels, 1, bias=False)
        start_small(self)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, C, 4H, 4W]`."""
        enlarged = F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False)
        x = self.conv_body(F.gelu(self.conv_first(x)))
        x = F.gelu(self.up1(self.upconv1(x)))
        x = F.gelu(self.up2(self.upconv2(x)))
        return self.conv_last(F.gelu(self.conv_hres(x))) + enlarged


class KernelNet(nn.Module):
    """The 7x7 blur kernel, flattened, through 49 - 64 - 64 - 784 with GELU between: 16 maps."""

    def __init__(self, kernel_size: int = 7, num_maps: int = 16, hidden: int = 64) -> None:
        super().__init__()
        taps = kernel_size * kernel_size
        self.shape = (num_maps, kernel_size, kernel_size)
        self.fc1 = nn.Linear(taps, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, num_maps * taps)

    def forward(self, kernel: Tensor) -> Tensor:
        """`[B, 1, k, k]` to `[B, 16, k, k]`."""
        x = F.gelu(self.fc1(kernel.flatten(1)))
        return self.fc3(F.gelu(self.fc2(x))).unflatten(1, self.shape)


class DataModule(nn.Module):
    """Converse2D with given kernels, no padding, eps 1e-3; its lambda logits are `alpha`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor, kernels: Tensor) -> Tensor:
        """Maps `[B, C, H, W]` and kernels `[B, C, k, k]`."""
        return converse2d(x, kernels, self.alpha, eps=1e-3)


class Prior(nn.Module):
    """The blocks that all iterations share: 3x3, circular padding 2, residual scales."""

    def __init__(self, num_features: int, num_blocks: int) -> None:
        super().__init__()
        options: dict[str, Any] = {"padding": 2, "residual_scale": True}
        blocks = (ConverseBlock(num_features, 3, **options) for _ in range(num_blocks))
        self.m_body = nn.Sequential(*blocks)
        start_small(self)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to the same shape."""
        return self.m_body(x)


class ConverseUSRNet(nn.Module):
    """Data module and blocks in turn; each iteration has its own 1x1 map of the kernel's maps."""

    def __init__(self, num_features: int = 64, num_blocks: int = 7, num_iterations: int = 5):
        super().__init__()
        self.conv1 = nn.Conv2d(3, num_features, 1)
        self.kernelnet = KernelNet()
        self.convs = nn.ModuleList(nn.Conv2d(16, num_features, 1) for _ in range(num_iterations))
        self.d = DataModule(num_features)
        self.p = Prior(num_features, num_blocks)
        self.conv2 = nn.Conv2d(num_features, 3, 1)

    def forward(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Blurred `[B, C, H, W]` and its kernel `[B, 1, 7, 7]` to sharp."""
        maps = self.kernelnet(kernel)
        x = self.conv1(x)
        for conv in self.convs:
            x = self.p(self.d(x, conv(maps)))
        return self.conv2(x)


def start_small(module: nn.Module) -> None:
    """Initialize the 1x1 convolutions: normal, std 0.02, no bias."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def compile_blocks(model: nn.Module) -> nn.Module:
    """`torch.compile` for each block: one compilation for all that are alike."""
    for module in model.modules():
        if isinstance(module, ConverseBlock):
            # Its own choice of layout breaks the gradient: it cannot view a strided spectrum.
            module.compile(dynamic=False, options={"layout_optimization": False})
    return model
