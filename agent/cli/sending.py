"""This file knows how a rollout is done: what it wants is sent, what is heard is told to it, and where it stands is
kept in a file, from which the same command goes on.
"""

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from agent.centre.broker import Centre
from agent.centre.fleet import Fleet
from agent.centre.parcel import Parcel
from agent.centre.rollout import Ask, Done, Rollout, Send, Stop, loaded
from agent.cli import printing
from agent.cli.rolloutviews import View, failure
from agent.disk import durable
from agent.errors import ControlError, UplinkError
from agent.messages import topic
from agent.timepiece import wall_ms

FORMAT = "tillwire-rollout/1"
TURN = 0.5
"""Seconds between two looks at who is overdue."""
SAVE = 1.0
"""Seconds between two writes of the state while answers come: what is lost with one is heard again."""


class Sending:
    """A rollout on its way: what it wants is done, what is heard is told to it, where it stands is kept."""

    def __init__(
        self, found: Parcel, line: Centre, fleet: Fleet, rollout: Rollout, file: Path, view: View, yes: bool
    ) -> None:
        self._parcel, self._push = found, found.push
        self._line, self._fleet, self._rollout = line, fleet, rollout
        self._file, self._view, self._yes = file, view, yes
        self._saved: dict[str, Any] = {}
        self._saved_at = 0.0

    def run(self) -> int:
        """Until the end; returns the exit code."""
        rollout = self._rollout
        committed = [name for name, place in rollout.places.items() if place.state == "committed"]
        stages = [list(stage) for stage in rollout.stages]
        self._tell("begin", title=self._parcel.title, digest=self._push.digest, stages=stages, committed=committed)
        self._warn()
        try:
            for name in rollout.places:
                self._hear(name)
            result = self._advanced()
            self._line.flush()
        except KeyboardInterrupt:
            self._view.close()
            printing.say("stopped by you: who was sent to goes on by itself; the same command goes on from here")
            raise
        except UplinkError:
            self._view.close()
            printing.say("where it stands is kept: the same command goes on from here")
            raise
        finally:
            self._view.close()
            self._save(always=True)
        return self._finished(result)

    def _advanced(self) -> str:
        """Do what is due until nothing more is; returns how it ended."""
        while True:
            actions = self._rollout.advance(time.monotonic())
            if any(isinstance(action, Send) for action in actions):
                self._save(always=True)  # before the first of them is sent, so that nobody is forgotten
            for action in actions:
                match action:
                    case Send(terminal=terminal, stage=stage):
                        self._line.publish(self._topic(terminal), self._parcel.text, self._parcel.retained)
                        self._tell("sent", terminal=terminal, stage=stage)
                    case Ask(stage=stage, many=many):
                        if not self._allowed(stage, many):
                            return "paused"
                        self._rollout.allow()
                    case Stop():
                        self._stopped(action)
                        return "stopped"
                    case Done():
                        return "done"
            if not actions:
                self._view.draw(self._rollout, time.monotonic())
                self._line.turn(TURN)
                self._take_in()
            self._save()

    def _take_in(self) -> None:
        for terminal in sorted(self._line.news):
            self._hear(terminal)
        self._line.news.clear()

    def _hear(self, terminal: str) -> None:
        """Tell the rollout what one terminal has said."""
        seen = self._fleet.terminals.get(terminal)
        if seen is None:
            return
        self._rollout.seen(terminal, bool(seen.online))
        answer = self._parcel.answer(seen)
        if answer and self._rollout.heard(terminal, answer, time.monotonic()):
            facts: dict[str, Any] = {"word": answer.word, "reason": answer.reason, "detail": answer.detail}
            if seen.result:
                facts["duration_ms"] = seen.result.duration_ms
            if self._rollout.places[terminal].state != "failed":  # of which the end tells more
                self._tell("told", terminal=terminal, **facts)
            if seen.result and seen.result.data:
                self._tell("data", terminal=terminal, data=seen.result.data)

    def _stopped(self, stop: Stop) -> None:
        self._rollout.withdraw(topic.split("/")[3] for topic in self._line.drop())
        for terminal in stop.terminals:
            facts = failure(terminal, self._rollout.places[terminal].answer)
            self._tell(facts.pop("event"), **facts)

    def _allowed(self, stage: int, many: int) -> bool:
        if self._yes:
            return True
        self._line.flush()
        self._view.close()
        done = self._rollout.count("committed")
        question = f"{done} have it. Stage {stage} is {many} terminals at once. Send to them?"
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
        if not answer:
            printing.say("\nthere was no answer; --yes does it without asking")
        return answer.strip().lower() in ("y", "yes")

    def _warn(self) -> None:
        """What is to be known before the first is sent."""
        if elsewhere := self._parcel.elsewhere(self._line.addresses):
            self._note(elsewhere)
        if self._push.target.terminals:
            named = [name for name in self._rollout.places if name not in self._fleet.terminals]
            if named:
                self._note(f"never connected to this broker: {', '.join(named)}; is the name right?")
        elif deaf := self._fleet.deaf():
            self._note(f"left out, because they take no pushes ([push] is not configured): {', '.join(deaf)}")
        if self._fleet.unreadable:
            self._note(f"not to be read, and not counted: {', '.join(sorted(self._fleet.unreadable))}")

    def _finished(self, result: str) -> int:
        rollout = self._rollout
        places = rollout.places
        late = [name for name in self._fleet.members(self._push.target) if name not in places]
        self._tell(
            "end",
            result=result,
            terminals=len(places),
            committed=rollout.count("committed"),
            skipped=[name for name, place in places.items() if place.state == "skipped"],
            untouched=rollout.count("later"),
            late=late,
            kept=self._parcel.retained,
        )
        return 0 if result == "done" and not late else 1

    def _note(self, text: str) -> None:
        self._tell("note", text=text)

    def _tell(self, event: str, **facts: Any) -> None:
        self._view.tell({"event": event, "at": wall_ms(), **facts})

    def _topic(self, terminal: str) -> str:
        return topic(self._push.org, terminal, self._parcel.suffix)

    def _save(self, always: bool = False) -> None:
        now = time.monotonic()
        if not always and now < self._saved_at + SAVE:
            return
        head = {"format": FORMAT, "digest": self._push.digest, "push": self._parcel.title}
        found = {**head, **self._rollout.saved()}
        if found != self._saved:
            try:
                durable.write(self._file, json.dumps(found, indent=1).encode() + b"\n")
            except OSError as error:
                raise ControlError(
                    f"{self._file} cannot be written ({error.strerror}), and nobody could go on from here: give"
                    " another --state"
                ) from error
            self._saved, self._saved_at = found, now


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Nobody else goes on from the same state meanwhile: of two, each would send what the other holds back, and the
    last to write would forget what the other had heard. Raises ControlError."""
    path = file.with_name(file.name + ".lock")
    with _locked(path, file):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path, file: Path) -> IO[str]:
    try:
        while True:
            lock = path.open("w")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(lock.fileno())):
                return lock
            lock.close()  # of one who has just ended
    except BlockingIOError as error:
        raise ControlError(
            f"another `tillwire push send` works with {file}: wait for its end, or stop it"
        ) from error
    except OSError as error:
        raise ControlError(f"{path} cannot be written ({error.strerror}): give another --state") from error


def earlier(file: Path, found: Parcel) -> tuple[list[list[str]], list[str]] | None:
    """What an earlier run has kept; None when there was none."""
    try:
        kept = json.loads(file.read_bytes())
        if kept["format"] != FORMAT:
            raise ValueError("another format")
        stages = loaded(kept)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ControlError(f"{file} cannot be read ({error.strerror}): give another --state") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ControlError(
            f"{file} is no state of a rollout: move it away, or give another --state; who has the push already is"
            " not sent to again in any case"
        ) from error
    if kept.get("digest") != found.push.digest:
        raise ControlError(
            f"{file} is the state of another push, {kept.get('push', '?')}: move it away, or give another --state"
        )
    return stages
