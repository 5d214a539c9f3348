"""The operator as one tunes it in PyTorch: the filters of `converse_jax/ops/_closed_form.py`.

`X0 + A^T (A A^T + lam I)^-1 (Y - A X0)` in the phases X_ij of X. Real FFTs of the low resolution
only, no division by lambda; arguments are those of `algorithm1.converse2d`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def converse2d(
    x: Tensor, weight: Tensor, bias: Tensor, *, padding: int = 0, **options: Any
) -> Tensor:
    """From `[B, C, H, W]` to `[B, C, s*H, s*W]`."""
    shape = (x.shape[-2] + 2 * padding, x.shape[-1] + 2 * padding)
    mode = options.pop("padding_mode", "circular")
    return apply(x, *transfer(weight, bias, shape, **options), padding=padding, padding_mode=mode)


def transfer(
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


def apply(x: Tensor, conj: Tensor, gain: Tensor, *, padding: int, padding_mode: str) -> Tensor:
    """Filter a map; each phase is its nearest interpolation, which is the map, and a correction."""
    x = F.pad(x, [padding] * 4, mode=padding_mode) if padding else x
    correction = conj * (gain * torch.fft.rfft2(x))[:, :, None, None]
    phases = x[:, :, None, None] + torch.fft.irfft2(correction, s=x.shape[-2:])
    out = phases.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)
    p = conj.shape[2] * padding
    return out[..., p:-p, p:-p] if p else out
