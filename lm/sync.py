"""Upload the offline W&B runs of this directory, each by itself, so that a damaged one stops none.

python -m lm.sync                     # all of outputs/wandb
python -m lm.sync outputs/wandb/run-20261122_083128-a1b2c3d4     # an online run that an outage cut
"""

if __name__ == "__main__":
    from lm.system import signals

    signals.end_on_ctrl_c()

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lm.record.wandb_client import CUT_OFF

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


def sync(folders: Sequence[Path]) -> int:
    """Upload the runs; return how many could not be."""
    n_failed = 0
    for folder in folders:
        size = sum(path.stat().st_size for path in folder.glob("*.wandb"))
        if size <= EMPTY:
            print(f"skipped  {folder}: it holds nothing; the run's own files are whole")
            continue
        # wandb skips without a word a run that was online; named here, it goes up again whole.
        words = [sys.executable, "-m", "wandb", "sync", "--no-skip-online", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True)
        lines = (done.stdout + done.stderr).strip().splitlines()
        last_line = lines[-1] if lines else ""
        if done.returncode == 0:
            print(f"synced   {folder}: {last_line}")
        else:
            n_failed += 1
            print(f"failed   {folder}: {last_line}")
    return n_failed


def main() -> None:
    folders = [Path(word) for word in sys.argv[1:]] or waiting_runs(Path("outputs/wandb"))
    if not folders:
        print("no offline run waits under outputs/wandb")
    sys.exit(1 if sync(folders) else 0)


if __name__ == "__main__":
    main()
