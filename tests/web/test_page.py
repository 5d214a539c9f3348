"""The page in Chromium: what it gives is what the command gives, and nothing leaves the machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import PIL.Image
import pytest

from converse_jax import cli
from converse_jax.demo import read_photograph
from converse_jax.imaging import Image, write_image
from tests.web.conftest import GPU

pytestmark = pytest.mark.slow

WAIT = 300_000  # milliseconds


@pytest.fixture
def page(chromium: Any, address: str) -> Iterator[Any]:
    with chromium.new_context(accept_downloads=True) as context:
        page = context.new_page()
        errors: list[str] = []
        hosts: set[str] = set()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        context.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        yield page
        assert not errors
        assert hosts <= {urlsplit(address).netloc, ""}  # blob: has no host


def noisy(name: str, size: tuple[int, int], sigma: float = 25, seed: int = 0) -> np.ndarray:
    """A photograph of this height and width with white noise."""
    image = read_photograph(name)[: size[0], : size[1]]
    assert image.shape[:2] == size
    noise = np.random.default_rng(seed).normal(0, sigma / 255, image.shape).astype(np.float32)
    return np.clip(image + noise, 0, 1)


def status(page: Any) -> str:
    return str(page.inner_text("#status"))


def start(page: Any, path: Path, task: str) -> None:
    page.set_input_files("#file", path)
    page.wait_for_function(
        "name => document.getElementById('status').textContent.startsWith(name)", arg=path.name
    )
    page.check(f"input[value={task}]")
    page.click("#restore")


def restored(page: Any, path: Path, task: str) -> np.ndarray:
    """The PNG that the page saves for an image."""
    start(page, path, task)
    page.wait_for_selector("#save:enabled", timeout=WAIT)
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == f"{path.stem}-restored.png"
    return np.asarray(PIL.Image.open(download.value.path()))


COLOR: dict[str, Callable[[], np.ndarray]] = {
    "photo": lambda: noisy("astronaut", (120, 141), 4),
    "denoise": lambda: noisy("astronaut", (512, 512)),
    "tiled": lambda: noisy("coffee", (300, 600)),
    "sr-x2": lambda: noisy("chelsea", (97, 300), 0),
    "sr-x4": lambda: noisy("chelsea", (61, 150), 0),
}
OPTIONS = {
    "photo": [],
    "denoise": ["--task", "denoise"],
    "tiled": ["--task", "denoise", "--tile", "512"],
    "sr-x2": ["--task", "sr", "--tile", "256"],
    "sr-x4": ["--task", "sr", "--scale", "4", "--tile", "128"],
}


@pytest.mark.parametrize("case", COLOR)
def test_gives_what_the_command_gives(page: Any, tmp_path: Path, case: str) -> None:
    given, made = tmp_path / "given.png", tmp_path / "made.png"
    write_image(given, Image(COLOR[case]()))
    assert cli.main(["restore", str(given), str(made), *OPTIONS[case]]) == 0
    result = restored(page, given, "denoise" if case == "tiled" else case)
    expected = np.asarray(PIL.Image.open(made))
    assert result.shape == (*expected.shape[:2], 4)
    assert (result[..., 3] == 255).all()
    assert np.abs(result[..., :3].astype(int) - expected).max() <= 1


def test_gray_images_have_their_own_network(page: Any, tmp_path: Path) -> None:
    given, made = tmp_path / "given.png", tmp_path / "made.png"
    write_image(given, Image(noisy("camera", (90, 121))))
    assert cli.main(["restore", str(given), str(made), "--task", "denoise"]) == 0
    result = restored(page, given, "denoise")
    assert "denoise-gray" in status(page)
    expected = np.asarray(PIL.Image.open(made))[..., None]
    assert np.abs(result[..., :3].astype(int) - expected).max() <= 1


def test_transparency_is_enlarged(page: Any, tmp_path: Path) -> None:
    """Where it is not 0: a canvas forgets the color of what is not seen."""
    alpha = np.linspace(0.5, 1, 40 * 30, dtype=np.float32).reshape(40, 30)
    given, made = tmp_path / "given.png", tmp_path / "made.png"
    write_image(given, Image(noisy("chelsea", (40, 30), 0), alpha))
    assert cli.main(["restore", str(given), str(made), "--task", "sr"]) == 0
    result, expected = restored(page, given, "sr-x2"), np.asarray(PIL.Image.open(made))
    assert np.abs(result[..., 3].astype(int) - expected[..., 3]).max() <= 1
    assert np.abs(result.astype(int) - expected).max() <= 4  # premultiplied in between


def test_a_given_level(page: Any, tmp_path: Path) -> None:
    given, made = tmp_path / "given.png", tmp_path / "made.png"
    write_image(given, Image(noisy("astronaut", (64, 80))))
    assert cli.main(["restore", str(given), str(made), "--task", "denoise", "--sigma", "40"]) == 0
    page.check("input[value=denoise]")  # of larger levels than the others
    page.uncheck("input[name=auto]")
    page.fill("#sigma", "40")
    result = restored(page, given, "denoise")
    expected = np.asarray(PIL.Image.open(made))
    assert np.abs(result[..., :3].astype(int) - expected).max() <= 1
    assert "noise of 40.0" in status(page)


def test_without_a_network(page: Any, tmp_path: Path) -> None:
    """Kept by the service worker at the first visit, runtime and networks included."""
    page.evaluate("navigator.serviceWorker.ready")
    page.wait_for_function("navigator.serviceWorker.controller !== null")
    page.context.set_offline(True)
    page.reload()
    page.wait_for_selector("body[data-ready]")
    write_image(given := tmp_path / "given.png", Image(noisy("astronaut", (64, 64))))
    assert restored(page, given, "photo").shape == (64, 64, 4)


def too_large(path: Path) -> None:
    PIL.Image.new("1", (10_000, 10_000)).save(path)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_text("no image"), "no image that this browser reads"),
        (too_large, "10000 . 10000 pixels are more than this page takes"),
    ],
    ids=["empty", "text", "100 megapixels"],
)
def test_says_what_is_wrong(
    page: Any, tmp_path: Path, write: Callable[[Path], None], said: str
) -> None:
    write(given := tmp_path / "given.png")
    page.set_input_files("#file", given)
    page.wait_for_selector("#status.error")
    assert re.match(rf"given\.png: .*{said}", status(page))
    assert page.is_disabled("#restore")
    # and goes on
    write_image(good := tmp_path / "good.png", Image(noisy("astronaut", (32, 32))))
    assert restored(page, good, "photo").shape == (32, 32, 4)
    assert page.get_attribute("#status", "class") != "error"


def test_too_large_to_enlarge(page: Any, tmp_path: Path) -> None:
    PIL.Image.new("L", (4000, 3000)).save(given := tmp_path / "given.png")
    start(page, given, "sr-x4")
    page.wait_for_selector("#status.error")
    assert "to enlarge by 4 (3 million)" in status(page)


def test_cancel_and_again(page: Any, tmp_path: Path) -> None:
    write_image(given := tmp_path / "given.png", Image(noisy("astronaut", (512, 512))))
    start(page, given, "sr-x2")
    page.get_by_text("tile 1 of 9").wait_for(timeout=WAIT)
    page.click("#cancel")
    assert status(page) == "Cancelled."
    assert page.is_hidden("#working")
    write_image(other := tmp_path / "other.png", Image(noisy("astronaut", (48, 32))))
    assert restored(page, other, "photo").shape == (48, 32, 4)


def renderer_memory() -> int:
    """Bytes in memory of the processes that show pages."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            if b"chromium" in command and b"--type=renderer" in command:
                text = (process / "status").read_text()
                total += int(re.search(r"VmRSS:\s+(\d+)", text).group(1)) * 1024
        except (OSError, AttributeError):  # it ended meanwhile
            continue
    return total


def test_memory_is_steady(page: Any, tmp_path: Path) -> None:
    used = []
    for seed in range(10):
        write_image(
            given := tmp_path / f"{seed}.png", Image(noisy("astronaut", (256, 256), 25, seed))
        )
        restored(page, given, "denoise")
        used.append(renderer_memory())
    assert used[-1] < 1.15 * max(used[:3]), used


def test_keyboard_and_names(page: Any, tmp_path: Path) -> None:
    """Everything has a role and a name, and can be reached and used without a mouse."""
    write_image(given := tmp_path / "given.png", Image(noisy("astronaut", (40, 60))))
    page.get_by_label("Choose an image").set_input_files(given)
    page.get_by_role("radio", name="Remove noise").focus()
    page.keyboard.press("ArrowDown")
    assert page.is_checked("input[value=sr-x2]")
    page.get_by_role("button", name="Restore").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#save:enabled", timeout=WAIT)
    divider = page.get_by_role("slider", name="Where the restored image begins")
    divider.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("handle.style.left") == "51%"
    assert "51 percent" in divider.get_attribute("aria-valuetext")
    assert page.get_by_role("img", name="Restored image").is_visible()
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input, button')].filter(x => !x.labels?.length"
        " && !x.textContent.trim() && !x.ariaLabel).length"
    )
    assert unnamed == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone(chromium: Any, address: str, scheme: str) -> None:
    size = {"width": 360, "height": 740}
    with chromium.new_context(viewport=size, color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        page.click("#example")
        page.wait_for_selector("#restore:enabled")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        colors = page.evaluate(
            "[document.body, document.querySelector('h1')].map(x => getComputedStyle(x))"
            ".map((s, i) => i ? s.color : s.backgroundColor)"
        )
        back, text = (sum(map(int, re.findall(r"\d+", color)[:3])) for color in colors)
        assert (back > text) == (scheme == "light")


def test_the_example_is_a_noisy_photograph(page: Any) -> None:
    page.click("#example")
    page.wait_for_selector("#restore:enabled")
    assert page.is_checked("input[value=denoise]")
    assert re.fullmatch(r"example\.png: 451 . 300 pixels\.", status(page))


def test_on_a_gpu(launch: Callable[..., Any], address: str, tmp_path: Path) -> None:
    """By WebGPU, whose first tile is compared with that of WebAssembly."""
    browser = launch(*GPU, without="--disable-gpu")
    page = browser.new_page()
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    if not page.evaluate("navigator.gpu?.requestAdapter().then(adapter => adapter !== null)"):
        pytest.skip("this Chromium has no WebGPU")
    given, made = tmp_path / "given.png", tmp_path / "made.png"
    write_image(given, Image(noisy("astronaut", (24, 32))))
    assert cli.main(["restore", str(given), str(made), "--task", "denoise"]) == 0
    result, expected = restored(page, given, "denoise"), np.asarray(PIL.Image.open(made))
    assert np.abs(result[..., :3].astype(int) - expected).max() <= 1
    assert "(WebGPU)" in status(page)
    browser.close()
