"""`python -m benchmarks.aot TARGET`: programs compiled for accelerators that are not there.

The compilers of GPUs and TPUs need none of them to compile. Nothing runs, so that nothing is timed:
what is seen is whether the programs compile, what memory they plan, what they exchange between
devices, and how many bytes their kernels read and write.

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

from benchmarks.methods import valid_methods
from benchmarks.process import Parser, positive
from benchmarks.suite import Inference, Operator, Training, suite

_GPUS = {"h100": ("NVIDIA H100 80GB HBM3", 84_929_347_584, 3_350_000_000_000)}
_GPUS["h200"] = ("NVIDIA H200", 150_754_820_096, 4_800_000_000_000)
"""Name, bytes of memory, bytes a second: from the data sheets."""
_PATCHES = Training(batch=16, size=128, blocks=20)
"""The paper's training step, of all devices together."""

_NO_KERNELS = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all"}
_BYTES = {"f32": 4, "f64": 8, "c64": 8, "c128": 16, "bf16": 2, "f16": 2, "s32": 4, "pred": 1}
"""Of an element; what a library works in is of bytes (s8), and is left out."""


class Program(NamedTuple):
    """A jitted function, its arguments' shapes on devices, and bytes that it must move."""

    name: str
    fn: Any
    args: tuple[Any, ...]
    must_move: int | None = None


def main() -> int:
    """Compile the programs for the target, and print a line for each."""
    parser = Parser(prog="python -m benchmarks.aot", description=__doc__)
    parser.add_argument("target", help="h100, h200, or a TPU slice such as v5e:2x4")
    parser.add_argument(
        "--devices", type=positive, default=1, help="GPUs of one machine (default 1)"
    )
    parser.add_argument("--quick", action="store_true", help="the same programs, smaller")
    parser.add_argument("--only", metavar="TEXT", help="the programs whose name contains this")
    args = parser.parse_args()
    if args.target not in _GPUS and ":" not in args.target:
        parser.error(f"target: got {args.target}; give {', '.join(_GPUS)}, or a slice as v5e:2x4")
    gpu = args.target in _GPUS
    if args.devices > 1 and not gpu:
        parser.error(f"--devices: {args.target} says how many itself; leave it out")
    # The compilers ask for a machine's accelerators otherwise, and wait for those of a cloud.
    os.environ.update({"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"})
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", args.target)
    try:
        devices = _devices(args.target, args.devices)
    except (RuntimeError, NotImplementedError) as problem:
        message = (str(problem).strip() or "no message").splitlines()[0]
        package = "cuda13" if gpu else "tpu"
        parser.error(f'{args.target}: {message}; its compiler comes with "jax[{package}]"')

    chosen = (p for p in programs(devices, quick=args.quick) if (args.only or "") in p.name)
    done = [_report(program, args.target) for program in chosen]
    if not done:
        parser.error(f"--only: no program's name contains {args.only!r}")
    return 0 if all(done) else 1


def _devices(target: str, count: int) -> list[Any]:
    from jax.experimental.topologies import get_topology_desc

    if target not in _GPUS:
        return list(get_topology_desc(target, "tpu").devices)
    options = {"target_config": _gpu(*_GPUS[target]), "topology": f"1x1x{count}"}
    return list(get_topology_desc(target, "cuda", **options).devices)


def _gpu(name: str, memory: int, bandwidth: int) -> str:
    """A Hopper GPU, as XLA wants it described."""
    return f"""
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


def programs(devices: list[Any], *, quick: bool) -> Iterator[Program]:
    """The operator by each method, and inference, on one device; the training step on all.

    The networks take "dft" or "direct", which "auto" takes for maps of these sizes on the CPU.
    """
    for row in suite(quick=quick):
        if isinstance(row, Operator) and row.what != "forward prepared":
            for method in valid_methods(row):
                yield _operator(row, method, devices[0])
        elif isinstance(row, Inference):
            yield _inference(row, devices[0])
    yield _training(Training(len(devices), 32, 1) if quick else _PATCHES, devices)


def _operator(row: Operator, method: str, device: Any) -> Program:
    import jax

    from benchmarks.limits import moved_mb
    from benchmarks.our_operator import our_operator, shapes

    args = tuple(_placed(shape, device) for shape in shapes(row))
    fn = jax.jit(our_operator(row, method))
    return Program(f"{row.name}, {method}", fn, args, int(1e6 * moved_mb(row)))


def _inference(row: Inference, device: Any) -> Program:
    import jax
    from flax import nnx

    from converse_jax import models

    options: dict[str, Any] = row.options
    model = nnx.eval_shape(lambda: getattr(models, row.network)(**options, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    state = jax.tree.map(lambda a: _placed(a.shape, device, a.dtype), state)
    args = [_placed((1, row.size, row.size, model.channels), device)]
    if row.network == "ConverseUSRNet":
        args.append(_placed((model.blur_size, model.blur_size), device))
    fn = jax.jit(lambda state, *args: nnx.merge(graphdef, state)(*args))
    return Program(row.name, fn, (state, *args))


def _placed(shape: tuple[int, ...], device: Any, dtype: Any = "float32") -> Any:
    import jax

    return jax.ShapeDtypeStruct(shape, dtype, sharding=jax.sharding.SingleDeviceSharding(device))


def _training(row: Training, devices: list[Any]) -> Program:
    import jax
    import numpy as np
    from jax.sharding import AxisType, Mesh

    from benchmarks.train_step import our_network
    from train.state import DATA, abstract_state, make_optimizer, shared
    from train.step import jit_step, make_step

    mesh = Mesh(np.array(devices), (DATA,), axis_types=(AxisType.Auto,))
    config, network = our_network(row)
    optimizer = make_optimizer(config.optimizer, config.steps)
    shape = (row.batch, row.size, row.size, 1)
    image = jax.ShapeDtypeStruct(shape, "float32", sharding=shared(mesh))
    args = (abstract_state(network, optimizer, mesh), {"input": image, "target": image})
    name = f"{row.name}, {len(devices)} device{'s' * (len(devices) > 1)}"
    return Program(name, jit_step(make_step(config, network, optimizer), mesh), args)


def _report(program: Program, target: str) -> bool:
    import jax

    start = time.perf_counter()
    try:
        compiled = program.fn.lower(*program.args).compile()
    except jax.errors.JaxRuntimeError as problem:
        print(f"{program.name}: FAILED, {str(problem).strip().splitlines()[0]}", flush=True)
        return False
    text, plan = compiled.as_text(), compiled.memory_analysis()
    said = [f"compiled in {time.perf_counter() - start:.0f} s"]
    said.append(f"{plan.temp_size_in_bytes / 1e6:.3g} MB of temporaries a device")
    said += [f"{n} {kind}" for kind, n in sorted(collectives(text).items())]
    if target in _GPUS and program.must_move is not None:
        moved = traffic(text)
        floor = 1e6 * moved / _GPUS[target][2]
        said.append(
            f"its kernels move {moved / 1e6:.3g} MB, {moved / program.must_move:.1f} times what "
            f"must be moved, at full bandwidth in {floor:.3g} us"
        )
    print(f"{program.name}: {'; '.join(said)}", flush=True)
    return True


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
    sizes: dict[str, int] = {}
    total = 0
    for line in entry.splitlines()[1:]:
        found = re.match(r"\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([\w-]+)\((.*?)\)(?:,|$)", line)
        if found is None:
            continue
        name, result, kind, operands = found.groups()
        sizes[name] = _nbytes(result)
        if kind in _NO_KERNELS or kind.endswith("-done"):
            continue
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
