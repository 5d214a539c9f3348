"""What exporting raises."""


class ExportError(ValueError):
    """A network or a file that cannot be exported: what arrived, and what to do."""
