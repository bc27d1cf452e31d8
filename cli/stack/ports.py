"""Free ports on loopback: those taken by others are stepped around, and two runs of ours never choose the same."""

import socket
from dataclasses import dataclass

STEPS = 100


class PortTaken(Exception):
    """The port that was asked for is in use."""


@dataclass(frozen=True)
class Reservation:
    """A port that is ours until `release`, or until this process ends."""

    port: int
    _lock: socket.socket

    def release(self) -> None:
        self._lock.close()


def reserve(port: int) -> Reservation:
    """Exactly `port`. Raises PortTaken."""
    lock = socket.socket(socket.AF_UNIX)
    try:
        # Nobody listens on the port until the server we start does. This name in the kernel's abstract namespace
        # keeps other runs of ours away meanwhile; it leaves no file behind.
        lock.bind(f"\0bunri-port-{port}")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except OSError as error:
        lock.close()
        raise PortTaken(f"port {port} is in use") from error
    return Reservation(port, lock)


def reserve_from(start: int) -> Reservation:
    """The first free port from `start` on. Raises PortTaken when there is none for a long way."""
    for port in range(start, min(start + STEPS, 65536)):
        try:
            return reserve(port)
        except PortTaken:
            continue
    raise PortTaken(f"no free port from {start} on")
