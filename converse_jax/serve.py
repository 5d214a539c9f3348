"""The command `restore` as a page on this machine."""

from __future__ import annotations

import html
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from converse_jax.bundled import BundledTask, default_solver, kept_restorer
from converse_jax.imaging import Image, ImageError, KernelError, read_kernel, resize, to_uint8
from converse_jax.messages import one_line
from converse_jax.restore import Plan, RestoreError
from converse_jax.restore_files import Output, restore_file, target_name
from converse_jax.weights import WeightsError

TITLE = "Restore a photograph"

TASKS: dict[str, BundledTask] = {
    "Improve a photograph (weak noise, JPEG)": "photo",
    "Remove noise": "denoise",
    "Enlarge": "sr",
    "Reverse a known blur": "deblur",
}
FORMATS = {"as the image": None, "PNG": "png", "TIFF": "tiff", "JPEG": "jpeg", "WebP": "webp"}

PREVIEW = 1600
"""Longest side of what the slider shows, in pixels."""

MAX_UPLOAD_MB = 512
"""Larger files are refused."""

# A path would let the page read files of the machine.
_DESCRIPTION = re.compile(r"(motion|gaussian|disk|box):[\d.:+-]+")


def restore_upload(
    source: str | None,
    folder: Path,
    *,
    task: BundledTask = "photo",
    sigma: float | None = None,
    scale: int = 2,
    kernel_file: str | None = None,
    kernel_text: str = "",
    strength: float = 1.0,
    format: str | None = None,
    **options: Any,
) -> tuple[Path, tuple[np.ndarray, np.ndarray], Plan]:
    """Restore a file as `converse-jax restore` does, into a folder of its own.

    Args:
        source: the file; its name, with "-restored", is that of the result.
        folder: where the result's folder is made.
        task: as of `BundledRestorer`.
        sigma: noise level on the scale of 0 to 255; None estimates it.
        scale: for "sr" alone.
        kernel_file: the blur as a file, for "sr" and "deblur" alone.
        kernel_text: or as a description, "motion:15:30".
        strength: 1 restores, 0 leaves the image; not for "sr".
        format: of the result; None: that of the file.
        options: of `restore_file`.

    Returns:
        The file, the image before and after as bytes `[h, w, 3]` of one size for the screen, and
        how it was restored.

    Raises:
        ImageError, KernelError, RestoreError, WeightsError: as `restore_file`.
    """
    if source is None:
        raise ImageError("image: choose a file first")
    kernel = None
    if task in ("sr", "deblur"):
        kernel = _kernel(kernel_file, kernel_text)
        if task == "deblur" and kernel is None:
            raise RestoreError("kernel: to reverse a blur give it as a file or a description")
    output = Output(format)
    name = target_name(Path(Path(source).name), output)
    target = Path(tempfile.mkdtemp(dir=folder)) / f"{name.stem}-restored{name.suffix}"
    shown: list[tuple[np.ndarray, np.ndarray]] = []

    def on_restored(before: Image, after: Image) -> None:
        if not shown:
            shown.append(_previews(before.pixels, after.pixels))

    restorer = kept_restorer(
        task, scale if task == "sr" else None, default_solver(task, kernel=kernel, sigma=sigma)
    )
    plan = restore_file(
        restorer,
        source,
        target,
        output=output,
        kernel=kernel,
        sigma=None if sigma is None else sigma / 255,
        strength=1.0 if task == "sr" else strength,
        on_restored=on_restored,
        **options,
    )
    return target, shown[0], plan


def make_page(folder: Path) -> Any:
    """The page, a `gradio.Blocks`; results are written to folders in `folder`.

    Raises:
        ModuleNotFoundError: the package gradio is not installed.
    """
    import gradio as gr

    def restore(
        source: str | None,
        task: str,
        auto: bool,
        sigma: float,
        scale: int,
        kernel_file: str | None,
        kernel_text: str,
        strength: float,
        format: str,
        progress: Any = gr.Progress(),  # noqa: B008 (how Gradio finds it)
    ) -> tuple[str, tuple[np.ndarray, np.ndarray], str]:
        progress(0, desc="Reading")

        def on_tile(done: int, total: int) -> None:
            progress((done, total), desc="Restoring", unit="tiles")

        try:
            target, shown, plan = restore_upload(
                source,
                folder,
                task=TASKS[task],
                sigma=None if auto else sigma,
                scale=int(scale),
                kernel_file=kernel_file,
                kernel_text=kernel_text,
                strength=strength,
                format=FORMATS[format],
                on_tile=on_tile,
            )
        except (ImageError, KernelError, RestoreError, WeightsError, OSError, MemoryError) as error:
            # The file's name, not where it was put.
            message = one_line(error)
            for given in filter(None, (source, kernel_file)):
                message = message.replace(given, Path(given).name)
            raise gr.Error(html.escape(message), print_exception=False) from None
        lines = [f"by {plan.restorer.card.name}", *plan.notes]
        lines += [plan.noise] if plan.noise else []
        return str(target), shown, "; ".join([*lines, *plan.remarks])

    def show_options(task: str, auto: bool) -> list[dict[str, Any]]:
        name = TASKS[task]
        blurred = name in ("sr", "deblur")
        return [
            gr.update(interactive=not auto),
            gr.update(visible=name == "sr"),
            gr.update(visible=blurred),
            gr.update(visible=name != "sr"),
        ]

    with gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600), fill_width=True
    ) as page:
        gr.Markdown(
            f"# {TITLE}\nReverse convolution networks, on this machine alone. Depth of 16 bits, "
            "color profile, transparency and metadata are kept."
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                source = gr.File(label="Image", type="filepath", height=140)
                task = gr.Radio(list(TASKS), value=next(iter(TASKS)), label="Task")
                auto = gr.Checkbox(True, label="Estimate the noise level")
                sigma = gr.Slider(
                    0, 75, 15, step=0.5, label="Noise level, of 255", interactive=False
                )
                scale = gr.Radio([2, 3, 4], value=2, label="Scale", visible=False)
                with gr.Group(visible=False) as blur:
                    kernel_file = gr.File(label="Blur kernel", type="filepath", height=100)
                    kernel_text = gr.Textbox(
                        label="or its description",
                        placeholder="motion:LENGTH:ANGLE, gaussian:SIGMA, disk:RADIUS, box:N",
                    )
                strength = gr.Slider(0, 1, 1, step=0.05, label="Strength")
                format = gr.Dropdown(list(FORMATS), value="as the image", label="Format")
                button = gr.Button("Restore", variant="primary")
            with gr.Column(scale=2, min_width=280):
                slider = gr.ImageSlider(
                    label="Before and after", format="png", interactive=False, max_height=700
                )
                notes = gr.Textbox(label="Notes", interactive=False)
                result = gr.File(label="Result", interactive=False)
        for control in (task, auto):
            control.change(
                show_options,
                [task, auto],
                [sigma, scale, blur, strength],
                show_progress="hidden",
                api_name=False,
            )
        inputs = [source, task, auto, sigma, scale, kernel_file, kernel_text, strength, format]
        # One after the other: they share the machine.
        button.click(
            restore, inputs, [result, slider, notes], concurrency_limit=1, api_name="restore"
        )
    return page


def serve(*, port: int = 7860, ready: Any = None) -> None:
    """Serve the page on the loopback until interrupted; what was uploaded is deleted then.

    Args:
        port: where.
        ready: called with the address, when it can be opened.

    Raises:
        OSError: the port is taken.
        ModuleNotFoundError: the package gradio is not installed.
    """
    # Read by Gradio when it is imported.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with tempfile.TemporaryDirectory(prefix="converse-") as name:
        os.environ["GRADIO_TEMP_DIR"] = name
        page = make_page(Path(name))
        _, address, _ = page.launch(
            server_name="127.0.0.1",
            server_port=port,
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=f"{MAX_UPLOAD_MB}mb",
            ssr_mode=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
        )
        try:
            if ready is not None:
                ready(address)
            page.block_thread()
        finally:
            page.close()


def _kernel(file: str | None, text: str) -> np.ndarray | None:
    text = text.strip()
    if file is not None:
        if text:
            raise RestoreError("kernel: got a file and a description; give one of them")
        return read_kernel(file)[0]
    if not text:
        return None
    if not _DESCRIPTION.fullmatch(text):
        raise RestoreError(
            f"kernel: got {text!r}; expected motion:LENGTH:ANGLE, gaussian:SIGMA, disk:RADIUS or "
            "box:N"
        )
    return read_kernel(text)[0]


def _previews(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both at the size of the result, or smaller."""
    height, width = after.shape[:2]
    share = min(1.0, PREVIEW / max(height, width))
    size = max(1, round(share * height)), max(1, round(share * width))

    def preview(image: np.ndarray) -> np.ndarray:
        if image.shape[:2] != size:
            image = resize(image, size)
        return np.broadcast_to(to_uint8(image), (*size, 3))

    return preview(before), preview(after)
