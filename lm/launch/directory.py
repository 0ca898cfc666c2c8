"""Whose a directory is, before a byte is written to it; and all as it was after a failed start.

directory.check(out)                             # OtherRunError: it holds what is no run's
before = Before(out)
with store.locked(out), before.kept_on_failure(): ...
"""

import contextlib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from lm import config
from lm.config import RESOLVED
from lm.record.schemas import CodeRecord, DataRecord, read_part
from lm.sweep.study import read_description
from lm.system import files, foreign, store
from lm.system.errors import ConfigError, DamagedError, OtherRunError

HYDRA = (".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml")
# Written after data.json; their form does not tell whether a run wrote them.
LATER = ("code.diff", "metrics.jsonl", "samples.jsonl")
SMALL = (RESOLVED, store.HOLDER, "data.json", "code.json", "code.diff", "summary.json", *HYDRA)
WAY_OUT = "choose another hydra.run.dir="
# What a sweep's directory holds beside its arms.
SWEEPS = re.compile(
    r"multirun\.yaml|summary\.json|study\.json|trials\.jsonl|optimization_results\.yaml"
    r"|optuna\.journal.*|\..*"
)
OLD_LOCK = "optuna.journal.lock"  # Optuna's own, a link, of an older version
_made: set[Path] = set()  # directories that were not there before this command


def make(out: Path) -> None:
    """Make the directory of a run, and remember whether it was there."""
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    files.make_folder(out)
    _made.update(folder.absolute() for folder in new)


def check(out: Path, besides: Collection[str] = ()) -> None:
    """OtherRunError unless the directory is absent, empty, or a run's; DamagedError for what a
    start of ours has made and something has damaged. Nothing is written.

    `besides` are names that do not count.
    """
    names = _names(out) - set(besides)
    if not names or _is_new(out, names):
        return
    if _is_marked(out):
        _check_records(out)
        return
    if RESOLVED not in names:
        raise OtherRunError(f"{_holds(out, names)}, and no run: {WAY_OUT}")
    try:
        _check_records(out)
        config.load(out / RESOLVED)
    except DamagedError as error:
        raise OtherRunError(f"{error}: {WAY_OUT}") from None
    except ConfigError as error:
        raise OtherRunError(f"{out / RESOLVED}: {error}: {WAY_OUT}") from None
    odd = names.intersection(LATER)
    if odd and DataRecord.file not in names:
        raise OtherRunError(
            f"{out} has {min(odd)} and no {DataRecord.file}, so no run wrote it: {WAY_OUT}"
        )


def _check_records(out: Path) -> None:
    files.no_links(out)
    read_part(out, DataRecord)
    read_part(out, CodeRecord)


def check_sweep(root: Path) -> None:
    """OtherRunError unless a sweep's directory is absent, empty, or a sweep's."""
    names = _names(root)
    if names and not _is_new(root, names) and not _is_marked(root) and not _is_sweep(root, names):
        raise OtherRunError(f"{_holds(root, names)}, and no sweep: choose another hydra.sweep.dir=")
    for path in (root / name for name in sorted(names)):
        if path.name == OLD_LOCK and path.is_symlink():
            continue  # nobody looks at it any more
        is_arm = path.is_dir() and not (path.is_symlink() and path.name.startswith("."))
        if not is_arm and (path.is_symlink() or not path.is_file()):  # a pipe is waited for
            raise DamagedError(
                f"{path} is not a plain file: move it away, or put a copy in its place"
            )


def is_of_sweep(name: str) -> bool:
    """Whether the sweep itself may make a file of this name in its directory."""
    return SWEEPS.fullmatch(name) is not None


def mark_sweep(root: Path) -> None:
    """Make a sweep's directory, if it is not there, and mark it as one of ours."""
    files.make_folder(root)
    if not _is_marked(root):
        files.atomic_write(root / store.HOLDER, store.holder())


def _names(folder: Path) -> set[str]:
    try:
        found = os.listdir(folder)
    except FileNotFoundError:
        return set()
    return {name for name in found if not files.is_temporary(Path(name))}


def _holds(folder: Path, names: Collection[str]) -> str:
    shown = sorted(names)[:3]
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return f"{folder} holds {', '.join(shown)}{more}"


def _is_new(folder: Path, names: Collection[str]) -> bool:
    """Whether all that is there is the lock of a start, with nothing in it yet."""
    return names == {store.HOLDER} and _size(folder / store.HOLDER) == 0


def _is_marked(folder: Path) -> bool:
    try:
        return foreign.read_text(folder / store.HOLDER, 200).endswith(store.MARK)
    except DamagedError:
        return False


def _is_sweep(root: Path, names: Collection[str]) -> bool:
    """Whether a sweep of an older version, and nobody else, wrote here: arms, a search, a ranking.

    `names` are all that is there.
    """
    n_arms = 0
    for name in names:
        arms = [file for depth in ("", "*/") for file in (root / name).glob(f"{depth}{RESOLVED}")]
        n_arms += len(arms)
        if not (arms or name.isdecimal() or is_of_sweep(name)):
            return False
    if n_arms:
        return True
    with contextlib.suppress(DamagedError):
        read_description(root)
        return True
    return _is_summary(root / "summary.json")


def _is_summary(path: Path) -> bool:
    """Whether a file is the summary.json of a sweep. A ranking may be anybody's."""
    try:
        found = files.read_json(path)
    except DamagedError:
        return False
    if not isinstance(found, dict):
        return False
    listed = found.get("arms")
    if "ranking" not in found or not isinstance(listed, list) or not listed:
        return False
    return all(isinstance(arm, dict) and {"arm", "status"} <= arm.keys() for arm in listed)


class Before:
    """A run's directory as it was before a start."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.existed = out.exists() and out.absolute() not in _made
        self.had_hydra = self.existed and (out / ".hydra").exists()
        self.had_tokenizer = (out / "tokenizer.json").exists()
        self.content: dict[str, bytes | None] = {}  # None: it is not there
        for name in SMALL:
            if (_size(out / name) or 0) <= files.MAX_JSON:  # no start has written a larger one
                self.content[name] = _content(out / name) if self.existed else None
        self.log_size = _size(out / "train.log")
        self.metrics = _version(out / "metrics.jsonl")

    @contextlib.contextmanager
    def kept_on_failure(self) -> Iterator[None]:
        """Put everything back where an error ends the start before training begins.

        `latest` then still means the run before.
        """
        try:
            yield
        except Exception as error:
            is_start = not isinstance(error, ConnectionError)  # a lost process: it may go on
            if is_start and _version(self.out / "metrics.jsonl") == self.metrics:
                with contextlib.suppress(OSError):  # the disk may be what failed
                    self._put_back()
            raise

    def _put_back(self) -> None:
        log = self.out / "train.log"
        if self.log_size is None:
            log.unlink(missing_ok=True)
        elif log.exists():
            os.truncate(log, self.log_size)
        if not self.had_tokenizer:
            (self.out / "tokenizer.json").unlink(missing_ok=True)
        for name, content in self.content.items():
            path = self.out / name
            if content is None:
                path.unlink(missing_ok=True)
            elif _content(path) == content:
                continue
            elif name == store.HOLDER:
                path.write_bytes(content)  # in place, as it is the lock that we hold
            else:
                files.atomic_write(path, content)
        folders = [] if self.had_hydra else [self.out / ".hydra"]
        if not self.existed:
            folders.append(self.out)
        folders += [folder for folder in self.out.parents if folder.absolute() in _made]
        for folder in folders:
            with contextlib.suppress(OSError):  # whatever else lies there is somebody's
                folder.rmdir()


def _content(path: Path) -> bytes | None:
    return foreign.read_bytes(path) if path.exists() else None


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None


def _version(path: Path) -> tuple[int, int, int] | None:
    """What changes with every write to a file; None if there is none."""
    if not path.exists():
        return None
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
