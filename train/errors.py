"""The errors of the application: a sentence for the user and an exit status."""


class TrainError(Exception):
    """A user error, found before training starts: what was given, and what to do."""

    status = 2


class StoppedEarly(Exception):
    """A run was asked to stop before its first step; there is nothing to save.

    Attributes:
        status: the exit status.
    """

    def __init__(self, status: int) -> None:
        """Take the status."""
        super().__init__("stopped before the first step; give the same command again")
        self.status = status


class TrainStopped(TrainError):
    """A run that had started could not continue."""

    status = 1


def missing_package(error: ModuleNotFoundError) -> TrainError:
    """The error about a package that is not installed; for our own modules `error` is re-raised."""
    package = (error.name or "").split(".")[0]
    if package in ("converse_jax", "train"):
        raise error
    extra = "figures" if package == "matplotlib" else "train"
    return TrainError(f'this needs the package {error.name}: pip install -e ".[{extra}]"')
