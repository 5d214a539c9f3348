"""Algorithm 1 of the paper in PyTorch, line for line, and the block built on it.

This is what the benchmark races against, and in float64 what it checks against. It is written from
the text of "Reverse Convolution and Its Applications to Image Restoration" (ICCV 2025, Algorithm 1,
eq. 8-9, fig. 2). Layout is PyTorch's own, NCHW, and parameters carry the names of the authors'
state dicts, so that one dictionary fills both sides.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def upsample(x: Tensor, scale: int) -> Tensor:
    """s-fold up-sampling: each pixel becomes the upper-left one of an s x s patch of zeros."""
    b, c, h, w = x.shape
    out = x.new_zeros(b, c, h * scale, w * scale)
    out[..., ::scale, ::scale] = x
    return out


def p2o(psf: Tensor, shape: tuple[int, int]) -> Tensor:
    """Point-spread to optical transfer function: element floor(k/2) goes to the origin."""
    kh, kw = psf.shape[-2:]
    padded = F.pad(psf, (0, shape[1] - kw, 0, shape[0] - kh))
    return torch.fft.fftn(torch.roll(padded, (-(kh // 2), -(kw // 2)), dims=(-2, -1)), dim=(-2, -1))


def splits(a: Tensor, scale: int) -> Tensor:
    """Divide `[..., H, W]` into its s x s distinct (alias) blocks: `[..., H/s, W/s, s^2]`."""
    *lead, h, w = a.shape
    blocks = a.reshape(*lead, scale, h // scale, scale, w // scale)
    n = len(lead)
    return blocks.permute(*range(n), n + 1, n + 3, n, n + 2).flatten(-2)


def converse2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    scale: int = 1,
    padding: int = 0,
    padding_mode: str = "circular",
    eps: float = 1e-5,
) -> Tensor:
    """`F^-1[(L - conj(FK) . tile(mean_s(FK L) / (mean_s|FK|^2 + lam))) / lam]`, cropped.

    `L = conj(FK) F(Y up s) + F(lam X0)`, Y being the padded `x` `[B, C, H, W]`, X0 its nearest
    interpolation, K `weight` `[1, C, kh, kw]` and `lam = sigmoid(b - 9) + eps` with b `bias`
    `[1, C, 1, 1]`. Returns `[B, C, s*H, s*W]`.
    """
    if padding > 0:
        x = F.pad(x, [padding] * 4, mode=padding_mode)
    h, w = x.shape[-2:]
    lam = torch.sigmoid(bias - 9.0) + eps
    y_s = upsample(x, scale)
    x_0 = F.interpolate(x, scale_factor=scale, mode="nearest")

    fk = p2o(weight, (h * scale, w * scale))
    fk_conj = torch.conj(fk)
    fk_2 = torch.pow(torch.abs(fk), 2)
    fky = fk_conj * torch.fft.fftn(y_s, dim=(-2, -1))
    ell = fky + torch.fft.fftn(lam * x_0, dim=(-2, -1))
    fkl = fk.mul(ell)
    fkl_s = torch.mean(splits(fkl, scale), dim=-1, keepdim=False)
    fk2_s = torch.mean(splits(fk_2, scale), dim=-1, keepdim=False)
    fdiv = fkl_s.div(fk2_s + lam)
    fmul = fk_conj * fdiv.repeat(1, 1, scale, scale)
    fout = (ell - fmul) / lam
    out = torch.real(torch.fft.ifftn(fout, dim=(-2, -1)))

    if padding > 0:
        p = scale * padding
        out = out[..., p:-p, p:-p]
    return out


class Converse2D(nn.Module):
    """The operator as a layer: `weight` starts as a softmax of normal values, `bias` (b) at 0."""

    def __init__(self, channels: int, kernel_size: int = 5, **options: Any) -> None:
        super().__init__()
        self.options = options
        taps = torch.randn(1, channels, kernel_size * kernel_size).softmax(dim=-1)
        self.weight = nn.Parameter(taps.reshape(1, channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Apply `converse2d` with this layer's kernel and lambda logit."""
        return converse2d(x, self.weight, self.bias, **self.options)


class LayerNorm(nn.Module):
    """Normalize over the channels at each pixel, then scale and shift per channel."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Channel-first: no transpose, since the FFT behind it wants each map contiguous."""
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
        """`[B, C, H, W]` to the same shape."""
        if self.residual_scale:
            x = x + self.alpha1 * self.conv1(x)
            return x + self.alpha2 * self.conv2(x)
        x = x + self.conv1(x)
        return x + self.conv2(x)
