"""What each setting of a grid does on its own: its values compared where all else is equal.

print(effects.table(arms))
"""

import itertools
from collections.abc import Sequence

from lm.report import records
from lm.report.records import Arm
from lm.sweep import ranking as folding

ABOUT = (
    "Each row averages over the runs whose other settings and seed are there with every value of "
    "the setting, or over all of its value if there are none; behind: the mean difference to the "
    "best value, where the other settings and the seed are the same, and its range over the other "
    "settings."
)


def settings(arm: Arm) -> dict[str, str]:
    """What the sweep chose for an arm, the seed left out."""
    return dict(records.words(arm.runs[0].overrides))


def table(arms: Sequence[Arm]) -> str:
    """A Markdown table of the settings that were varied; empty unless there are two or more."""
    arms = [arm for arm in arms if "run.extended_from" not in arm.runs[0].settings]
    chosen = [settings(arm) for arm in arms]
    keys = [k for k in dict.fromkeys(itertools.chain(*chosen)) if len(values(chosen, k)) > 1]
    if len(keys) < 2:
        return ""
    lines = ["| setting | value | val/bpb | runs | behind | from | to |"]
    lines.append("|---|---|--:|--:|--:|--:|--:|")
    for key in keys:
        lines += rows(key, arms, chosen)
    return "\n".join(lines)


def rows(key: str, arms: Sequence[Arm], chosen: Sequence[dict[str, str]]) -> list[str]:
    """The lines of one setting, its best value first."""
    scores: dict[str, dict[tuple, dict[int, float]]] = {v: {} for v in values(chosen, key)}
    for arm, words in zip(arms, chosen, strict=True):
        others = tuple(sorted((k, v) for k, v in words.items() if k != key))
        found = {run.seed: run.score for run in arm.done if run.score is not None}
        scores[words.get(key, "")][others] = found
    shared = set.intersection(*({(place, seed) for place, runs in places.items() for seed in runs}
                                for places in scores.values()))  # fmt: skip
    counted = {v: [x for place, runs in places.items() for seed, x in runs.items()
                   if not shared or (place, seed) in shared]
               for v, places in scores.items()}  # fmt: skip
    means = {v: mean(found) for v, found in counted.items()}  # what one lacks counts for none
    ranked = sorted((v for v in scores if means[v] is not None), key=lambda v: means[v])
    lines = []
    for value in ranked:
        cells = [f"{means[value]:.4f}", str(len(counted[value])), "", "", ""]
        gaps = differences(scores[value], scores[ranked[0]])
        if value != ranked[0] and gaps:
            cells[2:] = [f"{g:+.4f}" for g in (mean(gaps), min(gaps), max(gaps))]
        name = records.short(key if key == "arm" else "", value)
        lines.append(records.table_row((key, name, *cells)))
    return lines


def differences(
    these: dict[tuple, dict[int, float]], best: dict[tuple, dict[int, float]]
) -> list[float]:
    """The mean over the seeds that both have, for each place of the grid that both have."""
    found = []
    for place, runs in these.items():
        rival = best.get(place, {})
        pairs = [score - rival[seed] for seed, score in runs.items() if seed in rival]
        found += [mean(pairs)] if pairs else []
    return found


def values(chosen: Sequence[dict[str, str]], key: str) -> list[str]:
    return list(dict.fromkeys(words.get(key, "") for words in chosen))


def mean(numbers: Sequence[float]) -> float | None:
    return folding.mean_and_spread(numbers)[0]
