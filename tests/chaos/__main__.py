"""`python -m tests.chaos [F01 F16 …]`: play faults against a real stack and judge each by the oracle.

`F01` plays F01-fetch, F01-vision and so on. Exits 1 if anything is broken.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from tests.chaos import faults, report
from tests.chaos.registry import REGISTRY, Fault
from tests.chaos.run import run


def chosen(names: list[str]) -> list[Fault]:
    """All when none is named. Raises SystemExit for a name that is none."""
    named = {
        name: [each for each in REGISTRY.faults.values() if each.id == name or each.id.startswith(f"{name}-")]
        for name in names
    }
    if unknown := [name for name, found in named.items() if not found]:
        raise SystemExit(f"there is no fault {', '.join(unknown)}")
    return [each for found in named.values() for each in found] or list(REGISTRY.faults.values())


async def play(todo: list[Fault], *, jobs: int, seed: int, file: Path | None, keep: Path | None) -> list[report.Line]:
    """One after the other. Each line is printed, and appended to `file`, as soon as it is known."""
    lines = []
    print(f"seed {seed}, {jobs} jobs a fault", flush=True)
    for each in todo:
        done = await run(each, jobs=jobs, seed=seed, keep=keep)
        lines.append(done.line)
        print(report.json_line(done.line), flush=True)
        for name, broken in done.broken.items():
            for what in broken[:8]:
                print(f"  {each.id} {name}: {what}", flush=True)
        if file is not None:
            with file.open("a") as out:
                out.write(report.json_line(done.line) + "\n")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("faults", nargs="*", help="which; all by default")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="append the JSON lines to this file")
    parser.add_argument("--logs", type=Path, help="keep the logs of broken runs in this folder")
    parser.add_argument("--doc", type=Path, help="write the table into this page")
    parser.add_argument("--from", type=Path, dest="earlier", help="play nothing: show what this file of JSON lines has")
    options = parser.parse_args()
    faults.load()
    if options.earlier:
        lines = report.newest(options.earlier)
    else:
        todo = chosen(options.faults)
        lines = asyncio.run(play(todo, jobs=options.jobs, seed=options.seed, file=options.json, keep=options.logs))
    print("\n".join([report.header(), *map(report.row, lines)]))
    if options.doc:
        report.write(options.doc, lines)
    return 1 if any(line["broken"] for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
