"""The slow truth: the paper's eq. 4 as a dense least-squares problem, in float64."""

import itertools

import numpy as np

NUMPY_MODES = {
    "circular": "wrap",
    "replicate": "edge",
    "reflect": "reflect",
    "constant": "constant",
}


def blur_matrix(kernel: np.ndarray, shape: tuple[int, int], scale: int) -> np.ndarray:
    """Matrix of ``X -> (X (*) K) down s``; X is ``[sH, sW]`` and the result `shape`, flattened."""
    height, width = shape
    kh, kw = kernel.shape
    matrix = np.zeros((height, width, scale * height, scale * width))
    for n in range(height):
        for m in range(width):
            for a in range(kh):
                for b in range(kw):
                    i = (scale * n - (a - kh // 2)) % (scale * height)
                    j = (scale * m - (b - kw // 2)) % (scale * width)
                    matrix[n, m, i, j] += kernel[a, b]
    return matrix.reshape(height * width, -1)


def converse_map(
    y: np.ndarray,
    kernel: np.ndarray,
    lam: float,
    *,
    scale: int,
    padding: int,
    padding_mode: str,
    x0: str | np.ndarray,
) -> np.ndarray:
    """Minimize ``||y - A x||^2 + lam ||x - x0||^2`` over all maps x, by stacking both terms."""
    y = np.pad(y, padding, mode=NUMPY_MODES[padding_mode])
    initial = np.kron(
        y, np.full((scale, scale), 1.0 if isinstance(x0, str) and x0 == "nearest" else 0.0)
    )
    if not isinstance(x0, str):  # its cells are continued as the pixels of y are
        for i, j in itertools.product(range(scale), repeat=2):
            phase = np.pad(x0[i::scale, j::scale], padding, mode=NUMPY_MODES[padding_mode])
            initial[i::scale, j::scale] = phase
    matrix = blur_matrix(kernel, y.shape, scale)
    stacked = np.vstack([matrix, np.sqrt(lam) * np.eye(matrix.shape[1])])
    target = np.concatenate([y.ravel(), np.sqrt(lam) * initial.ravel()])
    solution = np.linalg.lstsq(stacked, target, rcond=None)[0].reshape(initial.shape)
    border = scale * padding
    return solution[border : solution.shape[0] - border, border : solution.shape[1] - border]


def converse2d(
    x: np.ndarray,
    kernel: np.ndarray,
    lam: np.ndarray,
    *,
    x0: str | np.ndarray,
    **options: int | str,
) -> np.ndarray:
    """`converse_map` for each channel of ``[H, W, C]``."""
    estimates = [x0] * x.shape[-1] if isinstance(x0, str) else np.moveaxis(x0, -1, 0)
    maps = [
        converse_map(x[..., c], kernel[..., c], float(lam[c]), x0=estimates[c], **options)
        for c in range(x.shape[-1])
    ]
    return np.stack(maps, axis=-1)
