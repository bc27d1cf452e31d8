"""What an answer says so far, against a real Redis: pieces in order, nothing lost, nothing left behind."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from jobs.errors import LedgerUnavailable, StaleClaim
from jobs.feed.drafts import DraftStore, TextDelta
from jobs.feed.feed import Feed, Followed
from jobs.feed.followers import MAX_INBOX
from jobs.ledger.ledger import Ledger
from jobs.model import Claim, JobEvent
from jobs.redis.keys import FEED
from tests.support.jobs import new_job, result
from tests.support.wait import eventually
from workers.execute.preview import MAX_PREVIEW_LETTERS, PreviewWriter


@pytest.fixture
def drafts(ledger: Ledger) -> DraftStore:
    return DraftStore(ledger)


async def claimed(ledger: Ledger) -> Claim:
    claim = await ledger.claims.claim((await ledger.submissions.create(new_job())).job_id)
    assert claim is not None
    return claim


async def heard(feed: Feed, job_id: str) -> list[TextDelta]:
    return [news async for news in feed.follow(job_id, drafts=True) if isinstance(news, TextDelta)]


def text_of(told: list[TextDelta]) -> str:
    text = ""
    for each in told:
        text = each.text if each.restart else text + each.text
    return text


async def past_the_events(follower: AsyncGenerator[Followed, None]) -> None:
    """Until it waits: the first event is there from the start."""
    assert isinstance(await anext(follower), JobEvent)


async def test_pieces_arrive_in_their_order_and_end_with_the_job(
    ledger: Ledger, feed: Feed, drafts: DraftStore
) -> None:
    claim = await claimed(ledger)
    hearing = asyncio.create_task(heard(feed, claim.job_id))
    await eventually(lambda: _is_followed(feed, claim.job_id))
    for n, piece in enumerate(("유리", "병은 ", "🧴 비워서")):
        await drafts.add(claim, piece, restart=n == 0)
    await ledger.claims.complete(claim, result())
    told = await hearing
    assert (text_of(told), [each.restart for each in told][1:]) == ("유리병은 🧴 비워서", [False] * (len(told) - 1))
    assert (await drafts.of(claim.job_id)).text == ""


async def _is_followed(feed: Feed, job_id: str) -> bool:
    return bool(feed.backlogs(job_id))


async def test_who_follows_events_alone_hears_of_no_draft(ledger: Ledger, feed: Feed, drafts: DraftStore) -> None:
    claim = await claimed(ledger)
    await drafts.add(claim, "가", restart=True)
    follower = feed.follow(claim.job_id)
    await past_the_events(cast("Any", follower))
    await drafts.add(claim, "나", restart=False)
    await ledger.claims.complete(claim, result())
    assert [type(news) for news in [each async for each in follower]] == [JobEvent, JobEvent]


async def test_who_comes_late_gets_the_text_so_far(ledger: Ledger, feed: Feed, drafts: DraftStore) -> None:
    claim = await claimed(ledger)
    await drafts.add(claim, "처음 ", restart=True)
    await drafts.add(claim, "다음 ", restart=False)
    follower = cast("AsyncGenerator[Followed, None]", feed.follow(claim.job_id, drafts=True))
    await past_the_events(follower)
    assert await anext(follower) == TextDelta(text="처음 다음 ", restart=True)
    await drafts.add(claim, "끝", restart=False)
    assert await anext(follower) == TextDelta(text="끝", restart=False)


async def test_who_misses_a_piece_gets_the_text_anew(ledger: Ledger, feed: Feed, drafts: DraftStore) -> None:
    claim = await claimed(ledger)
    follower = cast("AsyncGenerator[Followed, None]", feed.follow(claim.job_id, drafts=True))
    await past_the_events(follower)
    await drafts.add(claim, "하나 ", restart=True)
    assert await anext(follower) == TextDelta(text="하나 ", restart=True)
    await cast("Any", ledger.client.hset(f"bunri:job:{claim.job_id}", "draft", "하나 둘 "))  # as if its entry were lost
    await drafts.add(claim, "셋", restart=False)
    assert await anext(follower) == TextDelta(text="하나 둘 셋", restart=True)


async def test_a_later_attempt_begins_anew(ledger: Ledger, feed: Feed, drafts: DraftStore) -> None:
    first = await claimed(ledger)
    await drafts.add(first, "버려질 글", restart=True)
    await ledger.claims.release(first)
    second = await ledger.claims.claim(first.job_id)
    assert second is not None
    assert (await drafts.of(first.job_id)).text == ""
    with pytest.raises(StaleClaim):
        await drafts.add(first, " 계속", restart=False)
    follower = cast("AsyncGenerator[Followed, None]", feed.follow(first.job_id, drafts=True))
    await past_the_events(follower)
    await drafts.add(second, "새 글", restart=True)
    assert await anext(follower) == TextDelta(text="새 글", restart=True)


async def test_a_follower_who_is_slow_still_has_the_whole_text(ledger: Ledger, feed: Feed, drafts: DraftStore) -> None:
    claim = await claimed(ledger)
    follower = cast("AsyncGenerator[Followed, None]", feed.follow(claim.job_id, drafts=True))
    await past_the_events(follower)
    pieces = [f"{n} " for n in range(MAX_INBOX * 3)]
    for n, piece in enumerate(pieces):
        await drafts.add(claim, piece, restart=n == 0)
    told: list[TextDelta] = []
    while text_of(told) != "".join(pieces):
        news = await anext(follower)
        told += [news] if isinstance(news, TextDelta) else []


# --- the worker's side ---


def never() -> None:
    raise AssertionError("the claim is not lost")


async def test_many_tokens_are_few_writes(ledger: Ledger, drafts: DraftStore) -> None:
    claim = await claimed(ledger)
    draft = PreviewWriter(drafts, claim, never)
    before = await ledger.client.xlen(FEED)
    for _ in range(500):
        await draft("토큰 ")
    await draft.flush()
    assert (await drafts.of(claim.job_id)).text == "토큰 " * 500
    assert await ledger.client.xlen(FEED) - before <= 3


async def test_a_text_that_is_replaced_is_told_anew(ledger: Ledger, drafts: DraftStore) -> None:
    claim = await claimed(ledger)
    draft = PreviewWriter(drafts, claim, never)
    await draft("틀린 글")
    await draft("바른 글", restart=True)
    await draft.flush()
    assert (await drafts.of(claim.job_id)).text == "바른 글"


async def test_the_record_does_not_grow_without_bound(ledger: Ledger, drafts: DraftStore) -> None:
    claim = await claimed(ledger)
    draft = PreviewWriter(drafts, claim, never)
    for _ in range(20):
        await draft("가" * 1000)
    await draft.flush()
    await draft("가")
    await draft.flush()
    assert (await drafts.of(claim.job_id)).text == "가" * MAX_PREVIEW_LETTERS


async def test_a_stale_claim_is_written_to_once_and_lost_at_once(
    ledger: Ledger, drafts: DraftStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await claimed(ledger)
    await ledger.submissions.cancel(claim.job_id)
    writes = count_writes(monkeypatch)
    losses: list[Claim] = []
    draft = PreviewWriter(drafts, claim, lambda: losses.append(claim))
    for n in range(5):
        await draft("토큰 ")
        await eventually(lambda: _has_lost(losses))
        await draft("토큰 ", restart=n == 0)
    await draft.flush()
    assert (len(writes), losses) == (1, [claim])


async def test_a_claim_that_is_stale_when_the_text_is_whole_is_left_to_the_last_write(
    ledger: Ledger, drafts: DraftStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It charges the call, whoever has the job."""
    claim = await claimed(ledger)
    await ledger.submissions.cancel(claim.job_id)
    writes = count_writes(monkeypatch)
    draft = PreviewWriter(drafts, claim, never)
    await draft("토큰 ")
    await draft.flush()
    assert len(writes) == 1


def count_writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    writes: list[str] = []
    add = DraftStore.add

    async def counted(drafts: DraftStore, claim: Claim, piece: str, *, restart: bool) -> None:
        writes.append(piece)
        await add(drafts, claim, piece, restart=restart)

    monkeypatch.setattr(DraftStore, "add", counted)
    return writes


async def _has_lost(losses: list[Claim]) -> bool:
    return len(losses) > 0


async def test_a_piece_whose_fate_is_unknown_is_told_again_from_the_start(
    ledger: Ledger, drafts: DraftStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await claimed(ledger)
    draft = PreviewWriter(drafts, claim, never)
    await draft("하나 ")
    await draft.flush()
    with monkeypatch.context() as broken:
        broken.setattr(DraftStore, "add", _unavailable)
        await draft("둘 ")
        await draft.flush()
    await draft("셋")
    await draft.flush()
    assert (await drafts.of(claim.job_id)).text == "하나 둘 셋"


async def _unavailable(*_args: object, **_options: object) -> None:
    raise LedgerUnavailable("away")
