"""What the tests of exports share: the network, the test images, the network's logits, and one file per format."""

import pytest

from jax_s6.config import DataConfig
from jax_s6.data import EMBEDDED, load
from jax_s6.export import command
from jax_s6.export.formats import FORMATS
from jax_s6.predict import load_model


@pytest.fixture(scope="session")
def images():
    return load(DataConfig(data_dir=EMBEDDED)).test_images


@pytest.fixture(scope="session")
def network():
    return load_model()


@pytest.fixture(scope="session")
def logits(network, images):
    return network.logits(images)


@pytest.fixture(scope="session")
def exported(tmp_path_factory, network):
    """All four formats, written by the command, which verifies them on all 10,000 images."""
    folder = tmp_path_factory.mktemp("exports")
    with pytest.MonkeyPatch.context() as patch:
        for kind in FORMATS:
            command.main(["--format", kind, "--out", str(folder / kind)])
            patch.setattr(command, "load_model", lambda run: network)  # only the first loads and compiles its own
    return folder
