"""The results of an experiment as Markdown: the block between the marks of its README.

readme.write(Path("experiments/001_model_ladder/README.md"), readme.block(arms))
"""

import statistics
from collections.abc import Sequence
from pathlib import Path

from lm.report import effects, folding, lr_range, markdown, scaling
from lm.report.best import half_width
from lm.report.folding import Arm, Ranking
from lm.report.records import Record
from lm.sweep.ranking import mean_and_spread
from lm.system import files, foreign

MARK = "<!-- results -->"
PLOTTED = 16  # arms of a corpus in the plot: so many labels find room beside it
SKELETON = """# {name}

## Question

## Command

```
python -m lm.train -m experiment={name}
```

## Result

<!-- results -->
<!-- results -->

## Verdict

## Not shown

## Next
"""
ABOUT = (
    "val/bpb: bits per byte of the validation text at the best checkpoint, the mean over seeds; "
    "+-: the sample's standard deviation over seeds; behind: the mean difference to the best arm, "
    "seed by seed, with an interval that leaves zero out in 5 of 100 rankings without a "
    "difference; at the end: after the last step."
)
HEAD = (
    "| arm | val/bpb | +- | seeds | behind | at the end | best step | params | seconds |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def write(path: Path, content: str) -> None:
    """Replace what stands between the two marks of a README, which is begun if it is not there."""
    text = SKELETON.format(name=path.parent.name)
    if path.exists():
        text = foreign.read_text(path, links=True)
    parts = text.split(MARK)
    if len(parts) != 3:
        raise ValueError(f"{path} needs two lines {MARK} for its results: it has {len(parts) - 1}")
    before, _, after = parts
    files.atomic_write(path, f"{before}{MARK}\n{content}\n{MARK}{after}")


def block(arms: Sequence[Arm], incomplete: Sequence[Arm] = ()) -> str:
    """One table a corpus of complete arms, their plot, and how to read them.

    The `incomplete` arms are named below the tables.
    """
    runs = [run for arm in arms for run in arm.done]
    if lr_range.is_one(arms):
        plot = "![training loss against the rate, mean and range over seeds](curves.svg)"
        return "\n\n".join([lr_range.block(arms), plot, lr_range.ABOUT, footer(runs)])
    parts = []
    rankings = folding.by_name(folding.rank(arms))
    for ranking in rankings:
        parts.append(corpus_table(ranking))
        effects_table = effects.table(ranking.arms)
        if scaling.is_one(ranking.arms):
            parts.append(scaling.block(ranking.arms))
        elif effects_table:
            parts += [effects_table, effects.ABOUT]
    if incomplete:
        parts.append(f"No complete run: {'; '.join(map(with_status, incomplete))}.")
    if is_plotted(arms):
        is_cut = any(len(ranking.arms) > PLOTTED for ranking in rankings)
        best = f" of the {PLOTTED} best arms" if is_cut else ""
        plot = f"val/bpb{best} against {axis(arms)}, mean and range over seeds"
        parts.append(f"![{plot}](curves.svg)")
    parts.append(ABOUT)
    parts.append(footer(runs))
    return "\n\n".join(parts)


def is_plotted(arms: Sequence[Arm]) -> bool:
    """Whether a plot says more than the table: not where each run was scored once, at its end."""
    if lr_range.is_one(arms) or any(
        scaling.is_one(ranking.arms) for ranking in folding.by_name(folding.rank(arms))
    ):
        return True
    return any(len(run.curve("val/bpb")) > 1 for arm in arms for run in arm.done)


def axis(arms: Sequence[Arm]) -> str:
    """What the complete runs had an equal budget of: tokens, or flops if that was set."""
    budgets = [arm.done[0].settings.get("train.flops") for arm in arms]
    return "flops" if all(budgets) else "tokens"


def with_status(arm: Arm) -> str:
    status = sorted({run.status for run in arm.runs})
    return f"{arm.label} ({', '.join(status)})"


def corpus_table(ranking: Ranking) -> str:
    """The ranking on one text as a Markdown table below its title."""
    title = f"**{ranking.name}**"
    if ranking.first.val_bytes is not None:
        title += f", {ranking.first.val_bytes:,} bytes of validation text"
    for bpb in ranking.first.entropy().values():
        title += f"; a perfect model needs {bpb:.4f} bits per byte"
    lines = [title, "", HEAD]
    best = ranking.arms[0]
    for arm in ranking.arms:
        ends = [run.end for run in arm.done]
        mean_end, _ = mean_and_spread(end.val_bpb for end in ends)
        seconds = statistics.fmean(end.seconds for end in ends)
        cells = (
            without(arm.label, ranking.name),
            f"{arm.mean:.4f}",
            "" if arm.spread is None else f"{arm.spread:.4f}",
            str(arm.n),
            "" if arm is best else behind(arm, best, len(ranking.arms)),
            f"{mean_end:.4f}",
            span([end.best_step for end in ends]),
            f"{ends[0].n_params:,}",
            f"{seconds:.0f}",
        )
        lines.append(markdown.row(cells))
    return "\n".join(lines)


def span(steps: Sequence[int]) -> str:
    """[100, 1200] as "100 to 1,200"."""
    low = min(steps)
    high = max(steps)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def behind(arm: Arm, best: Arm, n_arms: int) -> str:
    """The mean difference to the best of `n_arms` arms over the seeds both have, with a 95 %
    interval that takes into account how the best was found.
    """
    rival = best.scores
    gaps = [score - rival[seed] for seed, score in arm.scores.items() if seed in rival]
    if not gaps:
        return ""
    half = half_width(gaps, n_arms)
    between = "" if half is None else f" +- {half:.4f}"
    return f"{statistics.fmean(gaps):+.4f}{between}"


def footer(runs: Sequence[Record]) -> str:
    """What the numbers come from: versions, threads, code, days."""
    code = runs[0].code
    commits = sorted({(run.code.git_commit or "unknown")[:7] for run in runs})
    days = sorted({run.day for run in runs})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return (
        f"{len(runs)} runs; Python {code.python}, torch {code.torch}, "
        f"{code.threads} threads; code {', '.join(commits)}; {when}."
    )


def without(label: str, word: str) -> str:
    """The label less the corpus, which stands above the table already."""
    return " ".join(part for part in label.split() if part != word) or label
