"""Predictions for picture files, and how one is written as text or JSON."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jax_s6.errors import InputError
from jax_s6.predict.model import NUM_LABELS, Model
from jax_s6.predict.pictures import read_digit

_BATCH = 64  # pictures that are read before their predictions are yielded


class Prediction(NamedTuple):
    """The network's prediction for one file.

    Attributes:
        path: The file.
        image: uint8 ``[28, 28]``: what the network saw.
        probabilities: float32 ``[16]``, one per output.
        class_names: The names of the 16 outputs.
    """

    path: Path
    image: np.ndarray
    probabilities: np.ndarray
    class_names: Sequence[str]

    @property
    def best(self) -> tuple[int, str, float]:
        """The number, the name and the probability of the most probable output."""
        output = int(self.probabilities.argmax())
        return output, self.class_names[output], float(self.probabilities[output])

    def to_text(self) -> str:
        """Return a line such as ``three.png  3  99.1%  (then 5 0.6%, 8 0.1%)``."""
        output, name, probability = self.best
        others = [i for i in np.argsort(-self.probabilities) if i < NUM_LABELS and i != output]
        next_two = ", ".join(f"{self.class_names[i]} {self.probabilities[i]:.1%}" for i in others[:2])
        return f"{self.path}  {name}  {probability:.1%}  (then {next_two})"

    def to_json(self) -> str:
        """Return a JSON object on one line."""
        output, name, probability = self.best
        fields = {"image": str(self.path), "class": output, "name": name, "probability": probability}
        return json.dumps(fields | {"probabilities": self.probabilities.tolist()})


def predict_files(
    network: Model, files: Sequence[Path], *, raw: bool = False, on_error: Callable[[InputError], None]
) -> Iterator[Prediction]:
    """Predict file by file, in order, leaving out those that cannot be used.

    Args:
        network: The trained network.
        files: The pictures.
        raw: Whether they already have MNIST's form.
        on_error: Called with the error of each file that cannot be used.

    Yields:
        One prediction per file that can be used.
    """
    for start in range(0, len(files), _BATCH):
        paths, images = [], []
        for path in files[start : start + _BATCH]:
            try:
                images.append(read_digit(path, raw=raw))
                paths.append(path)
            except InputError as error:
                on_error(error)
        if images:
            for path, image, each in zip(paths, images, network.predict_proba(np.stack(images)), strict=True):
                yield Prediction(path, image, each, network.class_names)
