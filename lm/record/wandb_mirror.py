"""The W&B copy of a run. Whatever goes wrong here costs one warning and never a step.

    mirror = Mirror(out, cfg, group=None, n_points=0)
    mirror.log({"step": 10, "tokens": 40960, "train/loss": 2.3})
    mirror.close(None)

Online, offline or off: track.mode. An offline run is uploaded later by `wandb sync`.
"""

import contextlib
import functools
import json
import logging
import os
import re
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lm import config
from lm.models.base import LanguageModel
from lm.record import wandb_artifact, wandb_copy
from lm.record.schemas import WandbRecord
from lm.record.state import TrainState
from lm.record.wandb_histograms import Histograms
from lm.record.wandb_mode import wandb_mode
from lm.system import failpoint, files, foreign
from lm.system.errors import Pruned

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)
# Points of the training curve, a second and at first: one costs W&B 0.1 to 3 ms of our time,
# which is much of a step of 1 ms.
RATE = 2
BURST = 30
FILES = (config.RESOLVED, "code.json", "code.diff", "data.json")  # kept with the W&B run
RESENT_SECONDS = 10  # of training: the client of a killed run may have lost its last points
Point = Mapping[str, object]


class Mirror:
    """The W&B run of a run directory. Its first failure is logged; then it stays silent."""

    def __init__(self, out: Path, cfg: config.Config, group: str | None, n_points: int) -> None:
        """`n_points` is the number of points that the run's own files held at the start."""
        self.out = out
        self.cfg = cfg
        self.run: wandb.Run | None = None  # None: off, or it has failed
        self.record: WandbRecord | None = None
        self.table: wandb.Table | None = None  # of samples
        self.histograms = Histograms()
        self.first_counter: int | None = None  # W&B's own counter at the next point, if not its own
        self.pending: Point | None = None  # the newest point that came too fast
        self.credit = float(BURST)  # points that may be sent at once
        self.credit_time = time.monotonic()
        if cfg.track.mode == "off":
            return
        try:
            mode = wandb_mode(cfg.track.mode)
            if mode != "off":
                self._open(mode, group, n_points)
        except Exception as error:  # a broken installation, a full disk: training goes on
            self._give_up(error)

    # ------------------------------------------------------------------------------- opening

    def _open(self, mode: str, group: str | None, n_points: int) -> None:
        path = self.out / WandbRecord.file
        saved = files.read_record(path, WandbRecord) if path.exists() else None
        if saved and not re.fullmatch(r"[\w-]{0,64}", saved.id):  # it becomes part of a path
            raise ValueError(f"{path} has an id that is none: {saved.id[:64]!a}")
        uid = saved.id if saved and saved.id else secrets.token_hex(4)
        if saved and wandb_copy.is_copy(self.out, saved):
            uid = secrets.token_hex(4)
            log.info(
                f"W&B: {self.out} is a copy of {saved.home}, so it gets a W&B run of its own, "
                f"{uid}, and leaves {saved.id} alone"
            )
            saved = None
        self.record = wandb_copy.at_home(self.out, uid)
        if not saved:  # before W&B hears of it: a start that is cut short leaves no second run
            files.atomic_write(path, files.to_json(self.record) + "\n")
        run = self._start(mode, uid, group)
        if run is None:
            return
        self.run = run
        if saved:
            # W&B drops points whose counter was there before: go on above all that was sent,
            # which is at most a point and its samples for every line of metrics.jsonl.
            self.first_counter = saved.first + 2 * n_points + 2
            log.info(f"W&B: run {run.id} goes on")
        self.record.id = run.id
        self.record.mode = "offline" if run.offline else "online"
        self.record.path = str(run.dir)
        self.record.url = None if run.offline else run.url
        self.record.first = self.first_counter or 0
        files.atomic_write(path, files.to_json(self.record) + "\n")
        self._attempt(self._save_files)
        if saved and not saved.closed:
            self._attempt(self._send_again)

    def _start(self, mode: str, uid: str, group: str | None) -> "wandb.Run | None":
        import wandb

        # One folder for all runs, as `wandb sync` and `wandb leet` read a single one.
        home = Path("outputs").absolute()
        home.mkdir(exist_ok=True)
        track = self.cfg.track
        arguments: dict[str, Any] = {
            "id": uid,
            "resume": "allow",
            "reinit": "finish_previous",  # the default would log a sweep's jobs into one run
            "project": track.project,
            "entity": track.entity,
            "dir": str(home),
            "group": group,
            "job_type": "sweep" if group else "train",
            "name": "-".join(filter(None, [self.cfg.name or self.cfg.model.name, self.out.name])),
            "tags": track.tags,
            "notes": track.notes,
            "config": config.flat(self.cfg),
        }
        if "WANDB_SWEEP_ID" in os.environ:  # an agent of W&B names the run itself
            arguments |= {"id": None, "group": None, "resume": None}
        settings = wandb.Settings(
            silent=True,
            init_timeout=track.init_timeout,
            finish_timeout=track.finish_timeout,
            stop_fn=lambda: os.kill(os.getpid(), signal.SIGTERM),  # the button: save, and stop
            x_transaction_log_flush_interval=2,  # 15 s of points would be lost to a kill
        )
        for attempt in dict.fromkeys([mode, "offline"]):
            arguments["mode"] = attempt
            try:
                failpoint.hit("wandb.init")
                run = wandb.init(**arguments, settings=settings)
                run.define_metric("tokens")
                run.define_metric("*", step_metric="tokens")
                for key in ("val/bpb", "val/loss", "val/ppl"):
                    run.define_metric(key, step_metric="tokens", summary="min")
                return run
            except Exception as error:  # training goes on whatever W&B raises
                log.warning(f"W&B {attempt} failed: {' '.join(str(error).split())}")
                wandb.teardown()  # or the same id would be refused as in use
        return None

    def _save_files(self, run: "wandb.Run") -> None:
        for name in FILES:
            if (self.out / name).exists():
                copy = shutil.copy(self.out / name, run.dir)
                run.save(copy, base_path=run.dir, policy="now")

    def _send_again(self, run: "wandb.Run") -> None:
        """Log the last points once more: the client of a killed run may have lost them."""
        lines = foreign.read_text(self.out / "metrics.jsonl").split("\n")[:-1]
        rows = [json.loads(line) for line in lines]
        for row in rows:
            if row["seconds"] > rows[-1]["seconds"] - RESENT_SECONDS:
                self.log(row)

    # ------------------------------------------------------------------------------- logging

    def log(self, point: Point) -> None:
        """Send one point; `tokens` in it is the x axis.

        Of training points that come faster than RATE the newest is sent; metrics.jsonl has all.
        """
        if self.run is None:
            return
        now = time.monotonic()
        self.credit = min(BURST, self.credit + RATE * (now - self.credit_time))
        self.credit_time = now
        if "train/loss" not in point:
            self._send_pending()
            self._send(point)
            return
        self.pending = point
        if self.credit >= 1:
            self.credit -= 1
            self._send_pending()

    def _send_pending(self) -> None:
        point = self.pending
        self.pending = None
        if point is not None:
            self._send(point)

    def _send(self, point: Point) -> None:
        counter = self.first_counter
        self.first_counter = None
        self._attempt(lambda run: failpoint.hit("wandb.log"))
        if counter is None:
            self._attempt(lambda run: run.log(dict(point)))
        else:
            self._attempt(lambda run: run.log(dict(point), step=counter, commit=True))

    def watch(self, model: LanguageModel, state: TrainState) -> None:
        """Gather histograms of weights and gradients every `track.histograms` steps."""
        every = self.cfg.track.histograms
        if self.run is None or not every:
            return

        def after_backward(name: str, parameter: Tensor) -> None:
            if state.step % every == 0:
                self._attempt(lambda run: self._gather(name, parameter, state))

        for name, parameter in model.named_parameters():
            hook = functools.partial(after_backward, name)
            parameter.register_post_accumulate_grad_hook(hook)

    def _gather(self, name: str, parameter: Tensor, state: TrainState) -> None:
        if self.histograms.step != state.step:
            self.send_histograms()  # no point was sent in between
        self.histograms.add(name, parameter, state)

    def send_histograms(self) -> None:
        """Send what was gathered since the last point, under its own step."""
        if self.histograms.by_name:
            self._attempt(lambda run: self.log(self.histograms.take()))

    def samples(self, state: TrainState, rows: Sequence[Mapping[str, object]]) -> None:
        """Add texts that the model wrote to one table, a row each."""
        if not rows:
            return

        def send(run: "wandb.Run") -> None:
            import wandb

            if self.table is None:
                columns: Any = ["step", *rows[0]]
                self.table = wandb.Table(columns=columns, log_mode="INCREMENTAL")
            for row in rows:
                self.table.add_data(state.step, *row.values())
            self.log({"samples": self.table, "step": state.step, "tokens": state.tokens})

        self._attempt(send)

    def page(self, name: str, path: Path) -> None:
        """Show an HTML file as a panel."""

        def send(run: "wandb.Run") -> None:
            import wandb

            run.log({name: wandb.Html(foreign.read_text(path), inject=False)})

        self._attempt(send)

    # -------------------------------------------------------------------------------- ending

    def finish(self, summary: Mapping[str, object], best_step: int) -> None:
        """Send the numbers of a complete run, and what it made, as artifacts."""
        self._send_pending()
        self._attempt(lambda run: run.summary.update(dict(summary)))
        kept = self.cfg.track.artifacts
        if kept != "none":
            everything = kept == "all"
            self._attempt(lambda run: wandb_artifact.upload(run, self.out, best_step, everything))

    def close(self, error: BaseException | None) -> None:
        """End the W&B run; `error` is what ended training, if anything did."""
        self._send_pending()
        if isinstance(error, ArithmeticError):
            text = str(error)
            self._attempt(lambda run: run.alert("training diverged", text, level="ERROR"))
        code = 0
        if error is not None and not isinstance(error, Pruned):
            code = getattr(error, "exit_code", getattr(error, "code", 1))
        self._attempt(lambda run: failpoint.hit("wandb.finish"))
        self._attempt(lambda run: run.finish(exit_code=code))
        self._attempt(self._note_closed)
        self.run = None

    def _note_closed(self, run: "wandb.Run") -> None:
        if self.record is not None:
            self.record.closed = True
            files.atomic_write(self.out / WandbRecord.file, files.to_json(self.record))

    def _attempt(self, action: Callable[["wandb.Run"], object]) -> None:
        """Call action(run); whatever it raises ends the mirror and not the training."""
        if self.run is None:
            return
        try:
            action(self.run)
        except Exception as error:  # the client raises a dozen unrelated classes
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        text = " ".join(str(error).split()) or type(error).__name__
        log.warning(f"W&B stopped: {text}; the run's own files go on")
        run = self.run
        self.run = None
        if run is None:
            return
        import wandb

        with contextlib.suppress(Exception):  # it may be what failed
            run.finish(exit_code=1)
        with contextlib.suppress(Exception):
            wandb.teardown()
