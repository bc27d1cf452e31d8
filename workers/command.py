"""The command line that starts a worker process. Its callers are `bunri`, the tests and the benchmarks."""

import sys


def worker_command(index: int, concurrency: int) -> list[str]:
    """`index` tells apart the workers of one host; `concurrency` is how many jobs are in flight at once."""
    name = f"--hostname=worker{index}@%h"
    return [
        sys.executable,
        "-m",
        "workers",
        "worker",
        f"--concurrency={concurrency}",
        name,
        "--without-mingle",
        "--without-gossip",
    ]
