"""What a resumed run must have in common with the one that stopped."""

import ast
import dataclasses
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import jax_s6
from jax_s6.config import RECIPES, DataConfig
from jax_s6.runs import environment as environments
from jax_s6.runs import identity as identities
from jax_s6.runs.identity import NUMERICS, code_version, essence, identity

PLAIN = """
class A:
    rate = 0.1

    def f(self, x):
        if x < 0:
            raise ValueError
        return 2 * x
"""


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
    """A change of one that is left out would let a run be resumed with other numbers."""
    code = "import sys, jax_s6.training.trainer; print(*(name for name in sys.modules if name.startswith('jax_s6.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.split(".")[1] for name in done.stdout.split()} == set(NUMERICS)


@pytest.fixture
def copy(monkeypatch, tmp_path):
    """A copy of the package whose files may be changed."""
    package = shutil.copytree(Path(jax_s6.__file__).parent, tmp_path / "jax_s6", ignore=shutil.ignore_patterns("data"))
    monkeypatch.setattr(identities, "__file__", str(package / "runs" / "identity.py"))
    return package


@pytest.mark.parametrize("name", ["backend.py", "training/trainer.py", "network/net.py"])
def test_code_version_depends_on_the_code_alone(copy, name):
    before, source = code_version(), (copy / name).read_text()
    (copy / name).write_text(f'"""Other words."""\n# A comment.\n{source}')
    assert code_version() == before
    (copy / name).write_text(f"{source}\nNUMBER = 1\n")
    assert {key for key in before if before[key] != code_version()[key]} == {"code"}
    (copy / name).write_text(source)
    (copy / "network" / "more.py").write_text("")
    assert code_version() != before, "a module was added"


@pytest.mark.parametrize(
    ("source", "same"),
    [
        ('"""Module."""\n' + PLAIN, True),
        (PLAIN.replace("rate = 0.1", 'rate = 0.1\n    """The rate."""'), True),
        (PLAIN.replace("(self, x):", '(self, x: int) -> "int":\n        """Doubles."""'), True),
        (PLAIN.replace("raise ValueError", 'raise ValueError(f"x must be >= 0, got {x}") from None'), True),
        (PLAIN.replace("2 * x", "(2  *  x)"), True),
        (PLAIN.replace("2 * x", "3 * x"), False),
        (PLAIN.replace("2 * x", "x * 2"), False),
        (PLAIN.replace("0.1", "0.2"), False),
        (PLAIN.replace("x < 0", "x <= 0"), False),
    ],
)
def test_essence_of_code_is_what_computes(source, same):
    assert (essence(ast.parse(source)) == essence(ast.parse(PLAIN))) is same


def test_annotations_of_settings_are_not_in_the_essence():
    """They hold the help texts."""
    plain, annotated = "rate: float = 0.1", "rate: Annotated[float, arg(help='The rate.')] = 0.1"
    assert essence(ast.parse(plain)) == essence(ast.parse(annotated)) != essence(ast.parse("rate: float = 0.2"))


def test_the_source_runs_where_the_package_is_not_installed(monkeypatch):
    version = metadata.version

    def not_ours(name):
        if name == "jax_s6":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", not_ours)
    assert code_version()["version of jax"] == version("jax")
    assert environments.environment()["versions"]["jax_s6"] == "not installed"
