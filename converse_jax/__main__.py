"""`python -m converse_jax` is the command `converse-jax`."""

import sys

from converse_jax.cli import main

sys.exit(main())
