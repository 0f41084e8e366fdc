"""The network in Keras 3, on the backend that the environment variable KERAS_BACKEND names."""

import os
from typing import Any

import keras  # pyright: ignore[reportMissingImports]
import numpy as np
from keras import layers  # pyright: ignore[reportMissingImports]

from benchmarks.arms import work
from benchmarks.worker import Task

STEPS = 16


def network() -> Any:
    """Build the network, NHWC. Padding is explicit: at a stride of 2, Keras's own pads on the other side."""
    model, arrays = keras.Sequential([keras.Input((28, 28, 1))]), work.state_dict()
    for layer in work.LAYERS:
        conv = layers.Conv2D(16, 3, layer.stride, activation="relu")
        norm = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
        for part in (layers.ZeroPadding2D(1), conv, norm, *([layers.MaxPooling2D(2)] if layer.pool else [])):
            model.add(part)
        kernel = arrays[f"{layer.name}.weight"].transpose(2, 3, 1, 0)
        conv.set_weights([kernel, arrays[f"{layer.name}.bias"]])
        norm.set_weights([arrays[f"{layer.norm}.{part}"] for part in work.NORM_PARTS])
    model.add(layers.GlobalAveragePooling2D())
    return model


def train_step(*, batch: int) -> Task:
    """Call ``fit`` on arrays, as its users train; the losses are those of ``train_on_batch``."""
    model = network()
    model.compile(
        keras.optimizers.SGD(work.LEARNING_RATE, work.MOMENTUM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    images, labels = work.digits(STEPS * batch)
    x = work.normalised(images)
    first = x[:batch], labels[:batch]
    losses, compile_seconds = work.two_losses(lambda: np.asarray(model.train_on_batch(*first)).ravel()[0])

    def run(n: int) -> None:
        model.fit(x, labels, batch, epochs=n, verbose=0, shuffle=False)

    num_params = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    info = {"backend": keras.backend.backend(), "environment": os.environ.get("KERAS_BACKEND")}
    return Task(run, STEPS * batch, num_params, losses, compile_seconds, info=info)
