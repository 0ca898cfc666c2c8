"""Short names for arms: what sets each apart from the others.

labels.name_groups(runs)    # ["gru lr=0.01", "gru lr=0.02", "mlp lr=0.01"]
"""

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lm import config
from lm.report.records import Record
from lm.sweep import labels
from lm.sweep.labels import short, values


def name_groups(runs: Sequence[Record], by: Sequence[str] = ()) -> list[str]:
    """A name for each of these runs of one text, which stand for one group of runs each.

    With `by` it is the values of these settings.
    """
    if by:
        return [" ".join(short(key, run.settings.get(key)) for key in by) for run in runs]
    experiments: dict[str, list[Record]] = {}
    for run in runs:
        experiments.setdefault(experiment_number(run), []).append(run)
    found = {}
    for number, members in experiments.items():
        for run, name in zip(members, _names(members), strict=True):
            # The arms of one experiment say nothing of what another one set.
            found[id(run)] = f"{number} {name}".strip() if len(experiments) > 1 else name
    return [found[id(run)] for run in runs]


def experiment_number(run: Record) -> str:
    """004 of 004_adamw_vs_muon, or the name itself; empty for a run that has none."""
    name = run.settings.get("name") or ""
    number = name.partition("_")[0]
    return number if number.isdecimal() else name


def deciding(keys: Iterable[str]) -> list[str]:
    """Those of the settings that decide the score, without the seed."""
    return [key for key in keys if key != "seed" and config.affects(key) != "nothing"]


def _names(runs: Sequence[Record]) -> Iterator[str]:
    """For each run its values of the settings in which the runs differ.

    Of those settings the ones that somebody chose for one of the runs; only where they do not tell
    all apart, as few more as do.
    """
    decides = functools.cache(labels.decides)  # most of many runs have the same keys
    typed = [labels.words(run.overrides, decides) for run in runs]
    chosen = list(dict.fromkeys(key for words in typed for key in words))
    rows = []
    for run, words in zip(runs, typed, strict=True):
        rows.append({key: _value(run, words, key) for key in chosen})
    # An arm of an experiment is a name for settings, which runs elsewhere may have by themselves.
    names_all = all(row.get("arm") for row in rows)
    differing = [key for key in chosen if config.names_runs(key)]
    differing = [key for key in differing if names_all or key != "arm"]
    differing = [key for key in differing if _n_distinct(rows, [key]) > 1]
    differing.sort(key=lambda key: "." in key)  # the names of parts first
    known = [{key: row[key] for key in differing if row[key] is not None} for row in rows]
    if _n_distinct(known, differing) < len(runs):
        deciding_of = functools.cache(deciding)
        for row, run in zip(known, runs, strict=True):
            row.update({key: run.settings[key] for key in deciding_of(tuple(run.settings))})
        differing = _telling_apart(known, differing)
    for run, row in zip(runs, known, strict=True):
        name = values(row, differing) or run.settings.get("model.name", "?")
        steps = run.settings.get("run.extended_from")
        yield f"{name} (extended from step {steps})" if steps else name


def _value(run: Record, words: Mapping[str, str], key: str) -> object:
    """What a run has of a setting or a group, typed among its `words` or by default."""
    if key in run.settings:
        return run.settings[key]
    default = run.settings.get(f"{key}.name") if key in config.PARTS else None
    return words.get(key, default)


def _telling_apart(rows: Sequence[Mapping[str, object]], chosen: Sequence[str]) -> list[str]:
    """The keys `chosen`, and as few more as tell the rows apart: first the names of parts, and
    last what some of the rows lack."""
    keys = dict.fromkeys(key for row in rows for key in row)
    candidates = [key for key in keys if key not in chosen and _n_distinct(rows, [key]) > 1]
    candidates.sort(key=lambda key: (not key.endswith(".name"), not all(key in r for r in rows)))
    found = list(chosen)
    for key in candidates:
        if _n_distinct(rows, [*found, key]) > _n_distinct(rows, found):
            found.append(key)
    return found


def _n_distinct(rows: Sequence[Mapping[str, object]], keys: Sequence[str]) -> int:
    return len({json.dumps([row.get(key) for key in keys], default=str) for row in rows})
