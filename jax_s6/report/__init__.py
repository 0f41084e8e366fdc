"""Write one HTML page about runs and sweeps: ``python -m jax_s6.report``."""
