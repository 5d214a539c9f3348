"""The page of `converse-jax serve`: what the command does, with files that keep what they hold."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import PIL.Image
import pytest

from converse_jax import cli, serve
from converse_jax.imaging import Image, ImageError, KernelError, read_image, write_image
from converse_jax.restore import RestoreError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """Of 16 bits, with a color profile and transparency."""
    from PIL import ImageCms

    rng = np.random.default_rng(0)
    pixels = np.clip(0.5 + 0.1 * rng.normal(size=(24, 40, 3)), 0, 1).astype(np.float32)
    alpha = np.linspace(0, 1, 24 * 40, dtype=np.float32).reshape(24, 40)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    write_image(path := tmp_path / "noisy.png", Image(pixels, alpha, bits=16, icc_profile=profile))
    return path


def restore(source: Any, folder: Path, **options: Any) -> Any:
    return serve.restore_upload(source, folder, **options)


def test_is_what_the_command_does(photograph: Path, tmp_path: Path) -> None:
    made = tmp_path / "made.png"
    assert cli.main(["restore", str(photograph), str(made), "--sigma", "20"]) == 0
    target, (before, after), plan = restore(str(photograph), tmp_path, sigma=20)
    assert target.name == "noisy-restored.png"
    assert target.read_bytes() == made.read_bytes()
    assert before.shape == after.shape == (24, 40, 3)
    assert before.dtype == after.dtype == np.uint8
    assert plan.restorer.card.name == "photo"


@pytest.mark.slow
def test_formats_scales_and_kernels(photograph: Path, tmp_path: Path) -> None:
    target, (before, after), _ = restore(str(photograph), tmp_path, task="sr", format="tiff")
    assert target.name == "noisy-restored.tif"
    assert read_image(target).pixels.shape == (48, 80, 3)
    assert before.shape == after.shape == (48, 80, 3)
    options = {"task": "deblur", "kernel_text": "gaussian:1", "sigma": 5}
    assert restore(str(photograph), tmp_path, **options)[0].exists()


def test_the_slider_shows_large_images_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "PREVIEW", 10)
    before, after = serve._previews(np.zeros((10, 20, 1), "f"), np.ones((20, 40, 1), "f"))
    assert before.shape == after.shape == (5, 10, 3)
    assert before.max() == 0
    assert after.min() == 255


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"task": "deblur"}, RestoreError, "^kernel: to reverse a blur give it"),
        (
            {"task": "deblur", "kernel_text": "/etc/hosts"},
            RestoreError,
            "^kernel: got '/etc/hosts'",
        ),
        ({"task": "sr", "kernel_text": "box:3", "kernel_file": "k"}, RestoreError, "give one of"),
        ({"task": "deblur", "kernel_file": "k.npy"}, KernelError, "k.npy"),
        ({"sigma": -1}, RestoreError, "^.*sigma: got"),
    ],
)
def test_mistakes(
    photograph: Path, tmp_path: Path, options: dict[str, Any], error: type, said: str
) -> None:
    with pytest.raises(error, match=said):
        restore(str(photograph), tmp_path, **options)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="^image: choose a file first"):
        restore(None, tmp_path)


def test_without_gradio(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert cli.main(["serve"]) == 2
    assert 'needs the package gradio: pip install "converse-jax[serve]"' in capsys.readouterr().err


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The running command, which leaves nothing when it ends."""
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("serve")
    command = [sys.executable, "-m", "converse_jax", "serve", "--port", "7899"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    environment["TMPDIR"] = str(folder)
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        line = process.stderr.readline() if process.stderr else ""
        found = re.match(r"http://127\.0\.0\.1:7899/", line)
        if not found:
            process.kill()
            pytest.fail(line + process.communicate()[1])
        assert list(folder.glob("converse-*"))
        yield found.group()
        process.terminate()
        process.communicate(timeout=60)
    assert not list(folder.glob("converse-*"))


def listening_addresses(port: int) -> set[str]:
    """Local addresses, as the kernel writes them, on which this port is open."""
    tables = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
    fields = [row.split() for table in tables for row in table.splitlines()]
    return {f[1].split(":")[0] for f in fields if f[1].endswith(f":{port:04X}") and f[3] == "0A"}


@pytest.mark.slow
def test_a_running_page(address: str, photograph: Path, tmp_path: Path) -> None:
    """16 bits, color profile and transparency come back, to the byte as from the command."""
    gradio_client = pytest.importorskip("gradio_client")
    made = tmp_path / "made.png"
    assert cli.main(["restore", str(photograph), str(made), "--task", "denoise"]) == 0
    client = gradio_client.Client(address, verbose=False, download_files=str(tmp_path / "got"))
    arguments = ["Remove noise", True, 15, 2, None, "", 1, "as the image"]
    given = gradio_client.handle_file(photograph)
    result, _, notes = client.predict(given, *arguments, api_name="/restore")
    assert Path(result).name == "noisy-restored.png"
    assert Path(result).read_bytes() == made.read_bytes()
    image = read_image(result)
    assert image.bits == 16
    assert image.icc_profile == read_image(photograph).icc_profile is not None
    np.testing.assert_array_equal(image.alpha, read_image(photograph).alpha)
    assert re.fullmatch(r"by denoise-color; noise of [\d.]+ \(of 255\), estimated", notes)
    # A mistake is one line, and names no folder.
    (tmp_path / "text.png").write_text("no image")
    given = gradio_client.handle_file(tmp_path / "text.png")
    with pytest.raises(gradio_client.exceptions.AppError, match=r"^text\.png: ") as error:
        client.predict(given, *arguments, api_name="/restore")
    assert "\n" not in str(error.value)
    assert "Traceback" not in str(error.value)
    client.close()
    if Path("/proc/net/tcp").exists():
        assert listening_addresses(7899) == {"0100007F"}


@pytest.mark.slow
def test_the_page_in_a_browser(address: str, photograph: Path, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as p:
        arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
        ]
        browser = p.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page()
        hosts: set[str] = set()
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto(address)
        page.get_by_role("heading", name=serve.TITLE).wait_for()
        page.get_by_label("Enlarge").check()
        page.get_by_text("Scale").wait_for()
        page.set_input_files("input[type=file] >> nth=0", photograph)
        page.get_by_text("noisy.png").or_(page.get_by_text("noisy")).first.wait_for()
        time.sleep(1)  # the upload has no other sign
        page.get_by_role("button", name="Restore").click()
        link = page.locator("a[download='noisy-restored.png']")
        link.first.wait_for(timeout=300_000)
        with page.expect_download() as download:
            link.first.click()
        with PIL.Image.open(download.value.path()) as image:
            assert image.size == (80, 48)
        browser.close()
    assert hosts <= {urlsplit(address).netloc, ""}


@pytest.mark.slow
def test_a_port_that_is_taken(address: str) -> None:
    command = [sys.executable, "-m", "converse_jax", "serve", "--port", "7899"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "7899" in result.stderr
