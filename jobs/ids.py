"""Job ids: how they are made, and the time that each one carries."""

import uuid_utils.compat


def new_job_id() -> str:
    """A UUIDv7: ids sort by the time they were made, and carry it."""
    return str(uuid_utils.compat.uuid7())


def job_born_at(job_id: str) -> float | None:
    """Unix seconds from a job id of ours, None for anything else."""
    try:
        uuid = uuid_utils.compat.UUID(job_id)
    except ValueError:
        return None
    version_of_ours = 7
    return (uuid.int >> 80) / 1000 if uuid.version == version_of_ours and str(uuid) == job_id else None
