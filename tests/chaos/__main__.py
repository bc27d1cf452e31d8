"""`python -m tests.chaos [F01 F16 …]`: play faults against a real stack and judge each by the oracle.

A fault's name may be the beginning of several (`F01` plays F01-fetch, F01-vision, …). Exits 1 if anything is broken.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from tests.chaos import faults, report
from tests.chaos.registry import REGISTRY, Fault
from tests.chaos.run import Report, run


def chosen(names: list[str]) -> list[Fault]:
    """All when none is named. Raises SystemExit for a name that is none."""
    for name in names:
        if not any(id_.startswith(name) for id_ in REGISTRY.faults):
            raise SystemExit(f"there is no fault {name}")
    every = REGISTRY.faults.values()
    return [each for each in every if not names or any(each.id == n or each.id.startswith(f"{n}-") for n in names)]


async def play(todo: list[Fault], *, jobs: int, seed: int, lines: Path | None, keep: Path | None) -> list[Report]:
    reports = []
    print(f"seed {seed}, {jobs} jobs a fault", flush=True)
    for each in todo:
        done = await run(each, jobs=jobs, seed=seed, keep=keep)
        reports.append(done)
        print(report.json_line(done), flush=True)
        for name, broken in done.broken.items():
            for what in broken[:8]:
                print(f"  {each.id} {name}: {what}", flush=True)
        if lines is not None:
            with lines.open("a") as file:
                file.write(report.json_line(done) + "\n")
    print(report.header())
    for done in reports:
        print(report.row(done))
    return reports


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("faults", nargs="*", help="which; all by default")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="append the JSON lines to this file")
    parser.add_argument("--logs", type=Path, help="keep the logs of broken runs in this folder")
    parser.add_argument("--doc", type=Path, help="write the table into this page")
    options = parser.parse_args()
    faults.load()
    todo = chosen(options.faults)
    reports = asyncio.run(play(todo, jobs=options.jobs, seed=options.seed, lines=options.json, keep=options.logs))
    if options.doc:
        command = (
            f"python -m tests.chaos {' '.join([*options.faults, f'--jobs {options.jobs}', f'--seed {options.seed}'])}"
        )
        report.write(options.doc, reports, command=command, date=time.strftime("%-d %B %Y"))
    return 1 if any(each.broken for each in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
