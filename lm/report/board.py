"""All that the report's page shows, computed from rankings as plain values.

view = board.view(folding.rank(folding.fold_seeds(runs)))
"""

import functools
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from lm import config
from lm.record import schemas
from lm.report import folding, labels, links, lr_range, thinning
from lm.report.folding import Arm, Ranking
from lm.report.records import Record, is_number
from lm.settings import reading
from lm.sweep.ranking import mean_and_spread
from lm.system import files

POINTS = 120  # of a curve, at most
SAMPLES = 12  # steps of a run whose samples are shown, at most
TEXT = 600  # characters of a sample
VARIED = 12  # settings listed, at most
ABOUT_PPL = (
    "Perplexity is left out: these runs cut the text into tokens in {n} different ways, and a "
    "perplexity counts per token. Fewer, longer tokens give a higher one for the same model of the "
    "text. Bits per byte counts the same bytes for all."
)


def view(rankings: Sequence[Ranking], counts: bool = True, beside: Path = Path()) -> dict[str, Any]:
    """The page's data: corpora with their arms, best first; runs; settings that were varied.

    `counts` allows to count the n-grams of a text, which may take seconds. The page lies in the
    folder `beside`, and its links start there.
    """
    runs = [run for ranking in rankings for run in ranking.runs]
    index = {id(run): i for i, run in enumerate(runs)}
    status = [run.status for run in runs]
    is_path = functools.cache(config.is_path)  # most of many runs have the same keys
    return {
        "corpora": [corpus_view(ranking, index, counts) for ranking in rankings],
        "runs": [run_view(run, is_path) | links.of_run(run, beside) for run in runs],
        "ranges": lr_range.view([arm for ranking in rankings for arm in ranking.arms]),
        "shared": shared(runs),
        "counts": {name: status.count(name) for name in sorted(set(status))},
    }


def corpus_view(ranking: Ranking, index: Mapping[int, int], counts: bool) -> dict[str, Any]:
    """The arms of one text, what to measure them against, and which settings made a difference."""
    n_tokenizers = len({run.tokenizer for run in ranking.runs})
    baselines = ranking.first.entropy()
    if counts:
        baselines |= folding.baselines(ranking.runs)
    return {
        "id": ranking.first.corpus,
        "name": ranking.name,
        "n_bytes": ranking.first.val_bytes,
        "baselines": baselines,
        "ppl": n_tokenizers == 1,
        "note": "" if n_tokenizers == 1 else ABOUT_PPL.format(n=n_tokenizers),
        "arms": [arm_view(arm, index) for arm in ranking.arms],
        "varied": varied(ranking.done),
    }


def arm_view(arm: Arm, index: Mapping[int, int]) -> dict[str, Any]:
    """An arm's line in the page's ranking; `index` has each run's place in the list of all runs."""

    def mean(key: str) -> float | None:
        values = [getattr(run.summary, key, None) for run in arm.done]
        return mean_and_spread(v for v in values if v is not None)[0]

    ppls = [run.perplexity for run in arm.done if run.perplexity is not None]
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
        "ppl": mean_and_spread(ppls)[0],
        "end": mean("val_bpb"),
    }


def run_view(run: Record, is_path: Callable[[str], bool] = config.is_path) -> dict[str, Any]:
    """One run: its state, curves, samples and settings."""
    return {
        "name": run.name,
        "path": files.public(str(run.path)),
        "seed": run.seed,
        "status": run.status,
        "score": run.score,
        "error": run.result.error if run.result else None,
        "step": run.rows[-1].get("step") if run.rows else None,
        "flops": run.flops_per_token,
        "val": points(run.rows, "val/bpb"),
        "train": points(run.rows, "train/loss"),
        "also": {key: points(run.rows, key) for key in other_scores(run)},
        "samples": samples(run),
        "settings": reading.public(run.settings, is_path),
    }


def other_scores(run: Record) -> list[str]:
    """The keys of other scores in a run's log: val_NAME/bpb of texts, task/NAME."""
    keys: set[str] = set()
    keys.update(*run.rows)
    return sorted(key for key in keys if key.startswith(("val_", "task/")))


def points(rows: Sequence[Mapping[str, object]], key: str) -> list[list[float]]:
    """[tokens, seconds, value] of the rows with finite numbers.

    At no more than POINTS places, among them the lowest and the highest value and the last one.
    """
    found = []
    for row in rows:
        tokens = row.get("tokens", 0)
        seconds = row.get("seconds", 0)
        value = row.get(key)
        if is_number(tokens) and is_number(seconds) and is_number(value):
            found.append((tokens, seconds, value))
    kept = thinning.with_extremes(found, POINTS)
    return [[tokens, seconds, round(value, 5)] for tokens, seconds, value in kept]


def samples(run: Record) -> list[list[Any]]:
    """[step, prompt, text] of the first and last steps and some between."""
    rows = schemas.read_rows(run.path / "samples.jsonl")
    steps = thinning.evenly(sorted({row["step"] for row in rows}), SAMPLES)
    found = []
    for row in rows:
        if row["step"] in steps:
            found.append([row["step"], row.get("prompt", ""), row.get("text", "")[:TEXT]])
    return found


def shared(runs: Sequence[Record]) -> dict[str, Any]:
    """The settings that are the same in all of several runs."""
    if len(runs) < 2:
        return {}
    same = {}
    for key, value in runs[0].settings.items():
        if all(key in run.settings and run.settings[key] == value for run in runs):
            same[key] = value
    return same


# ---------------------------------------------------------------------------- which setting matters


class Varied(TypedDict):
    """A setting in which runs differ."""

    key: str
    share: float  # in the variance of the score
    n: int  # different values


def varied(runs: Sequence[Record]) -> list[Varied]:
    """The settings in which these runs differ, that with the largest share in the score first."""
    scores = [run.score for run in runs if run.score is not None]
    if len(scores) < 3:
        return []
    keys = labels.deciding({key for run in runs for key in run.settings})
    found: list[Varied] = []
    for key in sorted(keys):
        if not config.names_runs(key) or not all(key in run.settings for run in runs):
            continue
        values = [run.settings[key] for run in runs]
        if all(value == values[0] for value in values):
            continue
        n_values = len({as_text(value) for value in values})
        if n_values > 1:
            found.append({"key": key, "share": explained(values, scores), "n": n_values})
    found.sort(key=lambda row: -row["share"])
    return distinct(found, runs)[:VARIED]


def distinct(rows: Sequence[Varied], runs: Sequence[Record]) -> list[Varied]:
    """The rows less those settings that only follow another one, as a model's presets do."""
    patterns = set()
    kept = []
    for row in sorted(rows, key=lambda row: (not row["key"].endswith(".name"), -row["share"])):
        column = [as_text(run.settings.get(row["key"])) for run in runs]
        order = {value: place for place, value in enumerate(dict.fromkeys(column))}
        pattern = tuple(order[value] for value in column)  # which runs have equal values
        if pattern not in patterns:
            patterns.add(pattern)
            kept.append(row)
    return sorted(kept, key=lambda row: -row["share"])


def as_text(value: object) -> str:
    """A setting's value as JSON, by which values of any type are told apart."""
    return json.dumps(value, default=str)


def explained(values: Sequence[object], scores: Sequence[float], bins: int = 4) -> float:
    """The share of the scores' variance between groups of equal value, chance taken off.

    Epsilon squared of an analysis of variance: 0 if the setting does not matter, 1 if nothing else
    does. Numbers of many values are cut into `bins` groups of neighbours.
    """
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    names: list[object] = [as_text(value) for value in values]
    if len(numbers) == len(values) and len(set(names)) > bins:
        ordered = sorted(set(numbers))
        place = {number: i for i, number in enumerate(ordered)}
        names = [place[number] * bins // len(ordered) for number in numbers]
    groups: dict[object, list[float]] = {}
    for name, score in zip(names, scores, strict=True):
        groups.setdefault(name, []).append(score)
    n = len(scores)
    k = len(groups)
    total = squared_deviations(scores)
    if total <= 0 or k < 2 or n <= k:
        return 0.0
    within = sum(squared_deviations(group) for group in groups.values())
    between = total - within
    by_chance = (k - 1) * within / (n - k)
    return max(0.0, min(1.0, (between - by_chance) / total))


def squared_deviations(scores: Sequence[float]) -> float:
    """The sum of the squared differences from the mean."""
    mean = statistics.fmean(scores)
    return sum((score - mean) ** 2 for score in scores)
