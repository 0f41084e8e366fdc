"""Read the text of a compiled program (XLA's optimised HLO): what one training step costs, and in which layer.

All functions are pure. A step is the body of the loop over the batches of an epoch.
"""

import collections
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

LAYER = re.compile(r"\b(conv[123])\b\)*(?:/\(*((?:conv|norm)_[01])\b)?")
BACKWARDS = re.compile(r"\btranspose\((?:\w+\()*jvp\(|rematted|checkpoint")
KERNELS = frozenset(
    "fusion custom-call copy convolution dot reduce transpose concatenate scatter gather sort slice dynamic-slice"
    " dynamic-update-slice broadcast pad reduce-window select-and-scatter".split()
)
"""Operations of a compiled program that run as one kernel each on a GPU."""
SLICES = ("dynamic-slice", "gather")
SIZES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s64": 8, "u64": 8, "f64": 8}


class Operation(NamedTuple):
    """One line of a program.

    Attributes:
        name: Its name, without the ``%``.
        kind: What it does, such as ``fusion``.
        result: The type of its result, or of several, in parentheses.
        operands: The names of its operands.
        rest: Everything after the opening parenthesis of the operands.
        is_root: Whether it is the result of its computation.
    """

    name: str
    kind: str
    result: str
    operands: tuple[str, ...]
    rest: str
    is_root: bool

    def attribute(self, pattern: str) -> str | None:
        """Return the group of a regular expression's first match in the attributes."""
        match = re.search(pattern, self.rest)
        return match[1] if match else None


class Cost(NamedTuple):
    """What an operation costs in one training step.

    Attributes:
        name: The operation's name.
        layer: Such as ``conv1/norm_0``, or ``conv1`` (its pooling, for example); ``other`` outside the network.
        direction: ``forwards``, ``backwards``, or ``other`` if it belongs to no pass.
        amount: Clock cycles or bytes.
        times: How often it runs per step.
    """

    name: str
    layer: str
    direction: str
    amount: float
    times: int


Program = Mapping[str, Sequence[Operation]]
Measure = Callable[[Program, Operation, Mapping[str, str]], float | None]


def parse(text: str) -> dict[str, list[Operation]]:
    """Return the operations of each computation of a compiled program's ``as_text()``, by the computation's name."""
    program: dict[str, list[Operation]] = {}
    operations: list[Operation] = []
    for line in text.splitlines():
        if start := re.match(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$", line):
            operations = program.setdefault(start[1], [])
        elif match := re.match(r"^\s*(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$", line):
            root, name, result, kind, rest = match.groups()
            operands = re.findall(r"%([\w.\-]+)", re.split(r"\)(?:, [a-z_]+=|$)", rest)[0])
            operations.append(Operation(name, kind, result, tuple(operands), rest, bool(root)))
    return program


def step_costs(program: Program, steps: int, measure: Measure) -> list[Cost]:
    """Return the costs of the operations of one training step.

    Args:
        program: What ``parse`` returned.
        steps: Number of steps per epoch, by which the loop over the steps is recognised. If no loop runs this often,
            the costliest loop is taken.
        measure: ``tpu_cycles`` or ``gpu_bytes``.
    """
    loops = [op for operations in program.values() for op in operations if op.kind == "while"]
    loops = [op for op in loops if trips(program, op) == steps] or loops
    bodies = [_costs(program, op.attribute(r"body=%?([\w.\-]+)") or "", measure, 1) for op in loops]
    return max(bodies, key=total, default=[])


def total(costs: Sequence[Cost]) -> float:
    """Return the sum of the amounts."""
    return sum(cost.amount for cost in costs)


def _costs(program: Program, computation: str, measure: Measure, times: int) -> list[Cost]:
    """Return the costs of a computation, and of what it calls; of a condition's branches, those of the costliest."""
    operations = program.get(computation, ())
    types = {op.name: op.result for op in operations}
    found: list[Cost] = []
    for op in operations:
        if op.kind == "while":
            found += _costs(program, op.attribute(r"body=%?([\w.\-]+)") or "", measure, times * trips(program, op))
        elif op.kind in ("conditional", "call"):
            found += max((_costs(program, name, measure, times) for name in _called(op)), key=total, default=[])
        elif (amount := measure(program, op, types)) is not None:
            found.append(Cost(op.name, *place(program, op), amount * times, times))
    return found


def trips(program: Program, loop: Operation) -> int:
    """Return how often a loop runs: as the compiler states it, or the constant with which its condition compares."""
    if known := loop.attribute(r'"known_trip_count":\{"n":"(\d+)"'):
        return int(known)
    condition = program.get(loop.attribute(r"condition=%?([\w.\-]+)") or "", ())
    constants = [int(n[1]) for op in condition if op.kind == "constant" and (n := re.match(r"(\d+)\)", op.rest))]
    return max(constants, default=1)


def _called(op: Operation) -> list[str]:
    names = op.attribute(r"branch_computations=\{([^}]*)\}")
    found = re.findall(r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)", op.rest)
    return found + re.findall(r"[\w.\-]+", names or "")


def place(program: Program, op: Operation) -> tuple[str, str]:
    """Return an operation's layer and direction. A fusion that names no layer belongs to that of most of its parts."""
    own = _place(op.attribute(r'op_name="([^"]*)"') or "")
    if own[0] != "other" or op.kind != "fusion":
        return own
    parts = [part for name in _called(op) for part in program.get(name, ())]
    places = [_place(part.attribute(r'op_name="([^"]*)"') or "") for part in parts]
    counts = collections.Counter(place for place in places if place[0] != "other")
    return counts.most_common(1)[0][0] if counts else own


def _place(op_name: str) -> tuple[str, str]:
    layer = LAYER.search(op_name)
    if BACKWARDS.search(op_name):
        direction = "backwards"
    else:
        direction = "forwards" if layer or "jvp(" in op_name else "other"
    return "/".join(filter(None, layer.groups())) if layer else "other", direction


def tpu_cycles(program: Program, op: Operation, types: Mapping[str, str]) -> float | None:
    """Return the clock cycles that the TPU's compiler estimates for an operation; None if it states none."""
    cycles = op.attribute(r'"estimated_cycles":"(\d+)"')
    return None if cycles is None else float(cycles)


def gpu_bytes(program: Program, op: Operation, types: Mapping[str, str]) -> float | None:
    """Return the bytes that a kernel reads and writes; None if the operation is no kernel.

    Of an array from which it takes slices, only the slices are counted, and of a library call's result not its
    workspace, of which nobody knows how much is used.
    """
    if op.kind not in KERNELS:
        return None
    kinds = [types.get(name, "") for name in op.operands]
    if op.kind == "fusion":
        body = program.get((_called(op) or [""])[0], ())
        return _written(body, op.result) + sum(_read(body, index, kind) for index, kind in enumerate(kinds))
    if op.kind in SLICES:
        return 2 * size(op.result)
    if op.kind == "dynamic-update-slice":
        return 2 * size(kinds[1])
    result = re.sub(r"\b[su]8\[\d+\](?:\{[^}]*\})?\)$", ")", op.result) if op.kind == "custom-call" else op.result
    return size(result) + sum(map(size, kinds))


def _read(body: Sequence[Operation], index: int, kind: str) -> float:
    """Return the bytes that a fusion reads of its operand with this index, which has this type."""
    names = {op.name for op in body if op.kind == "parameter" and op.rest.startswith(f"{index})")}
    uses: list[Operation] = []
    for op in body:  # operands come before their uses
        if names & set(op.operands):
            names |= {op.name} if op.kind == "bitcast" else set()
            uses += [] if op.kind == "bitcast" else [op]
    if uses and all(op.kind in (*SLICES, "dynamic-update-slice") and op.operands[0] in names for op in uses):
        return sum(size(op.result) for op in uses if op.kind in SLICES)  # an update does not read what it replaces
    return size(kind)


def _written(body: Sequence[Operation], result: str) -> float:
    """Return the bytes that a fusion writes; of an array that it updates in place, those of the update."""
    by_name = {op.name: op for op in body}
    root = next((op for op in body if op.is_root), None)
    while root is not None and root.kind == "bitcast":
        root = by_name.get(root.operands[0])
    if root is None or root.kind not in ("tuple", "dynamic-update-slice"):
        return size(result)
    parts = [by_name[name] for name in root.operands] if root.kind == "tuple" else [root]
    return sum(size(by_name[op.operands[1]].result if op.kind == "dynamic-update-slice" else op.result) for op in parts)


def size(kind: str) -> float:
    """Return the bytes of a type, or of several in parentheses; types not in ``SIZES`` have four per number."""
    shapes = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", kind)
    return sum(SIZES.get(name, 4) * math.prod(int(n) for n in shape.split(",") if n) for name, shape in shapes)
