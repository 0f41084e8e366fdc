"""The network and its layers: pure functions of arrays, and its weights as files and by PyTorch's names.

Training, data and platforms' choices live elsewhere.
"""
