"""The record of a run: metrics.jsonl, samples.jsonl, summary.json; W&B as their mirror; progress.

    with Tracker(out, cfg, state, group=None) as track:
        track.log(state, {"train/loss": 4.2})
        track.finish(state, summary)

The files are the truth. W&B gets the same numbers; whatever goes wrong there costs one warning
and never a step.
"""

import json
import logging
import math
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from lm import cli, config, store
from lm.checkpoint import TrainState

log = logging.getLogger(__name__)
QUIET = 5.0  # seconds between plain progress lines where there is no terminal


class Tracker:
    """Writes what a run has to say. Points at or after state.step, left by a run that was killed
    after its last checkpoint, are cut off first: the files equal those of a run never stopped."""

    def __init__(
        self,
        out: Path,
        cfg: config.Config,
        state: TrainState,
        progress: Callable[[TrainState], float],
        group: str | None = None,
    ) -> None:
        self.out, self.cfg = out, cfg
        cut_back(out / "metrics.jsonl", state.step)
        cut_back(out / "samples.jsonl", state.step)
        self.metrics = open(out / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115
        self.samples_file = open(out / "samples.jsonl", "a", encoding="utf-8")  # noqa: SIM115
        self.wandb = Mirror(out, cfg, group)
        self.display = Display(progress)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self.display.close()
        self.metrics.close()
        self.samples_file.close()
        self.wandb.close(failed=kind is not None)

    def log(self, state: TrainState, values: Mapping[str, float]) -> None:
        """One point of the curves: a line of metrics.jsonl, and the same to W&B."""
        row = {"step": state.step, "tokens": state.tokens, "seconds": round(state.seconds, 3)}
        row |= {key: number(value) for key, value in values.items()}
        self._append(self.metrics, row)
        self.wandb.log(row)
        self.display.show(state, row)

    def samples(self, state: TrainState, rows: list[dict[str, Any]]) -> None:
        """Texts that the model wrote, one row a prompt."""
        for row in rows:
            self._append(self.samples_file, {"step": state.step, **row})
            text = cli.printable(row["prompt"] + "|" + row["text"])
            self.display.text(f"step {state.step}: {text}")
        self.wandb.samples(state, rows)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, whose presence means that the run is complete."""
        plain = {k: number(v) for k, v in summary.items()}
        store.atomic_write(self.out / "summary.json", json.dumps(plain, indent=1) + "\n")
        self.wandb.summary(plain)

    @staticmethod
    def _append(file: Any, row: dict[str, Any]) -> None:
        file.write(json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n")
        file.flush()


def number(value: Any) -> Any:
    """A value that JSON can hold: NaN and the infinities become their names."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def cut_back(path: Path, step: int) -> None:
    """Drop the rows of `step` and later, and a last line torn by a crash."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not line.endswith("\n") or row["step"] >= step:
            break
        kept.append(line)
    store.atomic_write(path, "".join(kept))


# --------------------------------------------------------------------------------------- W&B


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
        log.info("W&B: no API key here, so offline (wandb login, then wandb sync, uploads it)")
    return "online" if there else "offline"


class Mirror:
    """The W&B run of a run directory. Its first failure is told once; then it stays silent."""

    def __init__(self, out: Path, cfg: config.Config, group: str | None) -> None:
        self.run: Any = None
        self.table: Any = None
        mode = wandb_mode(cfg.track.mode)
        if mode == "off":
            return
        saved = out / "wandb.json"
        known = store.read_json(saved) if saved.exists() else {"id": secrets.token_hex(4)}
        # One folder for all runs, as `wandb sync` and `wandb leet` read a single one.
        home = Path("outputs").absolute()
        home.mkdir(exist_ok=True)
        self.run = self._start(mode, out, cfg, group, known["id"], home)
        if self.run is not None:
            record = {
                "id": self.run.id,
                "mode": "offline" if self.run.settings._offline else "online",
                "path": str(self.run.dir),
                "url": self.run.url,
            }
            store.atomic_write(saved, json.dumps(record, indent=1) + "\n")
            if saved.exists() and known.get("path"):
                log.info(f"W&B: run {self.run.id} goes on")

    def _start(
        self, mode: str, out: Path, cfg: config.Config, group: str | None, uid: str, home: Path
    ) -> Any:
        import wandb

        arguments = {
            "id": uid,
            "resume": "allow",
            "reinit": "finish_previous",  # the default would log a sweep's jobs into one run
            "project": cfg.track.project,
            "entity": cfg.track.entity,
            "dir": str(home),
            "group": group,
            "job_type": "sweep" if group else "train",
            "name": "-".join(filter(None, [cfg.name or cfg.model.name, out.name])),
            "tags": cfg.track.tags,
            "notes": cfg.track.notes,
            "config": config.flat(cfg),
        }
        settings = wandb.Settings(
            silent=True,
            init_timeout=20,
            finish_timeout=60,
            x_transaction_log_flush_interval=2,  # 15 s of points would be lost to a kill
        )
        for attempt in dict.fromkeys([mode, "offline"]):
            try:
                run = wandb.init(mode=attempt, settings=settings, **arguments)
                run.define_metric("tokens")
                run.define_metric("*", step_metric="tokens")
                run.define_metric("val/bpb", step_metric="tokens", summary="min")
                return run
            except Exception as error:  # training goes on whatever W&B raises
                log.warning(f"W&B {attempt} failed: {' '.join(str(error).split())}")
                wandb.teardown()
        return None

    def log(self, row: dict[str, Any]) -> None:
        self._guard(lambda: self.run.log(row))

    def samples(self, state: TrainState, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return

        def send() -> None:
            import wandb

            if self.table is None:
                columns = ["step", *rows[0]]
                self.table = wandb.Table(columns=columns, log_mode="INCREMENTAL")
            for row in rows:
                self.table.add_data(state.step, *row.values())
            self.run.log({"samples": self.table, "step": state.step, "tokens": state.tokens})

        self._guard(send)

    def summary(self, values: dict[str, Any]) -> None:
        self._guard(lambda: self.run.summary.update(values))

    def close(self, failed: bool) -> None:
        self._guard(lambda: self.run.finish(exit_code=1 if failed else 0))
        self.run = None

    def _guard(self, action: Any) -> None:
        if self.run is None:
            return
        try:
            action()
        except Exception as error:  # as above
            log.warning(f"W&B stopped: {' '.join(str(error).split())}; the run's own files go on")
            self.run = None


# ---------------------------------------------------------------------------------- progress


class Display:
    """A live bar on a terminal; a line at each evaluation and every few seconds elsewhere."""

    def __init__(self, progress: Callable[[TrainState], float]) -> None:
        self.progress = progress  # the share of the run that is done
        self.seen: dict[str, float] = {}
        self.last = 0.0
        self.bar: Progress | None = None
        if sys.stdout.isatty():
            self.bar = Progress(
                BarColumn(bar_width=30),
                TaskProgressColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
                console=Console(file=sys.stdout),
            )
            self.task = self.bar.add_task("train", total=1.0, text="")
            self.bar.start()

    def show(self, state: TrainState, row: Mapping[str, Any]) -> None:
        self.seen |= row
        text = "  ".join(
            f"{label} {self.seen[key]:{form}}"
            for key, label, form in (
                ("train/loss", "loss", ".3f"),
                ("val/loss", "val loss", ".3f"),
                ("val/ppl", "ppl", ".1f"),
                ("val/bpb", "bpb", ".4f"),
                ("speed/tokens_per_s", "tok/s", ",.0f"),
            )
            if isinstance(self.seen.get(key), (int, float))
        )
        if self.bar is not None:
            done = self.progress(state)
            self.bar.update(self.task, completed=done, text=f"step {state.step}  {text}")
        elif "val/bpb" in row or time.monotonic() - self.last > QUIET:
            self.last = time.monotonic()
            log.info(f"step {state.step:>6}  {text}")

    def text(self, line: str) -> None:
        log.info(line)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
