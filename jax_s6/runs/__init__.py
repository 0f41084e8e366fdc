"""What a run keeps and leaves: its folder, checkpoints, metrics, identity, signals and processes.

The commands are thin layers over it; arrays are computed in ``training``.
"""
