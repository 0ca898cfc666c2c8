"""An experiment's folder is written from its runs: its table, its plot, its line in the index."""

import dataclasses
import itertools
import json
import math
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from lm.report import experiment, figures, folding, readme, records, scaling


def test_an_experiment_gets_its_table_its_plot_and_its_line_in_the_index(three_arms, tmp_path):
    runs = three_arms
    folder = tmp_path / "experiments/900_x"
    folder.mkdir(parents=True)
    text = f"# x\n\n## Question\n\nWhich one?\n\n{readme.MARK}\nold\n{readme.MARK}\n"
    (folder / "README.md").write_text(text + "\n## Verdict\n\nThe transformer.\n")
    experiment.write(folder, runs)
    page = (folder / "README.md").read_text()
    assert "| transformer | 1.5100 | 0.0100 | 3 |" in page
    assert "| gru | 2.0100 | 0.0100 | 3 | +0.5000 +- 0.0000 |" in page
    assert "old" not in page and "The transformer." in page
    assert len((folder / "results.csv").read_text().splitlines()) == 10
    index = (tmp_path / "experiments/README.md").read_text()
    assert "| Which one? | The transformer. | c" not in index
    assert "transformer 1.5100 +- 0.0100, 0.5000 ahead" in index and "abcdef0" in index


def test_runs_that_were_scored_once_have_a_table_and_no_plot(fake_run, tmp_path):
    for seed in (0, 1):
        fake_run(f"outputs/runs/d/{seed}", "name=900_x", f"seed={seed}", scores=(2.0,))
    folder = tmp_path / "experiments/900_x"
    written = experiment.write(folder, records.find([Path("outputs")]))
    assert not [path for path in written if path.suffix == ".svg"]
    assert not (folder / "curves.svg").exists()
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "2.0000" in page and "curves.svg" not in page


def test_fewer_complete_runs_than_were_written_are_refused(three_arms, tmp_path):
    """One run of the experiment's name, on another text, took the place of 36 that were there."""
    runs = three_arms
    folder = tmp_path / "experiments/900_x"
    folder.parent.mkdir()
    experiment.write(folder, runs)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(
        ValueError, match="has 9 complete runs and would have 1: run what is missing"
    ):
        experiment.write(folder, runs[:1])
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "results.csv").unlink()
    experiment.write(folder, runs[:1])


def test_every_table_of_an_experiment_has_its_bars_replaced(fake_run):
    for i, pattern in enumerate(("a|b", "c|d")):
        for lr in ("0.1", "0.2"):
            words = ("tokenizer=bpe", f"tokenizer.pattern={pattern}", f"optimizer.lr={lr}")
            fake_run(f"outputs/sweeps/d/{lr}/{i}", *words)
    arms = folding.fold_seeds(records.find([Path("outputs")]))
    assert "a|b" in arms[0].label
    rows = [row for row in readme.block(arms).splitlines() if row.startswith("| ")]
    assert len(rows) == 10
    assert {row.count("|") for row in rows} == {10, 8}  # of the arms, and of the settings


def test_runs_of_an_equal_number_of_operations_are_drawn_against_them(fake_run):
    path = fake_run("outputs/runs/d/a", "train.flops=12000")
    run = records.read(path)
    assert readme.axis(folding.fold_seeds([run])) == "flops"
    assert run.curve("val/bpb", "flops") == [(0, 8.0), (6000, 3.0), (12000, 2.0)]


def test_sizes_crossed_with_budgets_give_a_law_and_what_it_said_of_the_run_held_out(
    fake_run, monkeypatch
):
    monkeypatch.setattr(scaling, "DRAWS", 20)
    law = scaling.Law(0.9, 300.0, 900.0, 0.55, 0.5)
    cases = [(c, t, "900_x") for c in (32, 48, 64, 96) for t in (200_000, 400_000, 800_000)]
    for i, (width, tokens, name) in enumerate([*cases, (128, 1_600_000, "900_x_held_out")]):
        n = 24 * width**2
        chosen = [f"name={name}", f"model.n_embd={width}", f"train.tokens={tokens}"]
        score = float(law.predict(n, tokens))
        summary = {"n_params": n + 10 * width, "tokens": tokens}
        fake_run(f"outputs/sweeps/d/s/{i}", *chosen, scores=(8.0, score), summary=summary)
    Path("experiments/900_x").mkdir(parents=True)
    experiment.write(Path("experiments/900_x"), records.find([Path("outputs")]))
    text = Path("experiments/900_x/README.md").read_text()
    assert "over the 12 points it is off by 0.0000 in the mean" in text
    row = re.search(r"D = 1,600,000 \| (.*?) \| .*? \| (.*?) \|", text)
    predicted, measured = row.groups()
    assert float(predicted) == pytest.approx(float(measured), abs=1e-3)


def test_each_text_has_a_law_of_its_own(fake_run, monkeypatch):
    """One law was drawn through the points of all texts."""
    runs = []
    for i, (width, tokens) in enumerate(itertools.product((32, 48, 64), (200, 400, 800))):
        run = records.read(fake_run(f"outputs/sweeps/d/s/{i}"))
        run.settings |= {"model.n_embd": width, "train.tokens": tokens}
        run.summary.n_params = 24 * width**2 + 10 * width
        run.summary.tokens = tokens
        run.summary.best_val_bpb = 0.9 + 20 / width + 30 / tokens**0.5
        other = dataclasses.replace(
            run,
            settings=run.settings | {"corpus.name": "names"},
            data=replace(run.data, tokens=replace(run.data.tokens, corpus="c2")),
            summary=replace(run.summary, best_val_bpb=run.score / 2),
        )
        runs += [run, other]
    drawn = []
    monkeypatch.setattr(figures, "chart", lambda series, *_: drawn.extend(series))
    experiment.draw(folding.fold_seeds(runs), Path("curves.svg"))
    lines = {s.label: s.y for s in drawn if not s.dots}
    assert len(lines) == 6
    hard, easy = (lines[f"{name}, N = 24,576"] for name in ("pydocs", "names"))
    assert easy[0] == pytest.approx(hard[0] / 2, rel=1e-3)


def test_a_plot_has_the_best_arms_alone_where_their_labels_would_not_fit(fake_run):
    """Eighty-one labels lay over each other."""
    runs = [records.read(fake_run(f"outputs/sweeps/d/s/{i}")) for i in range(18)]
    for i, run in enumerate(runs):
        run.settings |= {"optimizer.lr": i / 100}
        run.summary.best_val_bpb = 2 + i / 10
    arms = folding.fold_seeds(runs)
    (panel,) = experiment.panels(folding.rank(arms))
    best = [arm.label for arm in folding.rank(arms)[0].arms[:16]]
    assert [line.label for line in panel.lines] == best and "0.17" not in "".join(best)
    assert "![val/bpb of the 16 best arms against tokens" in readme.block(arms)
    assert "![val/bpb against tokens" in readme.block(arms[:16])


def test_widths_of_different_models_make_no_law(fake_run):
    runs = [records.read(fake_run(f"outputs/sweeps/d/s/{i}")) for i in range(3)]
    for run, width in zip(runs, (32, 64, 96), strict=True):
        run.settings |= {"model.n_embd": width, "train.tokens": width}
    assert scaling.is_one(folding.fold_seeds(runs))
    runs[0].settings["model.name"] = "gru"
    assert not scaling.is_one(folding.fold_seeds(runs))


def test_a_range_test_is_told_by_its_rate_and_ranked_by_no_score(fake_run):
    for seed in range(2):
        path = fake_run(f"outputs/sweeps/d/s/{seed}", "name=900_x", "schedule=range",
                        f"seed={seed}")  # fmt: skip
        rates = [10 ** (-4 + i / 30) for i in range(121)]
        losses = [4 - 2 * math.tanh((math.log10(r) + 2) / 0.4) for r in rates]
        rows = [{"step": i, "optim/lr": r, "train/loss": y}
                for i, (r, y) in enumerate(zip(rates, losses, strict=True))]  # fmt: skip
        (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    Path("experiments/900_x").mkdir(parents=True)
    experiment.write(Path("experiments/900_x"), records.find([Path("outputs")]))
    text = Path("experiments/900_x/README.md").read_text()
    assert "| 1.0e-02 | 1.0e-02, 1.0e-02 |" in text
    assert "val/bpb |" not in text
    assert "2.0" not in Path("experiments/README.md").read_text()


def test_writing_an_experiment_twice_changes_no_byte(three_arms, tmp_path):
    runs = three_arms
    folder = tmp_path / "experiments/900_x"
    folder.parent.mkdir()
    before = {p: p.read_bytes() for p in experiment.write(folder, runs)}
    assert {p: p.read_bytes() for p in experiment.write(folder, runs)} == before


def test_different_texts_are_never_ranked_against_each_other(fake_run, tmp_path):
    fake_run("outputs/runs/d/a", "name=n", scores=(8.0, 2.0), corpus="c1")
    fake_run("outputs/runs/d/b", "name=n", "corpus=names", scores=(8.0, 1.0), corpus="c2")
    folder = tmp_path / "experiments/n"
    folder.parent.mkdir()
    experiment.write(folder, records.find([Path("outputs")]))
    page = (folder / "README.md").read_text()
    assert page.count("| arm | val/bpb |") == 2
    assert "**names**" in page and "**pydocs**" in page


def test_an_experiment_without_complete_runs_says_how_to_make_them(fake_run, tmp_path):
    fake_run("outputs/runs/d/a", done=False)
    (tmp_path / "900_y").mkdir()
    (tmp_path / "900_y/run.yaml").write_text("name: mine\n")
    runs = records.find([Path("outputs")])
    with pytest.raises(ValueError, match=r"is called mine: run .*-m experiment=900_y$"):
        experiment.write(tmp_path / "900_y", runs)
    with pytest.raises(ValueError, match=r"has no experiment 900 \(known: 900_y\)$"):
        experiment.write(tmp_path / "900", runs)


def test_the_runs_of_an_experiment_are_found_by_the_name_that_its_file_gives(fake_run, tmp_path):
    """All its arms were trained to their ends, and the report knew its folder's name alone."""
    (tmp_path / "900_z").mkdir()
    (tmp_path / "900_z/run.yaml").write_text("name: mine\n")
    for name in ("mine", "mine_held_out", "900_z"):
        fake_run(f"outputs/runs/d/{name}", f"name={name}")
    runs = experiment.runs_of(tmp_path / "900_z", [Path("outputs")])
    assert {run.settings["name"] for run in runs} == {"mine", "mine_held_out"}
    (tmp_path / "900_z/run.yaml").write_text("seed: 1\n")
    (run,) = experiment.runs_of(tmp_path / "900_z", [Path("outputs")])
    assert run.settings["name"] == "900_z"


def test_a_readme_without_marks_is_left_alone(three_arms, tmp_path):
    folder = tmp_path / "experiments/900_x"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("mine\n")
    with pytest.raises(ValueError, match="two lines <!-- results -->"):
        experiment.write(folder, three_arms)
    assert (folder / "README.md").read_text() == "mine\n"


def test_the_paired_interval_is_student_s(fake_run):
    """Differences 1, 2, 3: mean 2, standard deviation 1, t = 4.303 at two degrees of freedom."""
    for seed in range(3):
        fake_run(f"outputs/runs/d/a{seed}", f"seed={seed}", scores=(9.0, 1.0))
        words = ("model=gru", f"seed={seed}")
        fake_run(f"outputs/runs/d/b{seed}", *words, scores=(9.0, 2.0 + seed))
    best, other = sorted(folding.fold_seeds(records.find([Path("outputs")])), key=lambda a: a.mean)
    assert readme.behind(other, best, 2) == f"+2.0000 +- {4.303 / 3**0.5:.4f}"


def test_an_arm_without_a_complete_run_is_named_under_the_results(three_arms, fake_run, tmp_path):
    path = fake_run("outputs/sweeps/d/s/9", "name=900_x", "model=bigram", done=False)
    (path / "result.json").write_text(json.dumps({"status": "failed", "overrides": []}))
    (tmp_path / "experiments").mkdir()
    experiment.write(tmp_path / "experiments/900_x", records.find([Path("outputs")]))
    text = (tmp_path / "experiments/900_x/README.md").read_text()
    assert re.search(r"No complete run: .*bigram.* \(failed\)\.", text)
