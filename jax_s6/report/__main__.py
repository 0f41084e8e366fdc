"""Runs ``python -m jax_s6.report``."""

from jax_s6 import cli
from jax_s6.report.command import main

cli.run(main)
