"""Nothing here may rely on implicit promotion."""

from tests.strict import strict  # noqa: F401
