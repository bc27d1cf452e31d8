"""Which files the resources are, what each was at a moment, and one version of them all."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.settings import RESOURCES

LOCAL_MODEL = "local_model"
FINGERPRINT_LENGTH = 12

Stamp = tuple[int, ...]


def local_model_of(resources: Path) -> Path:
    """The folder of the local model: the resources' own or, where they bring none, the shipped one.

    It has 10 MB, more than a ConfigMap takes.
    """
    own = resources / LOCAL_MODEL
    return own if own.is_dir() else RESOURCES / LOCAL_MODEL


def resource_files(resources: Path) -> dict[str, Path]:
    """Relative path → file, in path order. Raises OSError where a folder cannot be read.

    Hidden files, caches and what editors leave behind do not count. Links are followed: a mounted ConfigMap is made of
    them, folders included.
    """
    files = dict(_walk(resources))
    if not (resources / LOCAL_MODEL).is_dir():
        files |= {f"{LOCAL_MODEL}/{name}": path for name, path in _walk(RESOURCES / LOCAL_MODEL)}
    return dict(sorted(files.items()))


def stamps(resources: Path) -> dict[str, Stamp]:
    """Relative path → what the file system says of the file: as long as this is the same, so is its content.

    Cheap. Inode and ctime also tell of a file that was replaced by one of the same size and time. Raises OSError.
    """
    return {name: _stamp(path.stat()) for name, path in resource_files(resources).items()}


def fingerprints(resources: Path) -> dict[str, str]:
    """Relative path → start of the SHA-256 of every file under `resources`, in path order. Raises OSError."""
    return {name: _digest(path.read_bytes()) for name, path in resource_files(resources).items()}


def pipeline_version(fingerprints: Mapping[str, str]) -> str:
    """One fingerprint of all; the order of the mapping does not matter."""
    return _digest("".join(f"{name}\0{digest}\n" for name, digest in sorted(fingerprints.items())).encode())


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    for place, folders, names in os.walk(root, followlinks=True, onerror=_raise):
        here = Path(place)
        folders[:] = [name for name in folders if _counts(name) and not _leads_back(here / name)]
        for name in names:
            if _counts(name) and (here / name).is_file():
                yield (here / name).relative_to(root).as_posix(), here / name


def _counts(name: str) -> bool:
    return not name.startswith((".", "#")) and not name.endswith("~") and name != "__pycache__"


def _leads_back(folder: Path) -> bool:
    """A link to a folder that it lies in would be walked for ever."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _raise(error: OSError) -> None:
    raise error


def _stamp(of: os.stat_result) -> Stamp:
    return of.st_mtime_ns, of.st_ctime_ns, of.st_size, of.st_ino, of.st_dev


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:FINGERPRINT_LENGTH]
