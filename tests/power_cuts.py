"""Every state in which a power cut may leave a folder, by the letter of POSIX.

    disk = Disk(folder)
    with disk.recording(): work(); disk.promise("done")
    for promised in disk.states(20_000, place, rng): check(place, promised)

Of what was not synced any part may be there: of each file some of its bytes, of each folder some
of the names that were made, moved or deleted in it, in any order. A file is safe once it is
synced, its name once its folder is. The idea is that of ALICE (Pillai et al. 2014, All file
systems are not created equal) and of CrashMonkey (Mohan et al. 2018, Finding crash-consistency
bugs with bounded black-box crash testing).

The folder is looked at before and after each call that changes a name or syncs, so that what
libraries write without Python is seen as well.
"""

import contextlib
import itertools
import math
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CALLS = ("mkdir", "rename", "replace", "unlink", "remove", "rmdir", "link", "truncate", "open")
_open = os.open
Names = dict[str, int | None]  # of a folder: what each name leads to; None: it is gone
Tree = dict[str, bytes | None]  # by path; None: a folder


@dataclass
class Node:
    """A file or folder, with what is on the disk for certain and what may be."""

    safe: bytes | Names
    unsafe: list[bytes] | list[Names] = field(default_factory=list)  # in the order it happened
    descriptor: int = -1  # held open, as the number of a deleted file is given to another


@dataclass
class Moment:
    """A moment at which the power may be cut: the choices that are open, and what was promised."""

    safe: dict[int, bytes | Names]
    choices: list[tuple[int, list]]  # what became of one file, or whether one change of names did
    promised: object

    def n_states(self) -> int:
        return math.prod(len(options) for _, options in self.choices)


class Disk:
    """What happens to a folder while it is recorded, and what a power cut may leave of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.nodes: dict[int, Node] = {}
        self.moments: list[Moment] = []
        self.promised: object = None
        self._look()
        for node in self.nodes.values():  # all that is there before is on the disk
            _make_safe(node)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record what this process does to the folder; its end is a moment, too."""
        plain = {name: getattr(os, name) for name in (*CALLS, "fsync")}

        def watched(name: str):
            def call(*arguments, **options):
                if name != "open":
                    self._look()
                result = plain[name](*arguments, **options)
                self._look()
                return result

            return call

        def fsync(descriptor: int) -> None:
            self._look()
            plain["fsync"](descriptor)
            node = self.nodes.get(os.fstat(descriptor).st_ino)
            if node is not None:
                self._keep_moment()
                _make_safe(node)

        for name in CALLS:
            setattr(os, name, watched(name))
        os.fsync = fsync
        try:
            yield
            self._look()
            self._keep_moment()
        finally:
            for name, function in plain.items():
                setattr(os, name, function)
            for node in self.nodes.values():
                os.close(node.descriptor)

    def promise(self, what: object) -> None:
        """From now on the caller counts on this."""
        self._look()
        self._keep_moment()
        self.promised = what

    def states(self, limit: int, place: Path, rng: random.Random) -> Iterator[object]:
        """Write each state into the folder `place`, and yield what had been promised by then.

        Where there are more than `limit`, each moment has its share of them, drawn by `rng`.
        """
        seen = set()
        share = limit // len(self.moments)
        if sum(moment.n_states() for moment in self.moments) <= limit:
            share = limit
        for moment in self.moments:
            options = [found for _, found in moment.choices]
            if moment.n_states() <= share:
                chosen = itertools.product(*options)
            else:
                ends = [[found[0] for found in options], [found[-1] for found in options]]
                chosen = (*ends, *([rng.choice(f) for f in options] for _ in range(share - 2)))
            for choice in chosen:
                tree = self._tree(moment, choice)
                key = (frozenset(tree.items()), moment.promised)
                if key not in seen:
                    seen.add(key)
                    _write(tree, place)
                    yield moment.promised

    def _tree(self, moment: Moment, choice) -> Tree:
        now = dict(moment.safe)
        for (number, _), option in zip(moment.choices, choice, strict=True):
            old = now[number]
            now[number] = {**old, **option} if isinstance(old, dict) else option
        tree: Tree = {}

        def walk(number: int, path: str) -> None:
            content = now[number]
            if not isinstance(content, dict):
                tree[path] = content
                return
            tree[path] = None
            for name, below in content.items():
                if below is not None:
                    walk(below, f"{path}/{name}")

        walk(self.root.stat().st_ino, "")
        return tree

    def _keep_moment(self) -> None:
        choices: list[tuple[int, list]] = []
        for number, node in self.nodes.items():
            if isinstance(node.safe, dict):
                choices += [(number, [{}, change]) for change in node.unsafe]
            elif node.unsafe:
                choices.append((number, _torn(node.safe, node.unsafe)))
        safe = {
            number: dict(node.safe) if isinstance(node.safe, dict) else node.safe
            for number, node in self.nodes.items()
        }
        self.moments.append(Moment(safe, choices, self.promised))

    def _look(self) -> None:
        """Note what has changed in the folder."""
        self._look_at(self.root)

    def _look_at(self, path: Path) -> int | None:
        """The number of the file or folder at `path`; None if it is neither."""
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            return None
        number = path.stat().st_ino
        is_folder = path.is_dir()
        if number not in self.nodes:
            descriptor = _open(path, os.O_RDONLY)
            self.nodes[number] = Node({} if is_folder else b"", descriptor=descriptor)
        node = self.nodes[number]
        before = _now(node)
        if not is_folder:
            content = path.read_bytes()
            if content != before:
                node.unsafe.append(content)
            return number
        names = {name: self._look_at(path / name) for name in sorted(os.listdir(path))}
        node.unsafe += _changes({k: v for k, v in before.items() if v is not None}, names)
        return number


def _now(node: Node) -> bytes | Names:
    if not isinstance(node.safe, dict):
        return node.unsafe[-1] if node.unsafe else node.safe
    now = dict(node.safe)
    for change in node.unsafe:
        now |= change
    return now


def _make_safe(node: Node) -> None:
    node.safe = _now(node)
    node.unsafe = []


def _changes(before: Names, after: Names) -> list[Names]:
    """The changes from one list of names to another; a rename is one."""
    found = []
    gone = {number: name for name, number in before.items() if name not in after}
    for name, number in after.items():
        if number is not None and before.get(name) != number:
            change: Names = {name: number}
            if number in gone:
                change[gone.pop(number)] = None
            found.append(change)
    return found + [{name: None} for name in gone.values()]


def _torn(safe: bytes, later: list[bytes]) -> list[bytes]:
    """What may be in a file that was not synced since: all that it held, parts, zeros, anything."""
    found = [safe]
    for content in later:
        kept = safe if content.startswith(safe) else b""
        added = content[len(kept) :]
        half = len(added) // 2
        junk = random.Random(0).randbytes(len(added))
        for end in (b"", added[:half], bytes(len(added)), bytes(half) + added[half:], junk):
            found.append(kept + end)
        found.append(content)
    return list(dict.fromkeys(found))


def _write(tree: Tree, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    for path, content in tree.items():  # a folder stands before what is in it
        target = Path(f"{place}{path}")
        if content is None:
            target.mkdir()
        else:
            target.write_bytes(content)
