"""Hot reload of the resources: polls the files and swaps in a new Knowledge once an edit is complete and valid.

An edit is loaded when two polls in a row have found the same files, because an editor or an rsync may be half way. An
edit with a mistake is refused: the Knowledge in use stays in use. Decision 0014.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from pipeline.knowledge.fingerprint import FileStamp, file_stamps, fingerprints, pipeline_version
from pipeline.knowledge.knowledge import ChangedDuringLoad, Knowledge, with_local_model
from pipeline.types import Refusal

Built = TypeVar("Built")

log = structlog.get_logger()


@dataclass(frozen=True)
class _Reload(Generic[Built]):
    knowledge: Knowledge
    built: Built


class Watch(Generic[Built]):
    """One per process. `knowledge` is in use; `current` is what `build` returned for it (a worker's Pipeline).

    Both change together, between two steps of the event loop: read them once and keep them for a whole job. `refusal`
    describes the edit that is on disk and not in use because of a mistake.
    """

    def __init__(
        self, resources: Path, knowledge: Knowledge, current: Built, build: Callable[[Knowledge], Built]
    ) -> None:
        """`build` is called on another thread; an exception from it refuses the edit."""
        self._resources = resources
        self._build = build
        self.knowledge = knowledge
        self.current = current
        self.refusal: Refusal | None = None
        self._stamps: dict[str, FileStamp] = {}
        self._found = dict(self.knowledge.fingerprints)
        self._is_judged = False

    @property
    def is_stale(self) -> bool:
        """Whether the last poll found other files than those in use: not yet loaded, refused, or the local model's."""
        return pipeline_version(self._found) != self.knowledge.version

    async def version_on_disk(self) -> str:
        """The version of the files as they are now. Reads them on another thread."""
        return pipeline_version(await asyncio.to_thread(_fingerprints, self._resources))

    async def poll(self, interval_seconds: float) -> None:
        """Call `reload_if_changed` at this interval, until cancelled."""
        while True:
            await asyncio.sleep(interval_seconds)
            await self.reload_if_changed()

    async def reload_if_changed(self) -> bool:
        """Poll once. Returns whether version or refusal changed. Not safe to call concurrently."""
        found = await asyncio.to_thread(self._find)
        if found is None:
            return False
        before = self.knowledge.version
        if isinstance(found, Refusal):
            self.refusal = found
            log.error("resources.refused", version=found.version, goes_on_with=before, detail=found.detail)
            return True
        self.knowledge, self.current, self.refusal = found.knowledge, found.built, None
        log.info("resources.taken", version=self.knowledge.version, instead_of=before)
        return True

    def _find(self) -> _Reload[Built] | Refusal | None:
        """Blocks. None when nothing changed, or when two polls have not yet found the same files."""
        now = _file_stamps(self._resources)
        if now == self._stamps and self._is_judged:
            return None
        found = _fingerprints(self._resources)
        self._is_judged = found == self._found
        self._stamps, self._found = now, found
        return self._judge(found) if self._is_judged else None

    def _judge(self, found: dict[str, str]) -> _Reload[Built] | Refusal | None:
        version = pipeline_version(with_local_model(found, self.knowledge.fingerprints))
        if version == self.knowledge.version:
            if self.is_stale:
                log.warning("resources.restart_needed", why="the local model's files have changed")
            return _Reload(self.knowledge, self.current) if self.refusal else None
        if self.refusal is not None and version == self.refusal.version:
            return None
        try:
            knowledge = Knowledge.load(self._resources, running=self.knowledge)
            return _Reload(knowledge, self._build(knowledge))
        except ChangedDuringLoad:
            self._is_judged = False
            return None
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the files, this process goes on with the old
            return Refusal(version=version, detail=_detail(error, self._resources))


def _file_stamps(resources: Path) -> dict[str, FileStamp]:
    try:
        return file_stamps(resources)
    except OSError:
        return {}


def _fingerprints(resources: Path) -> dict[str, str]:
    """Unreadable files get a fingerprint of their error: an error that stays is refused, and refused once."""
    try:
        return fingerprints(resources)
    except OSError as error:
        return {"": repr(error)}


def _detail(error: Exception, resources: Path) -> str:
    text = str(error) if isinstance(error, ValueError | OSError) else repr(error)
    return text.removeprefix(f"Mistakes in {resources}:\n")
