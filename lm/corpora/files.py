"""The user's own text: text files of any name, .jsonl, .json, .csv and their .gz, as files, folders
or globs.

    python -m lm.train corpus=files corpus.path=my.txt
    python -m lm.train corpus=files 'corpus.path=[books,"logs/**/*.jsonl.gz"]' corpus.field=body

A text file is one document, and so is a line of a .jsonl file: formats.py has the others. Line
ends stay as they are: bits per byte count the bytes that were given, and a model of a CRLF file
should write CRLF. NULs stay, too. What is named outright is read; what a folder or a glob finds is
left out where a program wrote it, so that a corpus stays the same when there are runs beside it.
"""

import contextlib
import functools
import glob
import logging
import os
import shlex
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lm.config import FilesConfig, ShardsConfig
from lm.corpora import generated
from lm.corpora.base import Corpus
from lm.corpora.formats import (
    FORMATS,
    Reader,
    check_size,
    format_of,
    is_read_in_folders,
    kind,
    raised_rules,
)
from lm.system.files import sha256
from lm.system.paths import expanded

log = logging.getLogger(__name__)


class Files(Corpus):
    """Documents in the order of the entries of `corpus.path`; in a folder or glob, by path.

    Each file is read once, however many entries name it. In a folder hidden names are skipped,
    files that are no text, .json and .csv, and what programs wrote (generated.py); links to
    folders are not followed. A byte order mark is dropped.
    """

    cfg: FilesConfig | ShardsConfig

    def has_tails(self) -> bool:
        return len(self.paths()) > 1

    def source(self) -> dict[str, object]:
        paths = self.paths(aloud=True)
        source: dict[str, object] = {"few": "tails"} if len(paths) > 1 else {}
        return source | {
            "name": "files",
            "field": self.cfg.field,
            "errors": self.cfg.errors,
            "rules": max((found.since for found in map(format_of, paths) if found), default=1),
            "files": [
                {"name": path.name, "sha256": sha256(path), **raised_rules(path)} for path in paths
            ],
        }

    def documents(self) -> Iterator[str]:
        reader = Reader(self.cfg.field, self.cfg.errors)
        for path in self.paths():
            yield from reader.documents(path)

    def paths(self, aloud: bool = False) -> list[Path]:
        """The files to read; FileNotFoundError or ValueError names the wrong entry.

        `aloud`: say what was found in a folder, and what is left out.
        """
        entries = self.cfg.path if isinstance(self.cfg.path, list) else [self.cfg.path]
        paths: dict[str, Path] = {}  # by their real path, so that each is read once
        for entry in entries:
            search = _Search(entry)
            for path in search.files():
                paths.setdefault(os.path.realpath(path), path)
            if aloud:
                for note in search.notes():
                    _say(note)
        return list(paths.values())


@functools.cache
def _say(note: str) -> None:
    """Log a line, once in this process."""
    log.info(note)


def _listed(counts: Counter[str]) -> str:
    """`18 .md, 2 .py, 1 .txt`, the five most frequent ones."""
    named = [f"{n} {ending}" for ending, n in counts.most_common(5)]
    if len(counts) > 5:
        named.append(f"{counts.total() - sum(n for _, n in counts.most_common(5))} more")
    return ", ".join(named)


class _Search:
    """The files that one entry of `corpus.path` names."""

    def __init__(self, entry: str):
        self.entry = entry
        self.path = Path(expanded(entry))
        self.kinds: dict[str, str] = {}  # of folders and files: what program wrote them
        self.read: Counter[str] = Counter()  # files of folders, by the end of their name
        self.unread: Counter[str] = Counter()

    def files(self) -> list[Path]:
        """The plain files, in order; FileNotFoundError or ValueError if there are none."""
        found = []
        for match in self._matches():
            found += self._walk(match) if match.is_dir() else [match]
        if not found:
            unread = f", only {_listed(self.unread)}" if self.unread else ""
            way_out = ""
            if endings := sorted(self.unread.keys() & FORMATS.keys()):
                named = shlex.quote(f"{self.entry.rstrip('/')}/*{endings[0]}")
                way_out = f"; {endings[0]} is read where it is named: corpus.path={named}"
            besides = self.left_out(" besides ")
            raise ValueError(f"corpus.path={self.entry} holds no text{unread}{besides}{way_out}")
        for file in found:
            if not file.exists():
                raise FileNotFoundError(f"{file} is a link to nothing")
            if not stat.S_ISREG(file.stat().st_mode):  # a pipe would be waited for without end
                raise ValueError(f"{file} is not a plain file: save its text in one")
            check_size(file)
        return found

    def notes(self) -> list[str]:
        """What a person should know of a folder: what is read there, and what is not."""
        found = []
        if self.read:
            n = self.read.total()
            files = "file" if n == 1 else "files"
            text = f"{self.entry}: read {n} {files} ({_listed(self.read)})"
            if self.unread:
                text += f", left out {self.unread.total()}: {_listed(self.unread)}"
            found.append(text)
        found.append(self.left_out(f"corpus.path={self.entry} leaves out what programs wrote: "))
        return [note for note in found if note]

    def left_out(self, before: str) -> str:
        """What programs wrote, as words behind `before`; "" if there is nothing."""
        names = [f"{path} ({kind})" for path, kind in sorted(self.kinds.items()) if kind]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"{before}{', '.join(names[:3])}{more}" if names else ""

    def _matches(self) -> list[Path]:
        """What the entry itself, or as a glob, names."""
        if os.path.lexists(self.path):  # before the glob: a name may hold brackets
            kind = self._kind(str(self.path)) if self.path.is_dir() else ""
            if kind.startswith(generated.OURS) and kind != generated.OUTPUTS:
                raise ValueError(
                    f"corpus.path={self.entry} is {kind}, not a text: name a file in it"
                )
            self.kinds.clear()  # what is named outright is read
            return [self.path]
        matches = sorted(map(Path, glob.glob(str(self.path), recursive=True)))
        if not matches:
            problem = "matches nothing" if glob.has_magic(self.entry) else "does not exist"
            raise FileNotFoundError(
                f"corpus.path={self.entry} {problem}; it is read from {Path.cwd()}"
            )
        n_named = 0  # parts of the path that stand in front of the first wildcard
        while n_named < len(self.path.parts) and not glob.has_magic(self.path.parts[n_named]):
            n_named += 1
        root = Path(os.path.realpath(Path(*self.path.parts[:n_named])))
        found = []
        for match in matches:
            target = Path(os.path.realpath(match))  # another one if a link is on the way
            beyond = target.is_relative_to(root) and self._is_left_out(target, len(root.parts))
            if not beyond and not self._is_left_out(match, n_named):
                found.append(match)
        return found

    def _is_left_out(self, match: Path, n_named: int) -> bool:
        """Whether a match, or a folder on the way to it behind the first parts, is a program's."""
        paths = [Path(*match.parts[:n]) for n in range(n_named + 1, len(match.parts) + 1)]
        return any(self._kind(str(path)) for path in paths)

    def _kind(self, path: str) -> str:
        """What program fills a folder or wrote a file; "" if none did."""
        if path not in self.kinds:
            if os.path.isdir(path):
                inside = []
                with contextlib.suppress(OSError):  # of a folder that cannot be read
                    inside = os.listdir(path)
                self.kinds[path] = generated.what(path, inside)
            else:
                self.kinds[path] = generated.what_file(Path(path))
        return self.kinds[path]

    def _walk(self, folder: Path) -> list[Path]:
        """The text files below `folder`, sorted; ValueError if a link leads out of it."""
        found = []
        for base, folders, names in os.walk(folder):
            visible = [name for name in folders if not name.startswith(".")]
            folders[:] = [name for name in visible if not self._kind(os.path.join(base, name))]
            found += [Path(base, name) for name in names if not name.startswith(".")]
        root = os.path.realpath(folder)
        texts = []
        for file in sorted(found):
            is_text = is_read_in_folders(file)
            if is_text and (not self._is_inside(file, root, folder) or self._kind(str(file))):
                continue
            (self.read if is_text else self.unread)[kind(file) or "without an ending"] += 1
            if is_text:
                texts.append(file)
        return texts

    def _is_inside(self, file: Path, root: str, folder: Path) -> bool:
        """Whether a file of a folder is to be read: a link may lead to what a program wrote."""
        if not file.is_symlink() or not file.exists():
            return True
        target = file.resolve()
        if not target.is_relative_to(root):
            raise ValueError(
                f"{file} leads out of {folder}, to {target}: if you trust it, name it in "
                "corpus.path"
            )
        return not self._is_left_out(target, len(Path(root).parts))
