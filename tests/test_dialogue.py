"""One question at a time: the schedule, silence, operations, the handshake, and what must be said twice."""

from agent.drivers.contract import refusal
from agent.drivers.dialogue import Dialogue, Question
from agent.drivers.doubt import Twice
from agent.drivers.handshake import ACK, EOT, NAK, Handshake
from agent.drivers.hearing import BadFrames, Overhearing
from agent.model import Operation, Outcome

OFTEN = Question("often", b"o", every=1.0)
RARE = Question("rare", b"r", every=10.0)


def words(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    return [(outcome.operation, outcome.result) for outcome in outcomes]


def test_a_frequent_question_does_not_starve_a_rare_one() -> None:
    dialogue = Dialogue((Question("often", b"o", every=0.01), RARE))
    asked = [dialogue.next(0.0)]
    dialogue.answered()
    asked.append(dialogue.next(5.0))
    assert asked == [b"o", b"r"]


def test_only_one_question_waits_at_a_time() -> None:
    dialogue = Dialogue((OFTEN, RARE))
    assert dialogue.next(0.0) == b"o"
    assert dialogue.next(0.5) == b""


def test_a_device_is_silent_after_three_unanswered_questions_and_never_given_up() -> None:
    dialogue = Dialogue((OFTEN,))
    said = []
    for step in range(400):
        now = step * 0.05
        dialogue.next(now)
        if dialogue.lapsed:
            said += [(reading.value, now) for reading in dialogue.link_state(now)]
    assert said[0][0] == "silent"
    assert 3.0 <= said[0][1] < 3.5
    assert len(said) > 10, "silence is repeated, so that it is never stale"
    dialogue.answered()
    assert [r.value for r in dialogue.link_state(20.0)] == ["up"]


def test_nothing_is_said_of_the_link_while_in_doubt() -> None:
    dialogue = Dialogue((OFTEN,))
    dialogue.next(0.0)
    dialogue.next(1.0)
    assert dialogue.lapsed is OFTEN
    assert dialogue.link_state(1.0) == []


def test_unreadable_bytes_make_rubbish_of_silence_and_the_sentence_names_speed_and_cable() -> None:
    dialogue = Dialogue((OFTEN,), retries=1)
    dialogue.next(0.0)
    dialogue.next(1.0)
    (noisy,) = dialogue.link_state(1.0, skipped=7)
    assert noisy.value == "rubbish"
    assert "speed" in noisy.raw
    assert "cable" in noisy.raw
    (quiet,) = dialogue.link_state(2.0, skipped=7)
    assert quiet.value == "silent"
    assert "cable" in quiet.raw


def test_a_mute_question_is_no_sign_of_silence() -> None:
    dialogue = Dialogue((Question("mute", b"m", every=1.0, mute=True),), retries=1)
    dialogue.next(0.0)
    dialogue.next(1.0)
    assert dialogue.lapsed
    assert not dialogue.silent


def test_a_question_without_interval_is_asked_once_and_when_hurried() -> None:
    dialogue = Dialogue((Question("once", b"1"),))
    assert dialogue.next(0.0) == b"1"
    dialogue.answered()
    assert dialogue.next(1000.0) == b""
    dialogue.hurry("once")
    assert dialogue.next(1000.0) == b"1"


def test_a_hurried_question_comes_first_and_a_held_one_waits() -> None:
    dialogue = Dialogue((OFTEN, RARE))
    dialogue.held = {"often"}
    assert dialogue.next(0.0) == b"r"
    dialogue.answered()
    dialogue.held = frozenset()
    assert dialogue.next(0.1) == b"o"
    dialogue.answered()
    dialogue.hurry("rare")
    assert dialogue.next(5.0) == b"r", "before the overdue one"


def test_a_pause_is_kept() -> None:
    dialogue = Dialogue((OFTEN,))
    dialogue.pause(2.0, 0.0)
    assert dialogue.next(1.9) == b""
    assert dialogue.next(2.0) == b"o"


def test_an_operation_that_nobody_answers_ends_once() -> None:
    dialogue = Dialogue((OFTEN,))
    dialogue.undertake(Question("move", b"m", timeout=1.0, operation="op1"), "", 0.0)
    assert dialogue.next(0.0) == b"m"
    dialogue.next(1.0)
    assert words(dialogue.outcomes()) == [("op1", "unanswered")]
    assert dialogue.outcomes() == []


def test_silence_is_consent_only_when_the_device_gives_a_sign() -> None:
    dialogue = Dialogue((OFTEN,))
    consent = Question("test", b"t", timeout=1.0, mute=True, operation="op1")
    dialogue.undertake(consent, "", 0.0)
    dialogue.next(0.0)
    dialogue.next(1.0)
    assert dialogue.unproven == [consent]
    assert dialogue.proven() == [consent]
    assert dialogue.proven() == []


def test_an_operation_met_by_silence_on_a_dead_line_is_unanswered() -> None:
    dialogue = Dialogue((OFTEN,))
    dialogue.undertake(Question("test", b"t", timeout=1.0, mute=True, operation="op1"), "", 0.0)
    ended = []
    for step in range(200):
        dialogue.next(step * 0.05)
        ended += words(dialogue.outcomes())
    assert ended == [("op1", "unanswered")]
    dialogue.undertake(Question("test", b"t", operation="op2"), "", 10.0)
    assert words(dialogue.outcomes()) == [("op2", "unanswered")]
    assert b"t" not in [dialogue.next(10.0 + step * 0.05) for step in range(100)]


def test_an_operation_without_proof_ends_although_the_device_says_other_things() -> None:
    dialogue = Dialogue(())
    dialogue.undertake(Question("test", b"t", timeout=1.0, mute=True, operation="op1"), "", 0.0)
    for step in range(300):
        dialogue.next(step * 0.05)
        dialogue.heard()
    assert words(dialogue.outcomes()) == [("op1", "unanswered")]


def test_a_refusal_names_what_is_allowed() -> None:
    def why(verb: str, **arguments: object) -> str:
        return refusal(Operation("op", "d", verb, "a", arguments), {"move": 1}, {"count": 4})  # type: ignore[arg-type]

    assert why("move", count=4) == ""
    assert "it has move" in why("fly")
    assert "no argument speed" in why("move", speed=1)
    for value in (0, 5, True, 1.0, "1"):
        assert "from 1 to 4" in why("move", count=value)


# the handshake

STATUS = Question("status", b"S", every=1.0, timeout=0.5, reply=5.0)


def taken(shake: Handshake) -> bytes:
    data, shake.outgoing = shake.outgoing, b""
    return data


def begun() -> Handshake:
    shake = Handshake((STATUS,), gap=0.3, rest=0.2, least=7)
    shake.advance(0, 0.0)
    assert taken(shake) == b"S"
    return shake


def test_no_acknowledgement_in_time_lapses_and_an_acknowledgement_gives_time() -> None:
    shake = begun()
    shake.advance(0, 0.5)
    assert shake.lapsed is STATUS
    shake = begun()
    shake.came(0, 0.1)
    shake.control(ACK, 0.1)
    shake.advance(0, 5.0)
    assert shake.lapsed is None
    shake.advance(0, 5.2)
    assert shake.lapsed is STATUS


def test_a_refused_question_is_said_again_three_times() -> None:
    shake = begun()
    for step in range(1, 4):
        shake.control(NAK, 0.1 * step)
        assert taken(shake) == b"S"
    shake.control(NAK, 0.4)
    assert taken(shake) == b""
    assert shake.pending is None


def test_a_refused_operation_has_failed() -> None:
    shake = Handshake((), gap=0.3, rest=0.2, least=7)
    shake.undertake(Question("move", b"M", timeout=2.0, operation="op1", reply=60.0), "", 0.0)
    shake.advance(0, 0.0)
    for _ in range(4):
        shake.control(NAK, 0.1)
    assert words(shake.outcomes()) == [("op1", "failed")]
    assert taken(shake) == b"MMMM"


def test_a_nak_after_the_acknowledgement_means_nothing() -> None:
    shake = begun()
    shake.control(ACK, 0.1)
    shake.control(NAK, 0.2)
    assert taken(shake) == b""


def test_a_bad_reply_is_asked_for_again_when_the_line_is_quiet_and_three_times_at_most() -> None:
    shake = begun()
    shake.control(ACK, 0.1)
    unreadable, now, naks = 0, 0.1, 0
    for _ in range(5):
        unreadable += 20
        now += 0.1
        shake.came(unreadable, now)
        shake.advance(unreadable, now + 0.2)
        assert taken(shake) == b""
        now += 0.4
        shake.advance(unreadable, now)
        naks += taken(shake) == NAK
    assert naks == 3


def test_a_little_noise_is_not_a_bad_reply() -> None:
    shake = begun()
    shake.control(ACK, 0.1)
    shake.came(3, 0.2)
    shake.advance(3, 1.0)
    assert taken(shake) == b""


def test_rubbish_in_place_of_an_operations_acknowledgement_is_taken_for_one() -> None:
    shake = Handshake((), gap=0.3, rest=0.2, least=7)
    shake.undertake(Question("move", b"M", timeout=2.0, operation="op1", reply=60.0), "", 0.0)
    shake.advance(0, 0.0)
    assert taken(shake) == b"M"
    shake.came(1, 0.1)
    shake.advance(1, 59.0)
    assert shake.outcomes() == []
    assert taken(shake) == b"", "a command that may be running is not said twice"


def test_after_a_good_reply_the_line_is_left_to_the_eot() -> None:
    shake = begun()
    shake.control(ACK, 0.1)
    shake.answered()
    shake.good(2.0)
    assert taken(shake) == ACK
    shake.advance(0, 2.1)
    assert taken(shake) == b""
    shake.control(EOT, 2.1)
    shake.advance(0, 2.1)
    assert taken(shake) == b"S"


# what is said of a line


def test_a_tap_is_silent_after_its_quiet_time_and_repeats_it() -> None:
    tap = Overhearing(12.0)
    assert tap.judge(0.0, 0) == []
    assert tap.judge(11.9, 0) == []
    assert [r.value for r in tap.judge(12.0, 0)] == ["silent"]
    assert tap.judge(13.0, 0) == []
    assert [r.value for r in tap.judge(17.0, 5)] == ["rubbish"]
    assert [r.value for r in tap.heard(18.0, 5)] == ["up"]
    assert tap.judge(40.0, 5, patience=60.0) == []


def test_a_tap_that_nobody_asks_on_says_so() -> None:
    tap = Overhearing(12.0)
    tap.judge(0.0, 0)
    [state] = tap.judge(12.0, 0)
    assert (state.value, "nobody asks the device: does its payment application run?" in state.raw) == (
        "silent",
        True,
    )
    tap.asked(13.0)
    assert "is it switched on" in tap.judge(18.0, 0)[0].raw
    assert "nobody asks" in tap.judge(26.0, 0)[0].raw
    tap.asked(27.0)
    [state] = tap.judge(32.0, 9)
    assert (state.value, "speed" in state.raw, "cable" in state.raw) == ("rubbish", True, True)


def test_bad_frames_are_said_when_they_step_and_every_twenty_seconds() -> None:
    frames = BadFrames()
    said = [now for now in range(0, 60) if frames.report(int(now >= 5), float(now))]
    assert said == [0, 5, 25, 45]
    assert frames.report(2, 59.0)
    assert frames.report(3, 59.5) == []


def test_what_differs_must_be_said_twice() -> None:
    twice = Twice()
    assert twice.accept("bits", "00")
    assert not twice.accept("bits", "10")
    assert twice.doubted("bits")
    assert twice.accept("bits", "10")
    assert not twice.accept("bits", "01")
    assert not twice.accept("bits", "11")
    assert twice.accept("bits", "10"), "the accepted value is believed at once"
    assert not twice.accept("bits", "11"), "and a doubted one is forgotten then"


def test_the_very_first_value_can_be_doubted_too() -> None:
    twice = Twice()
    assert not twice.accept("bits", "00", first=False)
    assert not twice.accept("bits", "10", first=True)
    assert twice.accept("bits", "10", first=False)


def test_a_rare_question_whose_reply_was_lost_is_asked_again_soon_but_not_for_ever() -> None:
    dialogue = Dialogue([Question("who", b"w", every=60.0, mute=True)])
    asked = []
    for tenth in range(1500):
        if dialogue.next(tenth / 10):
            asked.append(tenth / 10)
    assert [round(at) for at in asked] == [0, 4, 8, 12, 72, 132]
    assert not dialogue.silent
