"""What changes between two configurations: every device has one fate, only links that differ end or begin, and the
rows are bounded and give nothing away."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import Config, parse
from agent.ledger import canonical
from agent.pushing.swapping import LONG, MOST, Difference, difference, links

HEAD = '[terminal]\norg = "coop"\nid = "ATM-0001"\ndata = "data"\n'
BROKER = '[broker]\nhost = "127.0.0.1"\n'
UPS = '[devices.ups1]\nkind = "ups"\nport = "/dev/ttyS0"\n'
PRINTER = '[devices.printer1]\nkind = "printer"\nport = "/dev/ttyS1"\n'
BUS = (
    '[lines.bus]\nkind = "modbus"\nport = "/dev/ttyS4"\n'
    '[devices.p1]\nline = "bus"\naddress = 1\n[devices.p2]\nline = "bus"\naddress = 2\n'
)


def config(*parts: str, head: str = HEAD) -> Config:
    return parse((head + "".join(parts)).encode(), Path("/etc/till"))


def between(old: str, new: str) -> Difference:
    return difference(config(BROKER, old), config(BROKER, new))


def test_nothing_changes_where_only_words_and_order_do() -> None:
    first = '[devices.p1]\nline = "bus"\naddress = 1\n'
    turned = BUS.replace(first, "") + first
    found = between(UPS + PRINTER + BUS, "# other words\n" + turned + PRINTER + UPS)
    assert found.kept == ("p2", "p1", "printer1", "ups1")
    assert (found.ended, found.begun, found.uplink, found.rows, found.local) == ((), (), False, (), ())


def test_a_port_that_changes_is_one_link_and_one_row() -> None:
    found = between(UPS + PRINTER, UPS.replace("ttyS0", "ttyS7") + PRINTER)
    assert (found.changed, found.kept, found.added, found.removed) == (("ups1",), ("printer1",), (), ())
    assert (found.ended, found.begun, found.uplink) == (("ups1",), ("ups1",), False)
    assert found.rows == ({"where": "devices.ups1.port", "old": "/dev/ttyS0", "new": "/dev/ttyS7"},)
    assert found.sentences == ["devices.ups1.port is /dev/ttyS7, was /dev/ttyS0"]


def test_devices_come_and_go_with_their_links_and_the_session() -> None:
    found = between(UPS, PRINTER)
    assert (found.added, found.removed, found.ended, found.begun) == (
        ("printer1",),
        ("ups1",),
        ("ups1",),
        ("printer1",),
    )
    assert found.uplink, "the terminal's birth names its devices"
    gone, come = found.rows
    assert (gone["where"], gone["new"], come["where"], come["old"]) == (
        "devices.ups1",
        None,
        "devices.printer1",
        None,
    )
    assert str(come["new"]).startswith("kind = printer, port = /dev/ttyS1")


def test_all_devices_on_a_line_go_with_it_and_no_others() -> None:
    found = between(BUS + UPS, BUS.replace("address = 2", "address = 3") + UPS)
    assert (found.changed, found.restarted, found.kept) == (("p2",), ("p1",), ("ups1",))
    assert (found.ended, found.begun) == (("bus",), ("bus",))
    assert [row["where"] for row in found.rows] == ["devices.p2.address"]


def test_a_line_s_own_settings_change_every_device_on_it() -> None:
    found = between(BUS, BUS.replace('"/dev/ttyS4"', '"/dev/ttyS4"\ntimeout = 0.7'))
    assert (found.changed, found.ended, found.begun) == (("p1", "p2"), ("bus",), ("bus",))
    assert found.rows == ({"where": "lines.bus.timeout", "old": "0.5", "new": "0.7"},)


def test_a_device_that_moves_onto_a_line_is_one_that_changes() -> None:
    alone = BUS.replace('[devices.p2]\nline = "bus"\naddress = 2\n', "")
    found = between(alone + UPS, BUS + UPS)
    assert (found.added, found.restarted, found.kept) == (("p2",), ("p1",), ("ups1",))


def test_another_kind_under_the_same_name_is_another_device() -> None:
    found = between(UPS, UPS.replace('"ups"', '"printer"'))
    assert (found.added, found.removed, found.changed, found.uplink) == (("ups1",), ("ups1",), (), True)


def test_an_option_alone_leaves_the_uplink() -> None:
    found = between(UPS, UPS + "poll = 3.0\n")
    assert (found.changed, found.uplink) == (("ups1",), False)
    assert found.rows == ({"where": "devices.ups1.poll", "old": "1.0", "new": "3.0"},)
    assert canonical({"rows": list(found.rows)}), "the ledger has no fractions"


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        (BROKER, BROKER.replace("127.0.0.1", "localhost"), "broker.host"),
        (BROKER, BROKER + 'tls = { ca = "new.pem" }\n', "broker.port"),
        (BROKER, "", "broker"),
        (BROKER, BROKER + "[uplink]\nbudget = 5\n", "uplink.budget"),
    ],
)
def test_the_uplink_is_renewed_by_its_own_tables(old: str, new: str, where: str) -> None:
    found = difference(config(old, UPS), config(new, UPS))
    assert (found.uplink, found.ended, found.kept) == (True, (), ("ups1",))
    assert found.rows[0]["where"] == where


def test_what_is_read_at_a_start_only_is_named() -> None:
    other = HEAD + 'groups = ["north"]\n[control]\nsocket = "other"\n[push]\nsigners = "s.toml"\n'
    assert difference(config(UPS), config(UPS, head=other)).local == ("terminal", "control", "push")


def test_rows_give_no_login_and_no_key_away_and_still_say_that_there_is_a_difference() -> None:
    old = UPS.replace("/dev/ttyS0", "rfc2217://root:s3cret@10.0.0.9:4001")
    found = between(old, old.replace("s3cret", "s4cret"))
    assert found.changed == ("ups1",)
    assert found.rows == ({"where": "devices.ups1", "old": "(withheld)", "new": "(withheld)"},)
    assert "s3cret" not in str(between(old, UPS).rows)
    nut = '[lines.n]\nkind = "nut"\nport = "socket://127.0.0.1:3493"\n[devices.u]\nline = "n"\nups = "U"\n'
    pasted = "0123456789ABCDEF0123456789ABCDEF"
    rows = between(nut, nut.replace('"U"', f'"{pasted}"')).rows
    assert rows == ({"where": "devices.u.ups", "old": "U", "new": "(withheld)"},)


def test_rows_are_bounded_however_much_changes() -> None:
    def many(port: str) -> str:
        return "".join(f'[devices.d{n}]\nkind = "ups"\nport = "{port}{n}"\n' for n in range(3 * MOST))

    found = between(many("/dev/a"), many("/dev/" + "b" * 1000))
    assert len(found.rows) == MOST
    assert found.rows[-1] == {"where": f"and {2 * MOST + 1} more", "old": None, "new": None}
    assert all(len(str(value)) <= LONG for row in found.rows for value in row.values())
    assert len(canonical({"rows": list(found.rows)})) < 20_000
    assert found.sentences[-1] == f"and {2 * MOST + 1} more"


tables = st.fixed_dictionaries(
    {
        "ups": st.dictionaries(
            st.sampled_from("abcd"), st.tuples(st.sampled_from(["ups", "printer"]), st.integers(0, 1))
        ),
        "bus": st.dictionaries(st.sampled_from("efgh"), st.sampled_from([1.0, 2.0])),
        "pause": st.sampled_from([0.01, 0.02]),
    }
)


def drawn(table: dict[str, Any]) -> Config:
    text = "".join(
        f'[devices.{name}]\nkind = "{kind}"\nport = "/dev/{name}{port}"\n'
        for name, (kind, port) in table["ups"].items()
    )
    if table["bus"]:
        text += f'[lines.bus]\nkind = "modbus"\nport = "/dev/bus"\npause = {table["pause"]}\n'
        text += "".join(
            f'[devices.{name}]\nline = "bus"\naddress = {ord(name)}\npoll = {poll}\n'
            for name, poll in table["bus"].items()
        )
    return config(BROKER, text)


@settings(max_examples=60, deadline=None)
@given(tables, tables)
def test_whatever_changes_every_device_has_one_fate_and_the_way_back_is_the_mirror(
    one: dict[str, Any], two: dict[str, Any]
) -> None:
    old, new = drawn(one), drawn(two)
    there, back = difference(old, new), difference(new, old)
    assert sorted(there.kept + there.restarted + there.changed + there.added) == sorted(new.devices)
    assert sorted(there.kept + there.restarted + there.changed + there.removed) == sorted(old.devices)
    left = {name: wired for name, wired in links(old).items() if name not in there.ended}
    left |= {name: links(new)[name] for name in there.begun}
    assert left == links(new), "what is left and what begins is what the new one wants"
    touched = {device for name in there.begun for device in links(new)[name][1]}
    assert not touched & set(there.kept)
    assert (set(back.added), set(back.removed)) == (set(there.removed), set(there.added))
    assert (set(back.ended), set(back.begun)) == (set(there.begun), set(there.ended))
    assert bool(there.rows) == bool(there.ended or there.begun or there.uplink)
