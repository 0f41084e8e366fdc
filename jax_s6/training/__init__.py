"""Training as pure functions of arrays: augmentation, optimizers, one step, one epoch, many lanes on many devices.

Nothing here touches a file or prints; see ``runs`` for what a run keeps.
"""
