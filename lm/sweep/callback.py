"""What a sweep says at its end: the ranking of its arms, and which of them failed.

callback.conclude(root)     # the arms wrote one result.json each
"""

import dataclasses
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from lm.sweep import arms, progress, ranking
from lm.sweep.arms import RESULT, ArmResult
from lm.sweep.ranking import Row
from lm.sweep.study import STUDY
from lm.system import files
from lm.system.environment import import_words
from lm.system.text import shell_word

log = logging.getLogger(__name__)
WANDB = "wandb.json"  # in the directory of an arm that W&B was told of
TOLD = 10  # rows of the ranking in an alert


def conclude(root: Path) -> None:
    """Print the ranking, the best settings first, and write summary.json into the directory.

    Exits with 1 if an arm failed, or has no result or a damaged one; a search, which goes around
    what fails, only for a damaged one, or if none of its arms has a score.
    """
    places = arms.places(root)
    results = ranking.read(root)
    rows = ranking.fold(results, root)
    log.info(f"\n{ranking.table(rows)}\n({root})")
    report = f"python -m lm.report {shell_word(str(_folder_of_all(root, places.values())))}"
    if ranking.is_of_several_texts(word for row in rows for word in row.settings):
        log.info(f"bits per byte of different texts do not compare: {report}")
    elif rows and rows[0].n:
        best = next(arm for arm in results if arm in rows[0].arms)
        run = shell_word(f"run={places[best]}")
        log.info(f"{report}; python -m lm.sample {import_words()}{run}")
    failed = [arm for arm, result in results.items() if result.status == "failed"]
    for arm in failed:
        log.info(f"{places[arm]} failed: {results[arm].error} (error.log there)")
    missing = sorted(places.keys() - results.keys(), key=ranking.natural)
    damaged = [arm for arm in missing if os.path.lexists(places[arm] / RESULT)]
    waiting = [arm for arm in missing if arm not in damaged]
    if waiting:
        who = "another process trains it, or left it"
        log.info(f"no result yet in {', '.join(str(places[arm]) for arm in waiting)}: {who}")
    if damaged:
        found = ", ".join(str(places[arm] / RESULT) for arm in damaged)
        log.info(f"left out of the ranking, as it cannot be read: {found}")
    _write_summary(root, rows, results)
    _tell_wandb(root, rows, results, places)
    if (root / STUDY).exists():  # a search goes around what fails
        if damaged or ((failed or missing) and not any(row.n for row in rows)):
            raise SystemExit(1)
        return
    if failed:
        log.info(
            f"{len(failed)} of {len(results)} arms failed; the same command with "
            f"{shell_word(f'hydra.sweep.dir={root}')} runs only those again"
        )
    if failed or missing:
        raise SystemExit(1)


def _tell_wandb(
    root: Path, rows: list[Row], results: dict[str, ArmResult], places: dict[str, Path]
) -> None:
    """Have W&B tell whoever wants to be told that the sweep has ended, if it has arms there."""
    best = [arm for arm in results if rows and arm in rows[0].arms]
    order = [places[arm] for arm in (*best, *(arm for arm in results if arm not in best))]
    if not any(os.path.lexists(folder / WANDB) for folder in order) or not progress.has_run(order):
        return
    from lm.record import wandb_sweep

    score = f", best val/bpb {rows[0].mean:.4f}" if rows[0].mean is not None else ""
    title = f"a sweep of {len(results)} arms has ended{score}"
    if command := wandb_sweep.conclude(order, title, ranking.table(rows[:TOLD]), str(root)):
        log.info(f"W&B: {command}")


def _folder_of_all(root: Path, folders: Iterable[Path]) -> Path:
    """The sweep's directory, or the one above it that holds the arms which lie elsewhere too."""
    paths = [os.path.abspath(path) for path in (root, *folders)]
    common = os.path.commonpath(paths)
    return root if common == paths[0] else Path(os.path.relpath(common))


def _write_summary(root: Path, rows: list[Row], results: dict[str, ArmResult]) -> None:
    table = []
    for row in rows:
        values = dataclasses.asdict(row)
        del values["label"], values["folders"]
        table.append(values | {"mean": row.mean, "spread": row.spread, "n": row.n})
    listed = [{"arm": arm} | msgspec.to_builtins(result) for arm, result in results.items()]
    summary = json.dumps({"ranking": table, "arms": listed}, indent=1)
    files.atomic_write(root / "summary.json", summary + "\n")
