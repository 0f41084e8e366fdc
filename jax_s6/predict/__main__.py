"""Run ``python -m jax_s6.predict``."""

from jax_s6 import cli
from jax_s6.predict.command import main

cli.run(main)
