"""Reports: runs are read as they lie, folded by seed, and never ranked where it would be wrong."""

import itertools
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from lm import config, experiment, figures, paired, records, report


@pytest.fixture
def fake_run(cfg, tmp_path):
    """fake_run("outputs/runs/d/r", "model=gru", scores=[8, 3, 2]): a run directory by hand."""
    composed: dict[tuple[str, ...], config.Config] = {}

    def make(where, *words, scores=(8.0, 3.0, 2.0), done=True, corpus="c1", **extra):
        path = tmp_path / where
        path.mkdir(parents=True)
        if words not in composed:
            composed[words] = cfg(*words)
        config.save(composed[words], path / config.RESOLVED)
        tokens = {
            "corpus": corpus,
            "tokenizer": extra.get("tokenizer", "t1"),
            "splits": {"val": {"n_bytes": 1000, "n_tokens": 500}, "train": {"n_tokens": 4000}},
        }
        (path / "data.json").write_text(json.dumps({"corpus": {}, "tokens": tokens}))
        (path / "code.json").write_text(json.dumps({"git_commit": "abcdef0123", "python": "3.11"}))
        rows = [
            {"step": 10 * i, "tokens": 100 * i, "seconds": i * 1.0, "val/bpb": s, "val/loss": s}
            for i, s in enumerate(scores)
        ]
        (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        if done:
            best = min(range(len(scores)), key=lambda i: scores[i])
            last = rows[-1]
            summary = {"val/bpb": scores[-1], "val/loss": scores[-1], "best_val_bpb": scores[best]}
            summary |= {"best_step": 10 * best, "step": last["step"], "tokens": last["tokens"]}
            summary |= {"seconds": 2.0, "n_params": 10, "flops": last["tokens"] * 60}
            summary |= extra.get("summary", {})
            (path / "summary.json").write_text(json.dumps(summary))
        hydra = path / ".hydra"
        hydra.mkdir()
        (hydra / "overrides.yaml").write_text("".join(f"- {w}\n" for w in words) or "[]\n")
        return path

    return make


def three_arms(fake_run):
    for i, (model, base) in enumerate([("gru", 2.0), ("mlp", 2.5), ("transformer", 1.5)]):
        for seed in range(3):
            fake_run(
                f"outputs/sweeps/d/s/{3 * i + seed}",
                "name=900_x",
                f"model={model}",
                f"seed={seed}",
                scores=(8.0, base + 1, base + 0.01 * seed),
            )
    return records.find([Path("outputs")])


# ------------------------------------------------------------------------------------- reading


def test_arms_fold_seeds_and_are_named_by_what_sets_them_apart(fake_run):
    arms = records.arms(three_arms(fake_run))
    assert {a.label: (round(a.mean, 6), round(a.spread, 6), a.n) for a in arms} == {
        "gru": (2.01, 0.01, 3),
        "mlp": (2.51, 0.01, 3),
        "transformer": (1.51, 0.01, 3),
    }


def test_arms_made_without_a_sweep_are_named_by_their_settings(fake_run):
    for i, lr in enumerate(("0.001", "0.01")):
        path = fake_run(f"outputs/runs/d/{i}x", f"optimizer.lr={lr}")
        (path / ".hydra/overrides.yaml").unlink()
    labels = {a.label for a in records.arms(records.find([Path("outputs")]))}
    assert labels == {"lr=0.001", "lr=0.01"}


def test_a_run_repeated_with_the_same_seed_counts_once(fake_run):
    for name, score in (("a", 3.0), ("b", 2.0)):
        path = fake_run(f"outputs/runs/d/{name}", "seed=1", scores=(8.0, score))
        os.utime(path / "metrics.jsonl", (time.time(), 1000 if name == "a" else 2000))
    (arm,) = records.arms(records.find([Path("outputs")]))
    assert (arm.n, arm.mean) == (1, 2.0)


def test_a_torn_last_line_is_left_out(fake_run):
    path = fake_run("outputs/runs/d/a", done=False)
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"step": 30, "tok')
    assert len(records.read(path).rows) == 3


def test_a_run_is_running_until_its_points_are_old(fake_run):
    path = fake_run("outputs/runs/d/a", done=False)
    assert records.read(path).status == "running"
    os.utime(path / "metrics.jsonl", (1, 1))
    assert records.read(path).status == "stopped"
    assert records.read(fake_run("outputs/runs/d/b")).status == "done"


def test_settings_read_by_the_fast_loader_equal_those_of_the_checked_one(fake_run):
    path = fake_run("outputs/runs/d/a", "optimizer.lr=1e-5", "track.notes=1:30", "name=NO")
    assert records.read(path).settings == config.flat(config.load(path / config.RESOLVED))


# --------------------------------------------------------------------------------- experiments


def test_an_experiment_gets_its_table_its_plot_and_its_line_in_the_index(fake_run, tmp_path):
    runs = three_arms(fake_run)
    folder = tmp_path / "experiments/900_x"
    folder.mkdir(parents=True)
    text = f"# x\n\n## Question\n\nWhich one?\n\n{experiment.MARK}\nold\n{experiment.MARK}\n"
    (folder / "README.md").write_text(text + "\n## Verdict\n\nThe transformer.\n")
    experiment.write(folder, runs)
    readme = (folder / "README.md").read_text()
    assert "| transformer | 1.5100 | 0.0100 | 3 |" in readme
    assert "| gru | 2.0100 | 0.0100 | 3 | +0.5000 +- 0.0000 |" in readme
    assert "old" not in readme and "The transformer." in readme
    assert len((folder / "results.csv").read_text().splitlines()) == 10
    index = (tmp_path / "experiments/README.md").read_text()
    assert "| Which one? | The transformer. | c" not in index
    assert "transformer 1.5100 +- 0.0100, 0.5000 ahead" in index and "abcdef0" in index


def test_writing_an_experiment_twice_changes_no_byte(fake_run, tmp_path):
    runs = three_arms(fake_run)
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
    readme = (folder / "README.md").read_text()
    assert readme.count("| arm | val/bpb |") == 2
    assert "**names**" in readme and "**pydocs**" in readme


def test_an_experiment_without_complete_runs_says_how_to_make_them(fake_run, tmp_path):
    fake_run("outputs/runs/d/a", done=False)
    with pytest.raises(ValueError, match="-m experiment=900_y"):
        experiment.write(tmp_path / "900_y", records.find([Path("outputs")]))


def test_a_readme_without_marks_is_left_alone(fake_run, tmp_path):
    folder = tmp_path / "experiments/900_x"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("mine\n")
    with pytest.raises(ValueError, match="two lines <!-- results -->"):
        experiment.write(folder, three_arms(fake_run))
    assert (folder / "README.md").read_text() == "mine\n"


def test_the_paired_interval_is_student_s(fake_run):
    """Differences 1, 2, 3: mean 2, standard deviation 1, t = 4.303 at two degrees of freedom."""
    for seed in range(3):
        fake_run(f"outputs/runs/d/a{seed}", f"seed={seed}", scores=(9.0, 1.0))
        words = ("model=gru", f"seed={seed}")
        fake_run(f"outputs/runs/d/b{seed}", *words, scores=(9.0, 2.0 + seed))
    best, other = sorted(records.arms(records.find([Path("outputs")])), key=lambda a: a.mean)
    assert experiment.behind(other, best) == f"+2.0000 +- {4.303 / 3**0.5:.4f}"


# -------------------------------------------------------------------------------------- plots


def test_labels_of_lines_do_not_overlap_and_keep_their_order():
    placed = figures.spread_out([1.0, 1.001, 1.002, 2.0, 1.0005], 0.0, 2.0)
    gaps = [b - a for a, b in itertools.pairwise(placed)]
    assert placed == sorted(placed) and min(gaps) > 0.05 * 2.0


def test_the_band_covers_what_all_seeds_have(tmp_path):
    line = figures.Line("a", [([0, 10, 20], [4.0, 2.0, 1.0]), ([0, 20, 40], [6.0, 3.0, 2.0])])
    x, mean, low, high = line.band()
    assert x.tolist() == [0, 10, 20]
    assert mean.tolist() == [5.0, 3.25, 2.0]
    assert low.tolist() == [4.0, 2.0, 1.0] and high.tolist() == [6.0, 4.5, 3.0]


# ------------------------------------------------------------------------------------- command


def test_directories_on_the_command_line_become_the_setting_runs():
    assert report.words(["a", "by=model", "b/c"]) == ["runs=['a', 'b/c']", "by=model"]


# ------------------------------------------------------------------------------ two runs compared


def test_spans_are_the_same_bytes_for_both_tokenizers():
    """Text of 12 bytes: tokens of 3 bytes at one bit a byte against tokens of 2 at two bits."""
    ends_a, ends_b = np.arange(3, 13, 3), np.arange(2, 13, 2)
    bits_a = np.concatenate(([0.0], np.cumsum(np.full(3, 3.0))))
    bits_b = np.concatenate(([0.0], np.cumsum(np.full(5, 4.0))))
    cuts, a, b = paired.common_spans(ends_a, bits_a, ends_b, bits_b, span=1)
    assert cuts.tolist() == [6, 12]
    assert a.tolist() == [6.0] and b.tolist() == [12.0]


def test_special_tokens_have_no_bytes_and_do_not_move_the_cuts():
    ends = np.array([0, 2, 4, 4, 4, 6])
    bits = np.array([0.0, 1.0, 2.0, 2.0, 2.0, 3.0])
    cuts, a, _ = paired.common_spans(ends, bits, np.array([2, 4, 6]), np.arange(3.0), span=1)
    assert cuts.tolist() == [2, 4, 6] and a.tolist() == [1.0, 1.0]


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(1)
    hits = 0
    for trial in range(60):
        sizes = random.integers(900, 1100, size=60)
        differences = sizes * 0.05 + random.normal(0, 40, size=60)
        low, high = paired.bootstrap(differences, sizes, seed=trial)
        hits += low <= 0.05 <= high
    assert 50 <= hits <= 60


@pytest.mark.slow
def test_runs_of_different_tokenizers_compare_and_agree_with_their_own_scores(
    cfg, toy_text, tmp_path
):
    from lm import evaluate, loop, pipeline
    from lm.run import Run

    outs = []
    for name in ("byte", "bpe"):
        words = ["corpus=files", f"corpus.path={toy_text}", "track=off", "model=bigram_counts"]
        words += [
            f"tokenizer={name}",
            "train=smoke",
            *["tokenizer.vocab_size=300"] * (name == "bpe"),
        ]
        outs.append(tmp_path / name)
        outs[-1].mkdir()
        loaded = cfg(*words)
        config.save(loaded, outs[-1] / config.RESOLVED)
        loop.train(loaded, outs[-1])
    found = paired.compare(str(outs[0]), str(outs[1]))
    for out, bpb in zip(outs, (found.a, found.b), strict=True):
        run = Run.open(str(out))
        ids = pipeline.prepare(run.cfg).val
        whole = evaluate.evaluate(run.model(), ids, run.tokenizer.token_lengths())["bpb"]
        assert bpb == pytest.approx(whole, rel=0.02)  # of the text less its two ends
    assert found.low < found.b - found.a < found.high
    text = paired.told("A", "B", found)
    assert ("B is better" in text) == (found.high < 0)
    same = paired.compare(str(outs[0]), str(outs[0]))
    assert (same.low, same.high) == (0.0, 0.0) and "neither" in paired.told("A", "A", same)
