"""The command `demo`: the bundled networks at work, or the operator alone."""

from converse_jax.demo._networks import (
    Example,
    Restoration,
    choose_examples,
    demo_networks,
    restore_example,
)
from converse_jax.demo._operator import Reversal, demo_operator
from converse_jax.demo._photographs import CREDITS, read_photograph
from converse_jax.demo._rows import DEFAULT_NAME

__all__ = [
    "CREDITS",
    "DEFAULT_NAME",
    "Example",
    "Restoration",
    "Reversal",
    "choose_examples",
    "demo_networks",
    "demo_operator",
    "read_photograph",
    "restore_example",
]
