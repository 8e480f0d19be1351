"""Questions whose replies look alike: which of them may be asked while replies may be under way."""

from agent.drivers.dialogue import LONGEST, MARGIN, Alike


def test_a_question_that_was_not_answered_is_asked_again_before_those_like_it() -> None:
    alike = Alike(("a", "b"))
    alike.asked("a", 0.0)
    assert alike.held(1.0) == {"b"}
    alike.came(1.2, answer=True)
    assert alike.held(1.2) == frozenset()


def test_what_was_asked_in_vain_may_be_as_late_as_what_came() -> None:
    alike = Alike(("a", "b"))
    for now in (0.0, 1.0, 2.0):
        alike.asked("a", now)
    alike.came(2.3, answer=True)  # to the first: it took 2.3 s
    assert alike.held(2.0 + 2.3) == {"a", "b"}
    assert alike.held(2.0 + 2.3 + MARGIN) == frozenset()
    for now in (10.0, 11.0):
        alike.asked("a", now)
    alike.came(12.0, answer=True)
    alike.came(13.0, answer=False)
    assert alike.held(13.0) == frozenset(), "all that was asked has been answered"


def test_what_is_never_answered_lets_the_others_be_asked_when_nothing_can_be_under_way() -> None:
    alike = Alike(("a", "b"))
    for now in (0.0, 1.0, 2.0):
        assert alike.held(now) == ({"b"} if now else frozenset())
        alike.asked("a", now)
    assert alike.held(2.5) == {"a", "b"}
    assert alike.held(2.0 + LONGEST - 0.1) == {"a", "b"}
    assert alike.held(2.0 + LONGEST) == frozenset()
    alike.asked("b", 20.0)
    alike.ended()
    assert alike.idle(20.0)


def test_a_question_without_another_like_it_is_never_held() -> None:
    alike = Alike(("a",))
    for now in (0.0, 1.0):
        alike.asked("a", now)
    alike.came(1.1, answer=True)
    assert alike.held(1.1) == frozenset()
    assert not alike.idle(1.1)
