"""The runs of a W&B project: what it knows of each, and each as a run directory of this machine.

    for run in wandb_project.runs("me/lm"): print(run.name, run.settings["model.name"])
    folder = wandb_project.fetch("wandb:me/lm")      # for lm.report

A fetched directory has the settings, the curves and the summary of a run, and which text and code
it was made from; weights and samples stay in W&B. All of it is a stranger's: it is checked where it
is read, and no path comes from there.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.config import RESOLVED
from lm.record import wandb_answer, wandb_names
from lm.record.find import REMOTE
from lm.record.schemas import CodeRecord, DataRecord, Summary, WandbRecord
from lm.settings.yaml_files import to_yaml
from lm.system import files, store

if TYPE_CHECKING:
    from wandb.apis.public import Run

log = logging.getLogger(__name__)
PATH = re.compile(r"[\w.-]+/[\w.-]+")  # ENTITY/PROJECT
ID = re.compile(r"[\w-]{1,64}")
PAGE = 100  # runs in one answer of the server
POINTS = 500  # of a training curve, which W&B thins out evenly; a validation curve is fetched whole
MOST_POINTS = 10_000
SCORES = ("val/bpb", "val/loss", "val/ppl")  # an evaluation logs them together, and others besides
OTHER_SCORES = re.compile(r"bpb/.+|val_.+/bpb|task/.+")
TRAINING = ("train/loss", "optim/lr")
TOTALS = ("best_val_bpb", "best_step", "step", "tokens", "seconds", "n_params", "flops")
RUN_FILES = (DataRecord.file, CodeRecord.file)


@dataclass
class ProjectRun:
    """What W&B's list of runs says of one of ours."""

    id: str
    name: str
    group: str  # the sweep; "": none
    state: str  # running, finished, failed, crashed or killed
    settings: dict[str, Any]  # by dotted key
    constants: dict[str, float]  # what val/bpb is compared with: baseline/ngram_bpb
    summary: dict[str, Any]

    @property
    def is_new(self) -> bool:
        """Whether its curves are called as wandb_names says, and not as in older versions."""
        return wandb_names.name("val/bpb") in self.summary

    def name_of(self, key: str) -> str:
        """What this run's metric is called in W&B."""
        return wandb_names.name(key) if self.is_new else key

    @property
    def score(self) -> float | None:
        """The best val/bpb so far."""
        lowest = self.summary.get(self.name_of("val/bpb"))
        score = lowest.get("min") if isinstance(lowest, Mapping) else lowest
        return score if isinstance(score, (int, float)) else None


def check_path(path: str) -> str:
    """ENTITY/PROJECT; ValueError for what is none."""
    if not PATH.fullmatch(path):
        raise ValueError(f"{path[:100]!a} is no project of W&B: write ENTITY/PROJECT")
    return path


def default_entity(what: str) -> str:
    """The user or team whose projects the key of this machine means."""

    def asked() -> str:
        import wandb

        return wandb.Api(timeout=wandb_answer.TIMEOUT).default_entity or ""

    return wandb_answer.ask(what, asked)


def runs(path: str, group: str = "") -> list[ProjectRun]:
    """The runs of lm in the project ENTITY/PROJECT, or in one group of it, the oldest first.

    Raises ValueError and SilentServerError, as wandb_answer.ask does.
    """
    check_path(path)
    return wandb_answer.ask(
        f"project={path}", lambda: [ours for _, ours in _pages(path, group) if ours is not None]
    )


def fetch(name: str) -> Path:
    """A folder in the cache with the run directories of the project wandb:ENTITY/PROJECT.

    A run that is complete is fetched once. Raises ValueError and SilentServerError.
    """
    path = name.removeprefix(REMOTE)
    if not PATH.fullmatch(path):
        raise ValueError(f"{name}: write {REMOTE}ENTITY/PROJECT")
    home = files.cache_dir() / f"wandb-{files.fingerprint(path)}" / path
    return wandb_answer.ask(name, lambda: _fetch(name, path, home))


def _fetch(name: str, path: str, home: Path) -> Path:
    kept = []
    n_others = 0
    for run, ours in _pages(path):
        if ours is None:
            n_others += 1
            continue
        kept.append(ours.id)
        if not (home / ours.id / Summary.file).exists():
            with store.temporary_folder(home / ours.id) as tmp:
                _write(run, ours, tmp)
                if (home / ours.id).exists():  # it was training when it was fetched
                    store.remove(home / ours.id)
                files.sync_tree(tmp)
                files.rename(tmp, home / ours.id)
    others = f", and {n_others} that lm did not make" if n_others else ""
    if not kept:
        raise ValueError(f"none of its {n_others} runs is one of lm")
    log.info(f"{name}: {len(kept)} run{'s' if len(kept) > 1 else ''}{others}")
    for folder in set(home.iterdir()) - {home / uid for uid in kept}:
        if ID.fullmatch(folder.name):  # it was deleted in W&B
            store.remove(folder)
    return home


def _pages(path: str, group: str = "") -> "Iterator[tuple[Run, ProjectRun | None]]":
    """Each run of a project, and what it says; None for a run that lm did not make."""
    import wandb

    filters = {"group": group} if group else None
    api = wandb.Api(timeout=wandb_answer.TIMEOUT)
    for run in api.runs(path, filters, per_page=PAGE, include_sweeps=False, lazy=False):
        constants = {}
        values = {}
        for key, value in run.config.items():
            target = constants if wandb_names.FACTS.fullmatch(key) else values
            target[key] = value
        if not ID.fullmatch(run.id) or not isinstance(values.get("model.name"), str):
            yield run, None
            continue
        yield (
            run,
            ProjectRun(
                id=run.id,
                name=run.name or run.id,
                group=run.group or "",
                state=run.state,
                settings=values,
                constants=constants,
                summary=run.summary_metrics,
            ),
        )


# ------------------------------------------------------------------------------- one directory


def _write(run: "Run", ours: ProjectRun, folder: Path) -> None:
    """Fill a folder with the files of a run directory."""
    (folder / RESOLVED).write_text(to_yaml(ours.settings), encoding="utf-8")
    for file in run.files(names=list(RUN_FILES)):
        if file.name in RUN_FILES and file.size <= files.MAX_JSON:
            file.download(root=str(folder), replace=True).close()
    record = WandbRecord(ours.id, name=ours.name, mode="online", url=run.url)
    (folder / WandbRecord.file).write_text(files.to_json(record), encoding="utf-8")
    rows, seen = _rows(run, ours)
    metrics = folder / "metrics.jsonl"
    metrics.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    os.utime(metrics, (seen, seen))  # by which reports tell a run that trains from one that stopped
    summary = _summary(ours, rows)
    if summary:
        (folder / Summary.file).write_text(json.dumps(summary), encoding="utf-8")


def _rows(run: "Run", ours: ProjectRun) -> tuple[list[dict[str, Any]], float]:
    """The rows of metrics.jsonl, and the time of the last one in seconds since 1970."""
    names = {ours.name_of(key): key for key in (*SCORES, *TRAINING, "step", "tokens", "seconds")}
    for name in filter(OTHER_SCORES.fullmatch, ours.summary):
        names.setdefault(name, re.sub(r"^bpb/(.+)", r"val_\1/bpb", name) if ours.is_new else name)
    others = [key for key in names.values() if OTHER_SCORES.fullmatch(key)]
    scored = [*SCORES, *(key for key in others if key not in SCORES)]
    points = []
    for keys, n in ((scored, MOST_POINTS), (TRAINING, POINTS)):
        asked = [ours.name_of(key) for key in (*keys, "step", "tokens", "seconds")]
        points += run.history(n, [*asked, "_timestamp"], pandas=False)
    points.sort(key=lambda point: point.get("_step", 0))
    rows = []
    seen = 0.0
    for point in points:
        row = {names[name]: value for name, value in point.items() if name in names}
        rows.append(row | ours.constants if "val/bpb" in row else row)
        if isinstance(at := point.get("_timestamp"), (int, float)):
            seen = max(seen, at)
    return rows, seen


def _summary(ours: ProjectRun, rows: Sequence[Mapping[str, object]]) -> dict[str, Any]:
    """What summary.json says of a complete run; empty for one that is not."""
    last = [row for row in rows if "val/bpb" in row][-1:]
    if ours.state != "finished" or not last or not ours.summary.keys() >= set(TOTALS):
        return {}
    found = {key: ours.summary[key] for key in TOTALS}
    found |= {key: last[0][key] for key in SCORES if key in last[0]}
    if "corpus/floor_bpb" in ours.constants:
        found["corpus/floor_bpb"] = ours.constants["corpus/floor_bpb"]
    return found
