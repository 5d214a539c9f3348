"""The errors of the application: a sentence for a person, and an exit status."""


class TrainError(Exception):
    """What a person must mend before training can start: what arrived, and what to do."""

    status = 2


class TrainStopped(TrainError):
    """Why a run that had started could not go on."""

    status = 1
