"""Throughput against what people use today, on the machine at hand."""
