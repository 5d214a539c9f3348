"""The networks that come with the package, chosen by task and by image."""

from __future__ import annotations

import functools
from typing import Literal, get_args

import numpy as np

from converse_jax.restore import Plan, RestoreError, Restorer
from converse_jax.restore_pnp import PnPRestorer
from converse_jax.weights import list_models, load

BundledTask = Literal["photo", "denoise", "sr", "deblur"]
""""photo" improves an ordinary photograph, "denoise" removes noise of a known or estimated level,
"sr" enlarges, "deblur" reverses a known blur."""

Solver = Literal["network", "pnp"]
""""network" is a network trained for the task, "pnp" the denoiser in a plug-and-play iteration,
which takes any kernel, scale and noise level."""

_TRAINED_SCALES = (2, 4)


def default_solver(
    task: BundledTask, *, kernel: object = None, sigma: float | None = None
) -> Solver | None:
    """The solver for what is known of an image; None leaves it to `BundledRestorer`.

    The networks that enlarge know one kernel and no noise.
    """
    return "pnp" if task == "sr" and (kernel is not None or sigma is not None) else None


class BundledRestorer:
    """Restores each image with the bundled network for its channels; loads a network when needed.

    It has what `restore_files` needs of a `Restorer`: `cards`, `plan` and `prepare_kernel`.
    """

    def __init__(
        self, task: BundledTask = "photo", *, scale: int | None = None, solver: Solver | None = None
    ) -> None:
        """Choose the networks of a task.

        Args:
            task: see `BundledTask`.
            scale: enlargement of the task "sr", an integer of at least 2; 2 by default.
            solver: see `Solver`, for the tasks "deblur" and "sr". None takes what restores better:
                "pnp" to deblur, and to enlarge where there is no network for the scale.

        Raises:
            RestoreError: an unknown task or solver, a scale or a solver for a task that has none,
                or no bundled network.
        """
        if task not in get_args(BundledTask):
            raise RestoreError(f"task: got {task!r}; expected {', '.join(get_args(BundledTask))}")
        if solver is not None and solver not in get_args(Solver):
            raise RestoreError(f"solver: got {solver!r}; expected {', '.join(get_args(Solver))}")
        if scale is not None and task != "sr":
            raise RestoreError(f"scale: task {task!r} does not enlarge; leave it out")
        if solver is not None and task not in ("deblur", "sr"):
            raise RestoreError(f"solver: task {task!r} has its own network; leave it out")
        scale = 2 if scale is None and task == "sr" else scale
        if scale is not None and scale < 2:
            raise RestoreError(f"scale: got {scale}; expected an integer of at least 2")
        if solver is None and (task == "deblur" or (task == "sr" and scale not in _TRAINED_SCALES)):
            solver = "pnp"
        denoisers = {1: "denoise-gray", 3: "denoise-color"}
        self._names = {
            "photo": {1: "photo", 3: "photo"},
            "denoise": denoisers,
            "sr": {1: f"sr-x{scale}", 3: f"sr-x{scale}"},
            "deblur": {1: "deblur", 3: "deblur"},
        }[task]
        if solver == "pnp":
            self._names = denoisers
        self._task, self._scale, self._solver = task, scale, solver
        cards = list_models()
        wanted = sorted(set(self._names.values()))
        self._names = {c: name for c, name in self._names.items() if name in cards}
        self._missing = (
            f"task {task!r}: there is no bundled network "
            f"{' or '.join(name for name in wanted if name not in cards)}; there are "
            f"{', '.join(cards) or 'none'}; or give one of your own (--model)"
        )
        if not self._names:
            raise RestoreError(self._missing)
        self.cards = tuple(cards[name] for name in sorted(set(self._names.values())))
        self._takes_kernel = solver == "pnp" or any(card.needs_kernel for card in self.cards)
        self._loaded: dict[str, Restorer] = {}

    def restorer(self, channels: int) -> Restorer:
        """The network for images of 1 or 3 channels.

        Raises:
            RestoreError: there is none.
        """
        if channels not in self._names:
            raise RestoreError(self._missing)
        name = self._names[channels]
        if name not in self._loaded:
            network = Restorer(*load(name))
            if self._solver == "pnp" and self._task in ("deblur", "sr"):
                network = PnPRestorer(network, self._task, scale=self._scale)
            self._loaded[name] = network
        return self._loaded[name]

    def plan(self, image: np.ndarray, *, sigma: float | None = None) -> Plan:
        """`Restorer.plan` of the network for this image."""
        return self.restorer(image.shape[-1]).plan(image, sigma=sigma)

    def prepare_kernel(self, kernel: np.ndarray | None) -> tuple[np.ndarray | None, list[str]]:
        """`Restorer.prepare_kernel`, without loading a network only to find that it takes none."""
        if kernel is None and not self._takes_kernel:
            return None, []
        return self.restorer(3).prepare_kernel(kernel)


@functools.lru_cache(maxsize=4)
def kept_restorer(task: BundledTask, scale: int | None, solver: Solver | None) -> BundledRestorer:
    """A `BundledRestorer`, the same for the same arguments: its networks are loaded once."""
    return BundledRestorer(task, scale=scale, solver=solver)
