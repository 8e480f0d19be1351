"""This file knows what a disk holds: what was synced for certain, and of the rest anything a power cut may leave.

A file's bytes and length are certain up to its last fsync. A name (made, renamed, removed) is certain once its
folder was synced, and not because its file was: POSIX promises no more, and file systems that give more only
make fewer of these images. All other calls are *pending*, and a cut leaves of each, whatever it left of the others:

    nothing | all of it | of a write: any of its sectors, in any order | its length only, with zeros or old rubbish

A rename happens or not; it is never half done.
"""

import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tests.powercut.recording import Op, Step

Tree = dict[str, bytes | None]
"""Path -> bytes of a file, or None for a folder."""
ALL, NONE, ZEROS, RUBBISH = "all", "none", "zeros", "rubbish"
Fate = str | tuple[int, frozenset[int]]
"""What became of a pending call; a pair: (sector size, the sectors that were written)."""
UNSEEN = ("-shm", "reserve")
"""SQLite's index of its log, written through a mapping that cannot be recorded, and made anew at the first start
after a crash: images hold rubbish of its length. And the agent's reserve of room, which holds nothing."""


@dataclass(slots=True)
class _Write:
    """Bytes put at an offset, or (data None) the length set to `at`."""

    at: int
    data: bytes | None


@dataclass(slots=True, eq=False)
class _File:
    synced: bytearray = field(default_factory=bytearray)
    now: bytearray = field(default_factory=bytearray)
    pending: dict[int, _Write] = field(default_factory=dict)


@dataclass(slots=True)
class _Naming:
    """A name that was given to a node or (None) taken away; `was`: the name it had till then in that folder."""

    name: str
    node: "_Node | None"
    was: str = ""


@dataclass(slots=True, eq=False)
class _Folder:
    synced: dict[str, "_Node"] = field(default_factory=dict)
    now: dict[str, "_Node"] = field(default_factory=dict)
    pending: dict[int, _Naming] = field(default_factory=dict)


_Node = _File | _Folder


class NotUnderstood(Exception):
    """The recorded process did something that this model does not have."""


class Disk:
    """Takes the steps of a recording one by one, from what was there at its begin.

    marks: what was promised before. deaf: folders whose syncs it does not hear (a control).
    """

    def __init__(
        self, tree: Mapping[str, bytes | None], marks: Iterable[str] = (), deaf: tuple[str, ...] = ()
    ) -> None:
        self.root = _Folder()
        self.marks = list(marks)
        self._open: dict[int, _Node] = {}
        self._count = 0
        self._deaf = deaf
        for path, data in sorted(tree.items()):
            folder, name = self._place(path)
            node = _Folder() if data is None else _File(bytearray(data), bytearray(data))
            folder.now[name] = folder.synced[name] = node

    def take(self, step: Step) -> None:
        """The next step. Raises NotUnderstood."""
        self._count += 1
        match step.op:
            case Op.OPEN:
                self._open[step.fd] = self._opened(step)
            case Op.WRITE:
                self._change(self._file(step.fd), _Write(step.offset, step.data))
            case Op.TRUNCATE:
                self._change(self._file(step.fd), _Write(step.offset, None))
            case Op.SYNC:
                self._sync(self._open[step.fd])
            case Op.CLOSE:
                del self._open[step.fd]
            case Op.DUP:
                self._open[step.offset] = self._open[step.fd]
            case Op.MKDIR:
                self._name(step.path, _Folder())
            case Op.UNLINK:
                self._name(step.path, None)
            case Op.LINK:
                self._name(step.other, self._node(step.path))
            case Op.RENAME:
                self._rename(step.path, step.other)
            case Op.MARK:
                self.marks.append(step.path)
            case Op.OTHER if step.path == "posix_fallocate":
                pass  # room for a reserve that holds nothing: whether it lasts is no promise
            case Op.MAP if self._open[step.fd] in self._unseen():
                pass
            case _:
                raise NotUnderstood(f"{step.op.name} {step.path} {step.fd}")

    def now(self) -> Tree:
        """What a program sees."""
        return dict(_walk(self.root, "", lambda folder: folder.now, lambda file: bytes(file.now)))

    def pending(self) -> list[int]:
        """The numbers of all calls that are not certain, in their order."""
        return sorted(number for node in self._nodes() for number in node.pending)

    def names(self) -> set[int]:
        """Those of `pending` that are about names."""
        return {number for node in self._nodes() if isinstance(node, _Folder) for number in node.pending}

    def sectors(self, number: int, size: int) -> range:
        """The sectors of `size` bytes that a pending write touches; none of another call."""
        for node in self._nodes():
            if isinstance(node, _File) and number in node.pending and (data := node.pending[number].data):
                at = node.pending[number].at
                return range(at // size, (at + len(data) - 1) // size + 1)
        return range(0)

    def image(self, fates: Mapping[int, Fate], chance: random.Random) -> Tree:
        """What is found after a cut at this moment; a pending call without a fate is lost."""

        def names(folder: _Folder) -> dict[str, _Node]:
            found = dict(folder.synced)
            for number, naming in folder.pending.items():
                if fates.get(number, NONE) != NONE:
                    _apply(found, naming)
            return found

        def content(file: _File) -> bytes:
            found = bytearray(file.synced)
            for number, write in file.pending.items():
                _put(found, write, fates.get(number, NONE), chance)
            return bytes(found)

        tree = dict(_walk(self.root, "", names, content))
        for path, data in tree.items():
            if path.endswith(UNSEEN) and data:
                tree[path] = chance.randbytes(len(data))
        return tree

    def _nodes(self) -> Iterator[_Node]:
        """Every node that a name may lead to after a cut, or that is still open."""
        seen: dict[int, _Node] = {}
        todo: list[_Node] = [self.root, *self._open.values()]
        while todo:
            node = todo.pop()
            if id(node) in seen:
                continue
            seen[id(node)] = node
            if isinstance(node, _Folder):
                todo += [*node.synced.values(), *node.now.values()]
                todo += [naming.node for naming in node.pending.values() if naming.node]
        yield from seen.values()

    def _unseen(self) -> list[_Node]:
        found: list[_Node] = []
        for folder in self._nodes():
            if isinstance(folder, _Folder):
                found += [node for name, node in folder.now.items() if name.endswith(UNSEEN)]
        return found

    def _place(self, path: str) -> tuple[_Folder, str]:
        parent, _, name = path.rpartition("/")
        folder = self._node(parent)
        assert isinstance(folder, _Folder), path
        return folder, name

    def _node(self, path: str) -> _Node:
        node: _Node = self.root
        for part in filter(None, path.split("/")):
            assert isinstance(node, _Folder), path
            node = node.now[part]
        return node

    def _file(self, fd: int) -> _File:
        file = self._open[fd]
        assert isinstance(file, _File)
        return file

    def _opened(self, step: Step) -> _Node:
        if not step.path:
            return self.root
        folder, name = self._place(step.path)
        if name not in folder.now:
            self._name(step.path, _File())
        node = folder.now[name]
        if isinstance(node, _File) and step.flags & os.O_TRUNC and node.now:
            self._change(node, _Write(0, None))
        return node

    def _change(self, file: _File, write: _Write) -> None:
        _put(file.now, write, ALL, random.Random())
        file.pending[self._count] = write

    def _sync(self, node: _Node) -> None:
        if isinstance(node, _File):
            node.synced = bytearray(node.now)
        elif any(node is self._node(path) for path in self._deaf):
            return
        else:
            node.synced = dict(node.now)
        node.pending.clear()

    def _name(self, path: str, node: _Node | None) -> None:
        folder, name = self._place(path)
        naming = _Naming(name, node)
        _apply(folder.now, naming)
        folder.pending[self._count] = naming

    def _rename(self, path: str, other: str) -> None:
        folder, name = self._place(path)
        to, new = self._place(other)
        if folder is not to:
            raise NotUnderstood(f"{path} moved into another folder, {other}")
        naming = _Naming(new, folder.now[name], name)
        _apply(folder.now, naming)
        folder.pending[self._count] = naming


def _apply(names: dict[str, _Node], naming: _Naming) -> None:
    """A rename holds only if the name it moves was there: if its making was lost, so is what came of it."""
    if naming.was:
        if names.get(naming.was) is not naming.node:
            return
        del names[naming.was]
    if naming.node is None:
        names.pop(naming.name, None)
    else:
        names[naming.name] = naming.node


def _put(content: bytearray, write: _Write, fate: Fate, chance: random.Random) -> None:
    if fate == NONE:
        return
    if write.data is None:
        if write.at < len(content):
            del content[write.at :]
        else:
            content.extend(bytes(write.at - len(content)))
        return
    data, end = write.data, write.at + len(write.data)
    before = len(content)
    content.extend(bytes(max(0, end - before)))
    if fate == ALL:
        content[write.at : end] = data
    elif fate == RUBBISH and end > before:
        start = max(write.at, before)
        content[start:end] = chance.randbytes(end - start)
    elif isinstance(fate, tuple):
        size, kept = fate
        for sector in kept:
            start, stop = max(write.at, sector * size), min(end, (sector + 1) * size)
            content[start:stop] = data[start - write.at : stop - write.at]


def _walk(
    folder: _Folder, path: str, names: Callable[[_Folder], dict[str, _Node]], content: Callable[[_File], bytes]
) -> Iterator[tuple[str, bytes | None]]:
    for name, node in names(folder).items():
        here = f"{path}{name}"
        if isinstance(node, _Folder):
            yield here, None
            yield from _walk(node, f"{here}/", names, content)
        else:
            yield here, content(node)
