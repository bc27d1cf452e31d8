"""Garbage collection of a process that loads much at its start and then serves for days."""

import gc

YOUNG_THRESHOLD = 20_000
"""New objects that start a collection of the youngest generation; Python's default is 700."""


def freeze_after_start() -> None:
    """Call once, when everything is loaded: exempts all objects that exist from collection, and collects later ones
    less often.

    Reference counting frees the objects of a job when it ends; full collections with thousands of open streams were
    half of the longest waits (decision 0018).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_THRESHOLD)
