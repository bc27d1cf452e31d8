"""Bodies that submit a job."""

import pytest
from pydantic import ValidationError

from api.schemas.requests import ScanRequest
from pipeline.types import Locale


def test_a_request_with_only_a_url_means_korean_and_no_question() -> None:
    asked = ScanRequest.model_validate({"image_url": "https://photos.example/a.jpg"})
    assert (asked.locale, asked.user_input, asked.model) == (Locale.KO, None, None)


@pytest.mark.parametrize("size", [2000, 1])
def test_a_question_up_to_the_limit_is_taken(size: int) -> None:
    request = ScanRequest.model_validate({"image_url": "https://photos.example/", "user_input": "가" * size})
    assert len(request.user_input or "") == size


def test_a_request_cannot_be_changed() -> None:
    request = ScanRequest.model_validate({"image_url": "https://photos.example/"})
    with pytest.raises(ValidationError):
        request.image_url = "https://other.example/"  # type: ignore[misc]  # that is the point
