"""Python's garbage collector, for a process that has loaded much and then serves for days."""

import gc

YOUNG = 20_000
"""New objects that make it look at them; Python's own number is 700."""


def freeze_after_start() -> None:
    """Call once, when all is loaded: that is not looked through again, and what comes after less often.

    What a job leaves behind goes by itself as it ends, and a full look with thousands of streams that live was half of
    the longest waits (decision 0018).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)
