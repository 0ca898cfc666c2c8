"""Write an experiment's results into its folder: results.csv, curves.svg, the README's block.

    python -m lm.report experiment=001_model_ladder

The block stands between two `<!-- results -->` marks; experiments/README.md becomes the index of
all folders.
"""

import csv
import io
import math
import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm.report import effects, figures, floors, lr_range, paired, records, scaling
from lm.report.records import Arm, Record
from lm.sweep import ranking as folding
from lm.system import files

MARK = "<!-- results -->"
COLUMNS = ("corpus", "arm", "seed", "status", "val_bpb", "best_step", "val_bpb_end", "val_loss_end")
COLUMNS += ("steps", "tokens", "seconds", "n_params", "flops", "commit", "date")
SKELETON = """# {name}

## Question

## Command

```
python -m lm.train -m experiment={name}
```

## Result

{mark}
{mark}

## Verdict

## Not shown

## Next
"""
ABOUT = (
    "val/bpb: bits per byte of the validation text at the best checkpoint, the mean over seeds; "
    "+-: the sample's standard deviation over seeds; behind: the mean difference to the best arm, "
    "seed by seed, with its 95 % interval (Student's t); at the end: after the last step."
)


def write(folder: Path, runs: Sequence[Record]) -> list[Path]:
    """Fill the folder from the runs; return the files written.

    ValueError if none is complete, or fewer than the folder's results.csv has.
    """
    arms = records.arms(runs)
    done = [arm for arm in arms if arm.n]
    if not done:
        raise ValueError(
            f"no complete run is called {folder.name}: run "
            f"python -m lm.train -m experiment={folder.name}"
        )
    table = rows(arms)
    n, n_before = n_done(table), n_done(read_csv(folder / "results.csv"))
    if n < n_before:
        raise ValueError(
            f"{folder / 'results.csv'} has {n_before} complete runs and would have {n}: run what "
            f"is missing (make experiment N={folder.name.partition('_')[0]}, and what else its "
            "README names), or delete it to begin anew"
        )
    folder.mkdir(exist_ok=True)
    files.atomic_write(folder / "results.csv", to_csv(table))
    draw(done, folder / "curves.svg")
    readme = folder / "README.md"
    if not readme.exists():
        files.atomic_write(readme, SKELETON.format(name=folder.name, mark=MARK))
    text = readme.read_text(encoding="utf-8")
    files.atomic_write(
        readme, put_block(text, block(done, [arm for arm in arms if not arm.n]), readme)
    )
    index = folder.parent / "README.md"
    files.atomic_write(index, index_text(folder.parent))
    return [folder / "results.csv", folder / "curves.svg", readme, index]


def draw(arms: Sequence[Arm], path: Path) -> None:
    if lr_range.is_one(arms):
        lr_range.draw(arms, path)
        return
    groups = list(by_corpus(arms).values())
    if all(map(scaling.is_one, groups)):
        scaling.draw(groups, path)
        return
    x = axis(arms)
    figures.curves(panels(arms, x), path, x)


def rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """One row a run: the columns of results.csv."""
    found = []
    for arm in arms:
        for run in arm.runs:
            end = run.summary
            score = None if lr_range.is_one([arm]) else run.score  # says nothing of such a run
            values = (run.corpus_name, arm.label, run.seed, run.status, score)
            keys = ("best_step", "val_bpb", "val_loss", "step", "tokens", "seconds", "n_params")
            values += tuple(getattr(end, key, None) for key in (*keys, "flops"))
            values += ((run.code.git_commit or "")[:7], day(run))
            found.append(dict(zip(COLUMNS, values, strict=True)))
    return found


def to_csv(table: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in table:
        writer.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()


def by_corpus(arms: Sequence[Arm]) -> dict[str, list[Arm]]:
    """Arms of one text each, best first: bits per byte of different texts are not ranked."""
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        groups.setdefault(arm.runs[0].corpus, []).append(arm)
    return {
        corpus: sorted(group, key=lambda a: math.inf if a.mean is None else a.mean)
        for corpus, group in sorted(groups.items(), key=lambda item: item[1][0].runs[0].corpus_name)
    }


def axis(arms: Sequence[Arm]) -> str:
    """What the runs had an equal budget of: tokens, or flops if that was set."""
    return "flops" if all(arm.done[0].settings.get("train.flops") for arm in arms) else "tokens"


def panels(arms: Sequence[Arm], x: str = "tokens") -> list[figures.Panel]:
    """val/bpb against `x`, one panel a corpus."""
    found = []
    for group in by_corpus(arms).values():
        first = group[0].runs[0]
        lines = []
        for arm in group:
            curves = [run.curve("val/bpb", x) for run in arm.done]
            seeds = [tuple(zip(*curve, strict=True)) for curve in curves if curve]
            if seeds:
                lines.append(figures.Line(without(arm.label, first.corpus_name), seeds))
        if not lines:
            continue
        levels = floors.exact(first)
        if not any(line.is_level for line in lines):
            runs = [run for arm in group for run in arm.done]
            levels |= {k: v for k, v in floors.lowest(runs).items() if "unigram" not in k}
        found.append(figures.Panel(first.corpus_name, lines, levels))
    return found


# --------------------------------------------------------------------------------- the README


def block(arms: Sequence[Arm], lost: Sequence[Arm] = ()) -> str:
    """The results as Markdown: one table a corpus, the plot, and how to read them. `lost` have no
    complete run."""
    runs = [run for arm in arms for run in arm.done]
    if lr_range.is_one(arms):
        plot = "![training loss against the rate, mean and range over seeds](curves.svg)"
        return "\n\n".join([lr_range.block(arms), plot, lr_range.ABOUT, footer(runs)])
    parts = []
    for group in by_corpus(arms).values():
        parts.append(corpus_table(group))
        if scaling.is_one(group):
            parts.append(scaling.block(group))
        elif table := effects.table(group):
            parts += [table, effects.ABOUT]
    if lost:
        each = [f"{a.label} ({', '.join(sorted({r.status for r in a.runs}))})" for a in lost]
        parts.append(f"No complete run: {'; '.join(each)}.")
    parts.append(f"![val/bpb against {axis(arms)}, mean and range over seeds](curves.svg)")
    parts.append(ABOUT)
    parts.append(footer(runs))
    return "\n\n".join(parts)


def corpus_table(group: Sequence[Arm]) -> str:
    first = group[0].runs[0]
    n_bytes = first.data.tokens.splits.val.n_bytes
    title = f"**{first.corpus_name}**, {n_bytes:,} bytes of validation text"
    for value in floors.exact(first).values():
        title += f"; a perfect model needs {value:.4f} bits per byte"
    lines = [title, "", "| arm | val/bpb | +- | seeds | behind | at the end | best step | params |"]
    lines[-1] += " seconds |"
    lines.append("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for arm in group:
        ends = folding.mean_and_spread(r.summary.val_bpb for r in arm.done)[0]
        summary = arm.done[0].summary
        steps = {r.summary.best_step for r in arm.done}
        cells = (
            without(arm.label, first.corpus_name),
            f"{arm.mean:.4f}",
            "" if arm.spread is None else f"{arm.spread:.4f}",
            str(arm.n),
            "" if arm is group[0] else behind(arm, group[0]),
            f"{ends:.4f}",
            f"{min(steps):,}" + (f" to {max(steps):,}" if len(steps) > 1 else ""),
            f"{summary.n_params:,}",
            f"{statistics.fmean(r.summary.seconds for r in arm.done):.0f}",
        )
        lines.append(records.table_row(cells))
    return "\n".join(lines)


def behind(arm: Arm, best: Arm) -> str:
    """The mean difference to the best arm over the seeds both have, with a 95 % interval."""
    scores = {r.seed: r.score for r in best.done}
    pairs = [r.score - scores[r.seed] for r in arm.done if r.seed in scores]
    mean, spread = folding.mean_and_spread(pairs)
    if mean is None:
        return ""
    if spread is None:
        return f"{mean:+.4f}"
    return f"{mean:+.4f} +- {paired.t95(len(pairs) - 1) * spread / math.sqrt(len(pairs)):.4f}"


def footer(runs: Sequence[Record]) -> str:
    """What the numbers come from: versions, threads, code, days."""
    code = runs[0].code
    commits = sorted({(r.code.git_commit or "unknown")[:7] for r in runs})
    days = sorted({day(r) for r in runs})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return (
        f"{len(runs)} runs; Python {code.python}, torch {code.torch}, "
        f"{code.threads} threads; code {', '.join(commits)}; {when}."
    )


def put_block(text: str, content: str, path: Path) -> str:
    """The text with what stands between its two marks replaced."""
    parts = text.split(MARK)
    if len(parts) != 3:
        raise ValueError(f"{path} needs two lines {MARK} for its results: it has {len(parts) - 1}")
    return f"{parts[0]}{MARK}\n{content}\n{MARK}{parts[2]}"


# ---------------------------------------------------------------------------------- the index


def index_text(root: Path) -> str:
    """experiments/README.md: one line for each folder with a README, out of the folders alone."""
    lines = [
        "# Experiments",
        "",
        "Each folder has its question, the command, machine-written results and a verdict; "
        "negative ones stay.",
        "This page is written by `python -m lm.report experiment=NAME`.",
        "",
        "| experiment | question | verdict | best val/bpb | seeds | date | code |",
        "|---|---|---|---|--:|---|---|",
    ]
    for readme in sorted(root.glob("*/README.md")):
        text = readme.read_text(encoding="utf-8")
        if MARK not in text:
            continue
        table = read_csv(readme.parent / "results.csv")
        cells = (
            f"[{readme.parent.name}]({readme.parent.name}/README.md)",
            section(text, "Question"),
            section(text, "Verdict"),
            best_of(table),
            str(len({row["seed"] for row in table}) or ""),
            max((row["date"] for row in table), default=""),
            ", ".join(sorted({row["commit"] for row in table} - {""})),
        )
        lines.append(records.table_row(cells))
    return "\n".join(lines) + "\n"


def best_of(table: Sequence[dict[str, str]]) -> str:
    """The best arm of each corpus: its name, mean and spread, and its lead on the next one."""
    found = []
    for corpus in dict.fromkeys(row["corpus"] for row in table):
        values: dict[str, list[float]] = {}
        for row in table:
            if row["corpus"] == corpus and row["status"] == "done" and row["val_bpb"]:
                values.setdefault(row["arm"], []).append(float(row["val_bpb"]))
        ranked = sorted((folding.mean_and_spread(v)[0], arm) for arm, v in values.items())
        if ranked:
            mean, arm = ranked[0]
            spread = folding.mean_and_spread(values[arm])[1]
            line = f"{corpus}: {without(arm, corpus)} {mean:.4f}"
            line += "" if spread is None else f" +- {spread:.4f}"
            line += f", {ranked[1][0] - mean:.4f} ahead" if len(ranked) > 1 else ""
            found.append(line)
    return "<br>".join(found)


def section(text: str, title: str) -> str:
    """The first paragraph under a heading, on one line."""
    match = re.search(rf"^#+ {title}\s*\n+(.*?)(?=\n\s*\n|\n#|\Z)", text, re.M | re.S)
    found = " ".join(match.group(1).split()) if match else ""
    return "" if found.startswith("#") else found


def n_done(table: Sequence[dict[str, Any]]) -> int:
    return sum(row["status"] == "done" for row in table)


def read_csv(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def without(label: str, word: str) -> str:
    """The label less the corpus, which stands above the table already."""
    return " ".join(w for w in label.split() if w != word) or label


def day(run: Record) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(run.touched))
