"""What the peers' workers have in common: where things are, by environment, and the call they make."""

import os
from pathlib import Path

REDIS = "PEERS_REDIS"
PROMPT = "PEERS_PROMPT"
"""The file that holds it."""

DONE = "peers:done"
"""A stream: a job's id when it has ended."""

KEPT = 10_000
MODEL = "gpt-bench"
QUESTION = "유리병은 어떻게 버려요?"


def redis_url() -> str:
    return os.environ[REDIS]


def prompt() -> str:
    return Path(os.environ[PROMPT]).read_text()
