"""All that the report's page shows, computed from run directories as plain values.

view = board.view(records.find([Path("outputs")]), by=[])
"""

import json
import math
import statistics
from collections.abc import Sequence
from typing import Any

from lm.report import floors, records
from lm.report.records import Arm, Record
from lm.sweep import ranking as folding

POINTS = 120  # of a curve, at most
SAMPLES = 12  # steps of a run whose samples are shown, at most
TEXT = 600  # characters of a sample
COLUMNS = ("train.steps", "train.tokens", "train.seconds")
ABOUT_PPL = (
    "Perplexity is left out: these runs cut the text into tokens in {n} different ways, and a "
    "perplexity counts per token. Fewer, longer tokens give a higher one for the same model of the "
    "text. Bits per byte counts the same bytes for all."
)


def view(runs: Sequence[Record], by: Sequence[str], counts: bool = True) -> dict[str, Any]:
    """The page's data: corpora with their arms, best first; runs; settings that were varied."""
    groups: dict[str, list[Arm]] = {}
    for arm in records.arms(runs, by):
        groups.setdefault(arm.runs[0].corpus, []).append(arm)
    corpora, shown = [], []
    for fingerprint, arms in sorted(groups.items(), key=lambda g: -len(g[1])):
        arms.sort(key=rank)
        members = [run for arm in arms for run in arm.runs]
        first = len(shown)
        index = {id(run): first + i for i, run in enumerate(members)}
        corpora.append(corpus_view(fingerprint, arms, members, index, counts))
        shown += members
    return {
        "corpora": corpora,
        "runs": [run_view(run) for run in shown],
        "shared": shared(shown),
        "counts": {s: sum(r.status == s for r in shown) for s in sorted({r.status for r in shown})},
    }


def rank(arm: Arm) -> tuple[bool, float]:
    """Complete arms by their mean, then the others by what they have reached."""
    if arm.mean is not None:
        return False, arm.mean
    return True, min((r.score for r in arm.runs if r.score is not None), default=math.inf)


def corpus_view(
    fingerprint: str, arms: list[Arm], members: list[Record], index: dict[int, int], counts: bool
) -> dict[str, Any]:
    """The arms of one text, what to measure them against, and which settings made a difference."""
    first = members[0]
    tokenizers = {run.tokenizer for run in members}
    levels = dict(floors.exact(first))
    if counts:
        levels |= floors.lowest(members)
    scored = [run for arm in arms for run in arm.done]
    return {
        "id": fingerprint,
        "name": first.corpus_name,
        "n_bytes": first.data.tokens.splits.val.n_bytes if first.data else None,
        "floors": levels,
        "ppl": len(tokenizers) == 1,
        "note": "" if len(tokenizers) == 1 else ABOUT_PPL.format(n=len(tokenizers)),
        "arms": [arm_view(arm, index) for arm in arms],
        "varied": varied(scored),
    }


def arm_view(arm: Arm, index: dict[int, int]) -> dict[str, Any]:
    def mean(key: str) -> float | None:
        values = [getattr(r.summary, key, None) for r in arm.done]
        return folding.mean_and_spread(v for v in values if v is not None)[0]

    return {
        "label": arm.label,
        "mean": arm.mean,
        "spread": arm.spread,
        "n": arm.n,
        "runs": [index[id(run)] for run in arm.runs],
        "params": mean("n_params"),
        "seconds": mean("seconds"),
        "tokens": mean("tokens"),
        "flops": mean("flops"),
        "ppl": mean("val_ppl"),
        "end": mean("val_bpb"),
    }


def run_view(run: Record) -> dict[str, Any]:
    rate = run.flops_per_token
    return {
        "name": run.name,
        "path": str(run.path),
        "seed": run.seed,
        "status": run.status,
        "score": run.score,
        "error": run.result.error if run.result else None,
        "step": run.rows[-1].get("step") if run.rows else None,
        "flops": rate,
        "val": points(run.rows, "val/bpb"),
        "train": points(run.rows, "train/loss"),
        "samples": samples(run),
        "settings": run.settings,
    }


def points(rows: Sequence[dict[str, Any]], key: str) -> list[list[float]]:
    """[tokens, seconds, value] at no more than POINTS places, the last one among them; rows
    without numbers there are left out."""
    found = [[row.get("tokens", 0), row.get("seconds", 0), row.get(key)] for row in rows]
    found = [p for p in found if all(isinstance(v, (int, float)) and math.isfinite(v) for v in p)]
    stride = max(1, -(-len(found) // POINTS))
    kept = [p for i, p in enumerate(found) if i % stride == 0 or i == len(found) - 1]
    return [[tokens, seconds, round(value, 5)] for tokens, seconds, value in kept]


def samples(run: Record) -> list[list[Any]]:
    """[step, prompt, text] of the first and last steps and some between."""
    rows = records.lines(run.path / "samples.jsonl")
    steps = sorted({row.get("step", 0) for row in rows})
    stride = max(1, -(-len(steps) // SAMPLES))
    wanted = set(steps[::stride]) | set(steps[-1:])
    return [
        [row["step"], str(row.get("prompt", "")), str(row.get("text", ""))[:TEXT]]
        for row in rows
        if row.get("step") in wanted
    ]


def shared(runs: Sequence[Record]) -> dict[str, Any]:
    """The settings that are the same in all runs; these leave the runs' own settings."""
    if not runs:
        return {}
    first = runs[0].settings
    same = {
        k: v for k, v in first.items() if all(k in r.settings and r.settings[k] == v for r in runs)
    }
    return same if len(runs) > 1 else {}


# ---------------------------------------------------------------------------- which setting matters


def varied(runs: Sequence[Record]) -> list[dict[str, Any]]:
    """The settings in which these runs differ, each with its share in the spread of the score."""
    if len(runs) < 3:
        return []
    keys = {k for run in runs for k in records.trained_by(run.settings)} - {"train.eval_every"}
    found = []
    for key in sorted(keys):
        values = [run.settings.get(key) for run in runs]
        different = {json.dumps(v, default=str) for v in values}
        if len(different) < 2 or not all(key in run.settings for run in runs):
            continue
        scores = [run.score for run in runs]
        share = explained(values, scores)
        found.append({"key": key, "share": share, "n": len(different)})
    found.sort(key=lambda row: -row["share"])
    return distinct(found, runs)[:12]


def distinct(rows: list[dict[str, Any]], runs: Sequence[Record]) -> list[dict[str, Any]]:
    """The rows less those settings that only follow another one, as a model's presets do."""
    seen: dict[tuple[str, ...], str] = {}
    kept = []
    for row in sorted(rows, key=lambda r: (not r["key"].endswith(".name"), -r["share"])):
        column = [json.dumps(run.settings.get(row["key"]), default=str) for run in runs]
        order = {value: str(i) for i, value in enumerate(dict.fromkeys(column))}
        pattern = tuple(order[v] for v in column)
        if pattern not in seen:
            seen[pattern] = row["key"]
            kept.append(row)
    return sorted(kept, key=lambda row: -row["share"])


def explained(values: Sequence[Any], scores: Sequence[float], bins: int = 4) -> float:
    """The share of the scores' variance between groups of equal value, chance taken off.

    Epsilon squared of an analysis of variance: 0 if the setting does not matter, 1 if nothing else
    does. Numbers of many values are cut into `bins` groups of neighbours.
    """
    numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    order = {json.dumps(v, default=str) for v in values}
    labels: list[Any] = [json.dumps(v, default=str) for v in values]
    if numeric and len(order) > bins:
        ranked = sorted(set(values))
        labels = [ranked.index(v) * bins // len(ranked) for v in values]
    groups: dict[Any, list[float]] = {}
    for label, score in zip(labels, scores, strict=True):
        groups.setdefault(label, []).append(score)
    n, k = len(scores), len(groups)
    total = sum((s - statistics.fmean(scores)) ** 2 for s in scores)
    if total <= 0 or k < 2 or n <= k:
        return 0.0
    within = sum(sum((s - statistics.fmean(g)) ** 2 for s in g) for g in groups.values())
    between = total - within
    return max(0.0, min(1.0, (between - (k - 1) * within / (n - k)) / total))
