"""What the layers that apply the operator share: its method, its sharding, its preparation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from converse_jax.ops import (
    InitialEstimate,
    Method,
    PaddingMode,
    Transfer,
    apply_transfer,
    converse2d,
    converse2d_transfer,
)
from converse_jax.ops._checks import check_choice
from converse_jax.ops._options import PreparedEstimate

M = TypeVar("M", bound=nnx.Module)


class TransferState(nnx.Variable[Transfer]):
    """A prepared transfer function; `nnx.state(model, TransferState)` are those of a model."""


@dataclass(frozen=True)
class SpatialSharding:
    """The mesh axis over which the maps of single images are shared, see `shard_spatially`."""

    mesh: Mesh
    axis: str

    def over(self, x: Float[Array, "*batch C"], axes: int, dimension: int) -> Array:
        """x with one of its last axes shared, and whole along the others of them."""
        explicit = self.mesh.axis_types[self.mesh.axis_names.index(self.axis)] == AxisType.Explicit
        leading = (
            jax.typeof(x).sharding.spec if explicit else [PartitionSpec.UNCONSTRAINED] * x.ndim
        )
        parts: list[Any] = [*leading[: x.ndim - axes], *[None] * axes]
        parts[dimension] = self.axis
        sharding = NamedSharding(self.mesh, PartitionSpec(*parts))
        share = jax.reshard if explicit else jax.lax.with_sharding_constraint
        return share(x, sharding)


class Preparation:
    """What `prepare` has seen of the operators of a network."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str], tuple[Any, tuple[Any, ...]]] = {}

    def same(self, operator: Operator, name: str, source: tuple[Any, ...]) -> bool:
        """Whether an operator is called with the sources of its first call of this name."""
        _, first = self._seen.setdefault((id(operator), name), (operator, source))
        return all(a is b for a, b in zip(first, source, strict=True))


class Operator(nnx.Module):
    """Base of the layers whose call is `converse2d` with a kernel of theirs.

    Attributes:
        method: see `converse2d`.
        spatial_sharding: set by `shard_spatially`.
        preparing: set by `prepare` while it looks on: transfer functions are kept, none is applied.
    """

    spatial: ClassVar[int] = 2

    def __init__(self, *, method: Method = "auto") -> None:
        """Take the static attributes; `Module.set_attributes` changes them later."""
        self.method = method
        self.spatial_sharding: SpatialSharding | None = None
        self.preparing: Preparation | None = None
        self.transfers: nnx.Dict[TransferState] = nnx.Dict()

    def operate(
        self,
        x: Float[Array, "*batch H W C"],
        kernel: Float[Array | np.ndarray, "*kernels kh kw C"] | None,
        lam: Float[Array, "*lams"],
        *,
        scale: int = 1,
        padding: int = 0,
        padding_mode: PaddingMode = "circular",
        x0: InitialEstimate | Float[Array, "*estimates sH sW C"] = "nearest",
        source: tuple[Any, ...] | None = None,
    ) -> Float[Array, "*broadcast sH sW C"]:
        """`converse2d`, from a prepared transfer function if there is one for this size.

        A kernel of None stands for the one that was prepared. `source` is what kernel and lambda
        are computed from, if not themselves: calls from different sources share no preparation.
        """
        border: dict[str, Any] = {"padding": padding, "padding_mode": padding_mode}
        how: dict[str, Any] = {"scale": scale, "method": self.method}
        kind: PreparedEstimate = x0 if isinstance(x0, str) else "array"
        estimate: dict[str, Any] = {} if isinstance(x0, str) else {"x0": x0}
        padded = (x.shape[-3] + 2 * padding, x.shape[-2] + 2 * padding)
        name = f"{padded[0]}x{padded[1]}_x{scale}_{kind}"
        if name in self.transfers and not self.preparing:
            transfer = self.transfers[name].get_value()
            return self._sharded(lambda x: apply_transfer(x, transfer, **border, **estimate), x)
        if kernel is None:
            raise ValueError(
                f"kernel: got none, and nothing is prepared for {padded[0]}x{padded[1]}"
            )
        if not self.preparing:
            options = {"x0": x0, **how, **border}
            return self._sharded(lambda x: converse2d(x, kernel, lam, **options), x)
        self._prepare(
            name,
            source or (kernel, lam),
            lambda: converse2d_transfer(kernel, lam, padded, x0=kind, **how),
        )
        # No kernel depends on a map: zeros have the shape, and cost nothing.
        size = (scale * x.shape[-3], scale * x.shape[-2])
        return jnp.zeros((*x.shape[:-3], *size, x.shape[-1]), x.dtype)

    def _prepare(self, name: str, source: tuple[Any, ...], make: Callable[[], Transfer]) -> None:
        """Keep the transfer function, or none where one size is seen with several kernels."""
        assert self.preparing is not None
        if not self.preparing.same(self, name, source):
            self.transfers.pop(name, None)
        elif name not in self.transfers:
            self.transfers[name] = TransferState(make())

    def _sharded(self, operator: Callable[[Array], Array], x: Array) -> Array:
        shared = self.spatial_sharding
        if shared is None:
            return operator(x)
        # Named on both sides of each exchange: the compiler would else share out the channels
        # between the operators too, and gather them for each sum over channels.
        axes = 1 + min(self.spatial, 2)  # of a volume, the rows of its planes are shared
        y = operator(shared.over(shared.over(x, axes, -axes), axes, -1))
        return shared.over(shared.over(y, axes, -1), axes, -axes)


def use_method(model: nnx.Module, method: Method) -> None:
    """Have all reverse convolutions of a network computed by a method of `converse2d`.

    "auto" leaves those as they are that were made with a method. Signals and volumes know
    "fft" alone.

    Raises:
        ValueError: an unknown method.
    """
    check_choice("method", method, Method)
    if method != "auto":
        model.set_attributes(Operator, method=method, raise_if_not_found=False)


def shard_spatially(model: M, mesh: Mesh, axis: str) -> M:
    """A copy of a network that shares the maps of single images over a mesh axis.

    Between the operators each device holds some rows of every map; around an operator it holds all
    rows of some channels, as each operator reads whole maps. An operator so costs two exchanges of
    its map, each of `(devices - 1) / devices` of it, and no device ever holds a whole one. The
    result is that of one device, to rounding. The number of channels inside the blocks, twice the
    width, should be a multiple of the number of devices; rows and channels that do not divide
    evenly are padded by the compiler.

        y = nnx.jit(shard_spatially(model, mesh, "rows"))(x)

    Args:
        model: a network of this package, or any module made of its layers.
        mesh: the devices.
        axis: name of the mesh axis that is shared.
    """
    model = nnx.clone(model)
    model.set_attributes(Operator, spatial_sharding=SpatialSharding(mesh, axis))
    return model


def prepare(model: M, x: Any, *args: Any) -> M:
    """A copy of a network whose operators hold their transfer functions for images like x.

        denoise = nnx.jit(prepare(model, jax.ShapeDtypeStruct((1, 256, 256, 1), jnp.float32)))
        clean = [denoise(image) for image in images]

    An operator then costs the transforms alone. What is prepared takes as much memory as one
    feature map of each operator; `nnx.pop(model, TransferState)` gives it back. Images of other
    sizes are restored as before, and so are operators that see several kernels at one size.
    Parameters are captured: later updates are not seen.

    Args:
        model: a network of this package, or any module made of its layers, under `nnx.jit`,
            `nnx.remat`, `nnx.scan` and `nnx.vmap` as well; within a bare `jax.jit` nothing is
            prepared.
        x: images, or a `jax.ShapeDtypeStruct` of their shape.
        *args: further arguments of the network, as the blur kernel of Converse-USRNet, which is
            then left out of the calls.
    """
    given, state = nnx.split(model)
    prepared: Any = None

    def look_on(state: Any, *args: Any) -> Any:
        # Not `nnx.jit`: JAX's caches would keep a description of each model that had a
        # `Preparation`. All other work of the network is left out by the compiler.
        nonlocal prepared
        model = nnx.merge(given, state)
        model.set_attributes(Operator, preparing=Preparation(), raise_if_not_found=False)
        model(jnp.zeros(x.shape, x.dtype), *args)
        model.set_attributes(Operator, preparing=None, raise_if_not_found=False)
        prepared, state = nnx.split(model)
        return state

    state = jax.jit(look_on)(state, *args)
    return nnx.merge(prepared, state)
