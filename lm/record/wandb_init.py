"""What W&B is told about a run: the settings track.*, and the WANDB_* variables of its user.

arguments, line = wandb_init.init_arguments(cfg, group, name)

The variables are those that wandb_mode.tidy_environment has left.
"""

import os
from dataclasses import asdict

from lm import config
from lm.config import Config, TrackConfig
from lm.record.wandb_mode import MODES
from lm.system.text import printable

VARIABLES = {  # the argument of wandb.init, and the setting that outweighs the variable
    "WANDB_PROJECT": ("project", "track.project"),
    "WANDB_ENTITY": ("entity", "track.entity"),
    "WANDB_NAME": ("name", "track.name"),
    "WANDB_NOTES": ("notes", "track.notes"),
    "WANDB_TAGS": ("tags", "track.tags"),
    "WANDB_RUN_GROUP": ("group", None),
    "WANDB_JOB_TYPE": ("job_type", None),
}
NOT_USED = {
    "WANDB_DIR": "its files are under outputs/wandb",
    "WANDB_RUN_ID": "a run's id stands in its wandb.json",
    "WANDB_RESUME": "resume= goes on with a run",
    "WANDB_INIT_TIMEOUT": "give track.init_timeout",
    "WANDB_FINISH_TIMEOUT": "give track.finish_timeout",
}
DEFAULTS = {f"track.{key}": value for key, value in asdict(TrackConfig()).items()}
LONGEST_NAME = 100  # letters; W&B takes 128


def init_arguments(cfg: Config, group: str | None, name: str = "") -> tuple[dict[str, object], str]:
    """The arguments of wandb.init that describe a run, and one line about the environment.

    A variable counts where its setting stands at its default. `group` is the name of the sweep of
    which the run is an arm, `name` tells its model and what sets it apart. The line is "" where no
    variable is set. What is not used is taken out of the environment, where a value that wandb does
    not like would stop it.
    """
    settings = config.flat(cfg)
    arguments: dict[str, object] = {
        "project": cfg.track.project,
        "entity": cfg.track.entity,
        "name": cfg.track.name,
        "notes": cfg.track.notes,
        "tags": cfg.track.tags,
        "group": group,
        "job_type": "sweep" if group else "train",
        "config": config.public(settings),
    }
    used: list[str] = []
    unused = _take_unused(cfg)
    for variable, (argument, setting) in VARIABLES.items():
        text = os.environ.get(variable)
        if not text:
            continue
        value = text.split(",") if argument == "tags" else text
        if setting and settings[setting] not in (DEFAULTS[setting], value):
            unused.append(f"{variable} ({setting}={_short(settings[setting])})")
        else:
            arguments[argument] = value
            used.append(f"{argument}={_short(value)}")
    parts_of_name = [str(arguments["name"])]
    if not arguments["name"]:
        # Of the arms of an experiment the group tells the experiment's name.
        parts_of_name = ["" if group else cfg.name, name or cfg.model.name]
    elif group:  # every arm of a sweep has a name to itself
        parts_of_name.append(name)
    arguments["name"] = _cut(" ".join(filter(None, parts_of_name)), LONGEST_NAME)
    parts = []
    if used:
        parts.append(f"{', '.join(used)} from the environment")
    if unused:
        parts.append(f"not used: {', '.join(unused)}")
    return arguments, "; ".join(parts)


def _take_unused(cfg: Config) -> list[str]:
    """Take variables that change nothing out of the environment; return each with the reason."""
    found = []
    is_agent = "WANDB_SWEEP_ID" in os.environ  # an agent of W&B sets some of them for the client
    for variable, reason in NOT_USED.items():
        if variable in os.environ and not is_agent:
            del os.environ[variable]
            found.append(f"{variable} ({reason})")
    mode = MODES.get(os.environ.get("WANDB_MODE", ""))
    if mode and cfg.track.mode not in ("auto", mode):
        found.append(f"WANDB_MODE (track.mode={cfg.track.mode})")
    return found


def _short(value: object) -> str:
    """A value in one line of a message."""
    return _cut(",".join(value) if isinstance(value, list) else str(value), 60)


def _cut(text: str, longest: int) -> str:
    text = printable(" ".join(text.split()))
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
