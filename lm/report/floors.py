"""What counting alone reaches on a run's data: unigram, bigram, 5-gram, and the exact entropy.

    floors.ladder(record)        # {"unigram counts": 4.79, "bigram counts": 3.51, ...} in val/bpb

A trained model above the n-gram line has learned less than a table of counts holds.
"""

import json
import logging
from pathlib import Path

from lm import config, data, store, tokenizers
from lm.evaluate import evaluate
from lm.models.ngram import Ngram
from lm.report.records import Record

log = logging.getLogger(__name__)
ORDERS = {1: "unigram counts", 2: "bigram counts", 5: "5-gram counts"}
LIMIT = 20_000_000  # training tokens above which counting takes too long for a report
FORM = dict.fromkeys(ORDERS.values(), float)
CONTEXT = 128  # tokens; the n-grams forget at these borders, as models do at theirs


def exact(run: Record) -> dict[str, float]:
    """The entropy of the text's source, where it is known: no model can be below it."""
    floor = run.summary.get("corpus/floor_bpb")
    if floor is None:
        floor = next((y for _, y in run.curve("corpus/floor_bpb", "step")), None)
    return {} if floor is None else {"entropy, exact": floor}


def ladder(run: Record) -> dict[str, float]:
    """val/bpb of counted n-grams on the run's own tokens; empty if its data is gone or too large.

    Counted once a corpus and tokenizer, then read from the cache.
    """
    folder = run.tokens
    if folder is None or not (run.path / "tokenizer.json").exists():
        return {}
    if run.data["tokens"]["splits"]["train"]["n_tokens"] > LIMIT:
        return {}
    key = [folder.name, list(ORDERS), CONTEXT]
    target = store.cache_dir() / f"floors-{store.fingerprint(key)}"

    def make(tmp: Path) -> None:
        tokenizer = tokenizers.load(run.path / "tokenizer.json")
        data.check(folder, tokenizer)
        train, val = data.load(folder, "train"), data.load(folder, "val")
        found = {}
        for order, name in ORDERS.items():
            cfg = config.NgramConfig(order=order, context_len=CONTEXT)
            model = Ngram(cfg, tokenizer.vocab_size)
            model.fit(train)
            found[name] = evaluate(model, val, tokenizer.token_lengths())["bpb"]
        (tmp / "floors.json").write_text(json.dumps(found), encoding="utf-8")

    try:
        store.build_once(target, make, lambda f: store.read_json(f / "floors.json", FORM))
        return store.read_json(target / "floors.json")
    except (ValueError, OSError) as error:  # a report does without
        log.warning(f"{run.path}: no counts of its tokens: {' '.join(str(error).split())}")
        return {}
