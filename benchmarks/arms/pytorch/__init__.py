"""The arms in PyTorch. ``network`` is the reference network, which the tests compare jax_s6 with, too."""
