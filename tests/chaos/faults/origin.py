"""Photo origins that hang, lie, bomb or have let a link expire (F25, F26)."""

from contextlib import ExitStack
from functools import partial

from tests.chaos.registry import fault
from tests.chaos.rig import Rig
from tests.support.image_server import (
    Answer,
    compressed,
    cut,
    drip,
    endless,
    full_backlog,
    raw,
    redirect,
    reply,
    reset,
    silence,
)
from tests.support.redis_server import closed_port
from tests.support.wait import eventually

FETCH_LIMITS = {
    "PIPELINE_FETCH_CONNECT_TIMEOUT": "1",
    "PIPELINE_FETCH_READ_TIMEOUT": "2",
    "PIPELINE_FETCH_TOTAL_TIMEOUT": "4",
}
WALL = 40.0
"""Seconds for three tries of four seconds and the pauses between them, on a busy machine."""

ORIGINS: dict[str, tuple[Answer, tuple[str, ...]]] = {
    "hangs": (silence(), ("source.timeout",)),
    "hangs after the headers": (silence(headers=True), ("source.timeout",)),
    "drips": (drip(b"x" * 10_000, 0.05), ("source.timeout",)),
    "resets": (reset(), ("source.unreachable",)),
    "resets in the body": (reset(after=b"x" * 1000), ("source.unreachable",)),
    "sends 10 GB": (endless(b"\xff" * 65_536), ("source.too_large",)),
    "sends a gzip bomb": (compressed(bytes(200_000_000)), ("source.too_large",)),
    "cuts its body": (cut(b"x" * 5000, 1000), ("source.unreachable",)),
    "redirects for ever": (redirect("?on"), ("source.unreachable",)),
    "speaks no HTTP": (raw(b"SSH-2.0-OpenSSH_9.2\r\n"), ("source.unreachable",)),
}

DEAD_ENDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "TLS where there is none": ("https://127.0.0.1:{origin}/photo/0", ("source.unreachable",)),
    "nobody listens": ("http://127.0.0.1:{nobody}/photo/0", ("source.unreachable",)),
    "connecting hangs": ("http://127.0.0.1:{full}/photo/0", ("source.timeout",)),
    "no such host": ("https://no-such-host.bunri-chaos.com/a.jpg", ("source.not_found", "source.unreachable")),
}


@fault(
    "F25", "origins of fourteen bad kinds", env=FETCH_LIMITS, simulated="SERVFAIL is not played: it needs a name server"
)
async def f25(rig: Rig) -> None:
    """Each ends as its own code, after three short tries where a try can help; no connection stays open."""
    first = rig.middle
    kinds = [*ORIGINS, *DEAD_ENDS]
    with ExitStack() as stack:
        ports = {
            "origin": rig.origin.port,
            "nobody": closed_port(),
            "full": stack.enter_context(full_backlog()),
        }
        for job, kind in enumerate(kinds, start=first):
            if kind in ORIGINS:
                answer, codes = ORIGINS[kind]
                rig.origin.misbehave(job, answer)
                rig.special[job] = {"photo": rig.origin.url(f"/photo/{job}")}
            else:
                url, codes = DEAD_ENDS[kind]
                rig.special[job] = {"photo": url.format(**ports)}
            rig.expect(job, *codes)
        slowest = 0.0
        for job, kind in enumerate(kinds, start=first):
            await rig.accepted(job)
            await eventually(partial(rig.has_ended, job), within=90)
            slowest = max(slowest, rig.job(job).seconds if rig.job(job).ended_at else 0)
            tries = len(rig.origin.calls_of(job))
            rig.demand(tries <= 12, f"an origin that {kind} was asked {tries} times")
    rig.note(f"the slowest ended after {slowest:.1f} s")
    rig.demand_within(WALL, slowest, "until one had ended")


def xml(code: str, message: str = "", **more: str) -> bytes:
    parts = "".join(f"<{name}>{value}</{name}>" for name, value in {"Code": code, "Message": message, **more}.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{parts}</Error>'.encode()


EXPIRED: dict[str, tuple[int, bytes, str]] = {
    "S3": (403, xml("AccessDenied", "Request has expired"), ""),
    "GCS": (
        400,
        xml("ExpiredToken", "Invalid argument.", Details="Request signature expired at: 2026-01-01T00:00:00Z"),
        "",
    ),
    "Azure": (
        403,
        xml(
            "AuthenticationFailed",
            AuthenticationErrorDetail="Signature not valid in the specified time frame: "
            "Start [Sun, 01 Feb 2026 00:00:00 GMT] - Expiry [Sun, 01 Mar 2026 11:59:59 GMT]",
        ),
        "",
    ),
    "R2": (403, xml("ExpiredRequest", "Request has expired"), ""),
    "CloudFront": (403, xml("AccessDenied", "Access denied"), "Expires=1500000000&Key-Pair-Id=K1&Signature=x"),
    "Meta": (403, b"URL signature expired", ""),
}


@fault("F26", "links that expired between submit and fetch, as six stores say it")
async def f26(rig: Rig) -> None:
    """source.url_expired at once, for a plain 403 source.forbidden; none is tried again."""
    cases = [*EXPIRED.items(), ("plain", (403, xml("AccessDenied", "Access Denied"), ""))]
    jobs = dict(enumerate(cases, start=rig.middle))
    for job, (name, (status, body, query)) in jobs.items():
        rig.origin.misbehave(job, reply(status, body, Content_Type="application/xml"))
        rig.special[job] = {"photo": rig.origin.url(f"/photo/{job}?{query}")}
        rig.expect(job, "source.forbidden" if name == "plain" else "source.url_expired")
    for job, (name, _) in jobs.items():
        await rig.accepted(job)
        await eventually(partial(rig.has_ended, job))
        tries = len(rig.origin.calls_of(job))
        rig.demand(tries <= 1, f"{name} was asked {tries} times")
