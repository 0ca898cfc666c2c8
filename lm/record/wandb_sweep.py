"""What W&B is told at the end of a sweep: its ranking as an alert, and its best model.

    command = wandb_sweep.conclude(folders, "8 arms, the best 2.1034", table, "outputs/sweeps/x")

The alert comes from the run of the best arm, which is opened once more for it, so that whoever
follows the alert stands before that run.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lm import config
from lm.config import RESOLVED
from lm.record import wandb_answer, wandb_client, wandb_registry
from lm.record.schemas import WandbRecord
from lm.record.wandb_sender import Sender
from lm.system import files
from lm.system.errors import SilentServerError

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)
DESCRIBING = ("WANDB_NAME", "WANDB_NOTES", "WANDB_TAGS")


def conclude(folders: Sequence[Path], title: str, text: str, sweep: str) -> str:
    """Send the alert, and link the best model where track.registry asks for it.

    `folders` are those of the arms of `sweep`, the best one first. Returns what to type for a view
    of them; "" where none of them is in W&B. What goes wrong there costs a warning.
    """
    try:
        track = config.load(folders[0] / RESOLVED).track
        records = [(folder, _record(folder)) for folder in folders]
    except (ValueError, OSError) as error:
        log.warning(f"W&B hears nothing of the sweep's end: {wandb_client.in_one_line(error)}")
        return ""
    online = [(folder, record) for folder, record in records if record and record.url]
    if track.registry and (not online or online[0][0] != folders[0]):
        log.warning(
            f"track.registry={track.registry}: the best arm is not in W&B, so its model is not "
            "linked; make sync uploads the run, and W&B's page of the model links it"
        )
    if not online:
        return ""
    try:
        wandb_answer.check()
    except SilentServerError as error:
        log.warning(f"W&B hears nothing of the sweep's end: {error}")
        return ""
    folder, record = online[0]
    entity, project, uid = wandb_registry.place(record.url or "")
    arguments = {"id": uid, "entity": entity, "project": project, "resume": "must"}
    arguments["dir"] = str(Path("outputs").absolute())

    def opened() -> "wandb.Run":
        about = arguments | _as_it_is(f"{entity}/{project}/{uid}")
        return wandb_client.open_run(
            "online", about, track.init_timeout, track.finish_timeout, fall_back=False
        )[0]

    sender = Sender(opened, wandb_client.kill)
    sender.send(lambda run: run.alert(title, text, level="INFO"))
    if track.registry and folder == folders[0]:
        model = f"{entity}/{project}/model-{uid}:best"
        target = wandb_registry.target(track.registry, project)
        sender.send_slowly("the model for the registry", lambda run: _link(run, model, target))
    if not sender.end(0, track.finish_timeout) and not sender.has_failed:
        seconds = f"track.finish_timeout={track.finish_timeout} seconds"
        log.warning(f"W&B did not take the end of the sweep in {seconds}")
    return wandb_registry.view_command(record.url or "", sweep)


def _record(folder: Path) -> WandbRecord | None:
    path = folder / WandbRecord.file
    return files.read_record(path, WandbRecord) if path.exists() else None


def _as_it_is(path: str) -> dict[str, object]:
    """What names and describes a run in W&B, as arguments of wandb.init; nothing where they are not
    needed. A run that is opened without them gets those of the environment."""
    if not any(os.environ.get(variable) for variable in DESCRIBING):
        return {}
    import wandb

    run = wandb.Api(timeout=wandb_answer.TIMEOUT).run(path)
    return {"name": run.name, "notes": run.notes or "", "tags": list(run.tags)}


def _link(run: "wandb.Run", model: str, target: str) -> None:
    import wandb

    artifact = wandb.Api(timeout=wandb_answer.TIMEOUT).artifact(model, type="model")
    run.link_artifact(artifact, target)
    log.info(f"W&B: the best model is linked to {target}")
