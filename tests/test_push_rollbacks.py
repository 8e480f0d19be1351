"""A push cannot leave a terminal worse than it was: not by kill -9 before or after any step of it, not by what is
damaged meanwhile, not by what it takes from the terminal (tests/stories.py). It goes on with a configuration that
works, tells which, and its ledger is whole.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from agent.crypto.signing import Envelope
from tests.attacking import ORDER, Ground, Till, ground, printer, ups
from tests.stories import TWINS as THEIRS
from tests.stories import authorities, told
from tests.whole import wait

pytestmark = pytest.mark.peer("mosquitto", "openssl", "faketime")
TWINS = """
odd = { kind = "ups", set = { version = "V1" } }
even = { kind = "ups", set = { version = "V0" } }
steady = { kind = "printer" }
"""
"""The UPS of odd versions, and that of even ones, of which the terminal's own file is one."""
NOT_BEGUN = ("before staged", "after staged", "before applying")
UNDECIDED = ("after applying", "before probation", "after probation", "before committing")
DECIDED = ("after committing", "before idle", "after idle")


class Kept(Till):
    """A terminal whose agent is started again whenever it dies."""

    def of(self, version: int) -> str:
        """What is pushed as this version: another UPS than that before it, and the printer."""
        port = self.ground.port("odd" if version % 2 else "even")
        return self.own.replace(str(self.ground.port("even")), str(port)) + f"# {version}\n"

    def begin(self) -> None:
        self.configure(ups(self.ground.port("even")) + printer(self.ground.port("steady")))
        self.ground.keep(self)
        self.works(0)

    def die(self, *moments: str) -> None:
        """Die at these moments, one in each life."""
        (self.path / "die").write_text("\n".join(moments))

    def died(self) -> bool:
        return not (self.path / "die").read_text()

    def works(self, version: int) -> None:
        """Wait until this version is in force, and its devices answer."""

        def is_so() -> bool:
            there = self.published("ups1", "device.firmware") == f"V{version % 2}" and self.up("ups1", "printer1")
            told = self.reports()[-1:] and self.reports()[-1].get("in_force", 0) == version
            return bool(there and told and self.in_force() == version)

        wait(f"version {version} to work", is_so)

    def took_back(self, version: int, digest: str, good: int) -> None:
        """Wait until a start has said that this push was interrupted, and that the one before it counts."""
        told = self.reported(version=version, outcome="rolled_back")
        assert (told["reason"], told["digest"], told.get("in_force", 0)) == ("interrupted", digest, good)
        rows = wait("its row", lambda: self.rows("rolled_back", version=version))
        assert {(row["reason"], row["digest"]) for row in rows} == {("interrupted", digest)}

    def other(self) -> int:
        """A new version, with another UPS than that which works."""
        used = max((row["version"] for row in self.rows("staged")), default=0)
        return used + 1 if (used + 1) % 2 != self.in_force() % 2 else used + 2

    def tries(self, version: int) -> None:
        """Wait until this version is on probation."""

        def is_so() -> bool:
            seen = self.ask(do="pushes", act="show")
            return bool(seen and seen["pending"] and seen["pending"]["version"] == version)

        wait(f"the probation of {version}", is_so)

    def in_force(self) -> int:
        seen = self.ask(do="pushes", act="show")
        return int(seen["in_force"]["version"]) if seen else -1


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("field")
    with ground(folder, TWINS + THEIRS, authorities(folder)) as one:
        yield one
        one.all_is_told()


@pytest.fixture(scope="module")
def stories(field: Ground) -> Iterator[dict[str, "Future[None]"]]:
    """They go on while the tests here are run."""
    with ThreadPoolExecutor(10) as pool:
        yield told(field, pool)


@pytest.fixture(scope="module")
def till(field: Ground, stories: object) -> Kept:
    one = Kept(field, "ATM-0001")
    one.begin()
    return one


def test_a_kill_at_any_step_ends_in_a_configuration_that_works(till: Kept) -> None:
    for moment in (*NOT_BEGUN, *UNDECIDED, *DECIDED):
        good = till.in_force()
        version = till.other()
        till.die(moment)
        digest = till.push(version, till.of(version))
        wait(f"its death {moment}", till.died)
        if moment in UNDECIDED:
            till.took_back(version, digest, good)
        else:  # of what had changed nothing yet, the broker tells again
            good = version
            till.reported(version=version, outcome="committed")
            till.row("committed", version=version)
        till.works(good)
        assert len(till.rows("applying", version=version)) <= 1, f"{moment}: it was tried once"


def test_a_kill_while_it_is_taken_back_and_at_each_start_after_it_changes_nothing(till: Kept) -> None:
    for moments in (
        ("before rolling_back",),
        ("after rolling_back", "before idle", "before idle", "after idle", "before idle"),
    ):
        good = till.in_force()
        version = till.other()
        till.die(*moments)
        digest = till.push(version, till.of(version).replace("atm1/steady", "atm1/nowhere"))
        till.reported(version=version, outcome="applying")
        till.tries(version)
        till.ask(do="pushes", act="rollback")
        wait(f"its deaths {moments}", till.died)
        till.took_back(version, digest, good)
        till.works(good)
        kept = [path.name.partition("-")[0] for path in (till.path / "data/pushes/rejected").iterdir()]
        assert str(version) in kept, "the evidence"


def test_a_command_that_a_kill_cut_off_does_not_run_again(till: Kept) -> None:
    order = till.ordered(id="K-1", command="state")
    till.die("before ended")
    till.send(order, ORDER)
    wait("its death", till.died)
    told = wait("its end", lambda: till.results(id="K-1"))[0]
    assert (told["outcome"], "does not do it again" in told["detail"]) == ("failed", True)
    till.send(order, ORDER)
    wait("its repetition", lambda: till.results(id="K-1", outcome="repeated"))
    assert len(till.rows("command", id="K-1")) == 1
    assert len(till.rows("command_ended", id="K-1")) == 1


def other_bytes(text: bytes) -> bytes:
    """An envelope as it should be, with another payload under its signatures."""
    kept = Envelope.read(text)
    return Envelope(kept.kind, kept.unverified.replace(b"0.1", b"0.2"), kept.signatures).text


def test_what_is_damaged_is_not_gone_back_to(till: Kept) -> None:
    versions = []
    for _ in range(2):
        versions.append(till.other())
        till.push(versions[-1], till.of(versions[-1]))
        till.reported(version=versions[-1], outcome="committed")
        till.works(versions[-1])
    for counts, damage in ((versions[0], other_bytes), (0, lambda text: text[:700])):
        kept = till.path / "data/pushes/in-force.json"
        kept.write_bytes(damage(kept.read_bytes()))
        troubles = len(till.rows("trouble"))
        till.kill()
        till.works(counts)
        row = till.row("trouble", troubles)
        assert "in-force.json" in row["detail"]
        shown = till.tillwire("config", "show")
        assert "damaged" in shown.stdout, shown


def test_what_does_not_prove_itself_comes_back_and_what_cannot_be_judged_waits(
    stories: dict[str, "Future[None]"],
) -> None:
    wrong = {name: error for name, story in stories.items() if (error := story.exception())}
    if wrong:
        raise BaseExceptionGroup(f"these stories ended in another way: {', '.join(wrong)}", list(wrong.values()))
