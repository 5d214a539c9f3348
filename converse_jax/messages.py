"""Texts of errors, for a terminal."""

from __future__ import annotations


def one_line(error: BaseException, limit: int | None = None) -> str:
    """The text of an error in one line, cut to a length; its type's name where it has no text."""
    return (" ".join(str(error).split()) or type(error).__name__)[:limit]
