"""The saved view of a project's runs: its panels, the columns of its table, its baseline.

made = view.build("me/lm", runs, group="", baseline=runs[0])     # nothing is asked of W&B
url = view.save(made)
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr
from wandb_workspaces.reports.v2.interface import (
    PanelTypes,
    ParallelCoordinatesPlotColumn,
    Report,
)
from wandb_workspaces.workspaces import internal

from lm import config
from lm.baselines import METRICS
from lm.record import wandb_names
from lm.record.wandb_project import ProjectRun
from lm.system import files

BPB = wandb_names.name("val/bpb")
LOWEST = f"{BPB}.min"  # the summary's lowest value, which W&B has also of a run that trains
FINAL = "best_val_bpb"  # the same of a complete run, as a number by itself
FLOOR = "corpus/floor_bpb"
MOST_VARIED = 12  # settings side by side
MOST_RUNS = 30  # in one panel
NOT_IN_NAMES = ("So", "Sk", "Sm", "Sc", "Cs", "Cc")  # kinds of characters that W&B refuses


def build(path: str, runs: Sequence[ProjectRun], group: str, baseline: ProjectRun) -> ws.Workspace:
    """The view of the project ENTITY/PROJECT, or of the runs of one group in it."""
    entity, project = path.split("/")
    made = ws.Workspace(
        entity=entity,
        project=project,
        name=_name(group),
        sections=[section(name, shown) for name, shown in panels(runs).items()],
        settings=ws.WorkspaceSettings(x_axis="tokens", max_runs=MOST_RUNS),
        runset_settings=ws.RunsetSettings(
            order=[expr.Ordering(expr.Summary(LOWEST), ascending=True)],
            pinned_columns=columns(runs),
            baseline_run=baseline.id,
        ),
    )
    if group:
        # Given as an expression, a group called a=b would become a==b.
        is_of_group = {"key": {"section": "run", "name": "group"}, "op": "=", "value": group}
        made._stashed_filters_v2 = {"filterFormat": "filterV2", "filters": [is_of_group]}
        made._stashed_filter_string = ""  # what the expression is, as none was given
    # A name that follows from what it shows, so that another call writes the same view anew.
    made._internal_name = f"nw-{files.fingerprint(path, group)[:11]}-v"
    return made


def save(made: ws.Workspace) -> str:
    """Write the view into W&B, over the one of the same name, and return its address."""
    uid = made._internal_name.removeprefix("nw-").removesuffix("-v")
    try:
        known = internal.get_view_dict(made.entity, made.project, uid)
        made._internal_id = known["id"]
    except ValueError:  # there is none yet
        made._internal_id = ""
    return saved(made)


def saved(made: ws.Workspace | Report) -> str:
    """The address of a view or report, which is saved now."""
    try:
        made.save()
    except (TypeError, KeyError):  # the client looks into an answer that has nothing in it
        raise ValueError("W&B has not saved it, and does not say why") from None
    return made.url


def _name(group: str) -> str:
    name = f"lm {group}".strip()
    return "".join("-" if unicodedata.category(c) in NOT_IN_NAMES else c for c in name)


# ---------------------------------------------------------------------------------- the panels


def panels(runs: Sequence[ProjectRun]) -> dict[str, list[PanelTypes]]:
    """The panels by section, what matters most first; what no run has logged has no panel."""
    keys = {key for run in runs for key in run.summary}
    loss = "nats a token, on what it learns and on what it does not"
    found: dict[str, list[PanelTypes]] = {
        "bits per byte": score_panels(runs, keys),
        "loss": [lines(loss, ["loss/train", "loss/val"])],
        "training": [
            lines("learning rate", named(keys, r"optim/lr.*") or ["optim/lr"]),
            lines("gradient norm, before it is clipped", ["optim/grad_norm"], log_y=True),
            lines("tokens a second", ["speed/tokens_per_s"]),
        ],
    }
    if settings := varied(runs):
        found["what was varied"] = [parallel(settings), importance()]
    if tasks := named(keys, r"task/.+"):
        found["right and wrong sentences"] = [lines("share right", tasks)]
    if "texts" in keys:
        found["samples"] = [wr.WeavePanelSummaryTable(table_name="texts")]
    if "views/lens" in keys:
        found["lens"] = [wr.MediaBrowser(media_keys=["views/lens"])]
    found["settings side by side"] = [wr.RunComparer(diff_only="split")]
    return found


def section(name: str, panels: Sequence[PanelTypes]) -> ws.Section:
    layout = ws.SectionLayoutSettings(columns=min(3, len(panels)), rows=1)
    return ws.Section(name=name, panels=list(panels), is_open=True, layout_settings=layout)


def score_panels(runs: Sequence[ProjectRun], keys: set[str]) -> list[PanelTypes]:
    """Bits per byte with what counting reaches as level lines; those of other texts by themselves.

    The baselines of a run are in its settings, not in its curves, so the lines are expressions.
    """
    names = {metric: name for name, metric in METRICS.items()} | {FLOOR: "exact entropy"}
    known = [key for key in names if any(key in run.constants for run in runs)]
    # An expression may take the place of the metrics of a panel: the curve itself is one, too.
    levels = [f"${{{BPB}}} * 0 + ${{config:{key}}}" for key in known]
    title = "bits per byte" + (f", with {', '.join(names[key] for key in known)}" if known else "")
    found: list[PanelTypes] = [
        lines(title, [BPB], custom_expressions=[f"${{{BPB}}}", *levels] if levels else None)
    ]
    if others := [key for key in named(keys, r"bpb/.+") if key != BPB]:
        found.append(lines("bits per byte of other texts", others))
    return found


def named(keys: set[str], pattern: str) -> list[str]:
    return sorted(key for key in keys if re.fullmatch(pattern, key))


def lines(title: str, metrics: Sequence[str], **more: Any) -> wr.LinePlot:
    """Curves against the tokens that a run has read."""
    return wr.LinePlot(
        title=title, x="tokens", y=list(metrics), max_runs_to_show=MOST_RUNS,
        smoothing_type="none", **more,
    )  # fmt: skip


def parallel(settings: Sequence[str]) -> wr.ParallelCoordinatesPlot:
    """A line a run, through its settings to its score."""
    score = ParallelCoordinatesPlotColumn(
        metric=wr.SummaryMetric(FINAL), display_name="bits per byte", inverted=True
    )
    return wr.ParallelCoordinatesPlot(columns=[*map(SettingColumn.of, settings), score])


def importance() -> wr.ParameterImportancePlot:
    return wr.ParameterImportancePlot(with_respect_to=FINAL)


class SettingColumn(ParallelCoordinatesPlotColumn):
    """A setting as an axis. Ours have dots in their names, where W&B's class sees nested groups."""

    @classmethod
    def of(cls, key: str) -> "SettingColumn":
        is_rate = key.rpartition(".")[2].startswith("lr")
        return cls(metric=wr.Config(key), display_name=key, log=is_rate or None)

    def _to_model(self):
        assert isinstance(self.metric, wr.Config)
        model = super()._to_model()
        model.accessor = setting(self.metric.name)
        return model


def setting(key: str) -> str:
    """A setting as W&B's table and panels address it."""
    return f"config:{key}.value"


def columns(runs: Sequence[ProjectRun]) -> list[str]:
    """The columns of the table of runs that stay in sight."""
    counted = [METRICS["5-gram counts"]] if any(run.constants for run in runs) else []
    return [
        "run:displayName",
        f"summary:{LOWEST}",
        *(setting(key) for key in counted),
        f"summary:{wandb_names.name('val/loss')}.min",
        *(setting(key) for key in varied(runs)),
        "summary:n_params",
        "summary:speed/tokens_per_s",
        "run:state",
    ]


def varied(runs: Sequence[ProjectRun]) -> list[str]:
    """The settings of all runs in which they differ: names of parts first, the seed last.

    Of several that go together, as a model's with its name, the first alone.
    """
    shared = set.intersection(*(set(run.settings) for run in runs)) if runs else set()
    keys = [key for key in shared if config.affects(key) != "nothing"]
    found = []
    patterns = set()
    for key in sorted(keys, key=lambda key: (key == "seed", not key.endswith(".name"), key)):
        values = [json.dumps(run.settings[key], sort_keys=True) for run in runs]
        order = {value: place for place, value in enumerate(dict.fromkeys(values))}
        pattern = tuple(order[value] for value in values)  # which runs have equal values
        if len(order) > 1 and pattern not in patterns:
            patterns.add(pattern)
            found.append(key)
    return found[:MOST_VARIED]
