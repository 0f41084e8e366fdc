"""Measure the speed and accuracy of jax_s6 beside other libraries, on the machine at hand.

This folder is the harness: it starts the implementations, checks them, measures them in turns and writes the report.
``questions/`` defines the benchmarks, ``arms/`` holds the implementations, and ``studies/`` measures jax_s6 alone.
``README.md`` lists all results and the commands that print them.
"""
