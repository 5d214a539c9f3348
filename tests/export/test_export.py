"""Exported files: they give what the network gives at every size, and say what they are."""

from __future__ import annotations

import functools
import importlib.util
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

import converse_jax
from converse_jax import ModelCard, cli
from converse_jax.export import ExportError
from converse_jax.models import (
    ConvDnCNN,
    ConverseDnCNN,
    ConverseNet,
    ConverseSRResNet,
    ConverseUSRNet,
    ConvNet,
    ConvSRResNet,
    ConvTransposeDnCNN,
    ConvTransposeSRResNet,
    ConvUSRNet,
    DnCNN,
    SRResNet,
    registered,
)
from converse_jax.nn import Block, Converse2D, ConverseBlock, prepare

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from converse_jax.export import _check, _onnx  # noqa: E402

CONFIG = {"channels": 3, "num_features": 4, "num_blocks": 1, "kernel_size": 3}
CARD = ModelCard(
    "tiny", "ConverseDnCNN", CONFIG, "denoise", 3, source="a test", license="Apache-2.0"
)


def make(kind: Any, *args: Any, seed: int = 0, **options: Any) -> Any:
    return kind(*args, **options, rngs=nnx.Rngs(seed))


def tiny(kind: Any, **options: Any) -> Any:
    return make(kind, **{"num_features": 4, "num_blocks": 1, "kernel_size": 3} | options)


def randomized(model: Any) -> Any:
    """The network with every parameter away from 0, at which many start."""
    random = np.random.default_rng(1)
    state = nnx.state(model, nnx.Param)
    nnx.update(
        model, jax.tree.map(lambda a: a + 0.2 * random.normal(size=a.shape).astype("f"), state)
    )
    return model


NETWORKS: dict[str, Callable[[], Any]] = {
    "dncnn gray": lambda: tiny(ConverseDnCNN),
    "dncnn cells": lambda: tiny(ConverseDnCNN, channels=3, downscale=2, residual=True),
    "dncnn level": lambda: tiny(ConverseDnCNN, channels=3, downscale=3, noise_level=True),
    "srresnet x2": lambda: tiny(ConverseSRResNet, scale=2),
    "srresnet x3": lambda: tiny(ConverseSRResNet, scale=3, x0="zero", high_blocks=False),
    "srresnet x4": lambda: tiny(ConverseSRResNet, scale=4, high_blocks=False),
    "usrnet": lambda: tiny(ConverseUSRNet, num_iterations=2, blur_size=5),
    "usrnet residual": lambda: tiny(ConverseUSRNet, num_iterations=3, kernel_residual=True),
    "conversenet": lambda: tiny(ConverseNet, num_iterations=2),
    "conv-dncnn": lambda: tiny(ConvDnCNN, downscale=2),
    "conv-dncnn even": lambda: tiny(ConvDnCNN, kernel_size=4, padding_mode="replicate"),
    "convt-dncnn": lambda: tiny(ConvTransposeDnCNN, channels=3),
    "plain dncnn": lambda: make(DnCNN, num_features=4, num_layers=4),
    "plain dncnn merged": lambda: make(DnCNN, 3, num_features=4, num_layers=3, batch_norm=False),
    "conv-srresnet x2": lambda: tiny(ConvSRResNet, scale=2),
    "conv-srresnet x3": lambda: tiny(ConvSRResNet, scale=3, padding_mode="reflect"),
    "convt-srresnet x2": lambda: tiny(ConvTransposeSRResNet, scale=2),
    "convt-srresnet x3": lambda: tiny(ConvTransposeSRResNet, scale=3),
    **{
        f"plain srresnet {name}": functools.partial(
            make, SRResNet, 2, num_features=4, num_blocks=1, upsampler=name
        )
        for name in ("pixel_shuffle", "nearest", "conv_transpose", "converse")
    },
    "conv-net": lambda: tiny(ConvNet, num_iterations=2, padding_mode="constant"),
    "conv-usrnet": lambda: tiny(ConvUSRNet, num_iterations=2, blur_size=5),
    "conv-usrnet of a pixel": lambda: tiny(ConvUSRNet, num_iterations=1, blur_size=1),
    "block": lambda: make(ConverseBlock, 3, (2, 5), residual_scale=True),
}


@pytest.mark.parametrize(
    "name",
    [
        # The paper's baselines, and their blocks.
        pytest.param(name, marks=[pytest.mark.slow] * name.startswith(("conv-", "convt-", "plain")))
        for name in NETWORKS
    ],
)
def test_network(name: str) -> None:
    model = randomized(NETWORKS[name]())
    model.eval()
    _, error = _onnx.checked_onnx(model, None, sizes=((13, 10),))
    assert error is not None and error <= _check.TOLERANCE


def test_every_network_of_the_library_has_a_form() -> None:
    from converse_jax.export._networks import _FORMS

    ours = {network.make for network in registered().values()}
    ours = {make for make in ours if make.__module__.startswith("converse_jax.")}
    assert len(ours) >= 12
    assert ours <= set(_FORMS)


def test_checked_at_several_sizes() -> None:
    """And one of less than the kernel, which is padded."""
    model = randomized(tiny(ConverseDnCNN, downscale=2))
    _, error = _onnx.checked_onnx(model, None, sizes=((17, 8), (6, 11), (1, 2)))
    assert error is not None


def run(content: bytes, **feeds: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options).run(None, feeds)[0]


def matches_fft(layer: Converse2D, *sizes: tuple[int, int]) -> list[str]:
    """Operators of the file, after a comparison with the operator by another method."""
    layer.lam_logit[...] = np.array([5, 9], np.float32)
    content, _ = _onnx.checked_onnx(layer, None, sizes=())
    for height, width in sizes:
        x = np.random.default_rng(0).random((2, height, width, 2), np.float32)
        wanted = converse_jax.converse2d(
            x,
            layer.kernel[...],
            layer.lam,
            scale=layer.scale,
            padding=layer.padding,
            padding_mode=layer.padding_mode,
            x0=layer.x0,
            method="fft",
        )
        np.testing.assert_allclose(run(content, input=x), wanted, atol=1e-5)
    return [node.op_type for node in onnx.load_from_string(content).graph.node]


@pytest.mark.parametrize("x0", ["nearest", "zero"])
@pytest.mark.parametrize("mode", ["circular", "replicate", "reflect", "constant"])
@pytest.mark.parametrize(
    ("scale", "kernel", "padding"), [(1, 5, 4), (1, (4, 1), 0), (2, 5, 2), (3, (3, 4), 1)]
)
def test_layer(mode: str, x0: str, scale: int, kernel: Any, padding: int) -> None:
    options = {"scale": scale, "padding": padding, "padding_mode": mode, "x0": x0}
    matches_fft(make(Converse2D, 2, kernel, **options), (5, 6), (8, 7))


@pytest.mark.parametrize("x0", ["nearest", "zero"])
@pytest.mark.parametrize(("scale", "kernel"), [(2, 2), (3, 2), (2, (1, 2)), (1, 1), (4, (2, 1))])
def test_kernels_within_the_stride_are_one_product(scale: int, kernel: Any, x0: str) -> None:
    layer = make(Converse2D, 2, kernel, scale=scale, padding=2, x0=x0)
    kinds = matches_fft(layer, (1, 1), (2, 3))
    assert "MatMul" not in kinds and not any("Converse2D" in kind for kind in kinds)


def test_padding_of_more_than_the_map_wraps_again_and_one_pixel_is_a_map() -> None:
    matches_fft(make(Converse2D, 2, 5, padding=4), (1, 1), (1, 2), (3, 2))


@pytest.mark.slow
def test_enlarging_usrnet() -> None:
    model = randomized(tiny(ConverseUSRNet, num_iterations=2))
    _, error = _onnx.checked_onnx(model, None, scale=2, sizes=((9, 8),))
    assert error is not None


def test_standard_operators_only_and_no_fft(tmp_path: Path) -> None:
    model = tiny(ConverseDnCNN, channels=3)
    converse_jax.export_onnx(model, CARD, tmp_path / "a.onnx")
    file = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(file, full_check=True)
    assert {opset.domain: opset.version for opset in file.opset_import} == {"": 20, "converse": 1}
    kinds = {node.op_type for node in file.graph.node if not node.domain}
    kinds |= {node.op_type for function in file.functions for node in function.node}
    assert not kinds & {"DFT", "STFT", "Conv"} and "MatMul" in kinds
    shapes = [d.dim_param or d.dim_value for d in file.graph.input[0].type.tensor_type.shape.dim]
    assert shapes == ["batch", "height", "width", 3]
    props = {entry.key: entry.value for entry in file.metadata_props}
    assert ModelCard.from_metadata(props) == CARD and props["layout"] == "nhwc"


def test_size_does_not_grow_with_the_number_of_operators_but_by_their_weights() -> None:
    sizes = [
        len(_onnx.checked_onnx(tiny(ConverseDnCNN, num_blocks=n), None, sizes=())[0])
        for n in (1, 3)
    ]
    assert sizes[1] - sizes[0] < 2 * 4000


def test_channels_first_and_a_fixed_level(tmp_path: Path) -> None:
    model = randomized(tiny(ConverseDnCNN, channels=3, downscale=2, noise_level=True))
    path = tmp_path / "a.onnx"
    error = converse_jax.export_onnx(model, CARD, path, layout="nchw", sigma=0.1)
    assert error is not None
    session = onnxruntime.InferenceSession(path)
    (given,) = session.get_inputs()
    assert given.shape == ["batch", 3, "height", "width"]
    x = np.random.default_rng(0).random((1, 3, 7, 9), np.float32)
    (y,) = session.run(None, {"input": x})
    wanted = jax.jit(lambda x: model(x, 0.1))(x.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(y.transpose(0, 2, 3, 1), wanted, atol=1e-5)


def test_levels_as_a_number_and_as_a_map() -> None:
    model = randomized(tiny(ConverseDnCNN, downscale=2, noise_level=True))
    content, _ = _onnx.checked_onnx(model, None, sizes=())
    random = np.random.default_rng(0)
    x = random.random((2, 7, 9, 1), np.float32)
    call = jax.jit(lambda x, sigma: model(x, sigma))
    for level in (np.float32(0.1), random.random((2, 7, 9), np.float32)):
        sigma = level[None, None, None, None] if level.ndim == 0 else level[..., None]
        result = run(content, input=x, sigma=sigma)
        np.testing.assert_allclose(result, call(x, level), atol=1e-5)


@pytest.mark.slow
def test_prepared_network_is_exported_for_every_kernel() -> None:
    model = randomized(tiny(ConverseUSRNet, num_iterations=1))
    x = jax.ShapeDtypeStruct((1, 9, 9, 3), np.float32)
    prepared = prepare(model, x, np.ones((7, 7), np.float32) / 49)
    _, error = _onnx.checked_onnx(prepared, None, sizes=((9, 9),))
    assert error is not None


def test_a_network_that_computes_in_less_is_refused() -> None:
    model = randomized(tiny(ConverseDnCNN, dtype=jax.numpy.bfloat16))
    with pytest.raises(ExportError, match="differs from its own by"):
        _onnx.checked_onnx(model, None)


def test_not_checked_without_onnxruntime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else found(name)
    )
    target = tmp_path / "a.onnx"
    assert cli.main(["export", "denoise-gray", str(target)]) == 0
    assert "not checked against the model: onnxruntime is not" in capsys.readouterr().err
    assert target.stat().st_size < 1_000_000


class Own(ConverseDnCNN):
    """A network of a user's."""


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (lambda: tiny(Own), {}, "model: got Own; expected one of ConverseDnCNN"),
        (lambda: tiny(ConverseDnCNN), {"scale": 2}, "scale: got 2, but ConverseDnCNN takes none"),
        (lambda: tiny(ConverseDnCNN), {"sigma": 0.1}, "sigma: ConverseDnCNN takes no noise level"),
        (lambda: tiny(ConverseDnCNN), {"layout": "chw"}, "layout: got 'chw'; expected 'nhwc'"),
        (
            lambda: make(Block, 2, lambda n: lambda x: x),
            {},
            "layer.spatial: got function; expected Converse2D",
        ),
    ],
)
def test_refused(model: Callable[[], Any], options: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        converse_jax.export_onnx(model(), None, tmp_path / "a.onnx", **options)
    assert not list(tmp_path.iterdir())


def test_other_layers_inside_are_refused() -> None:
    model = tiny(ConverseDnCNN)
    model.head = nnx.LoRALinear(1, 4, lora_rank=2, rngs=nnx.Rngs(0))
    with pytest.raises(ExportError, match="head: got LoRALinear; expected Linear"):
        _onnx.checked_onnx(model, None)


def stablehlo(path: Path) -> Any:
    return jax.export.deserialize(bytearray(path.read_bytes()))


@pytest.mark.usefixtures("unchecked")  # symbolic sizes are no `int`
def test_stablehlo_of_every_size(tmp_path: Path) -> None:
    path = tmp_path / "a.stablehlo"
    model = randomized(tiny(ConverseDnCNN, channels=3, downscale=2, noise_level=True))
    converse_jax.export_stablehlo(model, path)
    exported = stablehlo(path)
    assert exported.platforms == ("cpu", "cuda", "tpu") and not exported.disabled_safety_checks
    x = np.random.default_rng(0).random((2, 10, 14, 3), np.float32)
    levels = np.array([0.1, 0.2], np.float32)
    wanted = jax.jit(lambda x, sigma: model(x, sigma))(x, levels)
    np.testing.assert_allclose(exported.call(x, levels), wanted, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["srresnet x2", "srresnet x3", "usrnet", "conversenet"])
def test_stablehlo_is_of_symbolic_size(name: str, tmp_path: Path) -> None:
    model = NETWORKS[name]()
    converse_jax.export_stablehlo(model, tmp_path / "a.bin")
    (x, *_) = stablehlo(tmp_path / "a.bin").in_avals
    assert [str(size) for size in x.shape] == ["batch", "height", "width", "3"]


@pytest.mark.usefixtures("unchecked")
def test_stablehlo_of_layers_that_ask_for_an_fft_and_reflect(tmp_path: Path) -> None:
    model = tiny(ConverseDnCNN, padding_mode="reflect", method="fft")
    converse_jax.export_stablehlo(model, tmp_path / "a.stablehlo")
    x = np.random.default_rng(0).random((1, 3, 5, 1), np.float32)
    wanted = jax.jit(lambda x: model(x))(x)
    result = stablehlo(tmp_path / "a.stablehlo").call(x)
    np.testing.assert_allclose(result, wanted, atol=1e-5)


@pytest.fixture
def denoiser() -> tuple[Any, ModelCard]:
    config = CONFIG | {"noise_level": True}
    notes = {"trained_on": ["my photographs (CC0)"], "not": "for text"}
    card = ModelCard(
        "tiny",
        "ConverseDnCNN",
        config,
        "denoise",
        3,
        needs_sigma=True,
        source="made by me",
        license="CC0-1.0",
        notes=notes,
    )
    return randomized(make(ConverseDnCNN, **config)), card


def as_darktable(content: bytes, x: np.ndarray) -> np.ndarray:
    """What darktable does: dimensions fixed by name, a level of 25, one tile."""
    options = onnxruntime.SessionOptions()
    for name, size in (("batch", 1), ("height", x.shape[2]), ("width", x.shape[3])):
        options.add_free_dimension_override_by_name(name, size)
    session = onnxruntime.InferenceSession(content, options)
    feeds = {session.get_inputs()[0].name: x}
    if len(session.get_inputs()) == 2:
        level = np.full((1, 1, *x.shape[2:]), 25 / 255, np.float32)
        feeds[session.get_inputs()[1].name] = level
    return session.run(None, feeds)[0]


def test_darktable_denoiser(denoiser: tuple[Any, ModelCard], tmp_path: Path) -> None:
    """The rules of darktable's dev-doc/AI.md and AI_Tasks.md, and of its package format."""
    target = tmp_path / "denoise-tiny.dtmodel"
    assert converse_jax.export_dtmodel([denoiser], target) is not None
    archive = zipfile.ZipFile(target)
    assert archive.namelist() == ["denoise-tiny/config.json", "denoise-tiny/model.onnx"]
    config = json.loads(archive.read("denoise-tiny/config.json"))
    assert (config["id"], config["task"], config["backend"]) == ("denoise-tiny", "denoise", "onnx")
    assert all(isinstance(config[key], str) for key in ("name", "description", "version"))
    assert config["num_inputs"] == 2 and config["spatial_dims"] == ["height", "width"]
    card = config["model_card"]
    assert all(isinstance(value, str) for value in card.values())
    assert card["license"] == "CC0-1.0" and card["source"] == "made by me"
    assert card["training_data"] == "my photographs (CC0)" and card["notes"] == "not for text"
    content = archive.read("denoise-tiny/model.onnx")
    file = onnx.load_from_string(content)
    assert file.opset_import[0].version == 20
    axes = [
        [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*file.graph.input, *file.graph.output)
    ]
    shape = ["batch", 3, "height", "width"]
    assert axes == [shape, ["batch", 1, "height", "width"], shape]
    assert [value.name for value in file.graph.input] == ["input", "sigma"]
    assert [value.name for value in file.graph.output] == ["output"]
    x = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    model, _ = denoiser
    wanted = jax.jit(lambda x: model(x, 25 / 255))(x.transpose(0, 2, 3, 1))
    result = as_darktable(content, x).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(result, wanted, atol=1e-5)


def test_darktable_level_may_be_fixed(denoiser: tuple[Any, ModelCard], tmp_path: Path) -> None:
    target = tmp_path / "denoise-tiny-10.dtmodel"
    converse_jax.export_dtmodel([denoiser], target, sigma=10 / 255)
    archive = zipfile.ZipFile(target)
    assert json.loads(archive.read("denoise-tiny-10/config.json"))["num_inputs"] == 1
    x = np.random.default_rng(0).random((1, 3, 16, 16), np.float32)
    model, _ = denoiser
    wanted = jax.jit(lambda x: model(x, 10 / 255))(x.transpose(0, 2, 3, 1))
    result = as_darktable(archive.read("denoise-tiny-10/model.onnx"), x).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(result, wanted, atol=1e-5)


@pytest.mark.slow
def test_darktable_enlarges_by_2_and_4(tmp_path: Path) -> None:
    networks = []
    for scale in (4, 2):
        config = CONFIG | {"scale": scale, "high_blocks": False}
        card = ModelCard(
            "up", "ConverseSRResNet", config, "sr", 3, scale=scale, source="me", license="MIT"
        )
        networks.append((make(ConverseSRResNet, **config), card))
    target = tmp_path / "upscale-tiny.dtmodel"
    converse_jax.export_dtmodel(networks, target)
    archive = zipfile.ZipFile(target)
    names = ["config.json", "model_x2.onnx", "model_x4.onnx"]
    assert archive.namelist() == [f"upscale-tiny/{name}" for name in names]
    x = np.zeros((1, 3, 12, 12), np.float32)
    y = as_darktable(archive.read("upscale-tiny/model_x4.onnx"), x)
    assert y.shape == (1, 3, 48, 48)
    again = tmp_path / "again" / target.name
    again.parent.mkdir()
    converse_jax.export_dtmodel(networks, again)
    assert again.read_bytes() == target.read_bytes()


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        ({"license": "unknown: none"}, "denoise-a", "expected both known: darktable takes only"),
        ({"source": ""}, "denoise-a", "expected both known"),
        ({"task": "deblur"}, "denoise-a", "got a network for deblur of color images"),
        ({"channels": 1}, "denoise-a", "got a network for denoise of gray images"),
        ({"task": "sr", "scale": 3}, "upscale-a", "networks: got sr x3; expected one that"),
        ({}, "my-denoiser", "got the name 'my-denoiser'.*expected denoise-NAME.dtmodel"),
        ({}, "denoise-A", "lower case"),
    ],
)
def test_darktable_refuses(
    denoiser: tuple[Any, ModelCard], changes: Any, name: str, message: str, tmp_path: Path
) -> None:
    from dataclasses import replace

    model, card = denoiser
    with pytest.raises(ExportError, match=message):
        converse_jax.export_dtmodel(
            [(model, replace(card, **changes))], tmp_path / f"{name}.dtmodel"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["denoise-gray", "a.pt"], "a.pt: the name of OUT must end in .onnx"),
        (["denoise-gray", "photo", "a.onnx"], "MODEL: got 2; .onnx files hold one"),
        (["denoise-gray", "a.bin", "--layout", "nchw"], "--layout is for .onnx, not for .bin"),
        (["denoise-gray", "a.bin", "--sigma", "9"], "--sigma is for .onnx and .dtmodel"),
        (["denoise-color", "denoise-a.dtmodel", "--scale", "2"], "--scale is for .onnx and"),
        (["deblur", "a.onnx", "--scale", "0"], "--scale: got 0; expected an integer"),
        (["sr-x2", "a.onnx", "--sigma", "9"], "sigma: ConverseSRResNet takes no noise level"),
        (["nobody", "a.onnx"], "nobody: no such file"),
        (["sr-x2", "exists.onnx"], "exists already"),
        (["sr-x2", "nowhere/a.onnx"], "nowhere/a.onnx: there is no folder nowhere"),
    ],
)
def test_command_refuses(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("exists.onnx").write_text("mine")
    assert cli.main(["export", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["exists.onnx"]
    assert Path("exists.onnx").read_text() == "mine"


def test_command_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*args: Any, **options: Any) -> None:
        raise ModuleNotFoundError("No module named 'onnx'", name="onnx")

    monkeypatch.setattr("converse_jax.export.export_onnx", missing)
    assert cli.main(["export", "denoise-gray", str(tmp_path / "a.onnx")]) == 2
    assert 'pip install "converse-jax[onnx]"' in capsys.readouterr().err


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "a.onnx"
    target.write_text("old")
    arguments = ["--overwrite", "--layout", "nchw", "--sigma", "15"]
    assert cli.main(["export", "denoise-gray", str(target), *arguments]) == 0
    said = capsys.readouterr().err
    assert "denoise-gray (denoise, gray, sigma 0 to 50), 0.9 MB, differs from the model" in said
    (given,) = onnxruntime.InferenceSession(target).get_inputs()
    assert given.shape == ["batch", 1, "height", "width"]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(converse_jax.list_models()))
def test_bundled_networks_at_odd_even_prime_and_large_sizes(name: str) -> None:
    model, card = converse_jax.load(name)
    _, error = _onnx.checked_onnx(model, card, sizes=((64, 64), (97, 101), (258, 131)))
    assert error is not None


@pytest.mark.parity
@pytest.mark.parametrize("name", ["dncnn", "srresnet", "usrnet", "net"])
def test_authors_networks(shared: Path, name: str) -> None:
    path = shared / "weights" / f"converse{'net' if name == 'net' else f'_{name}'}.pth"
    model, card = converse_jax.load(path)
    _, error = _onnx.checked_onnx(model, card, sizes=((64, 64), (97, 101)))
    assert error is not None
