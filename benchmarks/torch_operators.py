"""The operator in PyTorch: Algorithm 1 of the paper, line for line, and as one tunes it.

Layout is PyTorch's own, NCHW. Algorithm 1 is written from the text of "Reverse Convolution and Its
Applications to Image Restoration" (ICCV 2025, Algorithm 1, eq. 8-9); in float64 it is the truth.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def algorithm1(
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
    h, w = a.shape[-2:]
    blocks = a.unflatten(-2, (scale, h // scale)).unflatten(-1, (scale, w // scale))
    return blocks.movedim((-4, -2), (-2, -1)).flatten(-2)


def tuned(x: Tensor, weight: Tensor, bias: Tensor, *, padding: int = 0, **options: Any) -> Tensor:
    """Algorithm 1 by the filters of `converse_jax/ops/_closed_form.py`.

    `X0 + A^T (A A^T + lam I)^-1 (Y - A X0)` in the phases X_ij of X: real FFTs of the low
    resolution only, no division by lambda.
    """
    shape = (x.shape[-2] + 2 * padding, x.shape[-1] + 2 * padding)
    mode = options.pop("padding_mode", "circular")
    transfer = tuned_transfer(weight, bias, shape, **options)
    return apply_tuned(x, *transfer, padding=padding, padding_mode=mode)


def tuned_transfer(
    weight: Tensor, bias: Tensor, shape: tuple[int, int], *, scale: int = 1, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """What no map enters: `conj(K_ij)` and `(1 - sum K_ij) / (sum |K_ij|^2 + lam)`."""
    k, s, (h, w) = weight.shape[-1], scale, shape
    lam = torch.sigmoid(bias - 9.0) + eps
    center = (k - 1) // 2  # of the flipped kernel, whose phases are those of conj(K)
    front = -center % s
    taps = F.pad(weight.flip(-2, -1), [front, -(front + k) % s] * 2)
    n = taps.shape[-1] // s
    taps = taps.unflatten(-1, (n, s)).unflatten(-3, (n, s)).permute(0, 1, 3, 5, 2, 4)
    start = -(center + front) // s
    phases = F.pad(taps, [0, w - n, 0, h - n]).roll((start, start), dims=(-2, -1))
    conj = torch.fft.rfft2(phases)
    power = (conj.real.square() + conj.imag.square()).sum((2, 3))
    return conj, (1 - conj.sum((2, 3)).conj()) / (power + lam)


def apply_tuned(
    x: Tensor, conj: Tensor, gain: Tensor, *, padding: int, padding_mode: str
) -> Tensor:
    """Filter a map; each phase is its nearest interpolation, which is the map, and a correction."""
    x = F.pad(x, [padding] * 4, mode=padding_mode) if padding else x
    correction = conj * (gain * torch.fft.rfft2(x))[:, :, None, None]
    phases = x[:, :, None, None] + torch.fft.irfft2(correction, s=x.shape[-2:])
    out = phases.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)
    p = conj.shape[2] * padding
    return out[..., p:-p, p:-p] if p else out
