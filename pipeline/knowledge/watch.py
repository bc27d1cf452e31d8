"""Looks whether the resources on disk are those in use, and takes what has changed once it is whole and right.

An edit is taken when it has been the same for two looks, because an editor or an rsync may be half way. One with a
mistake is refused: what was in use stays in use. Decision 0014.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from pipeline.knowledge.fingerprint import Stamp, fingerprints, pipeline_version, stamps
from pipeline.knowledge.knowledge import Knowledge, Unsettled, with_local_model
from pipeline.types import Refusal

Made = TypeVar("Made")

log = structlog.get_logger()


@dataclass(frozen=True)
class _Taken(Generic[Made]):
    knowledge: Knowledge
    made: Made


class Watch(Generic[Made]):
    """One per process. `knowledge` is what is in use, `made` what `make` has made of it: they change together, between
    two steps of the event loop. Take them once and keep them for a whole job.

    `refusal` is about the edit that lies on disk and is not used because of a mistake.
    """

    def __init__(self, resources: Path, knowledge: Knowledge, made: Made, make: Callable[[Knowledge], Made]) -> None:
        """`make` is called on another thread; what it raises refuses the edit."""
        self._resources = resources
        self._make = make
        self.knowledge = knowledge
        self.made = made
        self.refusal: Refusal | None = None
        self._stamps: dict[str, Stamp] = {}
        self._found = dict(self.knowledge.fingerprints)
        self._is_judged = False

    @property
    def is_stale(self) -> bool:
        """Whether the last look saw other files than those in use: not yet taken, refused, or the local model's."""
        return pipeline_version(self._found) != self.knowledge.version

    async def on_disk(self) -> str:
        """The version that the files have now."""
        return pipeline_version(await asyncio.to_thread(_read, self._resources))

    async def keep(self, every: float) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(every)
            await self.look()

    async def look(self) -> bool:
        """Whether version or refusal are now others than before. Not to be called twice at once."""
        found = await asyncio.to_thread(self._find)
        if found is None:
            return False
        before = self.knowledge.version
        if isinstance(found, Refusal):
            self.refusal = found
            log.error("resources.refused", version=found.version, goes_on_with=before, detail=found.detail)
            return True
        self.knowledge, self.made, self.refusal = found.knowledge, found.made, None
        log.info("resources.taken", version=self.knowledge.version, instead_of=before)
        return True

    def _find(self) -> _Taken[Made] | Refusal | None:
        """Blocks. None when there is nothing new, or nothing that two looks have seen."""
        now = _stamps(self._resources)
        if now == self._stamps and self._is_judged:
            return None
        found = _read(self._resources)
        self._is_judged = found == self._found
        self._stamps, self._found = now, found
        return self._judge(found) if self._is_judged else None

    def _judge(self, found: dict[str, str]) -> _Taken[Made] | Refusal | None:
        version = pipeline_version(with_local_model(found, self.knowledge.fingerprints))
        if version == self.knowledge.version:
            if self.is_stale:
                log.warning("resources.restart_needed", why="the local model's files have changed")
            return _Taken(self.knowledge, self.made) if self.refusal else None
        if self.refusal is not None and version == self.refusal.version:
            return None
        try:
            knowledge = Knowledge.load(self._resources, running=self.knowledge)
            return _Taken(knowledge, self._make(knowledge))
        except Unsettled:
            self._is_judged = False
            return None
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the files, this process goes on with the old
            return Refusal(version=version, detail=_detail(error, self._resources))


def _stamps(resources: Path) -> dict[str, Stamp]:
    try:
        return stamps(resources)
    except OSError:
        return {}


def _read(resources: Path) -> dict[str, str]:
    """What cannot be read has a version, too, so that it is refused when it stays so, and once."""
    try:
        return fingerprints(resources)
    except OSError as error:
        return {"": repr(error)}


def _detail(error: Exception, resources: Path) -> str:
    text = str(error) if isinstance(error, ValueError | OSError) else repr(error)
    return text.removeprefix(f"Mistakes in {resources}:\n")
