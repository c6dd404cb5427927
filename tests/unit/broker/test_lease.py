"""Whether what has state may still write it."""

from openanomaly.broker.lease import Lease


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_without_a_group_it_holds_for_ever() -> None:
    clock = Clock()
    lease = Lease(6, clock)
    clock.now_s += 1e9
    assert lease.is_valid


def test_it_holds_for_a_session_after_what_was_confirmed_was_asked() -> None:
    clock = Clock()
    lease = Lease(6, clock)
    asked_s = clock.now_s
    clock.now_s += 2  # the answer takes its time; the group's own clock began before
    lease.renew(asked_s)
    clock.now_s = asked_s + 5.9
    assert lease.is_valid
    clock.now_s = asked_s + 6
    assert not lease.is_valid
    assert not lease.is_over

    lease.renew(clock.now_s)
    assert lease.is_valid


def test_it_is_over_when_the_group_says_so_until_it_has_us_again() -> None:
    clock = Clock()
    lease = Lease(6, clock)
    lease.renew(clock.now_s)
    lease.end()
    assert lease.is_over
    assert not lease.is_valid
    lease.renew(clock.now_s)
    assert lease.is_valid
    assert not lease.is_over
