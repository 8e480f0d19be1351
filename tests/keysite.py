"""A terminal into which keys are loaded, in real processes: a pad, hwsim, a broker, the agent, and people.

What people type goes to the pad's keypad, never to the agent. Only public test keys.
"""

import json
import socket
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from agent.crypto.ed25519 import SigningKey
from agent.crypto.signing import ORDER, Envelope
from hwsim.secure_link import say
from tests.people import Person
from tests.scanning import Capture
from tests.secure import ANSI, TWO, kcv, wrapped, xored
from tests.whole import BIN, Site, free_port, wait

Json = dict[str, Any]
AnySite = TypeVar("AnySite", bound="KeySite")
SERIAL = "2411-0001"
DAY_MS = 86_400_000
KEPT = """
[devices.panel1]
line = "rs485"
address = 1
[devices.panel1.inputs]
safe_door = { at = 0 }
operator_switch = { at = 4, idle = "run", active = "maintenance" }

[lines.rs485]
kind = "modbus"
port = "./atm1/rs485"

[lines.vendor]
kind = "xfs4iot"
port = "ws://127.0.0.1:PUBLISHER"

[devices.epp1]
line = "vendor"
service = "SimEncryptor"
keys = true
"""
KEYS = """
[keys]
epp = "epp1"
hierarchy = "test"
signers = "signers.toml"
maintenance = { "panel1.operator_switch" = "maintenance" }
stopped = { "panel1.operator_switch" = "maintenance" }
doors = { "panel1.safe_door" = "closed" }
"""
FLEET = """
run_dir = "."
[terminals.atm1.devices.vendor]
kind = "xfs4iot"
tcp = PUBLISHER
set = { epp = "FOLDER/epp.sock" }

[terminals.atm1.devices.panel]
kind = "modbus"
line = "rs485"
set = { address = 1, heat = "on" }
"""
SWITCH = {"maintenance": "on", "run": "off"}
"""Word of the operator switch -> what the twin's input "heat", to which it is wired here, says."""


class KeySite(Site):
    """A site with a pad. `li` is the key manager, of group G1, and `wang` the technician, of group G2.

    lab: the pad takes any key, not only public ones. idle: seconds after which an entry without keys ends.
    record: what goes between agent and broker is written down, in `capture`. keys: the text of the [keys] table.
    """

    def __init__(
        self,
        folder: Path,
        *,
        lab: bool = False,
        idle: float = 60.0,
        record: bool = False,
        keys: str = KEYS,
        protocol: str = "5",
    ) -> None:
        self.lab, self.idle, self.record, self.table = lab, idle, record, keys
        self.capture: Capture | None = None
        self.keypad, self.data = folder / "keypad.sock", folder / "data"
        self.signers = {"hq-maker": SigningKey.generate(), "hq-checker": SigningKey.generate()}
        self.publisher, self._orders = free_port(), 0
        entries = [
            f'[[signer]]\nname = "{name}"\nroles = ["{name.removeprefix("hq-")}"]\nkey = """{key.public.pem}"""\n'
            for name, key in self.signers.items()
        ]
        (folder / "signers.toml").write_text("".join(entries))
        fleet = FLEET.replace("FOLDER", str(folder)).replace("PUBLISHER", str(self.publisher))
        kept = KEPT.replace("PUBLISHER", str(self.publisher))
        super().__init__(folder, protocol, devices=kept, fleet=fleet)
        self.people: dict[str, Person] = {}

    def configure(self, devices: str = "", uplink: str = "linger = 0") -> Path:
        path = super().configure(devices + self.table, uplink)
        if self.record:
            self.capture = self.capture or Capture(self.port)
            path.write_text(path.read_text().replace(f"port = {self.port}\n", f"port = {self.capture.port}\n"))
        return path

    def start(self, name: str) -> None:
        """As a site, and the pad: "epp". Its slots outlive it, as in a real one."""
        if name != "epp":
            return super().start(name)
        options = ["--lab"] * self.lab + ["--idle", str(self.idle), "--serial", SERIAL, "--slots", "slots.json"]
        sockets = ["--socket", str(self.folder / "epp.sock"), "--keypad", str(self.keypad)]
        self.launch("epp", str(BIN / "hwsim"), "epp", *sockets, *options)
        wait("the pad", self.pad_answers)

    def start_all(self) -> None:
        self.start("epp")
        super().start_all()
        wait("the agent", self.agent_answers)

    def hire(self) -> None:
        """The two people, with accounts, and with first passwords that they have changed."""
        for name, role, group in (("li", "key-manager", "G1"), ("wang", "technician", "G2")):
            self.account_for(name, role, group)

    def account_for(self, name: str, role: str, group: str) -> Person:
        """One more person, ready to begin."""
        person = self.people[name] = Person(self.folder / "tw.sock", name, f"lantern-{name}-{len(name)}")
        first = f"first-of-{name}"
        self.must(do="accounts", act="add", name=name, role=role, group=group, password=first)
        self.must(do="accounts", act="password", name=name, old=first, new=person.password)
        return person

    @property
    def li(self) -> Person:
        return self.people["li"]

    @property
    def wang(self) -> Person:
        return self.people["wang"]

    def must(self, **request: Any) -> Json:
        """The first line of an answer that is no refusal."""
        answer = self.ask(**request)
        assert "error" not in answer, answer
        return answer

    # --- orders ---

    def order(self, components: Sequence[str] = TWO, **changes: Any) -> Json:
        """An order for this terminal to load a TMK from these components; a change to None leaves a field out."""
        self._orders += 1
        now = time.time_ns() // 1_000_000
        parts = [
            {"envelope": f"ENV-{self._orders}-{n}", "kcv": kcv(component), "group": f"G{n}"}
            for n, component in enumerate(components, 1)
        ]
        made = {
            "format": "tillwire-key-order/1",
            "id": f"KO-{self._orders}",
            "terminal": "ATM-0001",
            "epp_serial": SERIAL,
            "slot": "TMK",
            "kind": "load",
            "method": "components",
            "usage": "K0",
            "algorithm": "T",
            "mode": "D",
            "exportability": "N",
            "digits": len(components[0]),
            "version": self._orders,
            "kcv": kcv(xored(components)),
            "hierarchy": "test",
            "not_before": now - 60_000,
            "not_after": now + DAY_MS,
            "parts": parts,
        }
        return {name: value for name, value in {**made, **changes}.items() if value is not None}

    def block_order(self, block: bytes, key: str, **changes: Any) -> Json:
        """An order to load a PIN key as this TR-31 block, under the key in slot KBPK; `key` is what is in it."""
        made = {"method": "block", "parts": None, "form": "tr31", "block": sha256(block).hexdigest()}
        use = {"slot": "TPK", "usage": "P0", "mode": "E", "under": "KBPK", "kcv": kcv(key), "digits": len(key)}
        return self.order(**{**made, **use, **changes})

    def destroy_order(self, key: str = ANSI, slot: str = "TMK") -> Json:
        """An order to destroy the key in a slot."""
        names = ("method", "usage", "algorithm", "mode", "exportability", "digits", "version", "parts")
        gone: Json = dict.fromkeys(names)
        return self.order(**gone | {"kind": "destroy", "slot": slot, "kcv": kcv(key)})

    def signed(self, order: Json, *names: str) -> str:
        """The envelope of an order as text, signed by both signers, or by these."""
        envelope = Envelope(ORDER, json.dumps(order).encode())
        for name in names or self.signers:
            envelope = envelope.signed(self.signers[name])
        return envelope.text.decode()

    def receive(self, order: Json) -> Json:
        """Hand a signed order over to the agent; it must be taken."""
        return self.must(do="keys", act="order", text=self.signed(order))

    # --- a ceremony ---

    def ready(self) -> None:
        """The operator switch says maintenance, the agent has seen it and the pad, and has looked at its slots."""
        self.switch("maintenance")
        wait("the switch", lambda: self.shown("panel1", "operator_switch") == "maintenance")
        wait("the door", lambda: self.shown("panel1", "safe_door") == "closed")
        wait("the pad's number", lambda: self.shown("epp1", "device.serial"))
        self.wait_for_look(0)

    def switch(self, word: str) -> None:
        """Turn the operator switch: run or maintenance."""
        self.act(device="panel", set={"heat": SWITCH[word]})

    def join(self, order: Json) -> None:
        """Both people log in."""
        for person in (self.li, self.wang):
            good(person.does("begin", order=order["id"]))

    def enter(self, person: Person, component: str) -> list[Json]:
        """A person opens the envelope and types its component at the pad; the agent's whole answer."""
        person.begin("part")
        self.wait_for_entry(person)
        self.type(component)
        return person.rest()

    def load(self, order: Json, components: Sequence[str] = TWO, block: bytes = b"") -> None:
        """A whole ceremony in which all goes well, from the order to the receipt."""
        self.receive(order)
        self.join(order)
        if block:
            good(self.li.does("block", data=b64encode(block).decode()))
        elif order["kind"] != "destroy":
            for person, component in zip((self.li, self.wang), components, strict=True):
                good(self.enter(person, component))
        good(self.wang.does("complete"))
        if order["kind"] != "destroy":
            good(self.wang.does("prove", ok=True, method="echo", reference="REF-1"))
        for person in (self.li, self.wang):
            good(person.does("sign"))
        looks = len(self.rows("slots"))
        self.receipt(order["id"])
        assert self.status()["state"] == "closed"
        self.wait_for_look(looks)

    def wait_for_look(self, before: int) -> None:
        """Until the agent has looked at the slots once more than so many times, as after each ceremony."""
        wait("a look at the slots", lambda: len(self.rows("slots")) > before)

    def status(self) -> Json:
        """What the agent says of keys and of the ceremony."""
        status: Json = self.must(do="keys", act="status")["keys"]
        return status

    def receipt(self, order: str) -> str:
        """The receipt of a ceremony that has come to an end, as soon as the ledger says so."""
        request = {"do": "keys", "act": "receipt", "order": order}
        return str(wait("the receipt", lambda: self.ask(**request).get("receipt")))

    # --- the pad ---

    def hands(self, **touch: Any) -> Json:
        """Do something at the pad; what somebody before it sees then."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(5)
            line.connect(str(self.keypad))
            answer = say(line, touch)
        assert "ok" in answer, answer
        seen: Json = answer["ok"]
        return seen

    def type(self, digits: str, key: str = "enter") -> None:
        """Type at the pad, and press a key at the end."""
        if digits:
            self.hands(press=digits)
        self.hands(key=key)

    def wait_for_entry(self, person: Person) -> None:
        """Until the pad waits for digits; an answer before that says why it does not."""
        wait("the pad to wait for digits", lambda: self.hands(look=True)["typing"] or person.answered)
        assert not person.answered, person.rest()

    def agent_answers(self) -> bool:
        """Whether there is an agent; one that was killed leaves its socket behind."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.folder / "tw.sock")) == 0

    def pad_answers(self) -> bool:
        try:
            return "serial" in self.hands(look=True)
        except OSError:
            return False

    def slots(self) -> Json:
        """What the pad itself says of its slots, asked on its device side."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(5)
            line.connect(str(self.folder / "epp.sock"))
            found: Json = say(line, {"do": "state"})["ok"]["slots"]
        return found

    def close(self) -> None:
        for person in self.people.values():
            person.close()
        super().close()
        if self.capture:
            self.capture.close()


def block_of(key: str, kbpk: str = ANSI, version: int = 1) -> bytes:
    """A TR-31 block (version B) with a PIN key in it."""
    clear = (len(key) * 4).to_bytes(2, "big") + bytes.fromhex(key) + bytes(6)
    return wrapped(f"B????P0TE{version:02d}N0000", clear, kbpk).encode()


def good(lines: list[Json]) -> list[Json]:
    """An answer that ends well: what was told last is the next step, so nothing was refused or stopped."""
    assert lines, "the agent hung up"
    assert "end" in lines[-1], lines
    assert lines[-1]["end"] != "aborted", lines
    assert lines[-2]["tell"]["word"] == lines[-1]["step"]["word"], lines
    return lines


@contextmanager
def keysite(folder: Path, **options: Any) -> Iterator[KeySite]:
    """A key site that runs; folder: short, because the path of a Unix socket has room for 107 characters."""
    with running(KeySite(folder, **options)) as site:
        yield site


@contextmanager
def running(site: AnySite) -> Iterator[AnySite]:
    """A site with its people; cleaned up whatever happens, and when the test fails, logs are shown."""
    try:
        site.start_all()
        site.hire()
        site.ready()
        yield site
    except BaseException:
        for name in ("agent", "hwsim", "epp", "broker"):
            if (site.folder / f"{name}.log").exists():
                print(f"---- {name}\n{site.log(name)[-3000:]}")
        raise
    finally:
        site.close()
