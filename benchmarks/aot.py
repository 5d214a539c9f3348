"""Compile our programs for accelerators that are not there.

Nothing runs and nothing is timed. What is printed is whether a program compiles, the memory it
plans, what it exchanges between devices, and what its kernels read and write on one GPU.

    pip install "jax[cuda13]"    # for h100, h200
    pip install "jax[tpu]"       # for v5e:2x4 and other slices, as Cloud TPU names them
"""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.experimental.topologies import get_topology_desc
from jax.sharding import SingleDeviceSharding

from benchmarks import ours
from benchmarks.process import Parser, one_line, positive
from benchmarks.suite import Inference, Operator, Training, suite
from benchmarks.table import Table
from train.state import abstract_state, batch_sharding, make_optimizer
from train.step import jit_step, make_step

# Name, bytes of memory, bytes a second, of the data sheets.
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
_PATCHES = Training(batch=16, size=128, blocks=20)
"""The paper's training step, of all devices together."""

_NO_KERNELS = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all"}
_BYTES = {"f32": 4, "f64": 8, "c64": 8, "c128": 16, "bf16": 2, "f16": 2, "s32": 4, "pred": 1}
"""Of an element; what a library works in is of bytes (s8), and is left out."""

_COLUMNS = {
    "compiled in s": ("seconds", ".0f"),
    "temporaries MB": ("temporaries_mb", ".4g"),
    "moved MB": ("moved_mb", ".4g"),
    "/ least": ("over_least", ".1f"),
    "us at full bandwidth": ("microseconds", ".3g"),
}


class Program(NamedTuple):
    """A jitted function, its arguments' shapes on devices, and bytes that it must move."""

    name: str
    fn: Any
    args: tuple[Any, ...]
    must_move: int | None = None


def main() -> int:
    """Compile the programs for the target, and print a line for each."""
    parser = Parser("benchmarks.aot", __doc__, "--quick", "--only")
    parser.add_argument("target", help="h100, h200, or a TPU slice such as v5e:2x4")
    parser.add_argument(
        "--devices", type=positive, default=1, metavar="N", help="GPUs of one machine (default 1)"
    )
    args = parser.parse_args()
    gpu = args.target in _GPUS
    if not gpu and ":" not in args.target:
        parser.error(f"target: got {args.target}; give {', '.join(_GPUS)}, or a slice as v5e:2x4")
    if args.devices > 1 and not gpu:
        parser.error(f"--devices: {args.target} says how many itself; leave it out")
    try:
        devices = _devices(args.target, args.devices)
    except (RuntimeError, NotImplementedError) as problem:
        package = "cuda13" if gpu else "tpu"
        message = one_line(problem).partition(": ")[2]
        parser.error(f'{args.target}: {message}; its compiler comes with "jax[{package}]"')

    chosen = [p for p in programs(devices, quick=args.quick) if (args.only or "") in p.name]
    if not chosen:
        parser.error(f"--only: no program's name contains {args.only!r}")
    table = Table("program", _COLUMNS)
    done = [_compile(program, args.target, table) for program in chosen]
    return 0 if all(done) else 1


def _devices(target: str, count: int) -> list[Any]:
    # The compilers ask for a machine's accelerators otherwise, and wait for those of a cloud.
    jax.config.update("jax_platforms", "cpu")
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", target)
    if target not in _GPUS:
        return list(get_topology_desc(target, "tpu").devices)
    name, memory, bandwidth = _GPUS[target]
    gpu = _HOPPER.format(name=name, memory=memory, bandwidth=bandwidth)
    topology = get_topology_desc(target, "cuda", target_config=gpu, topology=f"1x1x{count}")
    return list(topology.devices)


def programs(devices: list[Any], *, quick: bool) -> Iterator[Program]:
    """The operator by each method, and inference, on one device; the training step on all.

    The networks take "dft" or "direct", which "auto" takes for maps of these sizes on the CPU.
    """
    for row in suite(quick=quick):
        if isinstance(row, Operator) and row.what != "forward prepared":
            args = tuple(_placed(shape, devices[0]) for shape in row.shapes)
            for method in row.methods:
                fn = jax.jit(ours.operator(row, method))
                yield Program(f"{row.name}, {method}", fn, args, least_moved(row))
        elif isinstance(row, Inference):
            yield _inference(row, devices[0])
    yield _training(Training(len(devices), 32, 1) if quick else _PATCHES, devices)


def _inference(row: Inference, device: Any) -> Program:
    model = ours.network(row)
    graphdef, state = nnx.split(model)
    state = jax.tree.map(lambda a: _placed(a.shape, device, a.dtype), state)
    args = [_placed((1, row.size, row.size, model.channels), device)]
    if row.network == "ConverseUSRNet":
        args.append(_placed((model.blur_size, model.blur_size), device))
    fn = jax.jit(lambda state, *args: nnx.merge(graphdef, state)(*args))
    return Program(row.name, fn, (state, *args))


def _placed(shape: tuple[int, ...], device: Any, dtype: Any = "float32") -> Any:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=SingleDeviceSharding(device))


def _training(row: Training, devices: list[Any]) -> Program:
    mesh = ours.mesh_of(devices)
    config, network = ours.training(row)
    optimizer = make_optimizer(config.optimizer, config.steps)
    shape = (row.batch, row.size, row.size, 1)
    image = jax.ShapeDtypeStruct(shape, "float32", sharding=batch_sharding(mesh))
    args = (abstract_state(network, optimizer, mesh), {"input": image, "target": image})
    name = f"{row.name}, {len(devices)} device{'s' * (len(devices) > 1)}"
    return Program(name, jit_step(make_step(config, network, optimizer), mesh), args)


def _compile(program: Program, target: str, table: Table) -> bool:
    start = time.perf_counter()
    try:
        compiled = program.fn.lower(*program.args).compile()
    except jax.errors.JaxRuntimeError as problem:
        table.add(program.name, {}, f"FAILED, {one_line(problem)}")
        return False
    text, plan = compiled.as_text(), compiled.memory_analysis()
    found = {
        "seconds": time.perf_counter() - start,
        "temporaries_mb": plan.temp_size_in_bytes / 1e6,
    }
    if target in _GPUS and program.must_move is not None:
        moved = traffic(text)
        found["moved_mb"] = moved / 1e6
        found["over_least"] = moved / program.must_move
        found["microseconds"] = 1e6 * moved / _GPUS[target][2]
    exchanges = (f"{n} {kind}" for kind, n in sorted(collectives(text).items()))
    table.add(program.name, found, ", ".join(exchanges))
    return True


def least_moved(row: Operator) -> int:
    """Bytes to read and write: map and result; for the gradient the cotangent as well."""
    return (
        4 * row.batch * row.channels * row.size**2 * (1 + row.scale**2 + (row.what == "gradient"))
    )


def collectives(text: str) -> Counter[str]:
    """The exchanges between devices in a compiled program."""
    kinds = "all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute"
    return Counter(re.findall(rf" ({kinds})(?:-start)?\(", text))


def traffic(text: str) -> int:
    """Bytes that the kernels of a program compiled for a GPU read and write, caches left aside.

    Each instruction of the entry is a kernel, or a call of a library, that reads its operands and
    writes its result. What a loop moves is counted once.
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
    """Of all arrays of a type, which is a tuple's or an array's."""
    return sum(
        _BYTES.get(kind, 0) * math.prod(int(side) for side in sides.split(",") if side)
        for kind, sides in re.findall(r"(\w+)\[([\d,]*)\]", shapes)
    )


if __name__ == "__main__":
    sys.exit(main())
