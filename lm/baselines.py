"""What counting alone reaches on a text: unigrams, bigrams and 5-grams, in bits per byte.

    baselines.points(folder, tokenizer)
    # {"baseline/unigram_bpb": 3.35, "baseline/bigram_bpb": 2.52, "baseline/ngram_bpb": 1.57}

A trained model above the 5-gram line has learned less than a table of counts holds.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from lm import config, metrics
from lm.data import token_files
from lm.data.batches import windows
from lm.models.ngram import Ngram
from lm.system import files, store
from lm.system.errors import DamagedError
from lm.system.schemas import TokensRecord
from lm.tokenizers.base import Tokenizer

log = logging.getLogger(__name__)
NAMES = {1: "unigram counts", 2: "bigram counts", 5: "5-gram counts"}  # by the order of the n-grams
METRICS = {
    "unigram counts": "baseline/unigram_bpb",
    "bigram counts": "baseline/bigram_bpb",
    "5-gram counts": "baseline/ngram_bpb",
}
FILE = "floors.json"  # the name that older caches have, as the folder's
LIMIT = 20_000_000  # training tokens above which counting takes too long for a report
LIMIT_AT_START = 4_000_000  # and above which it would keep a run waiting for more than a moment
TENTHS = 10
FEWEST = 200  # tokens in a tenth and in val, below which chance decides
UNLIKE = 1.25  # times what a tenth of the training text costs; tails of one kind stay below 1.1
CONTEXT = 128  # tokens; the n-grams forget at these borders, as models do at theirs


def points(folder: Path, tokenizer: Tokenizer) -> dict[str, float]:
    """The baselines as a run logs them beside its val/bpb, by metric; empty for a large text."""
    found = counted(folder, lambda: tokenizer, LIMIT_AT_START)
    if found:
        log.info(f"{'counts':<10} {'5-gram':<12} {found[NAMES[5]]:.4f} bits per byte to beat")
    return {METRICS[name]: bpb for name, bpb in found.items()}


def counted(
    folder: Path, load_tokenizer: Callable[[], Tokenizer], limit: int = LIMIT
) -> dict[str, float]:
    """val/bpb of counted n-grams on a folder of tokens, by name.

    Counted once for each corpus and tokenizer, then read from the cache. Empty if there are more
    than `limit` training tokens, or if they cannot be read, which is logged.
    """
    key = [folder.name, list(NAMES), CONTEXT]
    cached = files.cache_dir() / f"floors-{files.fingerprint(key)}"

    def count_all(tmp: Path) -> None:
        tokenizer = load_tokenizer()
        token_files.check(folder, tokenizer)
        train = token_files.load(folder, "train")
        val = token_files.load(folder, "val")
        found = {name: count(order, train, val, tokenizer) for order, name in NAMES.items()}
        (tmp / FILE).write_text(json.dumps(found), encoding="utf-8")

    try:
        tokens = files.read_record(folder / token_files.RECORD, TokensRecord)
        if tokens.splits.train.n_tokens > limit:
            return {}
        store.build_once(cached, count_all, _read)
        return _read(cached)
    except (ValueError, OSError) as error:  # runs and reports do without
        log.warning(f"{folder}: its tokens are not counted: {' '.join(str(error).split())}")
        return {}


def _read(folder: Path) -> dict[str, float]:
    path = folder / FILE
    found = files.read_record(path, dict[str, float])
    missing = METRICS.keys() - found.keys()
    if missing:
        raise DamagedError(f"{path} is not what was written: no {min(missing)}")
    return {name: found[name] for name in METRICS}


@torch.inference_mode()
def count(order: int, train: np.ndarray, val: np.ndarray, tokenizer: Tokenizer) -> float:
    """Bits per byte of the ids `val` (n,) under n-grams counted on the ids `train` (m,).

    Rounded to six places: beyond these the number of threads would tell.
    """
    model = Ngram(config.NgramConfig(order=order, context_len=CONTEXT), tokenizer.vocab_size)
    model.fit(train)
    token_lengths = torch.from_numpy(tokenizer.token_lengths())  # (V,) bytes
    nats = 0.0
    n_bytes = 0
    for x, y in windows(val, 256, CONTEXT):
        lengths = token_lengths[y.clamp(min=0)] * (y != metrics.IGNORE)  # (B, T)
        nats += model.nats(x, y)[lengths > 0].double().sum().item()
        n_bytes += int(lengths.sum())
    return round(metrics.bits_per_byte(nats, n_bytes), 6)


def warn_if_unlike(train: np.ndarray, val: np.ndarray, tokenizer: Tokenizer) -> None:
    """A line where the end of a text, which validates, is unlike the text before it."""
    found = unlike(train, val, tokenizer.token_lengths())
    if found:
        log.warning(
            f"{'val':<10} {'unlike train':<12} {found[0]:.2f} bits per byte by the unigram counts "
            f"of train, whose own tenths cost up to {found[1]:.2f}: val/bpb tells of another kind "
            "of text; of several files each validates with its end"
        )


def unlike(train: np.ndarray, val: np.ndarray, lengths: np.ndarray) -> tuple[float, float] | None:
    """Whether `val` (n,) is another kind of text than `train` (m,), by unigram counts.

    If so, the bits per byte of `val` under the counts of `train`, and those of the tenth of `train`
    that costs the second most under the counts of the others; None if they are alike, or too short
    to tell. `lengths` (V,) are the bytes of each token. One tenth may be odd: the text of another
    kind may begin in it.
    """
    if min(len(val), len(train) // TENTHS) < FEWEST:
        return None
    tenths = [np.bincount(ids, minlength=len(lengths)) for ids in np.array_split(train, TENTHS)]
    counts = np.sum(tenths, axis=0)
    usual = sorted(_unigram_bpb(tenth, counts - tenth, lengths) for tenth in tenths)[-2]
    found = _unigram_bpb(np.bincount(val, minlength=len(lengths)), counts, lengths)
    return (found, usual) if found > UNLIKE * usual else None


def _unigram_bpb(tokens: np.ndarray, counts: np.ndarray, lengths: np.ndarray) -> float:
    """Bits per byte of so many of each token (V,), with half an occurrence added to the counts."""
    bits = -np.log2((counts + 0.5) / (counts.sum() + 0.5 * len(counts)))
    return float(tokens @ bits / max(1, tokens @ lengths))
