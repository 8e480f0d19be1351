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
    "delivery": {"model", "points", "errors"},
    "clock": set(),
    "timepiece": {"clock"},
    "checkpoints": {"errors", "ledger", "crypto.ed25519", "crypto.signing"},
    "exports": {"errors", "ledger", "checkpoints", "clock", "crypto.signing", "store"},
    "audit": {"errors", "ledger", "checkpoints", "clock", "crypto.ed25519", "crypto.signing"},
    "notary": {
        *("checkpoints", "clock", "config", "crypto.signing", "errors", "exports", "identity", "ledger", "model"),
        *("peer", "store"),
    },
    "core": {"model", "points", "errors", "watch", "faults", "flapping", "clock"},
    "messages": {"model"},
    "state": {"model", "points", "catalogue", "clock", "faults", "messages"},
    "mistakes": set(),
    "accounts": {"durable", "errors", "crypto.passwords"},
    "peer": set(),
    "pasted": set(),
    "pushes": {"clock", "errors", "pasted", "crypto.signing", "crypto.trust"},
    "rollout": set(),
    "fleet": {"messages", "pushes"},
    "parcel": {"errors", "fleet", "messages", "pushes", "rollout", "tables", "crypto.signing", "crypto.trust"},
    "centre": {"addresses", "brokers", "config", "connection", "errors", "fleet", "tls"},
    "fields": {"errors", "pasted"},
    "lobby": {"errors", "peer"},
    "accountdesk": {"accounts", "errors", "model", "pasted", "peer", "repeats", "crypto.phrases"},
    "repeats": {"ration"},
    "telling": {"crypto.steps"},
    "keytable": {"points", "errors", "mistakes", "crypto.ed25519", "crypto.signing"},
    "surroundings": {"model", "points", "crypto.phrases"},
    "surveying": {"model", "crypto.asking", "crypto.guards", "crypto.steps"},
    "keyguard": {
        "model",
        "keytable",
        "ration",
        "surveying",
        *(f"crypto.{part}" for part in ("guards", "holdings", "kcv", "phrases")),
    },
    "addresses": {"errors", *CONTRACT},
    "tables": {"addresses", "keytable", *CONTRACT},
    "config": {"errors", "mistakes", "addresses", "pasted", "tables", *CONTRACT},
    "aside": {"durable", "errors"},
    "durable": set(),
    "slips": {"aside", "durable", "errors"},
    "remembered": set(),
    "memory": {"errors", "remembered", "slips", "timepiece"},
    "probation": set(),
    "pushview": {
        *("errors", "inforce", "messages", "peer", "pushes", "remembered", "swapping", "tables", "crypto.trust"),
    },
    "calling": {"errors"},
    "inforce": {"config", "datafolder", "errors", "pushes", "shelf", "crypto.signing", "crypto.trust"},
    "applying": {"clock", "config", "errors", "probation", "pushes", "shelf", "swapping"},
    "pushreports": {"clock", "errors", "messages", "pushes", "remembered", "crypto.signing"},
    "pending": {"ration"},
    "answering": {"model", "tables"},
    "judging": {
        *("applying", "commanding", "errors", "inforce", "nodes", "pending", "pushes", "pushreports", "timepiece"),
        *("crypto.signing", "crypto.trust"),
    },
    "pushdesk": {
        *("applying", "calling", "commanding", "errors", "inforce", "judging", "model", "peer", "pushes"),
        *("pushreports", "pushview", "remembered", "timepiece"),
    },
    "pushparts": {
        *("answering", "applying", "clock", "commanding", "config", "errands", "errors", "inforce", "messages"),
        *("model", "outbox", "peer", "pushdesk", "pushreports", "swapping", "timepiece", "uplink"),
    },
    "intake": {"core", "model"},
    "shelf": {
        *("durable", "errors", "memory", "probation", "remembered", "slips", "crypto.signing", "crypto.strictjson"),
    },
    "datafolder": {"aside", "errors"},
    "pruning": {"errors"},
    "room": {"datafolder", "errors", "pruning", "reading"},
    "cursor": set(),
    "carrying": {"ledger", "reading"},
    "opening": {"errors", "ledger", "reading"},
    "schema": {"errors", "model", "pruning", "reading"},
    "reading": {"model", "errors", "ledger"},
    "store": {
        *("model", "errors", "ledger", "aside", "carrying", "cursor", "datafolder", "opening", "pruning"),
        *("reading", "room", "schema"),
    },
    "sifting": {"ledger", "model"},
    "committing": {"errors", "model", "sifting", "store"},
    "swapping": {"addresses", "pasted", "tables"},
    "ration": set(),
    "rebooting": {"errors"},
    "errands": {"clock", "messages", "pasted", "peer", "points", "pushes", "rebooting"},
    "commanding": {
        *("errands", "errors", "memory", "messages", "pushes", "ration", "remembered", "tables"),
    },
    "link": {"model", "errors", "config", "ports", *CONTRACT},
    "workers": {"model"},
    "links": {"link", "model", "swapping", "workers"},
    "uplinks": {"config", "messages", "outbox", "publishing", "store", "uplink", "workers"},
    "recalling": {"catalogue", "clock", "core", "errors", "faults", "model", "points", "store", "watch"},
    "nodes": {"errors", "tables"},
    "ports": {"addresses", "errors", "config", "nodes", "sockets", *CONTRACT},
    "facts": set(),
    "brokerlook": {"errors", "brokers", "config", "connection", "facts", "tls"},
    "tls": {"config", "nodes"},
    "sockets": {"errors", "addresses", "config", "tls", "drivers.framing"},
    "brokers": set(),
    "refusals": set(),
    "connection": {"errors", "brokers", "config", "refusals", "tls"},
    "byteaccount": {"config", "durable"},
    "posting": {"errors", "brokers", "config", "connection", "messages"},
    "inbox": {"messages", "refusals"},
    "outbox": {"errors"},
    "proof": {"errors"},
    "saying": {"refusals"},
    "publishing": {
        *("errors", "ledger", "messages", "store", "config", "byteaccount", "delivery", "outbox", "posting"),
        *("proof", "timepiece"),
    },
    "answers": {"connection", "inbox", "publishing", "refusals", "saying"},
    "uplink": {
        *("errors", "messages", "store", "config", "brokers", "byteaccount", "posting", "publishing", "tls"),
        *("answers", "inbox", "outbox", "proof", "refusals", "saying", "timepiece"),
    },
    "control": {
        "byteaccount",
        "model",
        "errors",
        "lobby",
        "pasted",
        "peer",
        "messages",
        "store",
        "ledger",
        "config",
        "catalogue",
        "state",
        "timepiece",
        "exports",
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
    "answering",
    "pending",
    "probation",
    "ration",
    "remembered",
    "mistakes",
    "pasted",
    "swapping",
    "pushes",
    "rollout",
    "fleet",
    "parcel",
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
    "checkpoints",
    "audit",
    "delivery",
    "inbox",
    "proof",
    "saying",
    "core",
    "messages",
    "state",
    "surroundings",
    "surveying",
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
CLI = {"errors", "model", "pasted", "points", "messages", "crypto", "diagnose", "audit", "pushes", "timepiece"}
# The commands of the centre, which has a broker and no agent.
CENTRE = {f"agent.cli.{part}" for part in ("rollout", "rolloutviews", "sending", "pushstatus")}
PUSHING = {"centre", "durable", "fleet", "parcel", "rollout"}
# The only commands that may see a clear key, on a machine that is no terminal; one opens a legacy pad's port.
KEY_ROOM = {f"agent.cli.{part}" for part in ("keyroom", "keyorders", "sitting", "custodians", "pages")}
CLEAR_KEYS = {
    f"agent.crypto.{part}"
    for part in ("des", "components", "wrapping", "mac", "pinblock", "dukpt", "keyroom", "injecting", "enclosure")
}
INJECTS = {"config", "ports"}
ONLY_USER = {
    "serial": {"agent.ports"},
    "websockets": {"agent.sockets"},
    "paho": {"agent.connection"},
    "tenacity": {"agent.link"},
    "sqlite3": {f"agent.{part}" for part in ("store", "reading", "room", "schema", "pruning", "carrying")},
    "subprocess": {"agent.crypto.keepers", "agent.crypto.tpm", "agent.rebooting"},
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
    elif short.startswith("drivers."):
        assert inside(name) <= DRIVER_PARTS, "a driver imports no other driver"
    elif short.startswith("crypto"):
        more = {"durable"} if short == "crypto.keepers" else set()
        assert all(i in {"errors", "pasted", *more} or i.startswith("crypto") for i in inside(name))
    elif short.startswith("cli"):
        more = INJECTS if short == "cli.keyroom" else PUSHING if name in CENTRE else set()
        assert all(i.partition(".")[0] in {*CLI, *more, "cli"} for i in inside(name))
    elif short in (
        "service",
        "__main__",
        "diagnose",
        "probing",
        "identity",
        "conducting",
        "keydesk",
        "keyparts",
        "orderdesk",
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
    assert not seen & {"agent.crypto.orders", "agent.keyparts", "agent.pushparts", "agent.sockets"}


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
