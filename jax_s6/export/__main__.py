"""Run ``python -m jax_s6.export``."""

from jax_s6 import cli
from jax_s6.export.command import main

cli.run(main)
