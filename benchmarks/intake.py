"""CPU time and peak memory of image intake against naive Pillow, in the same run: `python -m benchmarks.intake`.

Ours is `ImageDecoder.prepare`: both processes' CPU, the hop between them included. Prints a table and one JSON line.
"""

import asyncio
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageOps

from pipeline.intake.decode import ImageDecoder
from pipeline.settings import PipelineSettings

ROUNDS = 15
PHOTOS = {
    # Name → size and JPEG quality. 1 MP needs no work, the second is the same on its side, 12 MP is a phone's.
    "1 MP": ((1152, 864), 95, 1),
    "1 MP, to be turned": ((1152, 864), 95, 6),
    "12 MP": ((4032, 3024), 94, 1),
}
LIMITS = {"1 MP": 0.40, "12 MP": 0.22}


def photo(size: tuple[int, int], quality: int, orientation: int) -> bytes:
    """A photo-like JPEG: smooth shapes with sensor noise, so that its entropy coding costs what a photo's does."""
    shapes = Image.radial_gradient("L").resize(size, Image.Resampling.BICUBIC)
    planes = [shapes, ImageOps.mirror(Image.linear_gradient("L").resize(size)), ImageOps.flip(shapes)]
    noise = [Image.effect_noise(size, 14) for _ in planes]
    image = Image.merge("RGB", [Image.blend(plane, grain, 0.35) for plane, grain in zip(planes, noise, strict=True)])
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, exif=exif)
    return out.getvalue()


def naive(data: bytes) -> bytes:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    image.thumbnail((1024, 1024), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()


def cpu_of(pid: int) -> float:
    """Seconds on a CPU of a process's main thread, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def measure(work: Callable[[bytes], object], data: bytes) -> float:
    samples = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work(data)
        samples.append(time.process_time() - start)
    return statistics.median(samples) * 1000


async def measure_ours(decoder: ImageDecoder, data: bytes) -> float:
    await decoder.prepare(data)
    (process,) = decoder._all  # noqa: SLF001 - whose CPU is to be counted
    child = process._popen.pid  # noqa: SLF001
    samples = []
    for _ in range(ROUNDS):
        start = time.process_time() + cpu_of(child)
        await decoder.prepare(data)
        samples.append(time.process_time() + cpu_of(child) - start)
    return statistics.median(samples) * 1000


def peak(way: str, data: bytes) -> int:
    """What one image adds to the memory of a fresh process, kB at its peak."""
    out = subprocess.run(
        [sys.executable, "-m", "benchmarks.intake", way], input=data, capture_output=True, check=True, env=os.environ
    )
    return int(out.stdout)


def report_peak(way: str) -> None:
    """In a process of its own: what the image adds to RSS in the process that decodes it."""
    from pipeline.intake.image import Bounds, prepare  # noqa: PLC0415 - the naive way must not pay for it

    bounds = Bounds(1024, 50_000_000, 25_000_000)
    ways: dict[str, Callable[[bytes], object]] = {"naive": naive, "ours": lambda data: prepare(data, bounds)}
    data = sys.stdin.buffer.read()
    ways[way](photo((64, 64), 80, 6))
    Path("/proc/self/clear_refs").write_text("5")  # Forgets the peak; getrusage's would be the parent's.
    before = memory("VmRSS")
    ways[way](data)
    print(memory("VmHWM") - before)


def memory(name: str) -> int:
    """A line of /proc/self/status, kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


async def main() -> int:
    settings = PipelineSettings()
    decoder = ImageDecoder(settings)
    rows = []
    for name, (size, quality, orientation) in PHOTOS.items():
        data = photo(size, quality, orientation)
        by_pillow, by_us = measure(naive, data), await measure_ours(decoder, data)
        rows.append(
            {
                "photo": name,
                "kB": len(data) // 1000,
                "naive_cpu_ms": round(by_pillow, 2),
                "cpu_ms": round(by_us, 2),
                "ratio": round(by_us / by_pillow, 3),
                "limit": LIMITS.get(name),
                "naive_peak_kB": peak("naive", data),
                "peak_kB": peak("ours", data),
            }
        )
    await decoder.close()
    print(f"{'photo':<20}{'kB':>6}{'naive ms':>10}{'ms':>7}{'ratio':>7}{'limit':>7}{'naive kB':>10}{'peak kB':>9}")
    for row in rows:
        print(
            f"{row['photo']:<20}{row['kB']:>6}{row['naive_cpu_ms']:>10}{row['cpu_ms']:>7}{row['ratio']:>7}"
            f"{row['limit'] or '':>7}{row['naive_peak_kB']:>10}{row['peak_kB']:>9}"
        )
    print(json.dumps({"cores": os.cpu_count(), "rounds": ROUNDS, "rows": rows}))
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        report_peak(sys.argv[1])
    else:
        sys.exit(asyncio.run(main()))
