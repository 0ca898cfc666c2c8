"""Short names for arms: what sets each apart from the others.

labels.name_groups(runs)    # ["gru lr=0.01", "gru lr=0.02", "mlp lr=0.01"]
"""

import json
from collections.abc import Iterator, Mapping, Sequence

from lm import config
from lm.report.records import Record
from lm.sweep.labels import short, values, words


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


def trained_by(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings that decide the score, without the seed."""
    return {
        key: value
        for key, value in settings.items()
        if key != "seed" and config.affects(key) != "nothing"
    }


def _names(runs: Sequence[Record]) -> Iterator[str]:
    """Names by the words of the command line if these tell all apart, else by the settings."""
    names = _differences([words(run.overrides) for run in runs], every=True)
    if not all(names) or len(set(names)) < len(names):
        names = _differences([trained_by(run.settings) for run in runs])
    for run, name in zip(runs, names, strict=True):
        name = name or run.settings.get("model.name", "?")
        steps = run.settings.get("run.extended_from")
        yield f"{name} (extended from step {steps})" if steps else name


def _differences(rows: Sequence[Mapping[str, object]], every: bool = False) -> list[str]:
    """For each row its values of the keys in which the rows differ.

    With `every` of all these keys; else of as few as tell the rows apart, the names of parts first.
    """
    keys = dict.fromkeys(key for row in rows for key in row)
    differing = [key for key in keys if _n_distinct(rows, [key]) > 1]
    if every:
        chosen = differing
    else:
        chosen = [key for key in differing if key.endswith(".name") or "." not in key]
        for key in differing:
            in_all = all(key in row for row in rows)
            tells_more = _n_distinct(rows, [*chosen, key]) > _n_distinct(rows, chosen)
            if key not in chosen and in_all and tells_more:
                chosen.append(key)
    return [values(row, chosen) for row in rows]


def _n_distinct(rows: Sequence[Mapping[str, object]], keys: Sequence[str]) -> int:
    return len({json.dumps([row.get(key) for key in keys], default=str) for row in rows})
