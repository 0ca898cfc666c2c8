"""What several test files share: settings of tiny runs, and how a run's files are read."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lm
from lm.export import card
from lm.export.__main__ import ExportConfig
from lm.export.__main__ import command as export_command
from lm.record import checkpoint, wandb_names

# A claim that something can be done in so many seconds: other work on the machine takes its share
# of a try, so the best of five decides.
timed = pytest.mark.flaky(reruns=4, reruns_delay=1)
ROOT = Path(lm.__file__).parent.parent  # of the repository
TINY = (
    "track=off",
    "train=smoke",
    "tokenizer=byte",
    "optimizer=adamw",  # for every model one rate, optimizer.lr; muon is one of MODELS
    "schedule=cosine",
    "model.context_len=16",
    "train.batch_size=4",
    "train.threads=1",
    "train.dtype=float32",  # the same claims on every machine; bfloat16 has tests of its own
)
TINY_TRANSFORMER = ("model.n_layer=2", "model.n_head=2", "model.n_embd=16")
MODELS = {
    "transformer": TINY_TRANSFORMER,
    "dropout": (*TINY_TRANSFORMER, "model.dropout=0.2"),
    "bfloat16": (*TINY_TRANSFORMER, "train.dtype=bfloat16"),
    "muon": (*TINY_TRANSFORMER, "optimizer=muon"),
    "accumulation": (*TINY_TRANSFORMER, "train.micro_batch=2"),
    "gru": ("model=gru", "model.n_embd=8", "model.n_hidden=8"),
    "mlp": ("model=mlp", "model.n_embd=8", "model.n_hidden=8"),
    "bigram": ("model=bigram",),
}
GPT2 = ("model=gpt2", "model.n_layer=2", "model.n_head=2", "model.n_embd=16")
LLAMA = ("model=llama", "model.n_layer=2", "model.n_head=4", "model.n_embd=32")
BPE = ("tokenizer=bpe", "tokenizer.vocab_size=300")
CLOCK = ("seconds", "speed/tokens_per_s")  # columns that differ from run to run
DATA = os.environ.get("LM_DATA_DIR")
needs_data = pytest.mark.skipif(not DATA, reason="LM_DATA_DIR is not set: no shakespeare.txt")


class Killed(BaseException):
    """Stands for the end of the process at any moment."""


def no_locks(*_: object, **__: object) -> None:
    """Stands for FileLock.acquire on a file system that has no locks."""
    raise OSError(errno.ENOLCK, "No locks available")


def rows(out: Path, name: str = "metrics.jsonl") -> list[dict]:
    """The rows of a run's file, without the columns that a clock fills."""
    lines = (out / name).read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCK} for line in lines]


def assert_same_run(a: Path, b: Path, step: int = 20) -> None:
    """Metrics, samples, weights and optimizer state of two runs are the same to the last bit."""
    assert rows(a) == rows(b)
    assert rows(a, "samples.jsonl") == rows(b, "samples.jsonl")
    for name in ("model.safetensors", "optimizer.safetensors"):
        one, other = (checkpoint.folder(out, step) / name for out in (a, b))
        assert one.read_bytes() == other.read_bytes(), name


def start(module: str, *words: str, **options) -> subprocess.Popen:
    """A command under way in the current directory; `env` adds to the environment."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-m", module, *words], env=env, **silent | options)


def inspected(folder: Path) -> list[dict]:
    """Every record that W&B's client wrote into a folder, read back by its own reader."""
    from wandb.util import get_core_path  # `wandb leet inspect` takes a second to come to it

    (file,) = folder.glob("*.wandb")
    words = [get_core_path(), "leet", "inspect", "--no-observability", "--json"]
    words += ["--run-file", str(file), str(folder.parent)]
    found = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def offline_runs() -> list[Path]:
    """The folders of the W&B runs that are not uploaded yet, oldest first."""
    return sorted(Path("outputs/wandb").glob("offline-run-*"))


def export(run: Path, out: Path, kind: str = "hf") -> Path:
    """Export a run as the command does; `out` comes back."""
    export_command(ExportConfig(run=str(run), format=kind, out=str(out)))
    return out


def tiktoken_of_card(folder: Path):
    """The tiktoken.Encoding that the code in a model card makes of an export."""
    names = {}
    exec(card.USES["tiktoken"].format(name=folder), names)
    return names["encoding"]


def mirrored(rows: list[dict]) -> list[dict]:
    """W&B's rows without its own columns and without the tables of samples."""
    plain = [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows]
    return [row for row in plain if not any(k.startswith("texts") for k in row)]


def as_plotted(rows: list[dict]) -> list[dict]:
    """Rows of metrics.jsonl as W&B should have them."""
    return [wandb_names.split(row)[0] for row in rows]


def history(folder: Path) -> list[dict]:
    records = inspected(folder)
    return mirrored([r["history"]["item"] for r in records if r["type"] == "history"])
