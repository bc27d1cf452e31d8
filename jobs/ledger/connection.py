"""The connection that every part of the ledger shares. It holds the client, scripts and settings of one process."""

from typing import Self

from jobs.errors import LedgerUnavailable
from jobs.redis import keys
from jobs.redis.connection import Client, connect, disconnect, translated
from jobs.redis.scripts import Scripts
from jobs.settings import JobsSettings


class LedgerConnection:
    """One per process. Connects on first use; every method raises LedgerUnavailable when Redis is in trouble."""

    def __init__(self, client: Client, settings: JobsSettings) -> None:
        self.client = client
        self.settings = settings
        self.scripts = Scripts(client, settings.redis_timeout)

    @classmethod
    def connect(cls, settings: JobsSettings) -> Self:
        return cls(connect(settings), settings)

    @property
    def longest_block_ms(self) -> int:
        """For blocking reads on `client`, whose own timeout would end a longer one."""
        return int(min(1.0, self.settings.redis_timeout / 2) * 1000)

    async def close(self) -> None:
        await disconnect(self.client)

    async def ping(self) -> None:
        with translated():
            await self.client.ping()

    async def check(self) -> None:
        """Raises LedgerUnavailable with the reason when Redis cannot keep jobs: away, full, read-only, evicting."""
        with translated():
            await self.client.set(keys.WRITE_PROBE, 1, ex=60)
            memory = await self.client.info("memory")
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise LedgerUnavailable(f"Redis may forget jobs: its maxmemory-policy is {policy}, not noeviction")

    async def now(self) -> float:
        """Unix seconds by the clock that leases and deadlines are measured with."""
        with translated():
            seconds, micros = await self.client.time()
        return float(seconds) + float(micros) / 1e6
