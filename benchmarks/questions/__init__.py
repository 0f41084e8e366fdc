"""One file per benchmark: the question that it answers, the implementations compared, and the cases measured.

Nothing is measured here: each file defines ``BENCHMARK``, which ``harness`` runs with the functions in ``arms``.
"""
