"""The arms, that is, the implementations under comparison: this project's own and those of other libraries.

Each function returns a ``worker.Task`` and runs in a process of its own. ``work``, ``recipes`` and ``jax_tools`` hold
what several arms share. Which arms are compared, and in which cases, is in ``questions``.
"""
