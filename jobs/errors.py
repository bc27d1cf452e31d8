"""Errors that `jobs` raises to API and workers."""


class LedgerUnavailable(Exception):
    """Redis did not answer, or not in time, or it cannot serve now. A write may or may not have happened."""


class QueueUnavailable(Exception):
    """The broker did not take the message in time. It may have it all the same."""


class IdempotencyMismatch(Exception):
    """The idempotency key was used before, with another request."""


class StaleClaim(Exception):
    """The job was cancelled, taken over by another worker, or has ended: stop working on it."""
