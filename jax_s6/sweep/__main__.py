"""Runs ``python -m jax_s6.sweep``."""

from jax_s6 import cli
from jax_s6.sweep.command import main

cli.run(main)
