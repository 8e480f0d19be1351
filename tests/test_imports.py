"""Who may import whom: the rules of the house, walked with ast, and no cycle anywhere."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PURE_BANNED = {"socket", "serial", "sqlite3", "threading", "asyncio", "time", "os", "subprocess", "random"}
PURE_BANNED |= {"select", "queue", "tempfile", "paho", "tenacity"}
CONTRACT = {"drivers", "drivers.contract"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "model": set(),
    "points": set(),
    "watch": {"model", "points", "errors"},
    "catalogue": {"model", "points", "errors"},
    "outage": {"model"},
    "flapping": {"model", "points"},
    "faults": {"model", "catalogue", "outage"},
    "ledger": {"model", "points", "errors"},
    "mqtt.delivery": {"model", "points", "errors"},
    "clock": set(),
    "timepiece": {"clock"},
    "evidence.checkpoints": {"errors", "ledger", "crypto.ed25519", "crypto.signing"},
    "evidence.exports": {"errors", "ledger", "evidence.checkpoints", "clock", "crypto.signing", "store"},
    "evidence.audit": {"errors", "ledger", "evidence.checkpoints", "clock", "crypto.ed25519", "crypto.signing"},
    "evidence.notary": {
        *(
            "evidence.checkpoints",
            "clock",
            "config",
            "crypto.signing",
            "errors",
            "evidence.exports",
            "evidence.identity",
            "ledger",
            "model",
        ),
        *("people.peer", "store"),
    },
    "core": {"model", "points", "errors", "watch", "faults", "flapping", "clock"},
    "messages": {"model"},
    "state": {"model", "points", "catalogue", "clock", "faults", "messages"},
    "mistakes": set(),
    "people.accounts": {"disk.durable", "errors", "crypto.passwords"},
    "people.peer": set(),
    "pasted": set(),
    "pushes": {"clock", "errors", "pasted", "crypto.signing", "crypto.trust"},
    "centre.rollout": set(),
    "centre.fleet": {"messages", "pushes"},
    "centre.parcel": {
        "errors",
        "centre.fleet",
        "messages",
        "pushes",
        "centre.rollout",
        "tables",
        "crypto.signing",
        "crypto.trust",
    },
    "centre.broker": {
        "lines.addresses",
        "mqtt.brokers",
        "config",
        "mqtt.connection",
        "errors",
        "centre.fleet",
        "tls",
    },
    "keys.fields": {"errors", "pasted"},
    "people.lobby": {"errors", "people.peer"},
    "people.desk": {"people.accounts", "errors", "model", "pasted", "people.peer", "repeats", "crypto.phrases"},
    "repeats": {"ration"},
    "keys.telling": {"crypto.steps"},
    "keys.table": {"points", "errors", "mistakes", "crypto.ed25519", "crypto.signing"},
    "keys.surroundings": {"model", "points", "crypto.phrases"},
    "keys.surveying": {"model", "crypto.asking", "crypto.guards", "crypto.steps"},
    "keys.guard": {
        "model",
        "keys.table",
        "ration",
        "keys.surveying",
        *(f"crypto.{part}" for part in ("guards", "holdings", "kcv", "phrases")),
    },
    "lines.addresses": {"errors", *CONTRACT},
    "tables": {"lines.addresses", "keys.table", *CONTRACT},
    "config": {"errors", "mistakes", "lines.addresses", "pasted", "tables", *CONTRACT},
    "disk.aside": {"disk.durable", "errors"},
    "disk.durable": set(),
    "disk.slips": {"disk.aside", "disk.durable", "errors"},
    "pushing.remembered": set(),
    "pushing.memory": {"errors", "pushing.remembered", "disk.slips", "timepiece"},
    "pushing.probation": set(),
    "pushing.view": {
        *(
            "errors",
            "pushing.inforce",
            "messages",
            "people.peer",
            "pushes",
            "pushing.remembered",
            "pushing.swapping",
            "tables",
            "crypto.trust",
        ),
    },
    "calling": {"errors"},
    "pushing.inforce": {
        "config",
        "disk.datafolder",
        "errors",
        "pushes",
        "pushing.shelf",
        "crypto.signing",
        "crypto.trust",
    },
    "pushing.applying": {
        "clock",
        "config",
        "errors",
        "pushing.probation",
        "pushes",
        "pushing.shelf",
        "pushing.swapping",
    },
    "pushing.reports": {"clock", "errors", "messages", "pushes", "pushing.remembered", "crypto.signing"},
    "pushing.pending": {"ration"},
    "pushing.answering": {"model", "tables"},
    "pushing.judging": {
        *(
            "pushing.applying",
            "pushing.commanding",
            "errors",
            "pushing.inforce",
            "lines.nodes",
            "pushing.pending",
            "pushes",
            "pushing.reports",
            "timepiece",
        ),
        *("crypto.signing", "crypto.trust"),
    },
    "pushing.desk": {
        *(
            "pushing.applying",
            "calling",
            "pushing.commanding",
            "errors",
            "pushing.inforce",
            "pushing.judging",
            "model",
            "people.peer",
            "pushes",
        ),
        *("pushing.reports", "pushing.view", "pushing.remembered", "timepiece"),
    },
    "pushing.parts": {
        *(
            "pushing.answering",
            "pushing.applying",
            "clock",
            "pushing.commanding",
            "config",
            "pushing.errands",
            "errors",
            "pushing.inforce",
            "messages",
        ),
        *(
            "model",
            "mqtt.outbox",
            "people.peer",
            "pushing.desk",
            "pushing.reports",
            "pushing.swapping",
            "timepiece",
            "uplink",
        ),
    },
    "intake": {"core", "model"},
    "pushing.shelf": {
        *(
            "disk.durable",
            "errors",
            "pushing.memory",
            "pushing.probation",
            "pushing.remembered",
            "disk.slips",
            "crypto.signing",
            "crypto.strictjson",
        ),
    },
    "disk.datafolder": {"disk.aside", "errors"},
    "disk.pruning": {"errors"},
    "disk.room": {"disk.datafolder", "errors", "disk.pruning", "disk.reading"},
    "disk.cursor": set(),
    "disk.carrying": {"ledger", "disk.reading"},
    "disk.opening": {"errors", "ledger", "disk.reading"},
    "disk.schema": {"errors", "model", "disk.pruning", "disk.reading"},
    "disk.reading": {"model", "errors", "ledger"},
    "store": {
        *(
            "model",
            "errors",
            "ledger",
            "disk.aside",
            "disk.carrying",
            "disk.cursor",
            "disk.datafolder",
            "disk.opening",
            "disk.pruning",
        ),
        *("disk.reading", "disk.room", "disk.schema"),
    },
    "disk.sifting": {"ledger", "model"},
    "disk.committing": {"errors", "model", "disk.sifting", "store"},
    "pushing.swapping": {"lines.addresses", "pasted", "tables"},
    "ration": set(),
    "pushing.rebooting": {"errors"},
    "pushing.errands": {"clock", "messages", "pasted", "people.peer", "points", "pushes", "pushing.rebooting"},
    "pushing.commanding": {
        *(
            "pushing.errands",
            "errors",
            "pushing.memory",
            "messages",
            "pushes",
            "ration",
            "pushing.remembered",
            "tables",
        ),
    },
    "link": {"model", "errors", "config", "lines.ports", *CONTRACT},
    "workers": {"model"},
    "lines.links": {"link", "model", "pushing.swapping", "workers"},
    "mqtt.uplinks": {"config", "messages", "mqtt.outbox", "mqtt.publishing", "store", "uplink", "workers"},
    "recalling": {"catalogue", "clock", "core", "errors", "faults", "model", "points", "store", "watch"},
    "lines.nodes": {"errors", "tables"},
    "lines.ports": {"lines.addresses", "errors", "config", "lines.nodes", "lines.sockets", *CONTRACT},
    "facts": set(),
    "mqtt.brokerlook": {"errors", "mqtt.brokers", "config", "mqtt.connection", "facts", "tls"},
    "tls": {"config", "lines.nodes"},
    "lines.sockets": {"errors", "lines.addresses", "config", "tls", "drivers.framing"},
    "mqtt.brokers": set(),
    "mqtt.refusals": set(),
    "mqtt.connection": {"errors", "mqtt.brokers", "config", "mqtt.refusals", "tls"},
    "mqtt.byteaccount": {"config", "disk.durable"},
    "mqtt.posting": {"errors", "mqtt.brokers", "config", "mqtt.connection", "messages"},
    "mqtt.inbox": {"messages", "mqtt.refusals"},
    "mqtt.outbox": {"errors"},
    "mqtt.proof": {"errors"},
    "mqtt.saying": {"mqtt.refusals"},
    "mqtt.publishing": {
        *(
            "errors",
            "ledger",
            "messages",
            "store",
            "config",
            "mqtt.byteaccount",
            "mqtt.delivery",
            "mqtt.outbox",
            "mqtt.posting",
        ),
        *("mqtt.proof", "timepiece"),
    },
    "mqtt.answers": {"mqtt.connection", "mqtt.inbox", "mqtt.publishing", "mqtt.refusals", "mqtt.saying"},
    "uplink": {
        *(
            "errors",
            "messages",
            "store",
            "config",
            "mqtt.brokers",
            "mqtt.byteaccount",
            "mqtt.posting",
            "mqtt.publishing",
            "tls",
        ),
        *("mqtt.answers", "mqtt.inbox", "mqtt.outbox", "mqtt.proof", "mqtt.refusals", "mqtt.saying", "timepiece"),
    },
    "control": {
        "mqtt.byteaccount",
        "model",
        "errors",
        "people.lobby",
        "pasted",
        "people.peer",
        "messages",
        "store",
        "ledger",
        "config",
        "catalogue",
        "state",
        "timepiece",
        "evidence.exports",
        *CONTRACT,
    },
    "drivers.contract": {"model", "drivers.transcript"},
    "drivers.transcript": set(),
    "drivers.framing": set(),
    "drivers.hearing": {"model"},
    "drivers.doubt": set(),
    "drivers.dialogue": {"model", "drivers.hearing"},
    "drivers.handshake": {"drivers.dialogue"},
    "drivers.lcdm": {"model", "drivers.framing"},
    "drivers.crt591": {"model", "drivers.framing"},
    "drivers.rtu": {"drivers.framing"},
    "drivers.panel": {"model", "points", "drivers.rtu"},
    "drivers.nut_names": {"model"},
    "drivers.xfs_messages": set(),
    "drivers.xfs_status": {"model", "points", "drivers.xfs_messages"},
    "drivers.xfs_storage": {"model", "drivers.xfs_messages", "drivers.xfs_status"},
    "drivers.xfs_keys": {"model", "drivers.xfs_messages", "drivers.xfs_status"},
    "drivers.xfs_connection": {"drivers.framing", "drivers.transcript", "drivers.xfs_messages"},
    "drivers.xfs_service": {
        "model",
        "drivers.transcript",
        *(f"drivers.xfs_{part}" for part in ("connection", "keys", "keyloading", "messages", "status", "storage")),
    },
    "drivers.key_operations": {"model"},
    "drivers.zt588": {"model", "drivers.framing"},
    "drivers.xfs_key_words": set(),
    "drivers.xfs_key_steps": {"model", *(f"drivers.xfs_{part}" for part in ("connection", "keys", "messages"))},
    "drivers.xfs_keyloading": {
        "model",
        "drivers.key_operations",
        *(f"drivers.xfs_{part}" for part in ("connection", "key_steps", "key_words", "messages")),
    },
    "drivers.xfs4iot": {
        "model",
        *(f"drivers.{part}" for part in ("contract", "framing", "hearing", "transcript")),
        *(f"drivers.xfs_{part}" for part in ("connection", "messages", "service")),
    },
}
PURE = {
    "pushing.answering",
    "pushing.pending",
    "pushing.probation",
    "ration",
    "pushing.remembered",
    "mistakes",
    "pasted",
    "pushing.swapping",
    "pushes",
    "centre.rollout",
    "centre.fleet",
    "centre.parcel",
    "errors",
    "model",
    "points",
    "watch",
    "catalogue",
    "outage",
    "flapping",
    "faults",
    "ledger",
    "clock",
    "evidence.checkpoints",
    "evidence.audit",
    "mqtt.delivery",
    "mqtt.inbox",
    "mqtt.proof",
    "mqtt.saying",
    "core",
    "messages",
    "state",
    "keys.surroundings",
    "keys.surveying",
    "crypto.signing",
    "crypto.ed25519",
    "crypto.strictjson",
    "crypto.trust",
    *(f"crypto.{part}" for part in ("asking", "ceremony", "conduct", "crew", "guards", "holdings", "orders")),
    *(f"crypto.{part}" for part in ("phrases", "receipt_page", "receipt_words", "receipts", "steps")),
}
DRIVER_PARTS = {"model", "points", "errors"} | {
    f"drivers.{part}"
    for part in (
        "contract",
        "framing",
        "dialogue",
        "handshake",
        "hearing",
        "doubt",
        "transcript",
        "lcdm",
        "crt591",
        "ssp",
        "ipp",
        "rtu",
        "panel",
        "nut_names",
        "key_operations",
        "zt588",
    )
}
CLI = {
    "errors",
    "model",
    "pasted",
    "points",
    "messages",
    "crypto",
    "diagnose",
    "evidence.audit",
    "pushes",
    "timepiece",
}
FOLDERS = {"centre", "disk", "evidence", "keys", "lines", "mqtt", "people", "pushing"}
# The commands of the centre, which has a broker and no agent.
CENTRE = {f"agent.cli.{part}" for part in ("rollout", "rolloutviews", "sending", "pushstatus")}
PUSHING = {"centre.broker", "disk.durable", "centre.fleet", "centre.parcel", "centre.rollout"}
# The only commands that may see a clear key, on a machine that is no terminal; one opens a legacy pad's port.
KEY_ROOM = {f"agent.cli.{part}" for part in ("keyroom", "keyorders", "sitting", "custodians", "pages")}
CLEAR_KEYS = {
    f"agent.crypto.{part}"
    for part in ("des", "components", "wrapping", "mac", "pinblock", "dukpt", "keyroom", "injecting", "enclosure")
}
INJECTS = {"config", "lines.ports"}
ONLY_USER = {
    "serial": {"agent.lines.ports"},
    "websockets": {"agent.lines.sockets"},
    "paho": {"agent.mqtt.connection"},
    "tenacity": {"agent.link"},
    "sqlite3": {
        f"agent.{part}"
        for part in ("store", "disk.reading", "disk.room", "disk.schema", "disk.pruning", "disk.carrying")
    },
    "subprocess": {"agent.crypto.keepers", "agent.crypto.tpm", "agent.pushing.rebooting"},
}


def modules(package: str) -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, name: str, *, at_once: bool = False) -> set[str]:
    """Every module that a file imports anywhere in it, in full; at_once: only what is loaded together with it."""
    found, tree = set(), ast.parse(path.read_text())
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            module = node.module or ""
            for alias in node.names:
                full = f"{module}.{alias.name}"
                found.add(full if full in EVERY else module)
    return found


EVERY = modules("agent") | modules("hwsim")
IMPORTS = {name: imported(path, name) for name, path in EVERY.items()}


def inside(name: str) -> set[str]:
    """What a module of agent imports of agent, without the leading `agent.`."""
    return {i.removeprefix("agent.") for i in IMPORTS[name] if i.startswith("agent.")}


@pytest.mark.parametrize("name", sorted(n for n in EVERY if n.startswith("agent.")))
def test_a_module_imports_only_what_the_design_allows(name: str) -> None:
    short = name.removeprefix("agent.")
    if short in ALLOWED:
        assert inside(name) <= ALLOWED[short]
    elif short == "drivers":
        pass  # the registry imports every kind
    elif short in FOLDERS:
        assert not inside(name), "a folder only says what is in it"
    elif short.startswith("drivers."):
        assert inside(name) <= DRIVER_PARTS, "a driver imports no other driver"
    elif short.startswith("crypto"):
        more = {"disk.durable"} if short == "crypto.keepers" else set()
        assert all(i in {"errors", "pasted", *more} or i.startswith("crypto") for i in inside(name))
    elif short.startswith("cli"):
        more = INJECTS if short == "cli.keyroom" else PUSHING if name in CENTRE else set()
        assert all({i, i.partition(".")[0]} & {*CLI, *more, "cli"} for i in inside(name))
    elif short in (
        "service",
        "__main__",
        "diagnose",
        "lines.probing",
        "evidence.identity",
        "keys.conducting",
        "keys.desk",
        "keys.parts",
        "keys.orderdesk",
    ):
        assert not any(i.startswith("cli") for i in inside(name))
    else:
        pytest.fail(f"{name} has no rule: give it one")


@pytest.mark.parametrize(
    "name", sorted(n for n in EVERY if n.removeprefix("agent.") in PURE or n.startswith("agent.drivers."))
)
def test_pure_files_do_no_io(name: str) -> None:
    assert not {i.partition(".")[0] for i in IMPORTS[name]} & PURE_BANNED


@pytest.mark.parametrize("library", sorted(ONLY_USER))
def test_a_library_at_a_border_has_one_user(library: str) -> None:
    users = {n for n in IMPORTS if n.startswith("agent") and any(i.split(".")[0] == library for i in IMPORTS[n])}
    assert users <= ONLY_USER[library]


def test_ciphers_are_used_below_crypto_only() -> None:
    users = {n for n in IMPORTS if n.startswith("agent") and any(i.split(".")[0] == "Crypto" for i in IMPORTS[n])}
    assert all(name.startswith("agent.crypto.") for name in users)


def reached(name: str) -> set[str]:
    """Everything of agent that a module needs, itself and through others; not entering the key room's commands."""
    seen, todo = set(), [name]
    while todo:
        if (one := todo.pop()) not in seen:
            seen.add(one)
            todo += [i for i in IMPORTS[one] if i.startswith("agent.") and i in EVERY and i not in KEY_ROOM]
    return seen


@pytest.mark.parametrize("name", sorted(n for n in EVERY if n.startswith("agent.")))
def test_only_the_key_room_reaches_a_clear_key(name: str) -> None:
    if name not in CLEAR_KEYS | KEY_ROOM:
        assert not reached(name) & CLEAR_KEYS


def test_des_is_computed_in_one_place() -> None:
    assert {n for n in IMPORTS if n.startswith("agent") and _des_in(EVERY[n])} == {"agent.crypto.des"}


def _des_in(path: Path) -> bool:
    nodes = ast.walk(ast.parse(path.read_text()))
    return any(
        alias.name in ("DES", "DES3") for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    )


def test_the_simulator_takes_only_the_deframer_from_the_agent() -> None:
    for name in EVERY:
        if name.startswith("hwsim"):
            ours = {i for i in IMPORTS[name] if i.startswith("agent")}
            assert ours <= {"agent.drivers.framing"}, name


def test_the_daemon_loads_neither_typer_nor_rich() -> None:
    seen, todo = set(), ["agent.__main__"]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            assert not {i.partition(".")[0] for i in IMPORTS[name]} & {"typer", "rich"}, name
            todo += [i for i in IMPORTS[name] if i in EVERY]


def test_what_few_terminals_need_is_not_loaded_at_every_start() -> None:
    """Key orders, the parts for keys and pushes, and websockets wait until a table asks for them."""
    seen, todo = set(), ["agent.__main__"]
    while todo:
        if (name := todo.pop()) not in seen:
            seen.add(name)
            todo += imported(EVERY[name], name, at_once=True) if name in EVERY else ()
    assert "agent.crypto.signing" in seen
    assert not seen & {"agent.crypto.orders", "agent.keys.parts", "agent.pushing.parts", "agent.lines.sockets"}


def test_there_is_no_import_cycle() -> None:
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for other in IMPORTS[name]:
                if other in EVERY and other != name:
                    walk(other, (*path, name))
            done.add(name)

    for name in EVERY:
        walk(name, ())


def test_no_source_file_is_longer_than_350_lines() -> None:
    long = {name: lines for name, path in EVERY.items() if (lines := len(path.read_text().splitlines())) > 350}
    assert not long
