"""Upload the offline W&B runs of this directory, each by itself, so that a damaged one stops none.

python -m lm.sync                     # all of outputs/wandb
python -m lm.sync outputs/wandb/run-20261122_083128-a1b2c3d4     # it was cut off

A server that answers nothing for two minutes ends it, exit code 1; the rest waits for next time.
"""

if __name__ == "__main__":
    from lm.launch import entry

    entry.begin("sync")

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lm.launch import cli
from lm.record import wandb_answer
from lm.record.wandb_client import CUT_OFF
from lm.settings.commands import SyncConfig
from lm.system import streams
from lm.system.errors import ConfigError

USAGE = "python -m lm.sync [FOLDER ...], such as outputs/wandb/offline-run-DATE_TIME-ID; none: all"
FAULT = re.compile(r"(?:.*ERROR|Error:)\s*(\S.*)")  # a line of W&B's client; its last words
EMPTY = 7  # bytes of a file that holds a header alone: its run was killed before it said anything


def waiting_runs(home: Path) -> list[Path]:
    """The runs that were not uploaded since they last grew, the oldest first: the offline ones, and
    the online ones that W&B did not take whole."""
    cut_off = [mark.parent for mark in home.glob(f"run-*/{CUT_OFF}")]
    folders = [*home.glob("offline-run-*"), *cut_off]
    folders.sort(key=lambda folder: folder.name.removeprefix("offline-"))
    return [folder for folder in folders if not is_synced(folder)]


def is_synced(folder: Path) -> bool:
    """Whether W&B's mark is there for each of the folder's files, and no older than the file."""
    files = list(folder.glob("*.wandb"))
    for path in files:
        mark = path.with_name(f"{path.name}.synced")
        if not mark.exists() or mark.stat().st_mtime < path.stat().st_mtime:
            return False
    return bool(files)


def check(folder: Path) -> None:
    """ConfigError unless the folder is that of a W&B run."""
    if not folder.is_dir():
        what = "this is no folder" if os.path.lexists(folder) else "there is no such folder"
        raise ConfigError(f"{folder}: {what}; {USAGE}")
    if not list(folder.glob("*.wandb")):
        raise ConfigError(f"{folder} holds no .wandb file, so it is no run of W&B; {USAGE}")


def sync(folders: Sequence[Path]) -> int:
    """Upload the runs; return how many could not be. Raises SilentServerError."""
    n_failed = 0
    for folder in folders:
        size = sum(path.stat().st_size for path in folder.glob("*.wandb"))
        if size <= EMPTY:
            say("skipped", folder, "it holds nothing; the run's own files are whole")
            continue
        lines = upload(folder)
        n_failed += not is_synced(folder)  # the exit code of `wandb sync` is 0 whatever happens
        said = (faults(lines) or lines or [""])[-1]
        say("synced" if is_synced(folder) else "failed", folder, said)
    return n_failed


def faults(lines: Sequence[str]) -> list[str]:
    """What W&B's client calls errors, without its marks; its last such line may be empty."""
    found = [FAULT.match(line) for line in lines]
    return [match[1].strip() for match in found if match]


def upload(folder: Path) -> list[str]:
    """Upload one run; the lines that W&B's client says. Raises SilentServerError."""
    # wandb skips without a word a run that was online; named here, it goes up again whole.
    words = [sys.executable, "-m", "wandb", "sync", "--no-skip-online", "--", str(folder)]
    wandb_answer.check()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT)
        try:
            wandb_answer.wait(lambda seconds: has_ended(process, seconds))
        finally:  # also on Ctrl-C; the client's own process ends with it
            process.kill()
            process.wait()
        said.seek(0)
        return said.read().decode("utf-8", "replace").strip().splitlines()


def has_ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def say(what: str, folder: Path, text: str) -> None:
    streams.print_line(f"{what:8} {folder}: {text}")


def command(cfg: SyncConfig) -> None:
    """Upload the folders, or all that wait; exit code 1 if one of them could not be."""
    folders = [Path(folder) for folder in cfg.folders]
    for folder in folders:
        check(folder)
    folders = folders or waiting_runs(Path("outputs/wandb"))
    if not folders:
        streams.print_line("no offline run waits under outputs/wandb")
    sys.exit(1 if sync(folders) else 0)


def main() -> None:
    cli.main(SyncConfig, command, paths="folders")


if __name__ == "__main__":
    main()
