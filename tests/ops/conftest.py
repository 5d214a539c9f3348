"""Nothing here may rely on implicit promotion."""

from tests.strict import lenient, strict  # noqa: F401
