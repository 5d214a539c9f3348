"""Algorithm 1 of the paper in PyTorch, line for line; layout is PyTorch's own, NCHW.

The benchmark races against this, and in float64 checks against it. It is written from the text of
"Reverse Convolution and Its Applications to Image Restoration" (ICCV 2025, Algorithm 1, eq. 8-9).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
