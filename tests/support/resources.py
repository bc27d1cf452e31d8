"""A copy of the resources to edit, as a person or as Kubernetes does."""

import shutil
from itertools import count
from pathlib import Path

from pipeline.settings import RESOURCES

_numbers = count()


def copied_resources(to: Path, *, local_model: bool = False) -> Path:
    """Without the local model, of 10 MB, unless it is asked for: then the shipped one is used."""
    ignored = shutil.ignore_patterns(*(() if local_model else ("local_model",)))
    return Path(shutil.copytree(RESOURCES, to / "resources", ignore=ignored))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def mounted(resources: Path, mount: Path) -> None:
    """Have `mount` show these files as the ConfigMap they are now: one rename, by which all change at once."""
    data = mount / f"..{next(_numbers)}"
    shutil.copytree(resources, data)
    for entry in data.iterdir():
        if not (mount / entry.name).is_symlink():
            (mount / entry.name).symlink_to(f"..data/{entry.name}")
    (mount / "..data_tmp").symlink_to(data.name)
    (mount / "..data_tmp").rename(mount / "..data")
    for old in mount.glob("..[0-9]*"):
        if old.name != data.name:
            shutil.rmtree(old)
