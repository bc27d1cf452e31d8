"""Fingerprints of the resource files: a stat stamp and a hash of each file, and one version over all of them."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.settings import RESOURCES

LOCAL_MODEL = "local_model"
FINGERPRINT_LENGTH = 12

FileStamp = tuple[int, ...]
"""What `stat` reports of one file: mtime, ctime, size, inode, device."""


def local_model_dir(resources: Path) -> Path:
    """The folder of the local model: the one in `resources` or, without one there, the shipped one.

    The model has 10 MB, more than a ConfigMap holds, so a ConfigMap of resources comes without it.
    """
    own = resources / LOCAL_MODEL
    return own if own.is_dir() else RESOURCES / LOCAL_MODEL


def resource_files(resources: Path) -> dict[str, Path]:
    """Relative path → file, in path order. Raises OSError where a folder cannot be read.

    Hidden files, caches and editor backups are left out. Symbolic links are followed: a mounted ConfigMap consists of
    them, folders included.
    """
    files = dict(_walk(resources))
    if not (resources / LOCAL_MODEL).is_dir():
        files |= {f"{LOCAL_MODEL}/{name}": path for name, path in _walk(RESOURCES / LOCAL_MODEL)}
    return dict(sorted(files.items()))


def file_stamps(resources: Path) -> dict[str, FileStamp]:
    """Relative path → stat stamp. An equal stamp means equal content. Cheap: reads no file. Raises OSError.

    Inode and ctime reveal a file that was replaced by one of the same size and mtime.
    """
    return {name: _stamp(path.stat()) for name, path in resource_files(resources).items()}


def fingerprints(resources: Path) -> dict[str, str]:
    """Relative path → first 12 hex digits of the file's SHA-256, in path order. Reads every file. Raises OSError."""
    return {name: _digest(path.read_bytes()) for name, path in resource_files(resources).items()}


def pipeline_version(fingerprints: Mapping[str, str]) -> str:
    """One fingerprint over all files' fingerprints; the order of the mapping does not matter."""
    return _digest("".join(f"{name}\0{digest}\n" for name, digest in sorted(fingerprints.items())).encode())


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, folders, names in os.walk(root, followlinks=True, onerror=_raise):
        here = Path(folder)
        folders[:] = [name for name in folders if _is_resource(name) and not _links_to_parent(here / name)]
        for name in names:
            if _is_resource(name) and (here / name).is_file():
                yield (here / name).relative_to(root).as_posix(), here / name


def _is_resource(name: str) -> bool:
    return not name.startswith((".", "#")) and not name.endswith("~") and name != "__pycache__"


def _links_to_parent(folder: Path) -> bool:
    """Whether this is a link to a folder above it: `os.walk` would follow it for ever."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _raise(error: OSError) -> None:
    raise error


def _stamp(stat: os.stat_result) -> FileStamp:
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino, stat.st_dev


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:FINGERPRINT_LENGTH]
