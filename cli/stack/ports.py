"""Free ports on loopback: skips those in use, and two stacks never choose the same."""

import socket
from dataclasses import dataclass

MAX_STEPS = 100


class PortTaken(Exception):
    """The requested port is in use, or there is no free one."""


@dataclass(frozen=True)
class Reservation:
    """A port reserved until `release`, or until this process ends."""

    port: int
    _lock: socket.socket

    def release(self) -> None:
        self._lock.close()


def reserve(port: int) -> Reservation:
    """Reserve exactly `port`. Raises PortTaken."""
    lock = socket.socket(socket.AF_UNIX)
    try:
        # The port is free until our server listens. Until then this name in the kernel's abstract namespace keeps other
        # stacks away; it leaves no file behind.
        lock.bind(f"\0bunri-port-{port}")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except OSError as error:
        lock.close()
        raise PortTaken(f"port {port} is in use") from error
    return Reservation(port, lock)


def reserve_from(start: int) -> Reservation:
    """Reserve the first free port from `start` on. Raises PortTaken when 100 in a row are in use."""
    for port in range(start, min(start + MAX_STEPS, 65536)):
        try:
            return reserve(port)
        except PortTaken:
            continue
    raise PortTaken(f"no free port from {start} on")
