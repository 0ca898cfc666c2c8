"""Lesson 6, a sweep: which setting is better, and is the difference more than chance?

python experiments/tour 6
"""

import marimo  # not there? pip install -e '.[tour]' -c constraints.txt

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="6 A sweep")

with app.setup:
    from statistics import mean, stdev

    import draw
    import lesson
    import marimo as mo

    from lm import notebook


@app.cell(hide_code=True)
def _():
    mo.md(f"""
    # 6 A sweep

    {lesson.road("probabilities")}

    A setting is good if it makes a better model than another setting does, **by more than chance
    does**. So run each several times, with seeds that differ in first weights and in batches.
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Three learning rates, three seeds

    The learning rate is the length of a step. Too short and the run ends before it has arrived;
    too long and it steps over. Nine runs of a small network that sees eight characters:
    """)
    return


@app.cell
def _():
    corpus = lesson.corpus("names")
    words = [f"corpus={corpus}", "tokenizer=char", "model=mlp", "model.n_hidden=64"]
    words += ["optimizer=adamw", "train.steps=150", "train.eval_every=0", "train.sample_every=0"]
    words += ["train.threads=1", "train.dtype=float32", "track=off"]
    rates = ["0.0003", "0.003", "0.03"]
    seeds = ["0", "1", "2"]
    return rates, seeds, words


@app.cell
def _(rates, seeds, words):
    folder = lesson.folder("6_sweep", words)
    runs = {}
    with mo.capture_stdout():
        for rate in rates:
            for seed in seeds:
                own = [f"optimizer.lr={rate}", f"seed={seed}"]
                runs[rate, seed] = notebook.train(*words, *own, out=f"{folder}/{rate}_{seed}")
    scores = {key: run.metrics()[-1]["val/bpb"] for key, run in runs.items()}
    return folder, runs, scores


@app.cell
def _(rates, scores, seeds):
    points = {}
    for s in seeds:
        points[f"seed {s}"] = [(float(r), scores[r, s]) for r in rates]
    draw.curves(points, "bits per byte on validation", "learning rate", log_x=True, dots=True)
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Mean and spread

    The dots of one rate are the same setting: how far they lie apart is chance. Its size is the
    standard deviation over seeds. A difference of means much larger than that is a finding.
    """)
    return


@app.cell
def _(rates, scores, seeds):
    means = {}
    table = []
    for arm in rates:
        of_arm = [scores[arm, seed] for seed in seeds]
        means[arm] = mean(of_arm)
        table.append((arm, f"{mean(of_arm):.4f}", f"{stdev(of_arm):.4f}"))
    table.sort(key=lambda line: line[1])
    draw.table(["learning rate", "mean", "spread"], table)
    return (means,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Paired by seed

    Runs of one seed see the same batches. Their difference is free of what those batches brought:
    compare within a seed, then look whether all differences have one sign.
    """)
    return


@app.cell
def _(means, scores, seeds):
    best, second = sorted(means, key=means.get)[:2]
    gaps = [scores[second, seed] - scores[best, seed] for seed in seeds]
    pairs = []
    for one, gap in zip(seeds, gaps, strict=True):
        pairs.append((one, f"{scores[best, one]:.4f}", f"{scores[second, one]:.4f}", f"{gap:+.4f}"))
    draw.table(["seed", f"lr {best}", f"lr {second}", "difference"], pairs)
    return best, gaps, second


@app.cell
def _(best, gaps, second):
    said = "in every seed" if min(gaps) > 0 else "not in every seed: more of them would tell"
    mo.md(f"{best} is ahead of {second} {said}; by {mean(gaps):.4f} on average.")
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## The report

    The project draws this for any folder of runs: arms ranked, curves, what each setting does.
    """)
    return


@app.cell
def _(folder, runs):
    assert runs  # which are what the report reads
    notebook.report(folder)
    return


@app.cell
def _(best, means, rates, seeds, words):
    command = (
        f"python -m lm.train -m {' '.join(words)} "
        f"optimizer.lr={','.join(rates)} seed={','.join(seeds)}"
    )
    expected = f"{means[best]:.4f}"
    lesson.ending(
        command,
        expected,
        "It is the first line of the ranking. `python -m lm.compare` adds pairs of runs until one "
        "side is ahead beyond doubt, and that is how a change earns its place here.",
    )
    return


if __name__ == "__main__":
    app.run()
