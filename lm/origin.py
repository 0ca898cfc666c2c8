"""What a run is made from: tokenizer.json, data.json, code.json; and whether it still is.

origin.same_data(out, prepared)         # another corpus or tokenizer is refused
origin.same_code(out, where, number, cfg.train.shard)   # another version or device is told
"""

import json
import logging
from pathlib import Path

import torch

from lm import distributed, pipeline, runtime, store, tokenizers

log = logging.getLogger(__name__)


def same_data(out: Path, prepared: pipeline.Prepared) -> None:
    """Write the run's own tokenizer and data record, or refuse a run that had others."""
    path = out / "tokenizer.json"
    record = out / "data.json"
    if record.exists():
        before = store.read_json(record, {"tokens": {"corpus": str, "tokenizer": str}})
        for what, old, new in (
            ("tokenizer", before["tokens"]["tokenizer"], prepared.tokenizer.fingerprint),
            ("corpus", before["tokens"]["corpus"], prepared.record["tokens"]["corpus"]),
        ):
            if old != new:
                raise ValueError(
                    f"{out} was trained with another {what} ({old[:12]}, now {new[:12]}): "
                    "restore it, or start a new run"
                )
    if record.exists() and _fingerprint(path) != prepared.tokenizer.fingerprint:
        log.warning(f"{path} is not the tokenizer of this run: it is written anew")
    prepared.tokenizer.save(path)
    store.atomic_write(record, json.dumps(prepared.record, indent=1) + "\n")


def _fingerprint(path: Path) -> str:
    try:
        return tokenizers.load(path).fingerprint
    except (ValueError, OSError) as error:
        return str(error)


def same_code(out: Path, where: torch.device, number: torch.dtype, shard: bool) -> None:
    """Write what runs the run, as a patch too; warn of all that was otherwise when it began.

    `exact_resume` in the record then stays false: the bits may differ from those of a run that
    never stopped.
    """
    path = out / "code.json"
    now = runtime.code_version(where, number)
    now |= {"n_proc": distributed.n_proc(), "shard": shard}
    exact = True
    if path.exists():
        before = {"shard": False} | store.read_json(path, dict)  # older runs do not name it
        exact = before.pop("exact_resume", True)
        now |= {key: before[key] for key in ("extended",) if key in before}
        was = {key: before.get(key) for key in now}
        changed = [f"{k} was {was[k]} and is {now[k]}" for k in now if was[k] != now[k]]
        if changed:
            exact = False
            log.warning(f"note: {'; '.join(changed)}: the bits may differ from here on")
    store.atomic_write(path, json.dumps(now | {"exact_resume": exact}, indent=1) + "\n")
    if diff := runtime.code_diff():
        store.atomic_write(out / "code.diff", diff)
    else:
        (out / "code.diff").unlink(missing_ok=True)  # of an earlier start
