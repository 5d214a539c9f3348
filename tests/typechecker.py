"""Checks annotations, shapes among them, at every call of the library: see `conftest.py`."""

from beartype import BeartypeConf, beartype

# An int is a float, as type checkers have it.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
