"""Runs ``python -m benchmarks``."""

from benchmarks.command import main
from jax_s6 import cli

cli.run(main)
