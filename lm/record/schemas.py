"""What the JSON files of a run hold, one class a file.

    summary = schemas.read_part(run, schemas.Summary)      # None: the run is not complete
    summary.val_bpb

A file may hold more keys, of older or newer versions. What holds other values is refused by
DamagedError, which names the path of the value.
"""

import json
import os
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec
from msgspec import field

from lm.record.state import TrainState
from lm.system import files, foreign
from lm.system.schemas import Copied, CorpusRecord, Int, Number, TokensRecord


class Summary(msgspec.Struct):
    """summary.json: the end of a complete run. A number that is not finite is written as its name,
    as JSON has no word for it."""

    file: ClassVar[str] = "summary.json"
    val_loss: float = field(name="val/loss")  # nats a token
    val_bpb: float = field(name="val/bpb")
    best_val_bpb: float
    best_step: Int
    step: Int
    tokens: Int
    seconds: float
    n_params: Int
    flops: Number
    val_ppl: float | None = field(name="val/ppl", default=None)
    floor_bpb: float | None = field(name="corpus/floor_bpb", default=None)  # the exact entropy


class DataRecord(msgspec.Struct):
    """data.json: the text and the tokens that a run was trained on."""

    file: ClassVar[str] = "data.json"
    corpus: CorpusRecord
    tokens: TokensRecord
    folder: str = ""  # of the token files
    copied: Copied | None = None  # None: not measured, as before it was, or a split is too short
    times_first: float = 1.0  # the training text in these tokens; more where shards follow it

    @property
    def n_train(self) -> int:
        """Tokens to train on; about, where shards follow."""
        return round(self.tokens.splits.train.n_tokens * self.times_first)


class CodeRecord(msgspec.Struct):
    """code.json: all that may change the bits of a result. Older runs lack a part of it."""

    file: ClassVar[str] = "code.json"
    git_commit: str | None = None
    git_diff_sha256: str | None = None
    python: str | None = None
    platform: str | None = None
    threads: Int | None = None
    device: str | None = None  # type and kind, such as "cpu AVX2"
    dtype: str | None = None  # of the matrix products
    torch: str | None = None
    numpy: str | None = None
    regex: str | None = None
    hydra_core: str | None = field(name="hydra-core", default=None)
    omegaconf: str | None = None
    wandb: str | None = None
    safetensors: str | None = None
    n_proc: Int | None = None
    shard: bool = False
    parts: Int = 0  # of a batch, whose bits do not depend on n_proc; 0: none
    extended: list[Int] = []  # steps at which the run stood when it was given another budget
    exact_resume: bool = True  # false once any of the above has changed between two starts

    def to_json(self) -> str:
        """The text of code.json: `extended` stands only in that of a run that was."""
        values = msgspec.to_builtins(self)
        if not self.extended:
            del values["extended"]
        return json.dumps(values, indent=1)


class CheckpointRecord(msgspec.Struct):
    """state.json of a checkpoint."""

    file: ClassVar[str] = "state.json"
    state: TrainState
    optimizers: list[list[Int]]  # parameters of each group of each optimizer


class WandbRecord(msgspec.Struct):
    """wandb.json: the W&B run of a run directory."""

    file: ClassVar[str] = "wandb.json"
    id: str
    name: str = ""  # that it was given at its start; "": of an older version
    names: Int = 0  # the version of wandb_names by which its curves are called
    mode: str = "offline"
    path: str = ""  # of W&B's own files
    url: str | None = None
    first: Int = 0  # W&B's own counter at the first point of the last start
    closed: bool = False  # whether the last start ended in order
    home: str = ""  # the run's directory then, by which a copy is known; "": of an older version
    inode: Int = 0  # of that directory: moved, it keeps it,
    device: Int = 0  # unless it went to another disk
    host: str = ""


class DoctorFinding(msgspec.Struct):
    """An entry of doctor.json: what one rule says about a run."""

    name: str
    verdict: str  # ok, note, look or failed
    detail: str
    advice: str = ""


class Row(msgspec.Struct):
    """What is known of a row of metrics.jsonl or samples.jsonl, which has more keys."""

    step: Int
    tokens: Int = 0
    seconds: float = 0.0
    prompt: str = ""
    text: str = ""


VALUES = dict[str, Int | float | str | bool | list[Any] | None]  # of a row
_known = msgspec.json.Decoder(Row).decode
_values = msgspec.json.Decoder(VALUES).decode
Part = TypeVar("Part", Summary, DataRecord, CodeRecord)


def read_part(run: Path, kind: type[Part]) -> Part | None:
    """The record of that kind in a run directory, None if it is not there; DamagedError."""
    path = run / kind.file
    return files.read_record(path, kind) if os.path.lexists(path) else None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file but for those that are torn, strange or still being written."""
    if not path.exists():
        return []
    rows = []
    for line in foreign.read_text(path, foreign.MAX_LINES, errors="replace").split("\n"):
        row = _row(line)
        if row is not None:
            rows.append(row)
    return rows


def _row(line: str) -> dict[str, Any] | None:
    """The values of a line, None where it holds no row."""
    try:
        _known(line)
        return _values(line)
    except (ValueError, RecursionError):
        pass
    try:  # more slowly, as JSON has no word for NaN and infinities, which json knows
        row = json.loads(line)
        msgspec.convert(row, Row)
        msgspec.convert(row, VALUES)
    except (ValueError, RecursionError):
        return None
    return row
