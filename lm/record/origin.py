"""What a run is made from: tokenizer.json, data.json, code.json; and whether it still is.

origin.same_data(out, prepared)         # another corpus or tokenizer is refused
origin.same_code(out, where, number, cfg.train.shard)   # another version or device is told
"""

import hashlib
import importlib
import logging
import platform
import subprocess
from pathlib import Path

import msgspec
import torch

from lm import pipeline, tokenizers
from lm.record.schemas import CodeRecord, DataRecord
from lm.system import files, ranks

log = logging.getLogger(__name__)


def record_data(out: Path, prepared: pipeline.Prepared) -> None:
    """Write the run's own tokenizer and data record, or refuse a run that had others."""
    path = out / "tokenizer.json"
    record = out / "data.json"
    if record.exists():
        before = files.read_record(record, DataRecord)
        for what, old, new in (
            ("tokenizer", before.tokens.tokenizer, prepared.tokenizer.fingerprint),
            ("corpus", before.tokens.corpus, prepared.tokens.corpus),
        ):
            if old != new:
                raise ValueError(
                    f"{out} was trained with another {what} ({old[:12]}, now {new[:12]}): "
                    "restore it, or start a new run"
                )
    if record.exists() and _fingerprint(path) != prepared.tokenizer.fingerprint:
        log.warning(f"{path} is not the tokenizer of this run: it is written anew")
    prepared.tokenizer.save(path)
    now = DataRecord(prepared.corpus, prepared.tokens, str(prepared.folder))
    files.atomic_write(record, files.to_json(now) + "\n")


def _fingerprint(path: Path) -> str:
    try:
        return tokenizers.load(path).fingerprint
    except (ValueError, OSError) as error:
        return str(error)


def record_code(out: Path, where: torch.device, number: torch.dtype, shard: bool) -> None:
    """Write what runs the run, as a patch too; warn of all that was otherwise when it began.

    `exact_resume` in the record then stays false: the bits may differ from those of a run that
    never stopped.
    """
    path = out / "code.json"
    now = code_version(where, number)
    now.n_proc = ranks.n_proc()
    now.shard = shard
    if path.exists():
        before = files.read_record(path, CodeRecord)
        now.extended = before.extended
        now.exact_resume = before.exact_resume
        if changed := _changes(msgspec.to_builtins(before), msgspec.to_builtins(now)):
            now.exact_resume = False
            log.warning(f"note: {'; '.join(changed)}: the bits may differ from here on")
    files.atomic_write(path, now.to_json() + "\n")
    if diff := code_diff():
        files.atomic_write(out / "code.diff", diff)
    else:
        (out / "code.diff").unlink(missing_ok=True)  # of an earlier start


def _changes(before: dict[str, object], now: dict[str, object]) -> list[str]:
    return [f"{k} was {before[k]} and is {now[k]}" for k in now if before[k] != now[k]]


PACKAGES = ("torch", "numpy", "regex", "hydra-core", "omegaconf", "wandb", "safetensors")


def code_version(where: torch.device, number: torch.dtype) -> CodeRecord:
    """All that may change the bits of a result: code, versions, threads, device, number type."""
    kind = torch.backends.cpu.get_cpu_capability()
    if where.type == "cuda":
        kind = torch.cuda.get_device_name(where)
    here = Path(__file__).parent
    commit = _git(here, "rev-parse", "HEAD")
    diff = code_diff()
    return CodeRecord(
        git_commit=commit or None,
        git_diff_sha256=hashlib.sha256(diff.encode()).hexdigest() if diff else None,
        python=platform.python_version(),
        platform=platform.platform(),
        threads=torch.get_num_threads(),
        device=f"{where.type} {kind}",
        dtype=str(number).removeprefix("torch."),
        **{name.replace("-", "_"): _version(name) for name in PACKAGES},
    )


def code_diff() -> str:
    """The uncommitted changes of the code, as `git apply` takes them; empty if there are none."""
    diff = _git(Path(__file__).parent, "diff", "HEAD")
    return diff + "\n" if diff else ""


def _git(folder: Path, *words: str) -> str:
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""  # no git: the record says null
    return result.stdout.strip() if result.returncode == 0 else ""


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
