"""Keras 3's arm, on the backend that KERAS_BACKEND names."""

import os
import time
from typing import Any

import keras  # pyright: ignore[reportMissingImports]
import numpy as np
from keras import layers  # pyright: ignore[reportMissingImports]

from benchmarks.arms import work
from benchmarks.worker import Task

STEPS = 16


def network() -> Any:
    """The network, NHWC; explicit padding, since Keras's own pads a stride of 2 on the other side."""
    model = keras.Sequential([keras.Input((28, 28, 1))])
    for name in work.IN_CHANNELS:
        model.add(layers.ZeroPadding2D(1))
        model.add(layers.Conv2D(16, 3, 2 if name.endswith("3") else 1, activation="relu", name=name.replace(".", "_")))
        model.add(layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name.replace(".", "_") + "_norm"))
        if name in ("conv1.3", "conv2.3"):
            model.add(layers.MaxPooling2D(2))
    model.add(layers.GlobalAveragePooling2D())
    arrays = work.state_dict()
    for name in work.IN_CHANNELS:
        norm = f"{name[:-1]}{int(name[-1]) + 2}"
        kernel = arrays[f"{name}.weight"].transpose(2, 3, 1, 0)
        model.get_layer(name.replace(".", "_")).set_weights([kernel, arrays[f"{name}.bias"]])
        parts = [arrays[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
        model.get_layer(name.replace(".", "_") + "_norm").set_weights(parts)
    return model


def train_step(*, batch: int) -> Task:
    """``fit`` on arrays, as its users train; ``train_on_batch`` for the losses."""
    model = network()
    model.compile(
        keras.optimizers.SGD(work.LEARNING_RATE, work.MOMENTUM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    images, labels = work.digits(STEPS * batch)
    x = work.normalised(images)
    losses, seconds = [], []
    for _ in range(2):
        start = time.perf_counter()
        losses.append(float(np.asarray(model.train_on_batch(x[:batch], labels[:batch])).ravel()[0]))
        seconds.append(time.perf_counter() - start)

    def run(n: int) -> None:
        model.fit(x, labels, batch, epochs=n, verbose=0, shuffle=False)

    num_params = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    info = {"backend": keras.backend.backend(), "environment": os.environ.get("KERAS_BACKEND")}
    return Task(run, STEPS * batch, num_params, losses, max(0.0, seconds[0] - seconds[1]), info=info)
