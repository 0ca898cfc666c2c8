"""What counting alone reaches on a text: unigrams, bigrams and 5-grams, in bits per byte.

    floors.points(folder, tokenizer)   # {"floor/unigram_bpb": 3.35, ..., "floor/ngram_bpb": 1.57}

A trained model above the 5-gram line has learned less than a table of counts holds.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lm import config, data, metrics
from lm.models.ngram import Ngram
from lm.system import files, store
from lm.system.errors import DamagedError
from lm.system.schemas import TokensRecord

log = logging.getLogger(__name__)
ORDERS = {1: "unigram counts", 2: "bigram counts", 5: "5-gram counts"}
KEYS = ("floor/unigram_bpb", "floor/bigram_bpb", "floor/ngram_bpb")  # the same, of a run's points
LIMIT = 20_000_000  # training tokens above which counting takes too long for a report
AT_START = 4_000_000  # and above which they would keep a run waiting for more than a few seconds
CONTEXT = 128  # tokens; the n-grams forget at these borders, as models do at theirs


def counted(folder: Path, load: Callable[[], Any], limit: int = LIMIT) -> dict[str, float]:
    """val/bpb of counted n-grams on a folder of tokens; empty if there are more than `limit`.

    Counted once a corpus and tokenizer, which `load` gives, then read from the cache.
    """
    key = [folder.name, list(ORDERS), CONTEXT]
    target = files.cache_dir() / f"floors-{files.fingerprint(key)}"

    def make(tmp: Path) -> None:
        tokenizer = load()
        data.check(folder, tokenizer)
        train, val = data.load(folder, "train"), data.load(folder, "val")
        found = {name: count(order, train, val, tokenizer) for order, name in ORDERS.items()}
        (tmp / "floors.json").write_text(json.dumps(found), encoding="utf-8")

    try:
        about = files.read_record(folder / data.RECORD, TokensRecord)
        if about.splits.train.n_tokens > limit:
            return {}
        store.build_once(target, make, _read)
        return _read(target)
    except (ValueError, OSError) as error:  # runs and reports do without
        log.warning(f"{folder}: its tokens are not counted: {' '.join(str(error).split())}")
        return {}


def _read(folder: Path) -> dict[str, float]:
    path = folder / "floors.json"
    found = files.read_record(path, dict[str, float])
    if lacking := set(ORDERS.values()) - found.keys():
        raise DamagedError(f"{path} is not what was written: no {min(lacking)}")
    return found


@torch.inference_mode()
def count(order: int, train: np.ndarray, val: np.ndarray, tokenizer: Any) -> float:
    """Bits per byte of `val` (n,) under the counts of `train`, to six places: beyond these the
    number of threads would tell."""
    model = Ngram(config.NgramConfig(order=order, context_len=CONTEXT), tokenizer.vocab_size)
    model.fit(train)
    lengths = torch.from_numpy(tokenizer.token_lengths())  # (V,) bytes
    nats, n_bytes = 0.0, 0
    for x, y in data.windows(val, 256, CONTEXT):
        size = lengths[y.clamp(min=0)] * (y != metrics.IGNORE)  # (B, T)
        nats += model.nats(x, y)[size > 0].double().sum().item()
        n_bytes += int(size.sum())
    return round(metrics.bits_per_byte(nats, n_bytes), 6)


def points(folder: Path, tokenizer: Any) -> dict[str, float]:
    """The same as a run logs it beside its own val/bpb."""
    found = counted(folder, lambda: tokenizer, AT_START)
    if found:
        log.info(f"{'counts':<10} {'5-gram':<12} {found[ORDERS[5]]:.4f} bits per byte to beat")
    return {key: found[name] for key, name in zip(KEYS, ORDERS.values(), strict=True) if found}
