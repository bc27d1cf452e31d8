"""The faults, by what fails. Importing a module registers its faults."""

from importlib import import_module

MODULES = ("workers", "redis", "model", "origin", "edge")


def load() -> None:
    """In the order in which they are run."""
    for name in MODULES:
        import_module(f"tests.chaos.faults.{name}")
