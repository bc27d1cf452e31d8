"""Redis behind TLS, and Redis watched by a Sentinel that fails over: real servers, ledger and broker both."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from jobs.broker.queue import JobQueue
from jobs.errors import LedgerUnavailable, QueueUnavailable
from jobs.feed.feed import Feed
from jobs.ledger.ledger import Ledger
from jobs.redis.url import Sentinels, kombu_url
from jobs.settings import JobsSettings
from tests.support.image_server import image_server, reply
from tests.support.jobs import new_job
from tests.support.openai_server import openai_server
from tests.support.redis_server import free_port
from tests.support.wait import eventually, wait_until
from tests.support.worker import PHOTO, ended, submit, working

SERVER = shutil.which("redis-server")

needs_a_redis_of_the_machine = pytest.mark.skipif(
    SERVER is None, reason="no redis-server on PATH: the wheel's has no TLS"
)

PASSWORD = "p%2Fw"  # in the URL; the servers know it as p/w


@contextmanager
def running(folder: Path, port: int, *arguments: str, tls: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    assert SERVER
    where = ["--port", "0", "--tls-port", str(port)] if tls else ["--port", str(port)]
    command = [SERVER, *arguments, *where, "--bind", "127.0.0.1", "--dir", str(folder), "--logfile", "redis.log"]
    process = subprocess.Popen(command, env={"PATH": os.environ["PATH"]}, start_new_session=True)
    try:
        wait_until(lambda: listens(port))
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def certificate(folder: Path) -> Path:
    """Key and self-signed certificate for 127.0.0.1, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "redis.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return file


@needs_a_redis_of_the_machine
async def test_ledger_and_broker_reach_a_redis_behind_tls_and_refuse_one_whose_certificate_they_do_not_trust(
    tmp_path: Path,
) -> None:
    port, file = free_port(), certificate(tmp_path)
    files = ("--tls-cert-file", str(file), "--tls-key-file", str(file), "--tls-ca-cert-file", str(file))
    with running(tmp_path, port, *files, "--tls-auth-clients", "no", tls=True):
        url = f"rediss://127.0.0.1:{port}/0"
        trusting = JobsSettings.model_validate({"redis_url": f"{url}?ssl_ca_certs={file}"})
        ledger, queue = Ledger.connect(trusting), JobQueue.connect(trusting)
        job = new_job()
        await ledger.submissions.create(job)
        await queue.ping()
        await queue.enqueue(job.job_id)
        assert await ledger.client.llen(trusting.queue) == 1
        await queue.close()
        await ledger.close()
        wary = JobsSettings.model_validate({"redis_url": url})
        ledger, queue = Ledger.connect(wary), JobQueue.connect(wary)
        with pytest.raises(LedgerUnavailable):
            await ledger.ping()
        with pytest.raises(QueueUnavailable):
            await queue.ping()
        await queue.close()
        await ledger.close()


@contextmanager
def watched_pair(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes], int]]:
    """A master, a replica and a Sentinel; the URL, the master, and the replica's port."""
    first, second, sentinel = free_port(), free_port(), free_port()
    login = ("--requirepass", "p/w", "--masterauth", "p/w", "--appendonly", "no", "--save", "")
    for name in ("first", "second", "sentinel"):
        (folder / name).mkdir()
    config = folder / "sentinel" / "sentinel.conf"
    config.write_text(
        f"sentinel monitor mine 127.0.0.1 {first} 1\nsentinel auth-pass mine p/w\n"
        "sentinel down-after-milliseconds mine 1000\nsentinel failover-timeout mine 3000\n"
    )
    with (
        running(folder / "first", first, *login) as master,
        running(folder / "second", second, *login, "--replicaof", f"127.0.0.1 {first}"),
        running(folder / "sentinel", sentinel, str(config), "--sentinel"),
    ):
        with redis.Redis(port=second, password="p/w") as replica:
            wait_until(lambda: replica.info("replication")["master_link_status"] == "up")
        with redis.Redis(port=sentinel) as asked:
            wait_until(lambda: asked.sentinel_master("mine")["num-slaves"] == 1, within=30)
        yield f"sentinel://:{PASSWORD}@127.0.0.1:{sentinel}/mine/0", master, second


@needs_a_redis_of_the_machine
@pytest.mark.timeout(300)
async def test_jobs_end_before_and_after_a_sentinel_has_made_the_replica_the_master(
    tmp_path: Path, samples: Path
) -> None:
    with watched_pair(tmp_path) as (url, master, _), openai_server() as model, image_server() as origin:
        origin.on(PHOTO, reply(200, (samples / "glass-1.jpg").read_bytes()))
        settings = JobsSettings.model_validate({"redis_url": url})
        ledger, queue = Ledger.connect(settings), JobQueue.connect(settings)
        feed = Feed(ledger)
        await feed.start()
        async with working(ledger, url, model) as process:
            before = await ended(feed, await submit(ledger, queue, origin.url(PHOTO)))
            master.kill()
            await eventually(lambda: _answers(ledger), within=60)
            await eventually(lambda: _takes_messages(queue), within=60)
            after = await ended(feed, await submit(ledger, queue, origin.url(PHOTO), user_input="again"), within=60)
            assert process.poll() is None
        assert (before.status, after.status) == ("completed", "completed")
        await feed.close()
        await queue.close()
        await ledger.close()


async def _answers(ledger: Ledger) -> bool:
    try:
        await ledger.check()
    except LedgerUnavailable:
        return False
    return True


async def _takes_messages(queue: JobQueue) -> bool:
    try:
        await queue.ping()
    except QueueUnavailable:
        return False
    return True


def test_one_url_names_the_sentinels_for_both_libraries() -> None:
    url = "sentinel://me:p%2Fw@one:1,two/mine/3?sentinel_password=other"
    assert Sentinels.parse(url) == Sentinels((("one", 1), ("two", 26379)), "mine", 3, "me", "p/w", "other")
    place, options = kombu_url(url)
    assert place == "sentinel://me:p%2Fw@one:1/3;sentinel://me:p%2Fw@two:26379/3"
    assert options == {"master_name": "mine", "sentinel_kwargs": {"password": "other"}}


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "sentinel://a:1",
        "sentinel:///mine",
        "sentinel://a:1/mine/x",
        "sentinel://a:1/mine?ssl=1",
        "sentinel://a:x/m",
    ],
)
def test_a_url_of_another_kind_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        JobsSettings.model_validate({"redis_url": url})
    assert url not in str(refused.value)
