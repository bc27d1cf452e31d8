"""Free ports on loopback: those taken by others are stepped around."""

import socket

STEPS = 100


class PortTaken(Exception):
    """The port that was asked for is in use."""


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(start: int, *, taken: frozenset[int] = frozenset()) -> int:
    """The first free port from `start` on."""
    ports = range(start, min(start + STEPS, 65536))
    found = next((port for port in ports if port not in taken and is_free(port)), None)
    if found is None:
        raise PortTaken(f"no free port from {start} to {ports[-1]}")
    return found
