"""The KEYS and ARGV of each script in `lua/`, by name: the one declaration that both languages are generated from.

Python callers pass every name as a keyword; in front of the script each name is a Lua local.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from jobs.redis import keys

FIXED_KEYS: Mapping[str, str] = {
    "queued": keys.QUEUED,
    "outbox": keys.OUTBOX,
    "leases": keys.LEASES,
    "deadlines": keys.DEADLINES,
    "feed": keys.FEED,
    "counts": keys.COUNTS,
    "deliveries": keys.DELIVERIES,
    "delivery_counts": keys.DELIVERY_COUNTS,
    "workers": keys.WORKERS,
    "leader": keys.LEADER,
    "models": keys.MODELS,
}
"""Keys that are the same at each call: filled in here, never passed by a caller."""


@dataclass(frozen=True)
class ScriptSignature:
    """`lists` are sequences of any length. In Lua each is the index of its length in ARGV; its items follow that."""

    keys: tuple[str, ...]
    args: tuple[str, ...]
    lists: tuple[str, ...] = ()

    @property
    def header(self) -> str:
        """One line of Lua per kind: `local feed, job = KEYS[1], KEYS[2]`. Fixed keys come first."""
        keys = (*self._fixed, *self._given)
        return "\n".join([_locals(keys, "KEYS"), _locals(self.args, "ARGV"), *self._list_locals(), ""])

    @property
    def _fixed(self) -> tuple[str, ...]:
        return tuple(name for name in self.keys if name in FIXED_KEYS)

    @property
    def _given(self) -> tuple[str, ...]:
        return tuple(name for name in self.keys if name not in FIXED_KEYS)

    def _list_locals(self) -> Iterator[str]:
        start = str(len(self.args) + 1)
        for name in self.lists:
            yield f"local {name} = {start}"
            start = f"{name} + ARGV[{name}] + 1"

    def binder(self) -> Callable[[Mapping[str, Any]], list[Any]]:
        """A function from named values to KEYS and ARGV in order. It raises TypeError for a missing or unknown name."""
        order = (*self._given, *self.args)
        fixed, lists = [FIXED_KEYS[name] for name in self._fixed], self.lists
        pick = itemgetter(*order) if len(order) > 1 else lambda values: (values[order[0]],)
        expected = {*order, *lists}
        count = len(expected)

        def bind(values: Mapping[str, Any]) -> list[Any]:
            try:
                bound = [*fixed, *pick(values)]
                for name in lists:
                    items = values[name]
                    bound += (len(items), *items)
            except KeyError:
                bound = []
            if not bound or len(values) != count:
                raise TypeError(f"missing or unknown: {sorted(values.keys() ^ expected)}")
            return bound

        return bind


def _locals(names: tuple[str, ...], source: str) -> str:
    values = ", ".join(f"{source}[{n}]" for n in range(1, len(names) + 1))
    return f"local {', '.join(names)} = {values}"


SIGNATURES: Mapping[str, ScriptSignature] = {
    "create": ScriptSignature(
        keys=("job", "events", "queued", "outbox", "deadlines", "idempotency"),
        args=("job_id", "deadline", "ttl", "fingerprint", "send_in", "body"),
        lists=("fields",),
    ),
    "claim": ScriptSignature(
        keys=("job", "queued", "leases", "outbox"), args=("job_id", "lease", "claimant", "version")
    ),
    "record": ScriptSignature(
        keys=("job", "events", "feed", "leases"),
        args=("job_id", "token", "lease", "write"),
        lists=("charges", "fields", "bodies"),
    ),
    "finish": ScriptSignature(
        keys=(
            *("job", "events", "feed", "counts", "deliveries", "result"),
            *("queued", "outbox", "leases", "deadlines"),
        ),
        args=("job_id", "token", "status", "ttl", "fate", "share_for"),
        lists=("charges", "fields", "bodies"),
    ),
    "release": ScriptSignature(
        keys=("job", "queued", "leases", "outbox"),
        args=("job_id", "token", "delay", "send_in", "counter"),
        lists=("charges", "fields"),
    ),
    "take_due": ScriptSignature(keys=("outbox",), args=("limit", "resend_after")),
    "reserve": ScriptSignature(keys=("result",), args=("job_id", "reserve_for")),
    "draft": ScriptSignature(keys=("job", "feed"), args=("job_id", "token", "restart", "chunk")),
    "backlog": ScriptSignature(keys=("queued", "leases", "workers"), args=("heartbeat_ttl",)),
    "lead": ScriptSignature(keys=("leader",), args=("worker", "ttl_ms")),
    "take_token": ScriptSignature(keys=("allowance",), args=("interval", "burst")),
    "model_ask": ScriptSignature(
        keys=("model",), args=("ttl", "token", "probe_seconds", "per_minute", "max_wait", "max_turn_wait")
    ),
    "model_report": ScriptSignature(
        keys=("model", "models"),
        args=("name", "ttl", "answered", "failed", "rejected", "outcome", "token", "at_once", "min_pause"),
        lists=("pauses",),
    ),
    "take_deliveries": ScriptSignature(keys=("deliveries",), args=("limit", "lease")),
    "begin_attempt": ScriptSignature(
        keys=("job", "attempts", "deliveries", "delivery_counts"),
        args=("job_id", "lease", "lease_seconds", "lost_outcome", "lost_body"),
    ),
    "end_attempt": ScriptSignature(
        keys=("job", "attempts", "deliveries", "delivery_counts", "events"),
        args=("job_id", "lease", "next_step", "retry_in", "outcome", "body"),
    ),
    "resend": ScriptSignature(keys=("job", "attempts", "deliveries", "events"), args=("job_id",)),
}
