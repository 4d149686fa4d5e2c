from __future__ import annotations

import pytest

from diredi.errors import InvalidInput, NoRoom
from diredi.web.config import PagesConfig
from diredi.web.hosts import is_local_name
from diredi.web.language import language_of
from diredi.web.sessions import LINK_S, MOST_SESSIONS, Sessions, Throttle


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(idle_s=60, longest_s=200, clock=clock)


def test_a_link_works_once_and_for_a_short_while(sessions: Sessions, clock: Clock):
    token = sessions.make_link("maria", "site")
    found = sessions.redeem(token)
    assert found is not None and found[1].person == "maria"
    assert sessions.redeem(token) is None
    assert sessions.redeem("a guess") is None
    late = sessions.make_link("maria", "site")
    clock.now += LINK_S
    assert sessions.redeem(late) is None


def test_a_session_ends_when_it_is_idle_when_it_is_old_and_at_a_log_out(sessions: Sessions, clock: Clock):
    def log_in() -> str:
        found = sessions.redeem(sessions.make_link("maria", "site"))
        assert found is not None
        return found[0]

    idle = log_in()
    clock.now += 59
    assert sessions.find(idle) is not None
    clock.now += 60
    assert sessions.find(idle) is None
    busy = log_in()
    for _ in range(4):
        assert sessions.find(busy) is not None
        clock.now += 50
    assert sessions.find(busy) is None
    left = log_in()
    session = sessions.find(left)
    assert session is not None
    sessions.end(session)
    assert sessions.find(left) is None and not sessions.is_open(session)


def test_looking_at_a_stream_of_events_does_not_keep_a_session_alive(sessions: Sessions, clock: Clock):
    found = sessions.redeem(sessions.make_link("maria", "site"))
    assert found is not None
    for _ in range(6):
        clock.now += 10
        still = sessions.is_open(found[1])
    assert not still


def test_links_and_sessions_are_bounded(sessions: Sessions):
    first = sessions.redeem(sessions.make_link("first", "site"))
    assert first is not None
    for _ in range(MOST_SESSIONS):
        assert sessions.redeem(sessions.make_link("other", "site"))
    assert sessions.find(first[0]) is None, "the one that was not used for longest makes room"
    for _ in range(MOST_SESSIONS):
        sessions.make_link("nobody", "site")
    with pytest.raises(NoRoom, match="two minutes"):
        sessions.make_link("nobody", "site")


def test_a_throttle_counts_for_a_minute_and_for_each_key(clock: Clock):
    throttle = Throttle(2, clock, most_keys=2)
    assert [throttle.allows("a") for _ in range(3)] == [True, True, False]
    assert throttle.allows("b") and not throttle.allows("c"), "as many keys as are held"
    clock.now += 60
    assert throttle.allows("a")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"listen": "0.0.0.0:8480"}, "without TLS"),
        ({"listen": "site.example:8480"}, "without TLS"),
        ({"listen": "127.0.0.1:8480", "certificate": "c.pem"}, "go together"),
        ({"listen": "8480"}, "pattern"),
    ],
)
def test_pages_for_other_machines_without_tls_are_refused(values: dict[str, str], words: str):
    with pytest.raises(InvalidInput, match=words):
        PagesConfig.of(values)


def test_pages_may_be_of_this_machine_or_have_tls_or_be_said_to_need_none():
    for values in (
        {"listen": "127.0.0.1:8480"},
        {"listen": "[::1]:0"},
        {"listen": "0.0.0.0:8480", "without_tls": True},
        {"listen": "0.0.0.0:8480", "certificate": "c.pem", "key": "k.pem"},
    ):
        assert PagesConfig.of(values).address[1] in {0, 8480}


def test_a_name_that_a_stranger_may_own_is_not_local_unless_it_is_listed():
    assert is_local_name("localhost:8480") and is_local_name("[::1]:8480") and is_local_name("10.0.0.7")
    assert not is_local_name("evil.example:8480") and not is_local_name("")
    assert is_local_name("pages.site.example", {"pages.site.example"})


def test_a_language_that_there_is_not_is_english():
    assert language_of("de-AT,de;q=0.9,*;q=0.1") == "en"
    assert language_of("../../etc, ") == "en"
