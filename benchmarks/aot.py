"""Compile our programs ahead of time for accelerators that are not there; nothing runs.

Prints the memory that they plan, their exchanges, and what their kernels move on one GPU.
"""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
from jax.experimental.topologies import get_topology_desc
from jax.sharding import SingleDeviceSharding

from benchmarks import ours
from benchmarks.command import Parser, Table
from benchmarks.suite import Network, Operator, suite
from converse_jax.messages import one_line
from train.state import BATCH_AXIS, abstract_state, batch_sharding
from train.step import jit_step, make_step

# Name, bytes of memory and bytes a second, from the data sheets.
_GPUS = {
    "h100": ("NVIDIA H100 80GB HBM3", 84_929_347_584, 3_350_000_000_000),
    "h200": ("NVIDIA H200", 150_754_820_096, 4_800_000_000_000),
}
_HOPPER = """
    gpu_device_info {{
      cuda_compute_capability {{ major: 9 }}  core_count: 132  fpus_per_core: 128
      clock_rate_ghz: 1.98  threads_per_warp: 32  threads_per_block_limit: 1024
      threads_per_core_limit: 2048  registers_per_core_limit: 65536
      registers_per_block_limit: 65536  shared_memory_per_block: 49152
      shared_memory_per_core: 233472  shared_memory_per_block_optin: 232448
      block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
      l2_cache_size: 52428800  device_memory_size: {memory}  memory_bandwidth: {bandwidth}
    }}
    platform_name: "CUDA"  device_description_str: "{name}"
    runtime_version {{ major: 12 minor: 8 }}  dnn_version_info {{ major: 9 minor: 7 }}
"""
_STEP = Network("training step", "ConverseDnCNN", 128, 20, batch=16)  # the paper's

_NO_KERNELS = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all"}
_BYTES = {"f32": 4, "f64": 8, "c64": 8, "c128": 16, "bf16": 2, "f16": 2, "s32": 4, "pred": 1}
"""Of an element. The workspace of a library is an array of s8, and is left out."""

_COLUMNS = {
    "compiled in s": ".0f",
    "temporaries MB": ".4g",
    "moved MB": ".4g",
    "/ least": ".1f",
    "us at full bandwidth": ".3g",
}


class Program(NamedTuple):
    """A jitted function, its arguments' shapes on devices, and bytes that it must move."""

    name: str
    fn: Any
    args: list[Any]
    must_move: int | None = None


def main() -> int:
    """Run the command; the exit status."""
    parser = Parser("benchmarks.aot", __doc__, "--quick")
    parser.add_argument("target", help="h100, h200 (h100:4 for four), or a TPU slice as v5e:2x4")
    args = parser.parse_args()
    kind, colon, shape = args.target.partition(":")
    if kind not in _GPUS and not colon:
        parser.error(f"target: got {kind}; give {', '.join(_GPUS)}, or a TPU slice as v5e:2x4")
    try:
        devices = _devices(kind, shape)
    except (RuntimeError, NotImplementedError, ValueError) as problem:
        compiler = f'its compiler comes with "jax[{"cuda13" if kind in _GPUS else "tpu"}]"'
        parser.error(f"{args.target}: {one_line(problem, 160)}; {compiler}")
    table = Table("program", _COLUMNS)
    done = [_compile(program, kind, table) for program in programs(devices, quick=args.quick)]
    return 0 if all(done) else 1


def _devices(kind: str, shape: str) -> list[Any]:
    # The compilers ask for a machine's accelerators otherwise, and wait for those of a cloud.
    jax.config.update("jax_platforms", "cpu")
    if kind not in _GPUS:
        target = f"{kind}:{shape}"
        os.environ["TPU_SKIP_MDS_QUERY"] = "1"
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        os.environ.setdefault("TPU_ACCELERATOR_TYPE", target)
        return list(get_topology_desc(target, "tpu").devices)
    name, memory, bandwidth = _GPUS[kind]
    gpu = _HOPPER.format(name=name, memory=memory, bandwidth=bandwidth)
    topology = get_topology_desc(kind, "cuda", target_config=gpu, topology=f"1x1x{shape or 1}")
    return list(topology.devices)


def programs(devices: list[Any], *, quick: bool) -> Iterator[Program]:
    """The operator by each method, and inference, on one device; the training step on all.

    The networks take "dft" or "direct", which "auto" takes for maps of these sizes on the CPU.
    """
    one = SingleDeviceSharding(devices[0])
    for row in suite(quick=quick):
        if row.what in ("forward prepared", "training step"):
            continue
        args = [_placed(shape, one) for shape in row.shapes]
        if isinstance(row, Operator):
            for method in row.methods:
                fn = jax.jit(ours.operator(row, method))
                yield Program(f"{row.name}, {method}", fn, args, least_moved(row))
        else:
            pure, state = ours.pure(ours.network(row))
            state = jax.tree.map(lambda a: _placed(a.shape, one), state)
            yield Program(row.name, jax.jit(pure), [state, *args])
    mesh = jax.make_mesh((len(devices),), (BATCH_AXIS,), devices=devices)
    step = replace(_STEP, size=32, blocks=1, batch=len(devices)) if quick else _STEP
    config, network, optimizer = ours.training(step)
    image = _placed(step.shapes[0], batch_sharding(mesh))
    args = [abstract_state(network, optimizer, mesh), {"input": image, "target": image}]
    name = f"{step.name}, {len(devices)} device{'s' * (len(devices) > 1)}"
    yield Program(name, jit_step(make_step(config, network, optimizer), mesh), args)


def _placed(shape: tuple[int, ...], sharding: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, "float32", sharding=sharding)


def _compile(program: Program, kind: str, table: Table) -> bool:
    start = time.perf_counter()
    try:
        compiled = program.fn.lower(*program.args).compile()
    except jax.errors.JaxRuntimeError as problem:
        table.add(program.name, [], f"FAILED, {one_line(problem, 160)}")
        return False
    seconds, text = time.perf_counter() - start, compiled.as_text()
    found = [seconds, compiled.memory_analysis().temp_size_in_bytes / 1e6]
    if kind in _GPUS and program.must_move is not None:
        moved = traffic(text)
        found += [moved / 1e6, moved / program.must_move, 1e6 * moved / _GPUS[kind][2]]
    exchanges = (f"{n} {name}" for name, n in sorted(collectives(text).items()))
    table.add(program.name, found, ", ".join(exchanges))
    return True


def least_moved(row: Operator) -> int:
    """Bytes of the map and the result; for the gradient of the cotangent as well."""
    maps = 1 + row.scale**2 + (row.what == "gradient")
    return 4 * row.batch * row.channels * row.size**2 * maps


def collectives(text: str) -> Counter[str]:
    """The exchanges between devices in a compiled program."""
    kinds = "all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute"
    return Counter(re.findall(rf" ({kinds})(?:-start)?\(", text))


def traffic(text: str) -> int:
    """Bytes that the kernels of a program compiled for a GPU read and write, without caches.

    Each instruction of the entry is a kernel or a library call that reads its operands and writes
    its result. What a loop moves is counted once.
    """
    entry = text[text.index("\nENTRY ") :]
    instruction = r"^\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([\w-]+)\((.*?)\)(?:,|$)"
    sizes: dict[str, int] = {}
    total = 0
    for name, result, kind, operands in re.findall(instruction, entry, re.MULTILINE):
        sizes[name] = _nbytes(result)
        if kind not in _NO_KERNELS and not kind.endswith("-done"):
            read = re.findall(r"%([\w.-]+)", operands)
            total += sizes[name] + sum(sizes.get(operand, 0) for operand in read)
    return total


def _nbytes(shapes: str) -> int:
    """Bytes of an array, or of all arrays of a tuple, by its type in HLO."""
    return sum(
        _BYTES.get(kind, 0) * math.prod(int(side) for side in sides.split(",") if side)
        for kind, sides in re.findall(r"(\w+)\[([\d,]*)\]", shapes)
    )


if __name__ == "__main__":
    sys.exit(main())
