"""The command line and the configurations: what is asked for, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import train.loop
from converse_jax import compilation_cache
from tests.train import tiny
from train import __main__ as command
from train.config import Args, Config, Optimizer, differences, read_config
from train.errors import TrainError
from train.huge_pages import with_huge_pages
from train.networks import (
    ConverseDnCNNConfig,
    ConverseNetConfig,
    ConverseSRResNetConfig,
    ConverseUSRNetConfig,
)
from train.state import FunctionalNetwork
from train.tasks import Deblur, Denoise, SuperResolve

CONFIGS = sorted((tiny.ROOT / "configs").glob("*.py"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Args]:
    """The commands that would be carried out."""
    commands: list[Args] = []

    def record(args: Args) -> int:
        commands.append(args)
        return 0

    monkeypatch.setattr(train.loop, "train", record)
    monkeypatch.setattr(compilation_cache, "enable", lambda: None)
    return commands


def test_fields_from_the_command_line(asked: list[Args]) -> None:
    arguments = "--steps 7 --data.train a b --task.sigma 50 --optimizer.clip None --remat --resume"
    assert command.main(["configs/quickstart.py", *arguments.split(), "--run", "runs/x"]) == 0
    (found,) = asked
    base = read_config("configs/quickstart.py")
    assert found.run == Path("runs/x")
    assert found.resume
    assert not found.overwrite
    assert differences(base.to_dict(), found.config.to_dict()) == [
        "data.train: ['embedded'] -> ['a', 'b']",
        "optimizer.clip: 1.0 -> None",
        "remat: False -> True",
        f"steps: {base.steps} -> 7",
        "task.sigma: 25 -> 50.0",
    ]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_configurations(path: Path, asked: list[Args], capsys: pytest.CaptureFixture[str]) -> None:
    config = read_config(str(path))
    config.check()
    with pytest.raises(SystemExit) as done:
        command.main([str(path), "--help"])
    assert done.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(Config):
        if field.name not in ("model", "task", "data", "optimizer"):
            assert "--" + field.name.replace("_", "-") in text
    assert "--data.patch-size" in text
    assert "Expected" in text


def entries(text: str) -> dict[str, str]:
    """The entries of a help text in one column: what stands beside each flag, and above a box."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        words = line.strip(" │|")  # in a terminal there are boxes
        if words.endswith("options") and not line.startswith("usage"):
            name = words.removesuffix("options").strip(" ╭─") or "run"
        elif name and words.strip("─-╰╯"):
            if words.startswith(("-h", "--")):
                name, _, words = words.partition("  ")
            found[name] = f"{found.get(name, '')} {words.strip()}".strip()
    return found


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_entry_of_the_help_stands_by_itself(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        command.main([str(path), "--help"])
    found = entries(capsys.readouterr().out)
    names = {name.split()[0] for name in found}
    shown = {
        "--run",
        "--steps",
        "--model.num-features",
        "--optimizer.halve-every",
        "--data.threads",
    }
    assert shown | {"model", "task", "data", "optimizer"} <= names
    assert sum(name.startswith("--task.") for name in names) == len(
        dataclasses.fields(read_config(str(path)).task)
    )
    for name, text in found.items():
        words = text.split("(default:")[0].split()
        assert len(words) > 1, name
        assert words[0].lower() not in ("of", "in", "that", "and", "one", "its"), (name, text)


@pytest.mark.slow
def test_full_size_networks_are_the_papers() -> None:
    sizes = {
        "conversenet_blind_deblur": 243_267,
        "dncnn_gray_sigma25": 734_913,
        "srresnet_x4": 699_072,
        "usrnet_deblur": 307_987,
    }
    for path in CONFIGS:
        if path.stem in sizes:
            config = read_config(str(path))
            params = train.state.jax.eval_shape(FunctionalNetwork(config).init)
            assert sum(p.size for p in params.values()) == sizes.pop(path.stem)
            assert (config.batch_size, config.steps, config.loss) == (16, 800_000, "l1")
    assert not sizes


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "name a configuration first"),
        (["configs/quickstrat.py"], "did you mean configs/quickstart.py?"),
        (["nowhere/x.py"], "there is no such configuration"),
        (["configs/quickstart.py", "--stepz", "5"], "--steps"),
        (["configs/quickstart.py", "--data.patchsize", "5"], "--data.patch-size"),
        (["configs/quickstart.py", "--steps", "many"], "--steps"),
        (
            ["configs/quickstart.py", "--data.inputs", "noisy", "--task.sigma", "25"],
            "--task.sigma: got a degradation, but the pairs of data.inputs are used as they are",
        ),
    ],
)
def test_mistakes_in_the_command(
    arguments: list[str],
    text: str,
    asked: list[Args],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tiny.ROOT)
    try:
        status = command.main(arguments)
    except SystemExit as error:  # of the parser
        status = int(error.code or 0)
    assert status == 2
    output = capsys.readouterr()
    assert text in output.err + output.out
    assert "Traceback" not in output.err
    assert not asked


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("x = 1\n", "defines no `config`"),
        ("config = 3\n", "defines no `config` of type train.config.Config (it is 3)"),
        ("a = 1\nb = 1 / 0\n", "line 2: ZeroDivisionError"),
        ("from train.config import Config\nconfig = Config(nam='x')\n", "line 2: TypeError"),
        (
            "from tests.train import tiny\nconfig = tiny.config('x', steps='many')\n",
            "mine.py: steps: got 'many'; expected an integer",
        ),
    ],
)
def test_files_that_are_no_configuration(source: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(source)
    with pytest.raises(TrainError) as caught:
        read_config(str(path))
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"steps": 0}, "steps: got 0; expected at least 1"),
        ({"batch_size": 6, "accumulation": 4}, "accumulation: got 4, which does not divide"),
        ({"ema": 1.0}, "ema: got 1.0"),
        ({"data_patch_size": 4}, "data.patch-size: got 4; expected at least 8"),
        ({"data_train": ()}, "data.train: got nothing"),
        ({"model": ConverseDnCNNConfig(channels=2)}, "model.channels: got 2"),
        (
            {"model": ConverseSRResNetConfig()},
            "ConverseSRResNetConfig learns sr, and Denoise is denoise",
        ),
        ({"model": ConverseNetConfig()}, "ConverseNetConfig learns deblur, and"),
        (
            {"model": ConverseSRResNetConfig(), "task": SuperResolve(3)},
            "data.patch-size: got 16, not a multiple of scale 3; expected 15",
        ),
        ({"model": ConverseSRResNetConfig(), "task": SuperResolve(5)}, "task.scale: got 5"),
        (
            {"model": ConverseUSRNetConfig(), "task": Deblur(kernel_size=5)},
            "task.kernel-size: got 5, but the network takes kernels of 7",
        ),
        ({"optimizer": Optimizer(betas=(0.9, 1.0))}, "optimizer.betas: got (0.9, 1.0)"),
        ({"optimizer": Optimizer(weight_decay=-1.0)}, "optimizer.weight-decay: got -1.0"),
        ({"task": Denoise(sigma=-1)}, "task.sigma: got -1"),
        ({"task": Denoise(sigma=30, sigma_max=20)}, "task.sigma-max: got 20"),
        ({"model": ConverseNetConfig(), "task": Deblur(kernel_size=6)}, "expected an odd number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_that_cannot_be(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(TrainError) as caught:
        tiny.config("unused", **changes).check()
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"loss": "mse"}, 'loss: got \'mse\'; expected "l1" or "charbonnier" or "l2"'),
        (
            {"optimizer": Optimizer(schedule="cosin")},
            'optimizer.schedule: got \'cosin\'; expected "halving" or "cosine" or "constant"',
        ),
        ({"steps": "many"}, "steps: got 'many'; expected an integer"),
        ({"steps": 2.5}, "steps: got 2.5; expected an integer"),
        ({"steps": True}, "steps: got True; expected an integer"),
        ({"remat": 1}, "remat: got 1; expected True or False"),
        (
            {"data_train": "/x"},
            "data.train: got '/x'; expected a tuple, each a string, e.g. (x,) for one",
        ),
        ({"data_train": (3,)}, "data.train: got (3,); expected a tuple"),
        ({"data_tfds_dir": Path("x")}, "expected a string or None"),
        ({"ema": float("nan")}, "ema: got nan; expected a finite number"),
        ({"optimizer": Optimizer(clip=float("inf"))}, "optimizer.clip: got inf; expected a finite"),
        ({"optimizer": Optimizer(betas=(0.9,))}, "expected a tuple of 2: a number, a number"),
        ({"task": Denoise(sigma="25")}, "task.sigma: got '25'; expected a number"),
        ({"task": Denoise(sigma_max=float("nan"))}, "task.sigma-max: got nan"),
        ({"task": None}, "task: got None; expected a Task of train.tasks"),
        (
            {"model": ConverseDnCNNConfig},
            "model: got <class 'train.networks.ConverseDnCNNConfig'>; expected ",
        ),
        ({"optimizer": Optimizer(betas=(float("nan"), 0.9))}, "optimizer.betas: got (nan, 0.9)"),
        (
            {"model": ConverseDnCNNConfig(padding_mode="mirror")},
            "model.padding-mode: got 'mirror'; expected ",
        ),
        ({"name": None}, "name: got None; expected a string"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_in_a_file_are_of_their_types(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(TrainError) as caught:
        tiny.config("unused", **changes).check()
    assert text in str(caught.value)
    assert str(caught.value).count(": got ") == 1


def test_values_of_their_types_are_taken() -> None:
    tiny.config(
        "unused",
        task=Denoise(sigma=25, sigma_max=50),
        optimizer=Optimizer(learning_rate=1, min_learning_rate=0, clip=3),
        data_cache_mb=0,
    ).check()


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(TrainError) as caught:
        tiny.config("unused", steps=0, ema=2.0, log_every=0).check()
    assert all(name in str(caught.value) for name in ("steps", "ema", "log-every"))


def test_name_follows_the_task(asked: list[Args]) -> None:
    names = []
    for arguments in (
        ["configs/srresnet_x4.py"],
        ["configs/srresnet_x4.py", "--task.scale", "2"],
        ["configs/dncnn_gray_sigma25.py"],
        ["configs/dncnn_gray_sigma25.py", "--task.sigma", "12.5"],
        ["configs/quickstart.py", "--name", "mine {scale}"],
    ):
        assert command.main(arguments) == 0
        names.append(asked[-1].config.named().name)
    assert names == [
        "converse-srresnet-x4",
        "converse-srresnet-x2",
        "converse-dncnn-gray-25",
        "converse-dncnn-gray-12.5",
        "mine 1",
    ]


def test_huge_pages_are_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    assert with_huge_pages({"A": "b"}) == {"A": "b", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    other = {"GLIBC_TUNABLES": "glibc.malloc.check=1"}
    asked = with_huge_pages(other)
    assert asked == {"GLIBC_TUNABLES": "glibc.malloc.check=1:glibc.malloc.hugetlb=1"}
    assert with_huge_pages(asked) is None
    for libc in (("glibc", "2.31"), ("", ""), ("musl", "1.2")):
        monkeypatch.setattr("platform.libc_ver", lambda libc=libc: libc)
        assert with_huge_pages({}) is None
