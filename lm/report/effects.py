"""What each setting of a grid does on its own: its values compared where all else is equal.

print(effects.table(arms))
"""

import statistics
from collections.abc import Sequence

from lm.report import markdown
from lm.report.best import half_width
from lm.report.folding import Arm
from lm.sweep import labels

ABOUT = (
    "Each row averages over the runs whose other settings and seed are there with every value of "
    "the setting, or over all of its value if there are none; behind: the mean difference to the "
    "best value, where the other settings and the seed are the same, with an interval over the "
    "seeds that leaves zero out in 5 of 100 settings without an effect, and its range over the "
    "other settings."
)
HEAD = "| setting | value | val/bpb | runs | behind | from | to |\n|---|---|--:|--:|--:|--:|--:|"
Others = tuple[tuple[str, str], ...]  # the other settings of an arm: its place in the grid
Scores = dict[Others, dict[int, float]]  # of one value of a setting: at each place, by seed


def table(arms: Sequence[Arm]) -> str:
    """A Markdown table of the settings that were varied; empty unless there are two or more."""
    arms = [arm for arm in arms if "run.extended_from" not in arm.runs[0].settings]
    chosen = [settings(arm) for arm in arms]
    keys = dict.fromkeys(key for words in chosen for key in words)
    varied = [key for key in keys if len({words.get(key, "") for words in chosen}) > 1]
    if len(varied) < 2:
        return ""
    lines = [HEAD]
    for key in varied:
        lines += rows(key, arms)
    return "\n".join(lines)


def settings(arm: Arm) -> dict[str, str]:
    """What the sweep chose for an arm, without the seed."""
    return labels.words(arm.runs[0].overrides)


def rows(key: str, arms: Sequence[Arm]) -> list[str]:
    """The lines of one setting, its best value first; a value without a score has none."""
    scores = scores_by_value(key, arms)
    compared = comparable(scores)
    means = {value: statistics.fmean(found) for value, found in compared.items() if found}
    ranked = sorted(means, key=means.__getitem__)
    lines = []
    for value in ranked:
        behind = ["", "", ""]
        gaps = differences(scores[value], scores[ranked[0]])
        if value != ranked[0] and gaps:
            behind = [f"{gap:+.4f}" for gap in (statistics.fmean(gaps), min(gaps), max(gaps))]
            half = half_width(gaps_by_seed(scores[value], scores[ranked[0]]), len(ranked))
            behind[0] += "" if half is None else f" +- {half:.4f}"
        name = labels.short(key if key == "arm" else "", value)
        n_runs = str(len(compared[value]))
        lines.append(markdown.row((key, name, f"{means[value]:.4f}", n_runs, *behind)))
    return lines


def scores_by_value(key: str, arms: Sequence[Arm]) -> dict[str, Scores]:
    """The scores of each value of a setting, by the other settings and the seed."""
    scores: dict[str, Scores] = {}
    for arm in arms:
        words = settings(arm)
        value = words.pop(key, "")
        others = tuple(sorted(words.items()))
        scores.setdefault(value, {})[others] = arm.scores
    return scores


def comparable(scores: dict[str, Scores]) -> dict[str, list[float]]:
    """The scores of each value at the places and seeds that all values have, if there are any."""
    places = []
    for of_value in scores.values():
        places.append({(others, seed) for others, runs in of_value.items() for seed in runs})
    shared = set.intersection(*places)
    found: dict[str, list[float]] = {}
    for value, of_value in scores.items():
        found[value] = []
        for others, runs in of_value.items():
            for seed, score in runs.items():
                if not shared or (others, seed) in shared:
                    found[value].append(score)
    return found


def gaps_by_seed(scores: Scores, best: Scores) -> list[float]:
    """The mean over the places of the grid that both have, for each seed that is at all of them.

    Seeds are drawn anew each time, places are not: a difference may be another one at each.
    """
    places = [(runs, best[others]) for others, runs in scores.items() if others in best]
    shared = set.intersection(*({*runs} & {*rival} for runs, rival in places)) if places else set()
    return [
        statistics.fmean(runs[seed] - rival[seed] for runs, rival in places)
        for seed in sorted(shared)
    ]


def differences(scores: Scores, best: Scores) -> list[float]:
    """The mean over the seeds that both have, for each place of the grid that both have."""
    found = []
    for others, runs in scores.items():
        rival = best.get(others, {})
        gaps = [score - rival[seed] for seed, score in runs.items() if seed in rival]
        if gaps:
            found.append(statistics.fmean(gaps))
    return found
