"""An experiment's folder as a report in W&B: its README, and the curves of its runs, live.

made = report.build("me/lm", Path("experiments/001_model_ladder"), runs)
url = report.save(made)
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb_workspaces.reports.v2 as wr
from wandb_workspaces import expr
from wandb_workspaces.reports.v2.interface import Layout, Report, Runset

from lm.dashboard import view
from lm.launch import presets
from lm.record.wandb_project import ProjectRun
from lm.system import foreign

MAX_BYTES = 1 << 20
HEADING = re.compile(r"\A\s*# .*\n")
NOT_TEXT = re.compile(r"<!--.*?-->|!\[[^\]]*\]\([^)]*\)")  # marks, and pictures that stay here
ABOUT = re.compile(r"\n## Question\s+(.+?)(?:\n\n|\n#|\Z)", re.S)
HALF, HEIGHT = 12, 8  # of a panel, in cells of a page that is 24 wide


def build(path: str, folder: Path, runs: Sequence[ProjectRun]) -> Report:
    """The report on the experiment in `folder`; its panels show the runs that have its name."""
    entity, project = path.split("/")
    text = foreign.read_text(folder / "README.md", MAX_BYTES)
    about = ABOUT.search(text)
    name = presets.name_of_runs(folder)
    ours = [run for run in runs if run.settings.get("name") == name]
    # Of the report's own project, as no other is named.
    runset = Runset(name=name, filters=expr.And(expr.Config("name") == name))
    shown: dict[str, list[Any]] = view.panels(ours)
    panels = [*shown["bits per byte"][:1], *shown["loss"], *shown.get("what was varied", [])]
    for n, panel in enumerate(panels):
        place = {"x": HALF * (n % 2), "y": HEIGHT * (n // 2), "w": HALF, "h": HEIGHT}
        panel.layout = Layout(**place)
    return Report(
        entity=entity,
        project=project,
        title=folder.name,
        description=" ".join(about[1].split())[:500] if about else "",
        width="fluid",
        blocks=[
            wr.MarkdownBlock(text=NOT_TEXT.sub("", HEADING.sub("", text)).strip()),
            wr.H2(text="The runs"),
            wr.PanelGrid(runsets=[runset], panels=panels),
        ],
    )


def save(made: Report) -> str:
    """Write a new report into W&B and return its address: people write into the one before."""
    return view.saved(made)
