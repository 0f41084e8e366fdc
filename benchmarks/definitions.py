"""The definitions of a benchmark and of an arm. ``harness`` runs them.

An *arm* is an implementation under comparison: this project's own code with some settings, or another library's, which
is called a *peer*.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Arm:
    """An implementation under comparison.

    Attributes:
        name: Its name in tables and pictures, by which ``--compare`` finds it in earlier results.
        entry: The function that prepares it, ``module:function``; it returns a ``worker.Task``.
        settings: Arguments of that function, in addition to the case.
        requires: The packages that it imports and that need not be installed.
        peer: Whether it is another library's. Our own arms are compared with the best peer.
        precision: The number format. Our arms are compared with peers of the same precision, and the tolerance of the
            loss depends on it.
        environment: Environment variables of its process.
        cases: The cases in which it runs; None for all.
        cuda: Whether it needs an NVIDIA GPU.
        quick: Whether it runs with ``--quick``.
    """

    name: str
    entry: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    requires: Sequence[str] = ()
    peer: bool = False
    precision: str = "float32"
    environment: Mapping[str, str] = field(default_factory=dict)
    cases: tuple[Any, ...] | None = None
    cuda: bool = False
    quick: bool = False


def make_arm(name: str, entry: str, *requires: str, peer: bool, compared_by: str = "", **more: Any) -> Arm:
    """Describe an arm in short.

    Args:
        name: Its name.
        entry: ``module:function`` below ``benchmarks.arms``.
        *requires: The packages that need not be installed.
        peer: Whether it is another library's.
        compared_by: What takes the place of the precision, where arms of the same precision are not comparable.
        **more: ``cases``, ``cuda``, ``quick`` and ``environment`` of the arm; the rest are arguments of the function.
    """
    own = {key: more.pop(key) for key in ("cases", "cuda", "quick", "environment") if key in more}
    precision = compared_by or more.get("precision", "float32")
    return Arm(name, f"benchmarks.arms.{entry}", more, requires, peer, precision, **own)


ours = functools.partial(make_arm, peer=False)
peer = functools.partial(make_arm, peer=True)


@dataclass(frozen=True)
class Benchmark:
    """What is compared, in which cases, and how often it is measured.

    Attributes:
        name: Its name on the command line.
        title: What is measured, in one phrase.
        arms: The implementations under comparison.
        axis: The argument of the arms that the cases vary, such as ``batch``.
        cases: Its values.
        quick_cases: Its values with ``--quick``; none if the benchmark has no short form.
        unit: The unit of a value.
        value: The entry of a sample that is the value; ``rate`` stands for the work divided by the seconds.
        higher_is_better: Whether a larger value is better.
        rounds: Number of samples per arm and case.
        quick_rounds: The same with ``--quick``.
        check: Which losses each arm must have before it is measured: those of ``train`` or of ``predict``. None where
            arms do not start from given weights; then only the number of parameters is checked.
        note: What a reader of the numbers needs to know.
        memory: Whether the picture shows peak memory, too.
    """

    name: str
    title: str
    arms: tuple[Arm, ...]
    axis: str
    cases: tuple[Any, ...]
    quick_cases: tuple[Any, ...] = ()
    unit: str = "images/s"
    value: str = "rate"
    higher_is_better: bool = True
    rounds: int = 7
    quick_rounds: int = 3
    check: str | None = "train"
    note: str = ""
    memory: bool = False
