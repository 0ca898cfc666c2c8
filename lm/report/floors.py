"""The lines that a run's score is measured against: the exact entropy, and counts of its tokens."""

import math
from collections.abc import Sequence

from lm import baselines, tokenizers
from lm.report.records import Record


def exact(run: Record) -> dict[str, float]:
    """The entropy of the text's source, where it is known: no model can be below it."""
    logged = [y for _, y in run.curve("corpus/floor_bpb", "step")]
    end = run.summary.floor_bpb if run.summary else None
    known = [y for y in (end, *logged) if y is not None and math.isfinite(y)]
    return {"entropy, exact": known[0]} if known else {}


def lowest(runs: Sequence[Record]) -> dict[str, float]:
    """Of each order of counts the lowest val/bpb, over the tokenizers of these runs on one text."""
    kinds = {r.tokenizer: r for r in runs if r.data}
    best: dict[str, tuple[float, str]] = {}
    for run in kinds.values():
        which = f"{run.settings.get('tokenizer.name')} {run.data.tokens.vocab_size}"
        for name, value in ladder(run).items():
            best[name] = min(best.get(name, (math.inf, "")), (value, which))
    return {f"{k}, {w}" if len(kinds) > 1 else k: v for k, (v, w) in best.items()}


def ladder(run: Record) -> dict[str, float]:
    """val/bpb of counted n-grams on the run's own tokens; empty if these are gone or too many."""
    path = run.path / "tokenizer.json"
    if run.tokens is None or not path.exists():
        return {}
    return baselines.counted(run.tokens, lambda: tokenizers.load(path))
