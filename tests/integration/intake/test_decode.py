"""The real decode processes: an image that breaks its process affects no other job."""

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from PIL import Image

from pipeline.errors import Internal, PipelineError, SourceCorruptImage, SourceTooLarge, SourceUnsupportedMedia
from pipeline.intake.decode import ROOT, ImageDecoder
from pipeline.settings import PipelineSettings
from pipeline.types import SourceImage
from tests.support.wait import eventually, wait_until

Open = Callable[..., ImageDecoder]


@pytest.fixture
async def open_decoder() -> AsyncIterator[Open]:
    """Decoders with these settings, closed in the end."""
    async with contextlib.AsyncExitStack() as stack:

        def open_one(**limits: Any) -> ImageDecoder:
            decoder = ImageDecoder(PipelineSettings.model_validate(limits))
            stack.push_async_callback(decoder.close)
            return decoder

        yield open_one


@pytest.fixture
def photo(samples: Path) -> bytes:
    return (samples / "glass-1.jpg").read_bytes()


def good_photos(samples: Path) -> list[bytes]:
    files = [samples / entry["file"] for entry in json.loads((samples / "expected.json").read_text())]
    return [file.read_bytes() for file in files if file.name != "broken.jpg"]


@pytest.fixture(scope="module")
def burner() -> bytes:
    """A few hundred kB that take a quarter of a second and 200 MB to decode."""
    out = io.BytesIO()
    Image.new("RGBA", (5000, 4900)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def heic(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    pillow_heif.from_pillow(image).save(out, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def heavy_heic() -> bytes:
    """A few kB that take a fifth of a second and 250 MB to decode."""
    return heic(Image.new("RGB", (4900, 5000), "red"), enc_params={"preset": "ultrafast"})


def pids(decoder: ImageDecoder) -> list[int]:
    return [process._popen.pid for process in decoder._all]


def state(pid: int) -> str | None:
    """One letter, as `ps` shows it; None for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return None


def is_gone(pid: int) -> bool:
    return state(pid) in {None, "Z"}


def seen_by_others(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


def open_files(pid: int) -> set[str]:
    return {file.name for file in Path(f"/proc/{pid}/fd").iterdir()}


async def freeze(decoder: ImageDecoder, photo: bytes) -> int:
    """Its one process, stopped while idle: the next job hangs in it for as long as the test wants."""
    await decoder.prepare(photo)
    (pid,) = pids(decoder)
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state(pid) == "T")
    return pid


async def in_flight(decoder: ImageDecoder, data: bytes) -> "asyncio.Task[SourceImage]":
    """A job that has been handed the idle process."""
    task = asyncio.create_task(decoder.prepare(data))

    async def is_taken() -> bool:
        return not decoder._idle

    await eventually(is_taken)
    return task


async def refusal(job: Awaitable[SourceImage]) -> type[PipelineError]:
    with pytest.raises(PipelineError) as refused:
        await job
    return type(refused.value)


async def test_a_photo_comes_back_checked_and_measured(open_decoder: Open, photo: bytes) -> None:
    image = await open_decoder().prepare(photo)
    assert (image.media_type, image.width, image.height) == ("image/jpeg", 288, 384)
    assert Image.open(io.BytesIO(image.data)).size == (288, 384)


async def test_all_samples_end_as_they_should(open_decoder: Open, samples: Path) -> None:
    decoder = open_decoder()
    for data in good_photos(samples):
        image = await decoder.prepare(data)
        assert max(image.width, image.height) == 384
    assert await refusal(decoder.prepare((samples / "broken.jpg").read_bytes())) is SourceCorruptImage


async def test_the_same_pixels_have_the_same_digest(open_decoder: Open, photo: bytes) -> None:
    decoder = open_decoder()
    plain, commented = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (40, 30)).save(plain, "JPEG")
    Image.new("RGB", (40, 30)).save(commented, "JPEG", comment=b"mine")
    first = await decoder.prepare(plain.getvalue())
    assert (await decoder.prepare(commented.getvalue())).sha256 == first.sha256
    assert (await decoder.prepare(photo)).sha256 != first.sha256


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"text", SourceUnsupportedMedia), (b"", SourceCorruptImage), (b"\xff\xd8\xff", SourceCorruptImage)],
)
async def test_a_refusal_crosses_over_and_the_process_lives_on(
    open_decoder: Open, photo: bytes, data: bytes, kind: type[PipelineError]
) -> None:
    decoder = open_decoder()
    await decoder.prepare(photo)
    before = pids(decoder)
    assert await refusal(decoder.prepare(data)) is kind
    assert pids(decoder) == before


async def test_the_caps_of_the_settings_reach_the_process(open_decoder: Open, photo: bytes) -> None:
    decoder = open_decoder(image_max_pixels=288 * 384 - 1)
    assert await refusal(decoder.prepare(photo)) is SourceTooLarge


async def test_one_process_takes_one_image_after_the_other(open_decoder: Open, photo: bytes) -> None:
    decoder = open_decoder()
    await decoder.prepare(photo)
    before = pids(decoder)
    await decoder.prepare(photo)
    assert pids(decoder) == before


async def test_an_image_that_burns_the_cpu_is_stopped_and_the_next_is_not(
    open_decoder: Open, photo: bytes, burner: bytes
) -> None:
    decoder = open_decoder(image_cpu_seconds=0.05)
    for _ in range(2):
        assert await refusal(decoder.prepare(burner)) is SourceTooLarge
        assert (await decoder.prepare(photo)).width == 288


async def test_cpu_time_is_counted_for_each_image_anew(open_decoder: Open, photo: bytes) -> None:
    decoder = open_decoder(image_cpu_seconds=0.05)
    await decoder.prepare(photo)
    (pid,) = pids(decoder)

    def ticks() -> int:
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:13]
        return int(user) + int(system)

    end = ticks() + os.sysconf("SC_CLK_TCK") // 10  # Twice the limit.
    for _ in range(10_000):
        await decoder.prepare(photo)
        if ticks() > end:
            break
    assert ticks() > end
    assert pids(decoder) == [pid]


async def test_an_image_that_needs_too_much_memory_is_refused_and_the_process_lives_on(
    open_decoder: Open, photo: bytes, burner: bytes
) -> None:
    decoder = open_decoder(image_memory_bytes=160 * 1024**2)
    assert await refusal(decoder.prepare(burner)) is SourceTooLarge
    before = pids(decoder)
    assert (await decoder.prepare(photo)).width == 288
    assert pids(decoder) == before


async def test_the_same_image_passes_with_more_memory_and_time(open_decoder: Open, burner: bytes) -> None:
    assert (await open_decoder().prepare(burner)).width == 1024


async def test_a_phones_heic_comes_back_upright_and_clean(open_decoder: Open) -> None:
    stored = Image.new("RGB", (80, 120), "red")  # Lies on its side.
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[2] = (37.0, 33.0, 59.4)
    data = heic(stored, exif=exif.tobytes())
    assert b"Exif" in data
    image = await open_decoder().prepare(data)
    assert (image.media_type, image.width, image.height) == ("image/jpeg", 120, 80)
    assert len(Image.open(io.BytesIO(image.data)).getexif()) == 0


async def test_a_decoder_that_is_not_installed_is_our_fault_and_the_process_lives_on(
    open_decoder: Open, photo: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pipeline").symlink_to(ROOT / "pipeline")
    (tmp_path / "pillow_heif.py").write_text("raise ImportError('no such library')")
    monkeypatch.setattr("pipeline.intake.decode.ROOT", tmp_path)
    decoder = open_decoder()
    await decoder.prepare(photo)
    before = pids(decoder)
    assert await refusal(decoder.prepare(heic(Image.new("RGB", (120, 80), "red")))) is Internal
    assert (await decoder.prepare(photo)).width == 288
    assert pids(decoder) == before


async def test_the_setting_switches_heic_off(open_decoder: Open, photo: bytes) -> None:
    decoder = open_decoder(image_heic=False)
    data = heic(Image.new("RGB", (120, 80), "red"))
    assert await refusal(decoder.prepare(data)) is SourceUnsupportedMedia
    assert (await decoder.prepare(photo)).width == 288
    assert (await open_decoder().prepare(data)).width == 120


async def test_libheif_is_loaded_by_the_first_heic_and_in_the_decode_process_only(
    open_decoder: Open, photo: bytes
) -> None:
    decoder = open_decoder()
    await decoder.prepare(photo)
    (pid,) = pids(decoder)
    assert b"libheif" not in seen_by_others(pid, "maps")
    await decoder.prepare(heic(Image.new("RGB", (120, 80), "red")))
    assert pids(decoder) == [pid]
    assert b"libheif" in seen_by_others(pid, "maps")


async def test_a_broken_heic_is_refused_and_the_process_lives_on(open_decoder: Open, photo: bytes) -> None:
    decoder = open_decoder()
    data = heic(Image.effect_noise((120, 80), 90))
    await decoder.prepare(data)
    before = pids(decoder)
    assert await refusal(decoder.prepare(data[: len(data) // 2])) is SourceCorruptImage
    assert (await decoder.prepare(photo)).width == 288
    assert pids(decoder) == before


async def test_a_heic_of_too_many_pixels_is_refused_before_libheif_is_loaded(
    open_decoder: Open, heavy_heic: bytes
) -> None:
    decoder = open_decoder(image_max_pixels_other=4900 * 5000 - 1)
    assert await refusal(decoder.prepare(heavy_heic)) is SourceTooLarge
    (pid,) = pids(decoder)
    assert b"libheif" not in seen_by_others(pid, "maps")


async def test_a_heic_that_burns_the_cpu_is_stopped(open_decoder: Open, photo: bytes, heavy_heic: bytes) -> None:
    decoder = open_decoder(image_cpu_seconds=0.05)
    assert await refusal(decoder.prepare(heavy_heic)) is SourceTooLarge
    assert (await decoder.prepare(photo)).width == 288


@pytest.mark.parametrize("mebibytes", [160, 220], ids=["libheif's", "Pillow's"])
async def test_a_heic_that_needs_too_much_memory_is_refused_and_the_process_lives_on(
    open_decoder: Open, photo: bytes, heavy_heic: bytes, mebibytes: int
) -> None:
    decoder = open_decoder(image_memory_bytes=mebibytes * 1024**2)
    assert await refusal(decoder.prepare(heavy_heic)) is SourceTooLarge
    before = pids(decoder)
    assert (await decoder.prepare(photo)).width == 288
    assert pids(decoder) == before


async def test_the_same_heic_passes_with_more_memory_and_time(open_decoder: Open, heavy_heic: bytes) -> None:
    assert (await open_decoder().prepare(heavy_heic)).height == 1024


async def test_a_process_that_crashes_fails_its_own_job_only(open_decoder: Open, photo: bytes) -> None:
    decoder = open_decoder(image_processes=2)
    pid = await freeze(decoder, photo)
    doomed = await in_flight(decoder, photo)
    assert (await decoder.prepare(photo)).width == 288
    os.kill(pid, signal.SIGSEGV)
    os.kill(pid, signal.SIGCONT)
    assert await refusal(doomed) is SourceCorruptImage
    assert (await decoder.prepare(photo)).width == 288
    assert pid not in pids(decoder)


async def test_a_process_killed_from_outside_is_no_fault_of_the_image(open_decoder: Open, photo: bytes) -> None:
    """As the kernel does when memory is short. The image has one more try."""
    decoder = open_decoder()
    pid = await freeze(decoder, photo)
    job = await in_flight(decoder, photo)
    os.kill(pid, signal.SIGKILL)
    assert (await job).width == 288


async def test_a_process_that_died_while_idle_is_replaced(open_decoder: Open, photo: bytes) -> None:
    decoder = open_decoder()
    await decoder.prepare(photo)
    (pid,) = pids(decoder)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_gone(pid))
    assert (await decoder.prepare(photo)).width == 288


async def test_a_process_that_hangs_is_our_fault_and_is_replaced(open_decoder: Open, photo: bytes) -> None:
    decoder = open_decoder(image_cpu_seconds=0.05)
    pid = await freeze(decoder, photo)
    assert await refusal(decoder.prepare(photo)) is Internal
    assert is_gone(pid)
    assert (await decoder.prepare(photo)).width == 288


async def test_a_cancelled_job_frees_its_place_and_leaves_no_answer_behind(
    open_decoder: Open, photo: bytes, samples: Path
) -> None:
    decoder = open_decoder()
    other = (samples / "metal-2.jpg").read_bytes()
    wanted = await open_decoder().prepare(other)
    pid = await freeze(decoder, photo)
    cancelled = await in_flight(decoder, photo)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert await decoder.prepare(other) == wanted
    wait_until(lambda: is_gone(pid))


async def test_a_cancelled_start_frees_its_place(open_decoder: Open, photo: bytes) -> None:
    decoder = open_decoder()
    starting = asyncio.create_task(decoder.prepare(photo))

    async def has_begun() -> bool:
        return bool(pids(decoder))

    await eventually(has_begun)
    (pid,) = pids(decoder)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert (await decoder.prepare(photo)).width == 288
    assert pid not in pids(decoder)
    wait_until(lambda: is_gone(pid))


async def test_a_job_cancelled_while_it_waits_affects_no_other(open_decoder: Open, photo: bytes) -> None:
    decoder = open_decoder()
    pid = await freeze(decoder, photo)
    first = await in_flight(decoder, photo)
    waiting = asyncio.create_task(decoder.prepare(photo))
    await asyncio.wait({waiting}, timeout=0)
    waiting.cancel()
    os.kill(pid, signal.SIGCONT)
    assert (await first).width == 288
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert pids(decoder) == [pid]


async def test_jobs_beyond_the_processes_wait_and_all_finish(open_decoder: Open, samples: Path) -> None:
    decoder = open_decoder(image_processes=2)
    files = good_photos(samples)
    alone = [await decoder.prepare(data) for data in files]
    together = await asyncio.gather(*(decoder.prepare(data) for data in files * 4))
    assert together == alone * 4
    assert len(pids(decoder)) == 2


async def test_the_process_has_no_secret_and_no_file_of_ours(
    open_decoder: Open, photo: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    kept = os.open(tmp_path / "open", os.O_CREAT)
    os.set_inheritable(kept, True)
    decoder = open_decoder()
    assert decoder._settings.openai_api_key is not None
    await decoder.prepare(photo)
    os.close(kept)
    (pid,) = pids(decoder)
    assert seen_by_others(pid, "environ") == b""
    assert b"sk-secret" not in seen_by_others(pid, "cmdline")
    assert open_files(pid) == {"0", "1", "2"}


async def test_a_closed_decoder_leaves_no_process(open_decoder: Open, photo: bytes) -> None:
    decoder = open_decoder(image_processes=2)
    await asyncio.gather(*(decoder.prepare(photo) for _ in range(4)))
    both = pids(decoder)
    assert len(both) == 2
    await decoder.close()
    assert [state(pid) for pid in both] == [None, None]


async def test_closing_fails_the_job_in_flight_and_those_that_wait(open_decoder: Open, photo: bytes) -> None:
    decoder = open_decoder()
    pid = await freeze(decoder, photo)
    jobs = [await in_flight(decoder, photo), asyncio.create_task(decoder.prepare(photo))]
    await asyncio.wait(jobs, timeout=0)
    await decoder.close()
    assert [await refusal(job) for job in jobs] == [Internal, Internal]
    assert state(pid) is None
    assert pids(decoder) == []


async def test_closing_while_a_process_starts_leaves_none(open_decoder: Open, photo: bytes) -> None:
    decoder = open_decoder()
    starting = asyncio.create_task(decoder.prepare(photo))
    await asyncio.wait({starting}, timeout=0)
    (pid,) = pids(decoder)
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    await decoder.close()
    assert await refusal(starting) is Internal
    assert state(pid) is None
    assert complaints == []


async def test_a_process_that_cannot_start_is_our_fault(
    open_decoder: Open, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = open_decoder()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/bin/false")
        assert await refusal(decoder.prepare(photo)) is Internal
    assert (await decoder.prepare(photo)).width == 288


OWNER = """
import asyncio, pathlib, sys
from pipeline.intake.decode import ImageDecoder
from pipeline.settings import PipelineSettings

async def main():
    decoder = ImageDecoder(PipelineSettings())
    await decoder.prepare(pathlib.Path(sys.argv[1]).read_bytes())
    print(*(process._popen.pid for process in decoder._all), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_process_ends_with_the_one_that_started_it(samples: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(samples / "glass-1.jpg")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert not is_gone(pid)
        owner.kill()
    wait_until(lambda: is_gone(pid))
