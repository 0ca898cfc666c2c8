"""The W&B copy of a run. Whatever goes wrong here costs one warning and never a step.

    mirror = Mirror(out, cfg, group=None, written=0)
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lm import config
from lm.models.base import LanguageModel
from lm.record import checkpoint
from lm.record.schemas import DataRecord, WandbRecord
from lm.record.state import TrainState
from lm.system import failpoint, files
from lm.system.errors import Pruned

log = logging.getLogger(__name__)
# Points of the training curve, a second and at first: one costs W&B 0.1 to 3 ms of our time,
# which is much of a step of 1 ms.
RATE, BURST = 2, 30
FILES = (config.RESOLVED, "code.json", "code.diff", "data.json")  # kept with the W&B run


def wandb_mode(requested: str) -> str:
    """online, offline or off. auto is online with a key at hand, else offline; it never asks."""
    mode = requested
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or "online"
        mode = {"dryrun": "offline", "disabled": "off"}.get(mode, mode)
    if mode != "online":
        return mode
    import wandb

    try:
        there = wandb.login(prompt=False, verify=False)
    except Exception:  # a malformed key has its own class in each version
        there = False
    if not there:
        log.info("W&B: no API key here, so offline (wandb login, then make sync, uploads it)")
    return "online" if there else "offline"


class Mirror:
    """The W&B run of a run directory. Its first failure is told once; then it stays silent."""

    def __init__(self, out: Path, cfg: config.Config, group: str | None, written: int) -> None:
        """`written` is the number of points that the run's own files held at the start."""
        self.out, self.cfg = out, cfg
        self.run: Any = None
        self.table: Any = None
        self.seen: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # histograms to send
        self.seen_at: dict[str, int] = {}  # the step and tokens of these
        self.first: int | None = None  # W&B's own counter at the first point, if not 0
        self.held: dict[str, Any] = {}  # the newest point that came too fast
        self.credit, self.asked = float(BURST), time.monotonic()
        if cfg.track.mode == "off":
            return
        try:
            mode = wandb_mode(cfg.track.mode)
            if mode != "off":
                self._open(mode, group, written)
        except Exception as error:  # a broken installation, a full disk: training goes on
            self._give_up(error)

    def _open(self, mode: str, group: str | None, written: int) -> None:
        saved = self.out / WandbRecord.file
        known = files.read_record(saved, WandbRecord) if saved.exists() else None
        if known and not re.fullmatch(r"[\w-]{0,64}", known.id):  # it becomes part of a path
            raise ValueError(f"{saved} has an id that is none: {known.id[:64]!a}")
        # One folder for all runs, as `wandb sync` and `wandb leet` read a single one.
        home = Path("outputs").absolute()
        home.mkdir(exist_ok=True)
        uid = known.id if known and known.id else secrets.token_hex(4)
        if not known:  # before W&B hears of it: a start that is cut short leaves no second run
            files.atomic_write(saved, json.dumps({"id": uid}) + "\n")
        self.run = self._start(mode, uid, group, home)
        if self.run is None:
            return
        if known:
            # W&B drops points whose counter was there before: go on above all that was sent,
            # which is at most a point and its samples for every line of metrics.jsonl.
            self.first = known.first + 2 * written + 2
            log.info(f"W&B: run {self.run.id} goes on")
        offline = self.run.settings._offline
        self.record = WandbRecord(
            self.run.id,
            "offline" if offline else "online",
            str(self.run.dir),
            None if offline else self.run.url,
            self.first or 0,
        )
        files.atomic_write(saved, files.to_json(self.record) + "\n")
        self._guard(self._save_files)
        if known and not known.closed:
            self._guard(self._send_again)

    def _send_again(self) -> None:
        """Log the last points once more: the client of a killed run may have lost up to 2 s."""
        lines = (self.out / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        rows = [json.loads(line) for line in lines]
        for row in rows:
            if row["seconds"] > rows[-1]["seconds"] - 10:
                self.log(row)

    def _start(self, mode: str, uid: str, group: str | None, home: Path) -> Any:
        import wandb

        track = self.cfg.track
        arguments = {
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
            try:
                failpoint.hit("wandb.init")
                run = wandb.init(mode=attempt, settings=settings, **arguments)
                run.define_metric("tokens")
                run.define_metric("*", step_metric="tokens")
                for key in ("val/bpb", "val/loss", "val/ppl"):
                    run.define_metric(key, step_metric="tokens", summary="min")
                return run
            except Exception as error:  # training goes on whatever W&B raises
                log.warning(f"W&B {attempt} failed: {' '.join(str(error).split())}")
                wandb.teardown()  # or the same id would be refused as in use
        return None

    def _save_files(self) -> None:
        for name in FILES:
            if (self.out / name).exists():
                copy = shutil.copy(self.out / name, self.run.dir)
                self.run.save(copy, base_path=self.run.dir, policy="now")

    def log(self, row: dict[str, Any]) -> None:
        """One point; `tokens` in it is the x axis. Of training points faster than RATE the newest
        is sent; metrics.jsonl has them all."""
        if self.run is None:
            return
        now = time.monotonic()
        self.credit, self.asked = min(BURST, self.credit + RATE * (now - self.asked)), now
        if "train/loss" in row:
            self.held = row
            if self.credit < 1:
                return
            self.credit -= 1
        self._send_held()
        if "train/loss" not in row:
            self._send(row)

    def _send_held(self) -> None:
        row, self.held = self.held, {}
        if row:
            self._send(row)

    def _send(self, row: dict[str, Any]) -> None:
        first, self.first = self.first, None
        self._guard(lambda: failpoint.hit("wandb.log"))
        if first is None:
            self._guard(lambda: self.run.log(row))
        else:
            self._guard(lambda: self.run.log(row, step=first, commit=True))

    def watch(self, model: LanguageModel, state: TrainState) -> None:
        """Histograms of weights and their gradients, every `track.histograms` steps; only read."""
        every = self.cfg.track.histograms
        if self.run is None or not every:
            return

        def seen(name: str, parameter: Tensor) -> None:  # after each micro-batch; the last counts
            if state.step % every == 0:
                self._guard(lambda: gather(name, parameter))

        def gather(name: str, parameter: Tensor) -> None:
            if self.seen and self.seen_at["step"] != state.step:
                self.histograms()  # no point was sent in between
            self.seen_at = {"step": state.step, "tokens": state.tokens}
            self.seen[f"gradients/{name}"] = bins(parameter.grad)
            if f"weights/{name}" not in self.seen:  # the same in all micro-batches
                self.seen[f"weights/{name}"] = bins(parameter)

        for name, parameter in model.named_parameters():
            parameter.register_post_accumulate_grad_hook(functools.partial(seen, name))

    def histograms(self) -> None:
        """Send what was gathered since the last point, under its own step."""
        if self.run is None or not self.seen:
            return
        found, self.seen = self.seen, {}

        def send() -> None:
            import wandb

            drawn = {key: wandb.Histogram(np_histogram=value) for key, value in found.items()}
            self.log(drawn | self.seen_at)

        self._guard(send)

    def samples(self, state: TrainState, rows: list[dict[str, Any]]) -> None:
        """Texts that the model wrote: rows added to one table."""
        if not rows:
            return

        def send() -> None:
            import wandb

            if self.table is None:
                columns = ["step", *rows[0]]
                self.table = wandb.Table(columns=columns, log_mode="INCREMENTAL")
            for row in rows:
                self.table.add_data(state.step, *row.values())
            self.log({"samples": self.table, "step": state.step, "tokens": state.tokens})

        self._guard(send)

    def page(self, name: str, path: Path) -> None:
        """An HTML file as a panel."""

        def send() -> None:
            import wandb

            self.run.log({name: wandb.Html(path.read_text(encoding="utf-8"), inject=False)})

        self._guard(send)

    def finish(self, values: dict[str, Any]) -> None:
        """The numbers of a complete run, and what it made, as artifacts."""
        self._send_held()
        self._guard(lambda: self.run.summary.update(values))
        if self.cfg.track.artifacts != "none":
            self._guard(lambda: self._artifacts(values))

    def _artifacts(self, values: dict[str, Any]) -> None:
        """Versioned files, each with what it was made from: corpus, tokenizer, tokens, model."""
        import wandb

        data = files.read_record(self.out / DataRecord.file, DataRecord)
        corpus = f"corpus-{data.tokens.corpus[:12]}"
        tokenizer = f"tokenizer-{data.tokens.tokenizer[:12]}"
        tokens = f"tokens-{Path(data.folder).name.removeprefix('tokens-')}"
        model = f"model-{self.run.id}"
        best = checkpoint.folder(self.out, int(values["best_step"]))
        made = [self.out / "tokenizer.json", self.out / config.RESOLVED]
        parts = [
            (tokenizer, "tokenizer", [self.out / "tokenizer.json"], [corpus]),
            (model, "model", [*best.glob("*"), *made], [tokenizer, tokens]),
        ]
        if self.cfg.track.artifacts == "all":
            parts.insert(0, (corpus, "corpus", [self.out / "data.json"], []))
            folder = sorted(Path(data.folder).glob("*"))
            parts.insert(2, (tokens, "tokens", folder, [corpus, tokenizer]))
        for name, kind, paths, made_from in parts:
            artifact = wandb.Artifact(name, type=kind, metadata={"made_from": made_from})
            for path in filter(Path.is_file, paths):
                # Not copied: an offline run's files must stay where they are until it is synced.
                artifact.add_file(str(path.absolute()), policy="immutable", skip_cache=True)
            if kind == "model":
                self.run.log_artifact(artifact, aliases=["latest", "best"])
            else:
                # An input of the run, for W&B's graph. use_artifact does the same, but it refuses
                # offline runs, and waits without a limit for a server that hangs.
                self.run._log_artifact(
                    artifact, aliases=["latest"], is_user_created=True, use_after_commit=True
                )

    def close(self, error: BaseException | None) -> None:
        """End the W&B run; `error` is what ended training, if anything did."""
        good = error is None or isinstance(error, Pruned)
        self._send_held()
        if isinstance(error, ArithmeticError):
            self._guard(lambda: self.run.alert("training diverged", str(error), level="ERROR"))
        code = 0 if good else getattr(error, "exit_code", getattr(error, "code", 1))
        self._guard(lambda: failpoint.hit("wandb.finish"))
        self._guard(lambda: self.run.finish(exit_code=code))
        self._guard(self._note_closed)
        self.run = None

    def _note_closed(self) -> None:
        self.record.closed = True
        files.atomic_write(self.out / WandbRecord.file, files.to_json(self.record))

    def _guard(self, action: Callable[[], Any]) -> None:
        if self.run is None:
            return
        try:
            action()
        except Exception as error:  # as above
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        text = " ".join(str(error).split()) or type(error).__name__
        log.warning(f"W&B stopped: {text}; the run's own files go on")
        run, self.run = self.run, None
        if run is None:
            return
        import wandb

        for end in (lambda: run.finish(exit_code=1, quiet=True), wandb.teardown):
            with contextlib.suppress(Exception):  # it may be what failed
                end()


def bins(values: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The histogram of a tensor in 64 bins; values that are not finite are left out."""
    plain = values.detach().float().cpu().numpy().ravel()
    return np.histogram(plain[np.isfinite(plain)], bins=64)
