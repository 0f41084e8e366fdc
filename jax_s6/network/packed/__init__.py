"""Many networks as one: lanes stand side by side as channels.

The matrix units of accelerators are 128 or 256 wide, and the network has 16 channels. Eight networks next to each other
have 128: their convolution is one dense convolution whose kernel is block-diagonal, zero between lanes. It does eight
times the arithmetic in less time. Everything else treats each channel by itself, so that lanes never meet.

This is ``net.Net`` in another layout: the same variables, with a leading dimension ``[lanes]``, and the same results.
Activations are ``[batch, height, width, lanes * channels]`` in the type of the products' factors, sums and statistics
float32. As in ``layers``, a batch normalisation is a map that the next convolution folds into its kernel.

Zero times infinity is not a number: a lane that diverges would reach the others through the zeros between them. So
whatever enters a product is clipped to ``LIMIT``, far beyond what a lane that still learns has.
"""

from jax_s6.network.packed.layout import MOST as MOST
from jax_s6.network.packed.layout import Packing as Packing
from jax_s6.network.packed.network import apply as apply
