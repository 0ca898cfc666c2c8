"""A saved view of the runs in W&B, with the panels that matter in the order in which they do.

python -m lm.dashboard                                  # of all runs of the project lm
python -m lm.dashboard project=ENTITY/PROJECT sweep=latest
python -m lm.dashboard report=true experiment=001_model_ladder

It needs wandb-workspaces (extra `dashboard`). Called again it writes the same view anew.
"""

if __name__ == "__main__":
    from lm.launch import entry

    entry.begin("dashboard")

import os
from pathlib import Path

from lm.config import TrackConfig
from lm.launch import cli, presets
from lm.launch.resume import latest_sweep
from lm.record import wandb_answer, wandb_mode, wandb_project, wandb_registry
from lm.record.schemas import WandbRecord
from lm.record.wandb_project import ProjectRun
from lm.settings.commands import DashboardConfig
from lm.sweep import arms
from lm.system import files, streams
from lm.system.errors import ConfigError


def command(cfg: DashboardConfig) -> None:
    """Save the view, and the report if one is asked for, and print their addresses."""
    if cfg.report != bool(cfg.experiment):
        raise ConfigError("report=true and experiment=NAME go together: what the report is about")
    folder = experiment_folder(cfg.experiment) if cfg.report else None
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError:
        raise ConfigError(
            "lm.dashboard needs the extra dashboard: pip install wandb-workspaces"
        ) from None
    from lm.dashboard import report, view

    root = sweep_folder(cfg.sweep)
    group = arms.group(root) if root else cfg.sweep
    path = project_path(cfg.project, root)
    runs = wandb_project.runs(path, group)
    if not runs:
        what = f"of sweep={cfg.sweep}" if cfg.sweep else "of lm"
        raise ValueError(f"project={path} has no run {what}: make sync uploads what is offline")
    made = view.build(path, runs, group, baseline_of(runs, cfg.baseline))
    url = wandb_answer.ask(f"the view in {path}", lambda: view.save(made))
    streams.print_line(url)
    if folder:
        text = report.build(path, folder, runs)
        url = wandb_answer.ask(f"the report in {path}", lambda: report.save(text))
        streams.print_line(url)


def experiment_folder(name: str) -> Path:
    """The folder of an experiment; ConfigError where it has no README to make a report of."""
    folder = presets.experiment_folder(name)
    if not (folder / "README.md").is_file():
        raise ConfigError(f"experiment={name}: there is no {folder / 'README.md'}")
    return folder


def sweep_folder(name: str) -> Path | None:
    """The directory of a sweep on this machine; None for the name of a group in W&B, or none."""
    if name == "latest":
        return latest_sweep("sweep=")
    path = Path(files.expanded(name))
    return path if name and path.is_dir() else None


def project_path(project: str, root: Path | None) -> str:
    """ENTITY/PROJECT, of which each half may be given, known from a sweep, or W&B's default."""
    known = _project_of(root) if root and not project else ""
    if known:
        return known
    wandb_mode.tidy_environment()
    name = project or os.environ.get("WANDB_PROJECT") or TrackConfig().project
    if "/" not in name:
        entity = os.environ.get("WANDB_ENTITY") or wandb_project.default_entity(f"project={name}")
        name = f"{entity}/{name}"
    return wandb_project.check_path(name)


def _project_of(root: Path) -> str:
    """The project in which a sweep's arms are; "" where all of them are on this machine alone."""
    for folder in arms.places(root).values():
        path = folder / WandbRecord.file
        url = files.read_record(path, WandbRecord).url if path.exists() else None
        if url:
            return "/".join(wandb_registry.place(url)[:2])
    return ""


def baseline_of(runs: list[ProjectRun], name: str) -> ProjectRun:
    """The run that the others are compared with: by its id or its name, else the first one that
    is complete."""
    if not name:
        return next((run for run in runs if run.state == "finished"), runs[0])
    for run in runs:
        if name in (run.id, run.name):
            return run
    raise ConfigError(f"baseline={name}: no run has this id or name, such as {runs[0].id}")


def main() -> None:
    cli.main(DashboardConfig, command)


if __name__ == "__main__":
    main()
