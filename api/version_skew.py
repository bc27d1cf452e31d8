"""For how long this process and the live workers have had different pipelines."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass
class VersionSkew:
    """After an edit or a rollout they differ for a while, which is no trouble. Afterwards somebody was forgotten."""

    grace: float
    clock: Callable[[], float] = time.monotonic
    _difference: tuple[str, frozenset[str]] | None = field(default=None, init=False)
    _since: float = field(default=0.0, init=False)

    def is_overdue(self, mine: str, theirs: Iterable[str]) -> bool:
        """Whether these very versions have differed for longer than the grace, as far as it was asked here."""
        others = frozenset(theirs) - {mine}
        difference = (mine, others) if others else None
        if difference != self._difference:
            self._difference, self._since = difference, self.clock()
        return difference is not None and self.clock() - self._since >= self.grace
