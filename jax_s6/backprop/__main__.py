"""Runs ``python -m jax_s6.backprop``."""

from jax_s6 import cli
from jax_s6.backprop.command import main

cli.run(main)
