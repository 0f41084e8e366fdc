"""What a resumed run must have in common with the one that stopped."""

import dataclasses
import subprocess
import sys

from jax_s6.config import RECIPES, DataConfig
from jax_s6.runs.identity import NUMERICS, code_version, identity


def test_settings_are_named_as_the_flags_are_and_the_place_of_the_data_does_not_count(tmp_path):
    config = RECIPES["best"]
    moved = dataclasses.replace(config, data=DataConfig(data_dir=tmp_path))
    about = identity(dataclasses.asdict(config), "1234")
    assert about == identity(dataclasses.asdict(moved), "1234")
    assert about["learning_rate"] == config.optimizer.learning_rate and about["data"] == "1234"
    names = {
        f.name for section in (config.model, config.optimizer, config.augment) for f in dataclasses.fields(section)
    }
    assert names < about.keys()


def test_every_module_that_computes_is_in_the_code_version():
    """A change of one that is left out would let a run go on with other numbers."""
    code = "import sys, jax_s6.loop; print(*(name[7:] for name in sys.modules if name.startswith('jax_s6.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == sorted(NUMERICS)


def test_code_version_depends_on_the_source(monkeypatch):
    before = code_version()
    monkeypatch.setattr("jax_s6.identity.NUMERICS", NUMERICS[1:])
    assert {name for name in before if before[name] != code_version()[name]} == {"code"}


def test_the_source_runs_where_the_package_is_not_installed(monkeypatch):
    from importlib import metadata

    from jax_s6.runs import report

    version = metadata.version

    def not_ours(name):
        if name == "jax_s6":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", not_ours)
    assert code_version()["version of jax"] == version("jax")
    assert report.environment()["versions"]["jax_s6"] == "not installed"
