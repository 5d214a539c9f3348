"""Sharding: each device computes the maps it holds, whatever kind of axis they are shared over.

Axes of a mesh are Auto (the compiler shards: `partitioned` tells it how), Explicit (the types of
arrays say how they are sharded: `over_explicit_axes`), or Manual (inside `jax.shard_map`:
`match_varying_axes`). The gradient of an argument that devices share (a kernel) is summed where it
is smallest: as the argument itself, not as its spectrum.

XLA's multi-device TPU compiler does not support custom partitioning
(github.com/jax-ml/jax/issues/38196), and is given the function itself, as exported programs are. It
splits matrix products over a batch, but gathers the batch for an FFT.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array

# The axes of our maps along which nothing is shared: groups (maps with a kernel of their own),
# examples (maps of one group, which share their kernel), and channels.
INDEPENDENT = ("m", "n", "c")


def no_mesh() -> Any:
    """For tracing what one device computes: the mesh of the caller is not that of its arrays."""
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ()))


@functools.cache
def needs_devices() -> Any:
    """A parameter for primitives that are lowered to custom partitioning.

    JAX lowers a program for given devices only where it finds this primitive, also in parameters.
    """
    call = custom_partitioning(lambda x: x)
    call.def_partition(partition=None, sharding_rule="i -> i")
    return jax.make_jaxpr(call)(jax.ShapeDtypeStruct((1,), "float32"))


def partitioned(
    fn: Callable[..., list[Any]], inputs: list[str], outputs: list[str]
) -> Callable[..., list[Any]]:
    """fn, local to each device under `jit`; the labels are those of a `Function`."""
    call = custom_partitioning(fn)

    def partition(mesh: Any, args: Any, results: Any) -> tuple[Any, Any, Any, Any]:
        axes = _mesh_axes(inputs, [arg.sharding for arg in args])
        sizes = {
            label: size
            for arg, labels in zip(args, inputs, strict=True)
            for label, size in zip(labels.split(), arg.shape, strict=True)
        }
        for label in [a for a in axes if not all(a in labels.split() for labels in outputs)]:
            # The compiler fills a last, smaller share up with anything: it may not enter a sum.
            if sizes[label] % math.prod(mesh.shape[name] for name in axes[label]):
                del axes[label]

        sharding = functools.partial(_sharding, mesh, axes)

        def local(*arrays: jax.Array) -> list[jax.Array]:
            with no_mesh():
                results = fn(*arrays)
            return [
                _sum_over_devices(result, labels, axes)
                for result, labels in zip(results, outputs, strict=True)
            ]

        return mesh, local, list(map(sharding, outputs)), tuple(map(sharding, inputs))

    # In order of first appearance, as the compiler insists.
    factors = dict.fromkeys(" ".join(inputs + outputs).split())
    call.def_partition(
        partition=partition,
        sharding_rule=f"{', '.join(inputs)} -> {', '.join(outputs)}",
        need_replication_factors=tuple(f for f in factors if f not in INDEPENDENT),
    )
    return call


def _mesh_axes(inputs: list[str], shardings: list[Any]) -> dict[str, tuple[str, ...]]:
    """Mesh axes of each independent axis: those of the first (largest) argument that has any."""
    axes: dict[str, tuple[str, ...]] = {}
    for labels, sharding in zip(inputs, shardings, strict=True):
        spec = sharding.spec if isinstance(sharding, NamedSharding) else ()
        for label, names in zip(labels.split(), spec, strict=False):
            names = (names,) if isinstance(names, str) else tuple(names or ())
            free = names and label in INDEPENDENT and label not in axes
            if free and not any(name in used for used in axes.values() for name in names):
                axes[label] = names
    return axes


def _sharding(mesh: Any, axes: dict[str, tuple[str, ...]], labels: str) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(*(axes.get(a) for a in labels.split())))


def _sum_over_devices(
    result: jax.Array, labels: str, axes: dict[str, tuple[str, ...]]
) -> jax.Array:
    """Sum a result over the mesh axes of those independent axes that it does not have."""
    summed = [name for label in axes if label not in labels.split() for name in axes[label]]
    return jax.lax.psum(result, tuple(summed)) if summed else result


def explicit_axes(mesh: Any) -> tuple[str, ...]:
    """Names of the Explicit axes of a mesh."""
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in kinds if kind == AxisType.Explicit)


def is_sharded(types: Any) -> bool:
    """Whether types name Explicit axes."""
    return any(
        AxisType.Explicit in t.sharding.mesh.axis_types and any(t.sharding.spec) for t in types
    )


def unsharded(types: Any) -> list[Any]:
    """The same types without sharding."""
    with no_mesh():
        return [jax.core.ShapedArray(t.shape, t.dtype) for t in types]


def sharded_types(results: Any, inputs: list[str], types: Any, outputs: list[str]) -> list[Any]:
    """Types of results, sharded as the arguments are: what `partitioned` makes of them."""
    mesh = next(t.sharding.mesh for t in types if AxisType.Explicit in t.sharding.mesh.axis_types)
    axes = _mesh_axes(inputs, [t.sharding for t in types])
    return [
        jax.core.ShapedArray(r.shape, r.dtype, sharding=_sharding(mesh, axes, labels))
        for r, labels in zip(results, outputs, strict=True)
    ]


def over_explicit_axes(
    fn: Callable[..., Any], arrays: tuple[Array, ...], inputs: tuple[str, ...], outputs: Any
) -> Any:
    """`fn(*arrays)`, local to each device along the Explicit axes that the arrays' types name.

    Args:
        fn: treats the leading axes of its arguments, which broadcast, and channels independently.
        arrays: its arguments.
        inputs: labels of the last axes of each argument; "c" is that of the channels.
        outputs: the same for the results, a pytree like them.
    """
    meshes = [jax.typeof(a).sharding.mesh for a in arrays]
    mesh = next((mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types), None)
    if mesh is None:
        return fn(*arrays)
    split = [
        (a.shape, jax.typeof(a).sharding.spec, len(s.split()))
        for a, s in zip(arrays, inputs, strict=True)
    ]
    # Names of the mesh axes of each leading axis, counted from the last, and of the channels.
    names: dict[Any, Any] = {}
    for (shape, spec, core), labels in zip(split, inputs, strict=True):
        batch = len(shape) - core
        found: dict[Any, Any] = {batch - 1 - i: spec[i] for i in range(batch) if shape[i] > 1}
        channels = labels.split().index("c") if "c" in labels.split() else None
        found |= {} if channels is None else {"c": spec[batch + channels]}
        for axis, name in found.items():
            taken = itertools.chain(*(_names(n) for n in names.values()))
            if name is not None and axis not in names and not set(_names(name)) & set(taken):
                names[axis] = name

    def spec_of(shape: tuple[int, ...] | None, batch: int, labels: str) -> PartitionSpec:
        leading = [
            names.get(batch - 1 - i) if shape is None or shape[i] > 1 else None
            for i in range(batch)
        ]
        return PartitionSpec(
            *leading, *(names.get("c") if s == "c" else None for s in labels.split())
        )

    specs = tuple(
        spec_of(shape, len(shape) - core, labels)
        for (shape, _, core), labels in zip(split, inputs, strict=True)
    )
    arrays = tuple(
        jax.reshard(a, NamedSharding(mesh, s)) for a, s in zip(arrays, specs, strict=True)
    )
    if not names:  # an axis may yet be mapped by a `vmap` around
        return fn(*arrays)
    batch = max(len(shape) - core for shape, _, core in split)
    out = jax.tree.map(lambda labels: spec_of(None, batch, labels), outputs)
    explicit = explicit_axes(mesh)
    if AxisType.Auto in mesh.axis_types:  # inside a `shard_map` over some axes no other is parted
        shardings = jax.tree.map(functools.partial(NamedSharding, mesh), out)
        return jax.sharding.auto_axes(fn, axes=explicit, out_sharding=shardings)(*arrays)
    # To name none is to name all but those that a `vmap` around has mapped.
    manual = set() if len(explicit) == len(mesh.axis_names) else set(explicit)
    return jax.shard_map(fn, mesh=mesh, in_specs=specs, out_specs=out, axis_names=manual)(*arrays)


def _names(name: Any) -> tuple[str, ...]:
    return (name,) if isinstance(name, str) else tuple(name or ())


def match_varying_axes(*arrays: Array) -> tuple[Array, ...]:
    """Inside `jax.shard_map`, mark a replicated kernel as varying before its spectrum is taken.

    The transpose of this cast is the sum over devices: made here, it moves a kernel's gradient,
    made later it would move a whole spectrum.
    """
    axes = frozenset[str]().union(*map(_varying_axes, arrays))
    return tuple(
        jax.lax.pcast(a, tuple(missing), to="varying") if missing else a
        for a, missing in ((a, axes - _varying_axes(a)) for a in arrays)
    )


def _varying_axes(x: Array) -> frozenset[str]:
    """Mesh axes over which x differs inside `shard_map`; JAX moved the attribute in 0.10."""
    kind = jax.typeof(x)
    manual = getattr(kind, "manual_axis_type", None)
    return getattr(kind, "vma", frozenset()) if manual is None else manual.varying
