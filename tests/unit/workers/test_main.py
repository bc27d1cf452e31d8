"""The command line of a worker process."""

from celery.bin.celery import celery

from workers.__main__ import NOT_FOR_CELERY


def test_no_variable_of_celerys_command_line_reaches_the_worker_but_the_one_for_colours() -> None:
    variables = {option.envvar for option in celery.params} - {None}
    assert variables == {*NOT_FOR_CELERY, "NO_COLOR"}
