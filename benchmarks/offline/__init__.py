"""Estimate the speed of training on accelerators that are not there: ``python -m benchmarks offline``.

The real compilers compile each arm's training epoch for a described device, and the speed is estimated from the text of
the compiled program. Nothing runs on an accelerator; ``benchmarks.harness`` measures on one that is there.
"""
