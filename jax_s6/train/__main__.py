"""Runs ``python -m jax_s6.train``."""

from jax_s6 import cli
from jax_s6.train.command import main

cli.run(main)
