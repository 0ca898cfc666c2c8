"""Write an experiment's results into its folder: results.csv, curves.svg, the README's block.

    python -m lm.report experiment=001_model_ladder

The block stands between two `<!-- results -->` marks; experiments/README.md becomes the index of
all folders.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from lm.launch import presets
from lm.report import figures, folding, index, lr_range, readme, records, scaling, thinning
from lm.report.folding import Arm, Ranking
from lm.report.records import Record
from lm.system import files

DRAWN = 2_000  # points of a curve in a plot, at most: more than it has pixels
COLUMNS = (
    "corpus",
    "arm",
    "seed",
    "status",
    "val_bpb",
    "best_step",
    "val_bpb_end",
    "val_loss_end",
    "steps",
    "tokens",
    "seconds",
    "n_params",
    "flops",
    "commit",
    "date",
)


def runs_of(folder: Path, roots: Sequence[Path]) -> list[Record]:
    """The runs of an experiment's folder, those held out from a fit among them."""
    name = presets.name_of_runs(folder)
    names = (name, name + scaling.HELD_OUT)
    return [run for run in records.find(roots) if run.settings.get("name") in names]


def write(folder: Path, runs: Sequence[Record]) -> list[Path]:
    """Fill the folder from the runs; returns the files written: no plot where it would be points.

    ValueError if none is complete, or fewer than the folder's results.csv has.
    """
    arms = folding.fold_seeds(runs)
    done = [arm for arm in arms if arm.n]
    if not done:
        name = presets.name_of_runs(folder)
        raise ValueError(f"no complete run is called {name}{way_to_runs(folder)}")
    results = folder / "results.csv"
    table = result_rows(arms)
    refuse_fewer(table, results)
    files.make_folder(folder)
    files.atomic_write(results, to_csv(table))
    plot = folder / "curves.svg"
    is_plotted = readme.is_plotted(done)
    if is_plotted:
        draw(done, plot)
    incomplete = [arm for arm in arms if not arm.n]
    page = folder / "README.md"
    readme.write(page, readme.block(done, incomplete))
    all_experiments = folder.parent / "README.md"
    files.atomic_write(all_experiments, index.text(folder.parent))
    return [results, *([plot] if is_plotted else []), page, all_experiments]


def way_to_runs(folder: Path) -> str:
    """How an experiment's runs are made; which experiments there are if this is none."""
    if (folder / "run.yaml").is_file():
        return f": run python -m lm.train -m experiment={folder.name}"
    known = sorted(path.parent.name for path in folder.parent.glob("*/run.yaml"))
    meant = [name for name in known if name.startswith(folder.name)] or known
    hint = f" (known: {', '.join(meant)})" if meant else ""
    return f", and {folder.parent} has no experiment {folder.name}{hint}"


def refuse_fewer(table: Sequence[Mapping[str, object]], results: Path) -> None:
    """ValueError if the table has fewer complete runs than the results.csv that is there."""
    n = n_done(table)
    n_before = n_done(index.read_csv(results))
    if n < n_before:
        raise ValueError(
            f"{results} has {n_before} complete runs and would have {n}: run what "
            f"is missing (make experiment N={results.parent.name.partition('_')[0]}, and what else "
            "its README names), or delete it to begin anew"
        )


def n_done(table: Sequence[Mapping[str, object]]) -> int:
    return sum(row["status"] == "done" for row in table)


def result_rows(arms: Sequence[Arm]) -> list[dict[str, object]]:
    """One row a run: the columns of results.csv."""
    rows = []
    for arm in arms:
        scored = not lr_range.is_one([arm])  # the score of a range test says nothing
        for run in arm.runs:
            end = run.summary
            row = {
                "corpus": run.corpus_name,
                "arm": arm.label,
                "seed": run.seed,
                "status": run.status,
                "val_bpb": run.score if scored else None,
                "best_step": end and end.best_step,
                "val_bpb_end": end and end.val_bpb,
                "val_loss_end": end and end.val_loss,
                "steps": end and end.step,
                "tokens": end and end.tokens,
                "seconds": end and end.seconds,
                "n_params": end and end.n_params,
                "flops": end and end.flops,
                "commit": (run.code.git_commit or "")[:7],
                "date": run.day,
            }
            rows.append(row)
    return rows


def to_csv(table: Sequence[Mapping[str, object]]) -> str:
    """The rows as CSV, with six places behind the point."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in table:
        cells = {}
        for key, value in row.items():
            cells[key] = f"{value:.6f}" if isinstance(value, float) else value
        writer.writerow(cells)
    return text.getvalue()


# --------------------------------------------------------------------------------------- plots


def draw(arms: Sequence[Arm], path: Path) -> None:
    """The plot of complete arms: their range tests, scaling laws or learning curves."""
    rankings = folding.by_name(folding.rank(arms))
    if lr_range.is_one(arms):
        lr_range.draw(arms, path)
    elif all(scaling.is_one(ranking.arms) for ranking in rankings):
        scaling.draw(rankings, path)
    else:
        x = readme.axis(arms)
        figures.curves(panels(rankings, x), path, x)


def panels(rankings: Sequence[Ranking], x: str = "tokens") -> list[figures.Panel]:
    """val/bpb against `x` of the best arms, one panel a corpus, by its name."""
    found = []
    for ranking in folding.by_name(rankings):
        lines = []
        for arm in ranking.arms[: readme.PLOTTED]:
            seeds = []
            for run in arm.done:
                curve = thinning.with_extremes(run.curve("val/bpb", x), DRAWN)
                if curve:
                    xs, ys = zip(*curve, strict=True)
                    seeds.append((xs, ys))
            if seeds:
                lines.append(figures.Line(readme.without(arm.label, ranking.name), seeds))
        if lines:
            found.append(figures.Panel(ranking.name, lines, levels(ranking, lines)))
    return found


def levels(ranking: Ranking, lines: Sequence[figures.Line]) -> dict[str, float]:
    """What to compare the lines with: the entropy, and baselines unless an arm is counted itself.

    Unigram counts lie far above all else.
    """
    found = ranking.first.entropy()
    if not any(line.is_level for line in lines):
        for name, bpb in folding.baselines(ranking.done).items():
            if "unigram" not in name:
                found[name] = bpb
    return found
