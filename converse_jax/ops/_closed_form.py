r"""The reverse convolution: the closed form of the paper's eq. 4, as a linear filter.

For a map Y, a kernel K, a stride s and lambda > 0, Converse2D is

    X* = argmin_X  || Y - (X (*) K) down s ||^2  +  lambda || X - X0 ||^2 .

Let S be the down-sampler and A = S K the blur and down-sampling as one matrix. The normal
equations, solved for the correction to X0 (push-through identity), read

    X* = X0 + A^T (A A^T + lambda I)^-1 (Y - A X0) .

In the phases X_ij of X (its polyphase components, see `_otf`) A is the row of circulant matrices
[K_ij], so A A^T is one circulant matrix, sum_ij |K_ij|^2 in the Fourier domain. Nearest-neighbor
interpolation makes every phase of X0 equal to Y; X0 = 0 makes them 0. With b = 1 or 0 for these,

    X*_ij = F^-1[ G_ij . F Y ],
    G_ij  = b + conj(K_ij) (1 - b sum_kl K_kl) / (sum_kl |K_kl|^2 + lambda) .

The whole operator is thus s*s linear filters of Y. It is the paper's eq. 6 exactly, without its
division by lambda. Any other X0 is corrected by the filters for X0 = 0, applied to what it leaves
of Y unexplained, Y - A X0.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Array, Float


def closed_form(
    real: Float[Array, "*rest"],
    imag: Float[Array, "*rest"],
    lam: Float[Array, "*#rest"],
    x0: str,
    over_phases: Callable[[Array], Array],
) -> tuple[Float[Array, "*rest"], Float[Array, "*rest"]]:
    """`G_ij = b + conj(K_ij) (1 - b sum K) / (sum |K|^2 + lam)`, see the top of this file.

    Real and imaginary part of G from those of K; `over_phases` sums over i and j. It is written in
    real numbers: a complex division by a real number costs several times as much.
    """
    power = over_phases(real**2 + imag**2)
    gain = 1 / (power + lam)
    if x0 != "nearest":
        return gain * real, -gain * imag
    rest_re = 1 - over_phases(real)
    rest_im = -over_phases(imag)
    return 1 + gain * (real * rest_re + imag * rest_im), gain * (real * rest_im - imag * rest_re)
