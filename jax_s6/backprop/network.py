"""A 2-2-2 sigmoid network: its forward pass, its gradients derived by hand, and gradient descent. Pure functions.

    h1 = w1 i1 + w2 i2    a_h1 = sigmoid(h1)    o1 = w5 a_h1 + w6 a_h2    a_o1 = sigmoid(o1)    E1 = 1/2 (t1 - a_o1)^2
    h2 = w3 i1 + w4 i2    a_h2 = sigmoid(h2)    o2 = w7 a_h1 + w8 a_h2    a_o2 = sigmoid(o2)    E2 = 1/2 (t2 - a_o2)^2

The inputs are i1 and i2, the targets t1 and t2, in [0, 1]. The total error is E = E1 + E2.
"""

import functools
from collections import namedtuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

INPUTS = (0.05, 0.10)
WEIGHTS = (0.15, 0.20, 0.25, 0.30, 0.40, 0.45, 0.50, 0.55)

Pair = Float[Array, "2"]
Weights = Float[Array, "8"]


class Activations(namedtuple("Activations", "h1 h2 a_h1 a_h2 o1 o2 a_o1 a_o2")):
    """What the forward pass computes: the weighted sum of each unit, and its sigmoid ``a_``. All are scalars."""


class Deltas(namedtuple("Deltas", "dE_do1 dE_do2 dE_dh1 dE_dh2")):
    """The derivative of E by the weighted sum of each unit. The backward pass hands it from layer to layer."""


WEIGHT_NAMES = tuple(f"w{k}" for k in range(1, 9))
COLUMNS = (*Activations._fields, "E1", "E2", "E", *WEIGHT_NAMES, *(f"dE_d{name}" for name in WEIGHT_NAMES))
"""The numbers that ``descend`` returns for each iteration."""


def forward(weights: Weights, inputs: Pair) -> Activations:
    """Run the forward pass."""
    w1, w2, w3, w4, w5, w6, w7, w8 = weights
    i1, i2 = inputs
    h1 = w1 * i1 + w2 * i2
    h2 = w3 * i1 + w4 * i2
    a_h1 = jax.nn.sigmoid(h1)
    a_h2 = jax.nn.sigmoid(h2)
    o1 = w5 * a_h1 + w6 * a_h2
    o2 = w7 * a_h1 + w8 * a_h2
    return Activations(h1, h2, a_h1, a_h2, o1, o2, jax.nn.sigmoid(o1), jax.nn.sigmoid(o2))


def output_errors(activations: Activations, targets: Pair) -> tuple[jax.Array, jax.Array]:
    """Compute the error of each output, E1 and E2."""
    t1, t2 = targets
    return 0.5 * (t1 - activations.a_o1) ** 2, 0.5 * (t2 - activations.a_o2) ** 2


def error(weights: Weights, inputs: Pair, targets: Pair) -> Float[Array, ""]:
    """Compute the total error E = E1 + E2."""
    e1, e2 = output_errors(forward(weights, inputs), targets)
    return e1 + e2


def deltas(weights: Weights, activations: Activations, targets: Pair) -> Deltas:
    """Propagate the error backwards to the units, with sigmoid'(x) = a (1 - a) where a = sigmoid(x).

    At an output unit the chain rule is dE/do = dE/da_o * da_o/do::

        dE/do1 = (a_o1 - t1) * a_o1 (1 - a_o1)
        dE/do2 = (a_o2 - t2) * a_o2 (1 - a_o2)

    A hidden unit affects both outputs, so dE/dh = (dE/do1 * do1/da_h + dE/do2 * do2/da_h) * da_h/dh::

        dE/dh1 = (dE/do1 * w5 + dE/do2 * w7) * a_h1 (1 - a_h1)
        dE/dh2 = (dE/do1 * w6 + dE/do2 * w8) * a_h2 (1 - a_h2)

    ``activations`` is what ``forward`` returned for the same weights.
    """
    _, _, _, _, w5, w6, w7, w8 = weights
    t1, t2 = targets
    _, _, a_h1, a_h2, _, _, a_o1, a_o2 = activations
    de_do1 = (a_o1 - t1) * a_o1 * (1 - a_o1)
    de_do2 = (a_o2 - t2) * a_o2 * (1 - a_o2)
    de_dh1 = (de_do1 * w5 + de_do2 * w7) * a_h1 * (1 - a_h1)
    # The slope is that of h2, because w3 and w4 lead to h2. Spreadsheets that copy the columns of w1 and w2 use a_h1.
    de_dh2 = (de_do1 * w6 + de_do2 * w8) * a_h2 * (1 - a_h2)
    return Deltas(de_do1, de_do2, de_dh1, de_dh2)


def gradients(weights: Weights, inputs: Pair, targets: Pair) -> Weights:
    """Derive E by each weight, dE/dw1 to dE/dw8, by hand. The result equals that of ``jax.grad(error)``.

    The gradient of a weight is the delta of the unit that the weight leads to, times the value that enters the weight::

        dE/dw1 = dE/dh1 * i1    dE/dw2 = dE/dh1 * i2    dE/dw5 = dE/do1 * a_h1    dE/dw6 = dE/do1 * a_h2
        dE/dw3 = dE/dh2 * i1    dE/dw4 = dE/dh2 * i2    dE/dw7 = dE/do2 * a_h1    dE/dw8 = dE/do2 * a_h2
    """
    i1, i2 = inputs
    activations = forward(weights, inputs)
    d, a_h1, a_h2 = deltas(weights, activations, targets), activations.a_h1, activations.a_h2
    hidden = d.dE_dh1 * i1, d.dE_dh1 * i2, d.dE_dh2 * i1, d.dE_dh2 * i2
    output = d.dE_do1 * a_h1, d.dE_do1 * a_h2, d.dE_do2 * a_h1, d.dE_do2 * a_h2
    return jnp.stack([*hidden, *output])


@functools.partial(jax.jit, static_argnames="num_iterations")
def descend(
    learning_rates: Float[Array, " rates"], weights: Weights, inputs: Pair, targets: Pair, *, num_iterations: int
) -> Float[Array, "rates iterations columns"]:
    """Minimize E by gradient descent, w - learning_rate * dE/dw, at all learning rates at once.

    Returns:
        The numbers that ``COLUMNS`` names, after 0, 1, ..., ``num_iterations`` updates of the weights.
    """

    def descend_at(learning_rate: jax.Array) -> jax.Array:
        def step(weights: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            activations, gradient = forward(weights, inputs), gradients(weights, inputs, targets)
            e1, e2 = output_errors(activations, targets)
            row = jnp.concatenate([jnp.stack([*activations, e1, e2, e1 + e2]), weights, gradient])
            return weights - learning_rate * gradient, row

        return jax.lax.scan(step, weights, length=num_iterations + 1)[1]

    return jax.vmap(descend_at)(learning_rates)
