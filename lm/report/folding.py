"""Fold runs into arms, one for all seeds of the same settings, and rank the arms of each text.

    for ranking in folding.rank(folding.fold_seeds(runs)):
        for arm in ranking.arms: print(arm.label, arm.mean, arm.spread)

A ranking is computed here; `page` draws it for the terminal, `readme` as Markdown, `board` and
web/report.js on the page.
"""

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from lm import config
from lm.report import labels
from lm.report.records import Record
from lm.sweep.ranking import Row


@dataclass
class Arm:
    """Runs that differ in their seed alone."""

    label: str
    runs: list[Record]  # one a seed, by seed

    @functools.cached_property
    def done(self) -> list[Record]:
        """The runs that are complete and have a score."""
        return [run for run in self.runs if run.status == "done" and run.score is not None]

    @functools.cached_property
    def scores(self) -> dict[int, float]:
        """The best val/bpb of each seed that is complete."""
        return {run.seed: run.score for run in self.done if run.score is not None}

    @functools.cached_property
    def row(self) -> Row:
        """The arm's line of a ranking: its complete runs."""
        scores = [run.score for run in self.done if run.score is not None]
        return Row(self.label, scores, folders=[run.path for run in self.done])

    @property
    def mean(self) -> float | None:
        return self.row.mean

    @property
    def spread(self) -> float | None:
        return self.row.spread

    @property
    def n(self) -> int:
        return self.row.n


@dataclass
class Ranking:
    """The arms of one text, the best first: bits per byte of different texts are not ranked."""

    arms: list[Arm]

    @property
    def first(self) -> Record:
        """A run that stands for all of them in what is known of the text."""
        return self.arms[0].runs[0]

    @property
    def name(self) -> str:
        return self.first.corpus_name

    @property
    def runs(self) -> list[Record]:
        return [run for arm in self.arms for run in arm.runs]

    @property
    def done(self) -> list[Record]:
        return [run for arm in self.arms for run in arm.done]


def fold_seeds(runs: Sequence[Record], by: Sequence[str] = ()) -> list[Arm]:
    """The runs grouped by their text, tokenizer and all settings but the seed, or by the keys `by`.

    If a seed ran more than once with the same settings, its newest complete run counts.
    """
    keys = [f"{key}.name" if key in config.PARTS else key for key in by]
    groups: dict[str, dict[object, Record]] = {}
    deciding = functools.cache(labels.deciding)  # most of many runs have the same keys
    for run in runs:
        if keys:
            identity = [run.corpus, *(run.settings.get(key) for key in keys)]
            place = run.path
        else:
            decisive = deciding(tuple(run.settings))
            identity = [run.corpus, run.tokenizer, {key: run.settings[key] for key in decisive}]
            place = run.seed
        group = groups.setdefault(json.dumps(identity, sort_keys=True, default=str), {})
        rival = group.get(place)
        if rival is None or _precedence(run) >= _precedence(rival):
            group[place] = run
    by_corpus: dict[str, list[list[Record]]] = {}
    for group in groups.values():
        members = sorted(group.values(), key=lambda run: (run.seed, str(run.path)))
        by_corpus.setdefault(members[0].corpus, []).append(members)
    arms = []
    for of_corpus in by_corpus.values():
        names = labels.name_groups([members[0] for members in of_corpus], keys)
        arms += [Arm(name, members) for name, members in zip(names, of_corpus, strict=True)]
    return arms


def _precedence(run: Record) -> tuple[bool, float]:
    return run.status == "done", run.touched


def rank(arms: Sequence[Arm]) -> list[Ranking]:
    """One ranking a text, that of the most arms first; arms without a complete run stand last."""
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        groups.setdefault(arm.runs[0].corpus, []).append(arm)
    rankings = [Ranking(sorted(group, key=_place)) for group in groups.values()]
    return sorted(rankings, key=lambda ranking: -len(ranking.arms))


def by_name(rankings: Sequence[Ranking]) -> list[Ranking]:
    """The rankings in the order of their texts' names."""
    return sorted(rankings, key=lambda ranking: ranking.name)


def _place(arm: Arm) -> tuple[bool, float]:
    """Complete arms by their mean, then the others by what they have reached."""
    if arm.mean is not None:
        return False, arm.mean
    return True, min((run.score for run in arm.runs if run.score is not None), default=math.inf)


def baselines(runs: Sequence[Record]) -> dict[str, float]:
    """What counting n-grams reaches on one text, by name: the lowest over the runs' tokenizers.

    With several tokenizers the name says which one's it is.
    """
    by_tokenizer = {run.tokenizer: run for run in runs if run.data}
    best: dict[str, tuple[float, str]] = {}
    for run in by_tokenizer.values():
        tokenizer = f"{run.settings.get('tokenizer.name')} {run.vocab_size}"
        for name, bpb in run.baselines().items():
            rival = best.get(name, (math.inf, ""))
            best[name] = min(rival, (bpb, tokenizer))
    if len(by_tokenizer) > 1:
        return {f"{name}, {tokenizer}": bpb for name, (bpb, tokenizer) in best.items()}
    return {name: bpb for name, (bpb, _) in best.items()}
