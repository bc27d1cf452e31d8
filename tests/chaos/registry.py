"""A fault: its promise, what happens and when, and the settings it needs. Each is registered in the order it is run."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.chaos.rig import Rig

Act = Callable[[Rig], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """`act` starts when the stream does and returns when the fault is over. `simulated` says what stands for what."""

    id: str
    title: str
    act: Act
    env: dict[str, str]
    wired: bool
    started: bool
    seconds: float | None
    simulated: str

    @property
    def promise(self) -> str:
        return " ".join((self.act.__doc__ or "").split())


@dataclass
class Registry:
    faults: dict[str, Fault] = field(default_factory=dict)

    def fault(
        self,
        id_: str,
        title: str,
        *,
        env: dict[str, str] | None = None,
        wired: bool = False,
        started: bool = True,
        seconds: float | None = None,
        simulated: str = "",
    ) -> Callable[[Act], Act]:
        """Register an act. `seconds` stretches the stream of jobs over so long; `started` False: it starts all."""

        def register(act: Act) -> Act:
            self.faults[id_] = Fault(id_, title, act, env or {}, wired, started, seconds, simulated)
            return act

        return register


REGISTRY = Registry()
fault = REGISTRY.fault
