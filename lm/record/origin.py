"""What a run is made from: tokenizer.json, data.json, code.json; and whether it still is.

origin.record_data(out, prepared)                  # refuses another corpus or tokenizer
origin.record_code(out, device, dtype, cfg.train)  # warns of another version or device
"""

import hashlib
import logging
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import msgspec
import torch

from lm import tokenizers
from lm.config import TrainConfig
from lm.data import pipeline
from lm.record.schemas import CodeRecord, DataRecord
from lm.system import files, ranks, store

log = logging.getLogger(__name__)


def record_data(out: Path, prepared: pipeline.Prepared) -> None:
    """Write the run's own tokenizer and data.json; ValueError if the run had others before."""
    tokenizer_path = out / "tokenizer.json"
    record_path = out / DataRecord.file
    tokenizer = prepared.tokenizer
    if record_path.exists():
        before = files.read_record(record_path, DataRecord)
        _check_same(out, "tokenizer", before.tokens.tokenizer, tokenizer.fingerprint)
        _check_same(out, "corpus", before.tokens.corpus, prepared.tokens.corpus)
        if prepared.shards is not None:  # the text behind the first part, too
            sources = (before.corpus.source, prepared.corpus.source)
            _check_same(out, "corpus", *map(files.fingerprint, sources))
    is_there = tokenizer_path.exists()
    is_right = is_there and _fingerprint(tokenizer_path) == tokenizer.fingerprint
    if not is_right and (is_there or record_path.exists()):
        log.warning(f"{tokenizer_path} is not the tokenizer of this run: it is written anew")
    if is_there and not is_right:
        store.set_aside(tokenizer_path)
    if not is_right:
        tokenizer.save(tokenizer_path)
    times_first = prepared.shards.times_first() if prepared.shards is not None else 1.0
    folder = str(prepared.folder)
    record = DataRecord(prepared.corpus, prepared.tokens, folder, prepared.copied, times_first)
    files.atomic_write(record_path, files.to_json(record) + "\n")


def _check_same(out: Path, what: str, before: str, now: str) -> None:
    if before != now:
        raise ValueError(
            f"{out} was trained with another {what} ({before[:12]}, now {now[:12]}): "
            "restore it, or start a new run"
        )


def _fingerprint(path: Path) -> str:
    try:
        return tokenizers.load(path).fingerprint
    except (ValueError, OSError) as error:
        return str(error)


def record_code(out: Path, device: torch.device, dtype: torch.dtype, train: TrainConfig) -> None:
    """Write code.json, and code.diff for uncommitted changes; warn of what has changed since.

    `exact_resume` in the record is false from a change on: the bits may differ from those of a
    run that never stopped.
    """
    path = out / CodeRecord.file
    now = code_version(device, dtype)
    now.n_proc = ranks.n_proc()
    now.shard = train.shard
    now.parts = train.parts
    if path.exists():
        before = files.read_record(path, CodeRecord)
        now.extended = before.extended
        now.exact_resume = before.exact_resume
        if changes := _changes(before, now):
            now.exact_resume = False
            log.warning(f"note: {'; '.join(changes)}: the bits may differ from here on")
    files.atomic_write(path, now.to_json() + "\n")
    if diff := code_diff():
        files.atomic_write(out / "code.diff", diff)
    else:
        (out / "code.diff").unlink(missing_ok=True)  # of an earlier start


def _changes(before: CodeRecord, now: CodeRecord) -> list[str]:
    old = msgspec.to_builtins(before)
    new = msgspec.to_builtins(now)
    is_on_cpu = str(now.device).startswith("cpu")
    if is_on_cpu and now.parts and now.parts == before.parts:
        del new["n_proc"]  # another number of processes adds the same parts in the same order
    return [f"{key} was {old[key]} and is {new[key]}" for key in new if old[key] != new[key]]


def code_version(device: torch.device, dtype: torch.dtype) -> CodeRecord:
    """All that may change the bits of a result: code, versions, threads, device, dtype."""
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
    else:
        kind = torch.backends.cpu.get_cpu_capability()
    diff = code_diff()
    return CodeRecord(
        git_commit=_git("rev-parse", "HEAD") or None,
        git_diff_sha256=hashlib.sha256(diff.encode()).hexdigest() if diff else None,
        python=platform.python_version(),
        platform=platform.platform(),
        threads=torch.get_num_threads(),
        device=f"{device.type} {kind}",
        dtype=str(dtype).removeprefix("torch."),
        torch=_version("torch"),
        numpy=_version("numpy"),
        regex=_version("regex"),
        hydra_core=_version("hydra-core"),
        omegaconf=_version("omegaconf"),
        wandb=_version("wandb"),
        safetensors=_version("safetensors"),
    )


def code_diff() -> str:
    """The uncommitted changes of the code, as `git apply` takes them; empty if there are none."""
    diff = _git("diff", "HEAD")
    return diff + "\n" if diff else ""


def _git(*words: str) -> str:
    """What git says in the folder of this code; empty without git."""
    command = ["git", "-C", str(Path(__file__).parent), *words]
    try:
        result = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=10)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
