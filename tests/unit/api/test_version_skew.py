"""How long versions may differ."""

from api.version_skew import VersionSkew


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_version_is_never_overdue() -> None:
    version_skew = VersionSkew(0, Clock())
    assert not version_skew.is_overdue("a", ["a", "a"])
    assert not version_skew.is_overdue("a", [])


def test_versions_may_differ_for_as_long_as_the_grace() -> None:
    clock = Clock()
    version_skew = VersionSkew(60, clock)
    assert not version_skew.is_overdue("a", ["a", "b"])
    clock.now += 59
    assert not version_skew.is_overdue("a", ["b"])
    clock.now += 1
    assert version_skew.is_overdue("a", ["b"])


def test_an_agreement_in_between_starts_the_grace_anew() -> None:
    clock = Clock()
    version_skew = VersionSkew(60, clock)
    version_skew.is_overdue("a", ["b"])
    clock.now += 60
    version_skew.is_overdue("b", ["b"])
    assert not version_skew.is_overdue("b", ["c"])


def test_no_grace_is_overdue_at_once() -> None:
    assert VersionSkew(0, Clock()).is_overdue("a", ["b"])
