"""The W&B copy of a run. Whatever goes wrong there costs a warning, never a step or an hour.

    mirror = Mirror(out, cfg, group=None, n_points=0, name="gru lr=0.003")
    mirror.log({"step": 10, "tokens": 40960, "train/loss": 2.3})
    mirror.close(None)

Online, offline or off: track.mode. An offline run is uploaded later by `wandb sync`.

No call but `close` waits for W&B, and that for track.finish_timeout seconds at most.
"""

import contextlib
import functools
import gc
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from lm import config
from lm.models.base import LanguageModel
from lm.record import (
    wandb_alerts,
    wandb_artifact,
    wandb_client,
    wandb_files,
    wandb_init,
    wandb_names,
    wandb_record,
    wandb_registry,
)
from lm.record.schemas import WandbRecord
from lm.record.state import TrainState
from lm.record.wandb_alerts import Alert
from lm.record.wandb_histograms import Histograms, for_wandb
from lm.record.wandb_mode import requested_mode, wandb_mode
from lm.record.wandb_sender import Sender
from lm.system import failpoint, files, foreign
from lm.system.errors import Pruned

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)
# Points of the training curve, a second and at first: one costs W&B 0.1 to 3 ms of our time,
# which is much of a step of 1 ms.
RATE = 2
BURST = 30
MOST_WAITING = 1000  # points for a client that does not take them
SWEEP_ID = "WANDB_SWEEP_ID"  # in the environment of a run that an agent of W&B started
RESENT_SECONDS = 10  # of training: the client of a killed run may have lost its last points
OFFLINE_THEN = "; offline then, and make sync uploads it"
NOTE = "From lm, at the end of the run:"  # a line of the notes that people may write above
Point = Mapping[str, object]


class Mirror:
    """The W&B run of a run directory."""

    def __init__(
        self, out: Path, cfg: config.Config, group: str | None, n_points: int, name: str
    ) -> None:
        """`n_points` is the number of points that the run's own files held at the start."""
        self.out = out
        self.cfg = cfg
        self.group = group
        self.sender: Sender | None = None  # None: W&B is not used
        self.mode = "off"  # which the run was opened in, or is being opened
        self.is_over = False  # the run has ended, and what goes wrong is told at the end
        self.fault = ""  # why it is not online though it should be
        self.table: wandb.Table | None = None  # of samples
        self.histograms = Histograms()
        self.told: dict[str, float] = {}  # when there was an alert of this title
        self.facts: dict[str, object] = {}  # numbers that are no curves
        self.pending: Point | None = None  # the newest point that came too fast
        self.credit = float(BURST)  # points that may be sent at once
        self.credit_time = time.monotonic()
        if cfg.track.mode == "off" or requested_mode(cfg.track.mode) == "off":
            return
        try:
            self.record, saved = wandb_record.begin(out)
            lost: list[Point] = []
            if saved is not None and not saved.closed:
                # Before a server answers, or is given up, nothing is sent.
                seconds = RESENT_SECONDS + cfg.track.init_timeout
                lost = wandb_files.last_points(out / "metrics.jsonl", seconds)
        except Exception as error:  # a full disk, a damaged wandb.json: training goes on
            text = wandb_client.in_one_line(error)
            log.warning(f"W&B stopped: {text}; the run's own files go on")
            return
        arguments, line = wandb_init.init_arguments(cfg, group, name)
        if line:
            log.info(f"W&B: {line}")
        if saved is None:
            self.record.name = str(arguments["name"])
        elif not cfg.track.name:
            # It has one, by now maybe another in W&B; without any it would get the variable's.
            has_variable = bool(os.environ.get("WANDB_NAME"))
            arguments["name"] = (saved.name or None) if has_variable else None
        with contextlib.suppress(Exception):  # the sender's thread meets it again, and tells it
            wandb_client.load()
        # All that the client allocates sets off collections, in which training stands still: of
        # everything that is there, for 0.1 s. So that is looked at once more, and then at the end.
        gc.collect()
        gc.freeze()
        self.sender = Sender(lambda: self._open(arguments, saved, n_points), self._stop_asking)
        self.sender.send(lambda run: wandb_files.copy_all(run, out, cfg))
        for row in lost:
            self.sender.send(functools.partial(self._send, row))

    # ------------------------------------------------------------------------------- opening

    def _open(
        self, arguments: dict[str, object], saved: WandbRecord | None, n_points: int
    ) -> "wandb.Run":
        """The open run: that of the `saved` last start, or a new one."""
        self.mode = wandb_mode(self.cfg.track.mode)
        # One folder for all runs, as `wandb sync` and `wandb leet` read a single one.
        home = Path("outputs").absolute()
        files.make_folder(home)
        arguments |= {"id": self.record.id, "resume": "allow", "dir": str(home)}
        if SWEEP_ID in os.environ:  # an agent of W&B names the run itself
            arguments |= {"id": None, "group": None, "resume": None}
        if self.mode == "offline" and arguments["name"] is None:
            arguments["name"] = self.record.name or None
        track = self.cfg.track
        run, self.fault = wandb_client.open_run(
            self.mode, arguments, track.init_timeout, track.finish_timeout
        )
        if self.fault and not self.is_over:
            log.warning(f"W&B {self.fault}{OFFLINE_THEN}")
            self.fault = ""
        first = 0
        if saved is not None:
            # W&B drops points whose counter was there before: go on above all that was sent,
            # which is at most a point and its samples for every line of metrics.jsonl.
            first = self.record.first + 2 * n_points + 2
            run.log({}, step=first)
            self._tell_place(run, saved.url)
        self.record.id = run.id
        self.record.mode = "offline" if run.offline else "online"
        self.record.path = str(run.dir)
        self.record.url = None if run.offline else run.url
        self.record.first = first
        wandb_record.write(self.out, self.record)
        if not self.is_over:
            # What the client's import has made stays: a collection that looks at it stops training
            # for 30 ms, and where processors are few for 0.2 s.
            gc.freeze()
        return run

    def _tell_place(self, run: "wandb.Run", earlier_url: str | None) -> None:
        """Log that the run goes on, and where if that is another place of W&B than before."""
        log.info(f"W&B: run {run.id} goes on")
        if run.offline or not run.url or not earlier_url:
            return
        before, now = ["/".join(wandb_registry.place(url)[:2]) for url in (earlier_url, run.url)]
        if before != now:
            log.warning(
                f"W&B: it goes on in {now}, and its points until now are in {before}: "
                "WANDB_PROJECT and WANDB_ENTITY, or track.project and track.entity, were others"
            )

    def _stop_asking(self) -> None:
        """Have a run opened offline while a server does not answer."""
        self.is_over = True
        if self.mode == "online":
            wandb_client.kill()

    # ------------------------------------------------------------------------------- logging

    def log(self, point: Point) -> None:
        """Send one point; `tokens` in it is the x axis.

        Of training points that come faster than RATE the newest is sent; metrics.jsonl has all.
        """
        if self.sender is None:
            return
        self.alert(wandb_alerts.of_point(point))
        now = time.monotonic()
        self.credit = min(BURST, self.credit + RATE * (now - self.credit_time))
        self.credit_time = now
        if "train/loss" not in point:
            self._send_pending(self.sender)
            self.sender.send(functools.partial(self._send, point))
            return
        self.pending = point
        if self.credit >= 1 and self.sender.n_waiting() < MOST_WAITING:
            self.credit -= 1
            self._send_pending(self.sender)

    def _send(self, point: Point, run: "wandb.Run") -> None:
        failpoint.hit("wandb.log")
        plotted = dict(point)
        if self.record.names:
            plotted, facts = wandb_names.split(point)
            constants = {key: facts[key] for key in facts if key != "epoch"}
            if constants.items() - self.facts.items():
                run.config.update(constants, allow_val_change=True)
            self.facts |= facts
        if SWEEP_ID in os.environ and "val/bpb" in point:  # what such a sweep is told to lower
            plotted["val/bpb"] = point["val/bpb"]
        run.log(for_wandb(plotted))

    def _name(self, key: str) -> str:
        """What W&B calls a metric, a table or a page of this run."""
        return wandb_names.name(key) if self.record.names else key

    def _send_pending(self, sender: Sender) -> None:
        if self.pending is not None:
            sender.send(functools.partial(self._send, self.pending))
        self.pending = None

    def alert(self, alert: Alert | None) -> None:
        """Have W&B tell whoever wants to be told; of many alerts of one title the first."""
        if self.sender is None or alert is None:
            return
        now = time.monotonic()
        if now - self.told.get(alert.title, -math.inf) > wandb_alerts.SPACING:
            self.told[alert.title] = now
            self.sender.send(lambda run: run.alert(alert.title, alert.text, level=alert.level))

    def note(self, text: str) -> None:
        """Put a text under the notes that the run has, in place of an earlier one."""

        def send(run: "wandb.Run") -> None:
            own = (run.notes or "").partition(NOTE)[0].rstrip()
            run.notes = f"{own}\n\n{NOTE}\n{text}".lstrip()

        if self.sender is not None:
            self.sender.send(send)

    def watch(self, model: LanguageModel, state: TrainState) -> None:
        """Gather histograms of weights and gradients every `track.histograms` steps."""
        every = self.cfg.track.histograms
        sender = self.sender
        if sender is None or not every:
            return

        def after_backward(name: str, parameter: Tensor) -> None:
            if state.step % every == 0 and not sender.is_off:
                try:
                    self._gather(name, parameter, state)
                except Exception as error:  # as of numbers that are too large
                    sender.give_up(error)

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
            self.log(self.histograms.take())

    def samples(self, state: TrainState, rows: Sequence[Mapping[str, object]]) -> None:
        """Add texts that the model wrote to one table, a row each."""
        if self.sender is None or not rows:
            return
        step, tokens = state.step, state.tokens

        def send(run: "wandb.Run") -> None:
            import wandb

            if self.table is None:
                columns: list[str | int] = ["step", *rows[0]]
                self.table = wandb.Table(columns=columns, log_mode="INCREMENTAL")
            for row in rows:
                self.table.add_data(step, *row.values())
            run.log({self._name("samples"): self.table, "step": step, "tokens": tokens})

        self.sender.send_slowly("the samples", send)

    def page(self, name: str, path: Path) -> None:
        """Show an HTML file as a panel."""

        def send(run: "wandb.Run") -> None:
            import wandb

            run.log({self._name(name): wandb.Html(foreign.read_text(path), inject=False)})

        if self.sender is not None:
            self.sender.send_slowly(path.name, send)

    # -------------------------------------------------------------------------------- ending

    def finish(self, summary: Mapping[str, object], best_step: int) -> None:
        """Send the numbers of a complete run, and what it made, as artifacts."""
        if self.sender is None:
            return
        self._send_pending(self.sender)
        metrics = self.out / "metrics.jsonl"
        totals = {key: summary[key] for key in summary if key not in wandb_client.LOWEST}
        least = {self._name(key): value for key, value in wandb_files.lowest(metrics).items()}
        self.sender.send(lambda run: run.summary.update(totals | least))
        kept = self.cfg.track.artifacts
        if kept != "none":
            everything = kept == "all"
            # Of a sweep the best model alone is linked: see wandb_sweep.
            is_arm = self.group is not None or SWEEP_ID in os.environ
            registry = "" if is_arm else self.cfg.track.registry
            self.sender.send_slowly(
                "the artifacts",
                lambda run: wandb_artifact.upload(run, self.out, best_step, everything, registry),
            )

    def close(self, error: BaseException | None) -> None:
        """End the W&B run; `error` is what ended training, if anything did.

        Waits for W&B for track.finish_timeout seconds at most.
        """
        sender = self.sender
        if sender is None:
            return
        self._send_pending(sender)
        self.alert(wandb_alerts.of_error(error))
        sender.send(lambda run: self.facts and run.summary.update(self.facts))
        code = 0
        if error is not None and not isinstance(error, Pruned):
            code = getattr(error, "exit_code", getattr(error, "code", 1))
        timeout = self.cfg.track.finish_timeout
        if sender.end(code, timeout):
            self.record.closed = True
            if error is None and self.group is None and self.record.url:
                log.info(f"W&B: {self.record.url}; {wandb_registry.view_command(self.record.url)}")
            with contextlib.suppress(OSError):  # a full disk: the next start sends its end again
                wandb_record.write(self.out, self.record)
            if self.fault:
                log.warning(f"W&B {self.fault}{OFFLINE_THEN}")
        elif not sender.has_failed:
            rest = "the run's own files have all"
            if self.record.mode == "online":
                with contextlib.suppress(OSError):
                    (Path(self.record.path).parent / wandb_client.CUT_OFF).touch()
                    rest = "make sync uploads the rest"
            log.warning(f"W&B did not take all in track.finish_timeout={timeout} seconds: {rest}")
        self.sender = None
        gc.unfreeze()
