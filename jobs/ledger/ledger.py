"""The ledger: the truth about each job. Its parts are made for their audiences and share one connection."""

from redis.asyncio import Redis

from jobs.ledger.claims import Claims
from jobs.ledger.connection import LedgerConnection
from jobs.ledger.fleet import Fleet
from jobs.ledger.submissions import Submissions
from jobs.ledger.upkeep import Upkeep
from jobs.settings import JobsSettings


class Ledger(LedgerConnection):
    """`submissions` for the API, `claims` for workers, `upkeep` for the sweep, `fleet` for everyone.

    Each change of a job's state is one atomic script. Every method raises LedgerUnavailable when Redis is in trouble.
    """

    def __init__(self, client: Redis, settings: JobsSettings) -> None:
        super().__init__(client, settings)
        self.submissions = Submissions(self)
        self.claims = Claims(self)
        self.upkeep = Upkeep(self)
        self.fleet = Fleet(self)
