"""The default secret of webhooks, without WORKERS_WEBHOOK_SECRETS: created once, and kept in the data directory."""

import base64
import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from cli.stack.processes import StartFailed
from jobs.settings import webhook_keys

FILE = "webhook-secret"


def webhook_secret(data_dir: Path) -> tuple[str, Path]:
    """The secret and its file. Raises StartFailed when the file holds no secret. Not safe for concurrent callers."""
    file = data_dir / FILE
    if not file.exists():
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        draft = file.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(secret + "\n")
        draft.rename(file)
    found = file.read_text().strip()
    try:
        webhook_keys(SecretStr(found))
    except ValueError as error:
        raise StartFailed(f"{file} holds no secret of webhooks: remove it, and a new one is made") from error
    return found, file
