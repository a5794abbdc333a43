"""Requests and tokens a minute; time is an argument."""

from server.auth.quota import Account, Level, Quota, Refused, refilled, wait_s


def test_level_grows_with_time_up_to_a_minutes_worth() -> None:
    assert refilled(Level(0, 100.0), 60, 101.0) == Level(1, 101.0)
    assert refilled(Level(50, 100.0), 60, 130.0) == Level(60, 130.0)
    assert refilled(Level(-120, 0.0), 60, 60.0) == Level(-60, 60.0)


def test_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    assert refilled(Level(3, 100.0), 60, 100.0) == Level(3, 100.0)
    assert refilled(Level(3, 100.0), 60, 99.0).left == 3


def test_client_that_waits_exactly_as_long_as_required_is_admitted() -> None:
    for per_minute in (1, 7, 60, 61, 997):
        level = Level(-13.3, 0.0)
        wait = wait_s(level, 1, per_minute)
        assert wait_s(refilled(level, per_minute, wait), min(1, per_minute), per_minute) == 0
        assert wait_s(refilled(level, per_minute, wait - 1.1), 1, per_minute) > 0


def test_minutes_worth_of_requests_may_come_at_once_and_then_one_by_one() -> None:
    account = Account(Quota(requests=3), 0.0)
    assert [account.take(0.0) for _ in range(3)] == [None] * 3
    assert account.take(0.0) == Refused("requests", 3, 20)
    assert account.take(19.0) == Refused("requests", 3, 1)
    assert account.take(20.0) is None
    assert account.take(20.0) == Refused("requests", 3, 20)


def test_refused_request_counts_for_nothing() -> None:
    account = Account(Quota(requests=1), 0.0)
    account.take(0.0)
    for _ in range(100):
        account.take(1.0)
    assert account.take(60.0) is None


def test_key_in_debt_waits_until_the_refill_has_paid_it() -> None:
    account = Account(Quota(tokens=600), 0.0)
    # The first may cost more than a minute's worth: its tokens were not known before.
    assert account.take(0.0) is None
    account.charge(1200, 1.0)
    assert account.take(1.0) == Refused("tokens", 600, 60)
    assert account.take(60.9) == Refused("tokens", 600, 1)
    assert account.take(61.0) is None


def test_requests_at_the_same_time_share_one_debt() -> None:
    account = Account(Quota(tokens=600), 0.0)
    assert [account.take(0.0), account.take(0.0)] == [None, None]
    account.charge(900, 0.0)
    account.charge(900, 0.0)
    assert account.take(0.0) == Refused("tokens", 600, 120)


def test_key_without_a_quota_may_have_anything() -> None:
    account = Account(Quota(), 0.0)
    account.charge(1 << 40, 0.0)
    assert {account.take(0.0) for _ in range(1000)} == {None}
