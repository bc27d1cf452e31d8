"""How long this process and the live workers have had different pipeline versions."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass
class VersionSkew:
    """Versions may differ after an edit or a rollout. If they still differ after the grace period, a process was not
    updated.
    """

    grace_seconds: float
    clock: Callable[[], float] = time.monotonic
    _difference: tuple[str, frozenset[str]] | None = field(default=None, init=False)
    _since: float = field(default=0.0, init=False)

    def is_overdue(self, mine: str, theirs: Iterable[str]) -> bool:
        """Whether exactly these versions have differed for the grace period. Stateful: counts from the first call."""
        others = frozenset(theirs) - {mine}
        difference = (mine, others) if others else None
        if difference != self._difference:
            self._difference, self._since = difference, self.clock()
        return difference is not None and self.clock() - self._since >= self.grace_seconds
