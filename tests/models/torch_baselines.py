"""The baselines once more in PyTorch, written from their descriptions alone, parameters by name.

Nothing here is shared with the networks under test. Every function takes the numbers of a network
of ours as `{dotted name: array}` and images `[N, H, W, C]`, and puts each into PyTorch's layout.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

Numbers = Mapping[str, np.ndarray]


def tensor(x: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(x))


def to_maps(x: np.ndarray) -> torch.Tensor:
    return tensor(x).permute(0, 3, 1, 2)


def from_maps(x: torch.Tensor) -> np.ndarray:
    return np.asarray(x.permute(0, 2, 3, 1))


class Layers:
    """PyTorch's functions with the parameters of one part of a network."""

    def __init__(self, numbers: Numbers, prefix: str = "") -> None:
        self.numbers, self.prefix = numbers, prefix

    def __getitem__(self, name: str) -> "Layers":
        return Layers(self.numbers, f"{self.prefix}{name}.")

    def value(self, name: str) -> torch.Tensor | None:
        found = self.numbers.get(self.prefix + name)
        return None if found is None else tensor(found)

    def pointwise(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.value("kernel").T[:, :, None, None], self.value("bias"))

    def conv3x3(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.value("kernel").permute(3, 2, 0, 1)
        return F.conv2d(x, weight, self.value("bias"), padding=1)

    def layer_norm(self, x: torch.Tensor) -> torch.Tensor:
        y = x.permute(0, 2, 3, 1)
        y = F.layer_norm(y, y.shape[-1:], self.value("scale"), self.value("bias"), 1e-5)
        return y.permute(0, 3, 1, 2)

    def depthwise(self, x: torch.Tensor, pad: tuple[int, int, int, int], mode: str) -> torch.Tensor:
        weight = self.value("kernel").permute(2, 0, 1)[:, None]
        return F.conv2d(F.pad(x, pad, mode), weight, self.value("bias"), groups=x.shape[1])

    def depthwise_transposed(self, x: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
        weight = self.value("kernel").permute(2, 0, 1)[:, None]
        groups = x.shape[1]
        return F.conv_transpose2d(x, weight, self.value("bias"), stride, padding, groups=groups)


def block(
    layers: Layers, x: torch.Tensor, spatial: Callable[[Layers, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    y = F.gelu(layers["expand1"].pointwise(layers["norm1"].layer_norm(x)))
    y = layers["project1"].pointwise(F.gelu(spatial(layers["spatial"], y)))
    scales = [layers.value(name) for name in ("scale1", "scale2")]
    x = x + (y if scales[0] is None else y * scales[0][:, None, None])
    y = F.gelu(layers["expand2"].pointwise(layers["norm2"].layer_norm(x)))
    y = layers["project2"].pointwise(y)
    return x + (y if scales[1] is None else y * scales[1][:, None, None])


def conv_same(mode: str, size: int) -> Callable[[Layers, torch.Tensor], torch.Tensor]:
    return lambda layers, x: layers.depthwise(x, (size // 2,) * 4, mode)


def conv_transpose_same(size: int) -> Callable[[Layers, torch.Tensor], torch.Tensor]:
    return lambda layers, x: layers.depthwise_transposed(x, 1, size // 2)


def stack(
    numbers: Numbers,
    x: np.ndarray,
    blocks: int,
    spatial: Callable[[Layers, torch.Tensor], torch.Tensor],
    times=1,
) -> np.ndarray:
    """1x1 in, the blocks, `times` times over, 1x1 out."""
    layers = Layers(numbers)
    y = layers["head"].pointwise(to_maps(x))
    for _ in range(times):
        for i in range(blocks):
            y = block(layers[f"body.{i}"], y, spatial)
    return from_maps(layers["tail"].pointwise(y))


def dncnn(numbers: Numbers, x: np.ndarray, inner: int, *, training: bool) -> np.ndarray:
    """The image minus the noise that a chain of convolutions finds."""
    layers = Layers(numbers)
    image = to_maps(x)
    y = F.relu(layers["head"].conv3x3(image))
    for i in range(inner):
        y, norm = layers[f"body.{i}"].conv3x3(y), layers[f"norms.{i}"]
        statistics = [norm.value(name).clone() for name in ("mean", "var")]
        y = F.batch_norm(
            y, *statistics, norm.value("scale"), norm.value("bias"), training, eps=1e-5
        )
        y = F.relu(y)
    return from_maps(image - layers["tail"].conv3x3(y))


def _bilinear(x: torch.Tensor, scale: int) -> torch.Tensor:
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


def conv_srresnet(numbers: Numbers, x: np.ndarray, blocks: int, *, transposed: bool) -> np.ndarray:
    """x4: blocks, twice an enlargement, a block, with GELU after each part."""
    layers, image = Layers(numbers), to_maps(x)
    spatial = conv_transpose_same(5) if transposed else conv_same("replicate", 5)
    y = F.gelu(layers["head"].pointwise(image))
    for i in range(blocks):
        y = block(layers[f"body.{i}"], y, spatial)
    for i in range(2):
        if transposed:
            y = F.gelu(layers[f"upsamplers.{i}.layers.0"].depthwise_transposed(y, 2, 2))
            y = F.pad(y, (1, 0, 1, 0))
        else:
            y = F.interpolate(y, scale_factor=2, mode="nearest")
            y = F.gelu(layers[f"upsamplers.{i}.layers.1"].depthwise(y, (0, 1, 0, 1), "constant"))
    y = F.gelu(block(layers["high_block"], y, spatial))
    return from_maps(layers["tail"].pointwise(y) + _bilinear(image, 4))


def reverse(
    y: torch.Tensor,
    kernel: torch.Tensor,
    lam: torch.Tensor,
    scale: int,
    x0: torch.Tensor | None = None,
) -> torch.Tensor:
    """Minimizes `|y - (x * k) down s|^2 + lam |x - x0|^2` by solving the linear equations."""
    n, channels, height, width = y.shape
    H, W = scale * height, scale * width
    x0 = F.interpolate(y, scale_factor=scale, mode="nearest") if x0 is None else x0
    result = torch.empty(n, channels, H, W, dtype=torch.float64)
    kh, kw = kernel.shape[-3:-1]
    for i in range(n):
        for c in range(channels):
            k = (kernel[i] if kernel.ndim == 4 else kernel)[..., c].double()
            matrix = torch.zeros(height, width, H, W, dtype=torch.float64)
            for p in range(height):
                for q in range(width):
                    for a in range(kh):
                        for b in range(kw):
                            row, column = scale * p - (a - kh // 2), scale * q - (b - kw // 2)
                            matrix[p, q, row % H, column % W] += k[a, b]
            A = matrix.reshape(height * width, H * W)
            strength = lam[c].double()
            normal = A.T @ A + strength * torch.eye(H * W, dtype=torch.float64)
            right = A.T @ y[i, c].double().reshape(-1) + strength * x0[i, c].double().reshape(-1)
            result[i, c] = torch.linalg.solve(normal, right).reshape(H, W)
    return result.float()


def srresnet(numbers: Numbers, x: np.ndarray, blocks: int, upsampler: str) -> np.ndarray:
    """x2: residual blocks of two convolutions, one enlargement, two convolutions."""
    layers, image = Layers(numbers), to_maps(x)
    between = F.gelu if upsampler != "pixel_shuffle" else lambda x: F.leaky_relu(x, 0.1)
    y = between(layers["head"].conv3x3(image))
    for i in range(blocks):
        part = layers[f"body.{i}"]
        y = y + part["conv2"].conv3x3(F.relu(part["conv1"].conv3x3(y)))
    first, second = layers["upsamplers.0.layers.0"], layers["upsamplers.0.layers.1"]
    if upsampler == "pixel_shuffle":
        # Ours counts the channels of the pixels of a cell, PyTorch the pixels of a channel.
        y = first.conv3x3(y)
        y = y.unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2)
        y = F.pixel_shuffle(y, 2)
    elif upsampler == "nearest":
        y = second.conv3x3(F.interpolate(y, scale_factor=2, mode="nearest"))
    elif upsampler == "conv_transpose":
        y = second.conv3x3(first.depthwise_transposed(y, 2, 0))
    else:
        y = F.pad(first.conv3x3(y), (2,) * 4, "circular")
        lam = torch.sigmoid(second.value("lam_logit") - 9) + 1e-5
        y = reverse(y, second.value("kernel"), lam, 2)[..., 4:-4, 4:-4]
    y = between(layers["high"].conv3x3(between(y)))
    return from_maps(layers["tail"].conv3x3(y) + _bilinear(image, 2))


def conv_usrnet(
    numbers: Numbers, x: np.ndarray, kernels: np.ndarray, blocks: int, iterations: int
) -> np.ndarray:
    """Least squares with the image so far as the estimate, then the denoiser."""
    inner = {
        name.removeprefix("denoiser."): value
        for name, value in numbers.items()
        if name.startswith("denoiser.")
    }
    y, z = to_maps(x), to_maps(x)
    of_channels = tensor(kernels)[..., None].expand(*kernels.shape, y.shape[1])
    for i in range(iterations):
        lam = torch.sigmoid(tensor(numbers["lam_logit"])[i] - 9) + 1e-3
        solved = from_maps(reverse(y, of_channels, lam, 1, z))
        z = to_maps(stack(inner, solved, blocks, conv_same("circular", 3)))
    return from_maps(z)
