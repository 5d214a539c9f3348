"""The page, built once and served; tests are skipped where a tool of theirs is missing."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from web import build
from web.serve import server

ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


GPU = [  # by software
    *("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--ignore-gpu-blocklist"),
    *("--enable-features=Vulkan", "--use-vulkan=swiftshader", "--use-angle=swiftshader"),
]


# Not of the session: Playwright's event loop would stay, and another could not be started.
@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[..., Any]]:
    """Starts Chromium with further arguments, or without some."""
    playwright = pytest.importorskip("playwright.sync_api")
    if (path := shutil.which("chromium")) is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as p:

        def start(*more: str, without: str = "") -> Any:
            arguments = [argument for argument in ARGUMENTS if argument != without]
            return p.chromium.launch(executable_path=path, args=[*arguments, *more])

        yield start


@pytest.fixture(scope="module")
def chromium(launch: Callable[..., Any]) -> Iterator[Any]:
    browser = launch()
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("onnx")
    pytest.importorskip("skimage")
    if not build.RUNTIME.exists():
        pytest.skip("ONNX Runtime Web is not installed: npm ci in web/")
    folder: Path = tmp_path_factory.mktemp("web") / "dist"
    build.build(folder)
    running = server(folder)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_address[1]}/"
    running.shutdown()
    running.server_close()
