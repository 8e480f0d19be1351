"""Key orders: what is refused for its shape, and what is refused here and now."""

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.crypto import holdings
from agent.crypto.holdings import Holdings, Slot
from agent.crypto.kcv import Kcv
from agent.crypto.orders import EnvelopeId, Order, Site, check
from agent.crypto.phrases import ALARMS, CAUSES, REFUSALS, STEPS
from agent.crypto.steps import State
from agent.errors import EnvelopeRefused
from agent.pasted import like_a_key
from tests.ceremonies import BLOCK, SITE, WALL, block_order, destroy_order, document, order

HALVES = "0123456789ABCDEF FEDCBA9876543210"
PARTS = document()["parts"]
TWICE = [PARTS[0], {**PARTS[1], "envelope": "ENV-1"}]
CANCELLING = [PARTS[0], {**PARTS[1], "kcv": PARTS[0]["kcv"]}]
BOTH_IN_ONE = [PARTS[0], {**PARTS[1], "group": "G1"}]
MAC = {"usage": "M1", "mode": "C", "algorithm": "D", "digits": 16}
KEK = Slot("loaded", Kcv.parse("A1B2C3"), "K1", "T", 32, 1)


def refused(what: Any, reason: str) -> None:
    with pytest.raises(EnvelopeRefused) as caught:
        what()
    assert caught.value.reason == reason
    assert str(caught.value) == REFUSALS[reason].en


@pytest.mark.parametrize("made", [order(), order(count=3), block_order(), destroy_order(), order(replaces="OLD")])
def test_an_order_is_the_same_after_it_was_written_and_read(made: Order) -> None:
    assert Order.parse(made.document()) == made


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": "tillwire-key-order/2"}, "malformed"),
        ({"id": None}, "malformed"),
        ({"surprise": 1}, "malformed"),
        ({"slot": 7}, "malformed"),
        ({"digits": True}, "malformed"),
        ({"version": 0}, "malformed"),
        ({"version": 100}, "malformed"),
        ({"kcv": "0123456789ABCDEF"}, "malformed"),
        ({"kcv": 1}, "malformed"),
        ({"parts": "ENV-1"}, "malformed"),
        ({"parts": [*PARTS[:1], {**PARTS[1], "component": "00"}]}, "malformed"),
        ({"parts": [*PARTS[:1], {**PARTS[1], "envelope": HALVES.replace(" ", "-")}]}, "malformed"),
        ({"id": "0123456789ABCDEF"}, "malformed"),
        ({"not_after": WALL - 2000}, "malformed"),
        ({"not_after": WALL + 40 * 86_400_000}, "too_long"),
        ({"exceptions": ["anything"]}, "malformed"),
        ({"kind": "compromise"}, "malformed"),
        ({"compromised": ["TMK"]}, "malformed"),
        ({"mode": "X"}, "wrong_usage"),
        ({"exportability": "Q"}, "wrong_usage"),
        ({"digits": 16}, "wrong_length"),
        ({"algorithm": "A"}, "aes"),
        ({"id": "KO-202611250001"}, "long_name"),
        ({"slot": "S" * 33}, "long_name"),
        ({"replaces": "T" * 33}, "long_name"),
        ({"parts": [PARTS[0], {**PARTS[1], "group": "G-12345678901"}]}, "long_name"),
        (MAC, "single_des"),
        ({**MAC, "exceptions": ["single_des"], "usage": "P0", "mode": "E"}, "single_des"),
        ({**MAC, "exceptions": ["single_des"]}, "malformed"),
        ({"parts": PARTS[:1]}, "part_count"),
        ({"parts": TWICE}, "same_part_twice"),
        ({"parts": CANCELLING}, "same_part_twice"),
        ({"parts": [{**PARTS[0], "kcv": document()["kcv"]}, PARTS[1]]}, "same_part_twice"),
        ({"parts": BOTH_IN_ONE}, "one_group"),
        ({"under": "KEK"}, "malformed"),
    ],
)
def test_an_order_to_enter_components_is_refused_for(changes: dict[str, Any], reason: str) -> None:
    refused(lambda: order(**changes), reason)


def test_a_serial_number_may_be_long_and_a_slot_as_long_as_a_driver_takes() -> None:
    assert order(epp_serial="202611250001", slot="S" * 32).epp_serial == "202611250001"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method": "clear"}, "malformed"),
        ({"block": "ab"}, "malformed"),
        ({"form": "x"}, "malformed"),
        ({"parts": PARTS}, "malformed"),
        ({"form": "ecb"}, "naked"),
        ({"under": "TPK"}, "suspected_kek"),
        ({"kind": "compromise", "compromised": ["TMK", "TPK"]}, "suspected_kek"),
    ],
)
def test_an_order_to_load_a_block_is_refused_for(changes: dict[str, Any], reason: str) -> None:
    refused(lambda: block_order(**changes), reason)
    assert block_order(form="ecb", exceptions=["naked"]).form == "ecb"


@pytest.mark.parametrize("field", ["digits", "usage", "under", "replaces", "block", "method"])
def test_an_order_to_destroy_names_nothing_of_a_load(field: str) -> None:
    refused(lambda: destroy_order(**{field: document(under="K", replaces="S", block=BLOCK)[field]}), "malformed")


def test_what_is_refused_does_not_come_back_in_the_sentence() -> None:
    for name in document():
        with pytest.raises(EnvelopeRefused) as caught:
            order(**{name: HALVES})
        assert "0123456789" not in str(caught.value)


def checked(what: Order, reason: str, held: Holdings | None = None, site: Site = SITE, **given: Any) -> None:
    signers = given.pop("signers", ("hq1", "hq2"))
    clock = {"wall": WALL, "trusted": WALL, **given}
    refused(lambda: check(what, signers, site, held or Holdings(), **clock), reason)


def test_an_order_needs_two_signers_and_its_own_terminal_device_and_time() -> None:
    check(order(), ("hq1", "hq2"), SITE, Holdings(), WALL, WALL)
    checked(order(), "too_few_signers", signers=("hq1", "hq1"))
    checked(order(terminal="ATM-0002"), "wrong_target")
    checked(order(epp_serial="EPP-78"), "wrong_target")
    checked(order(), "too_early", wall=WALL - 5000, trusted=0)
    checked(order(), "expired", wall=WALL + 90_000_000)
    checked(order(), "clock_went_back", wall=WALL, trusted=WALL + 1)


def test_test_orders_and_real_devices_do_not_meet_and_neither_do_real_orders_and_a_simulator() -> None:
    checked(order(hierarchy="test"), "wrong_hierarchy")
    checked(order(), "wrong_hierarchy", site=Site(SITE.terminal, SITE.epp_serial, simulated=True))


def test_an_old_order_envelope_version_or_key_is_refused() -> None:
    checked(order(), "used_before", Holdings(orders={"ORD-1"}))
    checked(order(), "envelope_used", Holdings(envelopes={"ENV-2"}))
    checked(order(version=3), "older", Holdings(versions={"TMK": 3}))
    checked(order(), "destroyed_before", Holdings(destroyed={Kcv.parse(document()["kcv"])}))


def test_published_keys_are_refused_in_production_as_a_whole_and_as_a_component() -> None:
    checked(order(kcv="08D7B4"), "test_key")
    checked(order(parts=[PARTS[0], {**PARTS[1], "kcv": "8CA64D"}]), "test_key")
    simulator = Site(SITE.terminal, SITE.epp_serial, simulated=True)
    check(order(kcv="08D7B4", hierarchy="test"), ("a", "b"), simulator, Holdings(), WALL, WALL)


def test_a_block_needs_a_known_protection_key_that_is_not_weaker() -> None:
    checked(block_order(), "no_kek")
    checked(block_order(), "no_kek", Holdings(slots={"TMK": Slot("unknown")}))
    checked(block_order(digits=48), "weak_wrapping", Holdings(slots={"TMK": KEK}))
    checked(replace(block_order(), algorithm="A"), "weak_wrapping", Holdings(slots={"TMK": KEK}))
    for exception, digits in (("weak_wrapping", 48), ("unrecorded_kek", 32)):
        held = Holdings(slots={"TMK": KEK}) if digits == 48 else Holdings()
        check(block_order(digits=digits, exceptions=[exception]), ("a", "b"), SITE, held, WALL, WALL)


def test_after_a_compromise_every_key_below_must_go_too() -> None:
    below = Slot("loaded", None, "P0", "T", 32, 1, under="TMK")
    held = Holdings(slots={"TMK": KEK, "TPK": below})
    suspected = {"kind": "compromise", "version": 2}
    checked(order(**suspected, compromised=["TMK"]), "keys_below", held)
    check(order(**suspected, compromised=["TMK", "TPK"]), ("a", "b"), SITE, held, WALL, WALL)


@given(st.text(max_size=60))
def test_whatever_becomes_an_envelope_number_is_short_plain_and_no_component(text: str) -> None:
    with contextlib.suppress(EnvelopeRefused):
        taken = str(EnvelopeId(text))
        assert taken == text
        assert text.isascii()
        assert len(text) <= 48
        assert not like_a_key(text)


def test_every_sentence_is_there_in_both_languages() -> None:
    for words in (*REFUSALS.values(), *CAUSES.values(), *STEPS.values(), *ALARMS.values()):
        assert words.en.isascii()
        assert any("\u4e00" <= letter <= "\u9fff" for letter in words.zh)
    assert {state.value for state in State} <= set(STEPS)


def test_rows_of_other_kinds_say_nothing_of_keys() -> None:
    assert holdings.fold([{"kind": "change", "device": "epp1", "point": "key.TMK.state"}]) == Holdings()
