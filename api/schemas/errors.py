"""Problem details, and the catalogue of their codes."""

from jobs.view import View
from pipeline.errors import Blame
from pipeline.knowledge.texts import ErrorText
from pipeline.types import Locale


class MistakeView(View):
    field: str
    kind: str
    reason: str


class ProblemView(View):
    """RFC 9457. `errors` comes with `request.invalid` and never quotes what was sent."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    trace_id: str
    errors: list[MistakeView] | None = None


class CatalogueEntryView(View):
    """One code: `retryable` says whether the same request may succeed later."""

    code: str
    status: int
    retryable: bool
    blame: Blame
    raised_when: str
    messages: dict[Locale, ErrorText]
