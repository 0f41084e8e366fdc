"""Write a trained network for other programs: ``python -m jax_s6.export``."""
