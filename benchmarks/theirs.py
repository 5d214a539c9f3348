"""The PyTorch side of the rows: Algorithm 1 line for line, a tuned operator, the networks; NCHW.

From the text of "Reverse Convolution and Its Applications to Image Restoration" (ICCV 2025);
parameters have the names of the authors' state dicts, so that one dictionary fills both sides.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WIDTH = 64


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
    """Eq. 8-9: `F^-1[(L - conj(FK) . tile(mean_s(FK L) / (mean_s|FK|^2 + lam))) / lam]`, cropped.

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
        enlarge = {"scale": 2, "padding": 2, "padding_mode": "replicate", "eps": 1e-3}
        self.conv_first = nn.Conv2d(3, _WIDTH, 1)
        self.conv_body = _blocks(num_blocks, 5, "replicate")
        self.upconv1, self.upconv2, self.conv_hres = _blocks(3, 5, "replicate")
        self.up1, self.up2 = (Converse2D(_WIDTH, 2, **enlarge) for _ in range(2))
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
