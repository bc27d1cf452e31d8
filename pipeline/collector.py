"""Python's garbage collector, for a process that has loaded much and then serves for days."""

import gc

YOUNG = 20_000
"""New objects that make it look at them; Python's own 700 are those of two jobs."""


def settle() -> None:
    """Call once, when all is loaded: that is not looked through again, and what comes after less often.

    What a job leaves behind goes by itself as it ends; a full look, with a thousand jobs or streams that live, stops
    the process for a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)
