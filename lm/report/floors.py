"""The lines that a run's score is measured against: the exact entropy, and counts of its tokens."""

from lm import floors, tokenizers
from lm.report.records import Record


def exact(run: Record) -> dict[str, float]:
    """The entropy of the text's source, where it is known: no model can be below it."""
    floor = run.summary.get("corpus/floor_bpb")
    if floor is None:
        floor = next((y for _, y in run.curve("corpus/floor_bpb", "step")), None)
    return {} if floor is None else {"entropy, exact": floor}


def ladder(run: Record) -> dict[str, float]:
    """val/bpb of counted n-grams on the run's own tokens; empty if its data is gone or too large."""
    path = run.path / "tokenizer.json"
    if run.tokens is None or not path.exists():
        return {}
    return floors.counted(run.tokens, lambda: tokenizers.load(path))
