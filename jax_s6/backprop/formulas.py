"""The formulas of ``network`` as text: ``--explain`` prints them, and the cells of the workbook compute with them."""

from collections.abc import Mapping

# In the order of the computation. ``*``, ``/``, ``^`` and ``exp`` mean the same to a reader and to a spreadsheet.
FORMULAS: Mapping[str, str] = {
    "h1": "w1 * i1 + w2 * i2",
    "h2": "w3 * i1 + w4 * i2",
    "a_h1": "1 / (1 + exp(-h1))",
    "a_h2": "1 / (1 + exp(-h2))",
    "o1": "w5 * a_h1 + w6 * a_h2",
    "o2": "w7 * a_h1 + w8 * a_h2",
    "a_o1": "1 / (1 + exp(-o1))",
    "a_o2": "1 / (1 + exp(-o2))",
    "E1": "1/2 * (t1 - a_o1)^2",
    "E2": "1/2 * (t2 - a_o2)^2",
    "E": "E1 + E2",
    "dE_do1": "(a_o1 - t1) * a_o1 * (1 - a_o1)",
    "dE_do2": "(a_o2 - t2) * a_o2 * (1 - a_o2)",
    "dE_dw5": "dE_do1 * a_h1",
    "dE_dw6": "dE_do1 * a_h2",
    "dE_dw7": "dE_do2 * a_h1",
    "dE_dw8": "dE_do2 * a_h2",
    "dE_dh1": "(dE_do1 * w5 + dE_do2 * w7) * a_h1 * (1 - a_h1)",
    "dE_dh2": "(dE_do1 * w6 + dE_do2 * w8) * a_h2 * (1 - a_h2)",
    "dE_dw1": "dE_dh1 * i1",
    "dE_dw2": "dE_dh1 * i2",
    "dE_dw3": "dE_dh2 * i1",
    "dE_dw4": "dE_dh2 * i2",
}

_LEADS_TO = {"w1": "h1", "w2": "h1", "w3": "h2", "w4": "h2", "w5": "o1", "w6": "o1", "w7": "o2", "w8": "o2"}
CHAIN_RULES: Mapping[str, str] = {
    "dE_do1": "dE1/da_o1 * da_o1/do1",
    "dE_do2": "dE2/da_o2 * da_o2/do2",
    "dE_dh1": "(dE/do1 * do1/da_h1 + dE/do2 * do2/da_h1) * da_h1/dh1",
    "dE_dh2": "(dE/do1 * do1/da_h2 + dE/do2 * do2/da_h2) * da_h2/dh2",
    **{f"dE_d{weight}": f"dE/d{unit} * d{unit}/d{weight}" for weight, unit in _LEADS_TO.items()},
}
