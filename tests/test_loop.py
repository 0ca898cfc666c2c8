"""Training: resume is exact to the bit, evaluation disturbs nothing, a bad number stops the run."""

import json
import subprocess
from types import SimpleNamespace

import pytest
import torch

from lm import baselines, config, loop, metrics, setup, train, update
from lm.record import checkpoint, guard, origin
from lm.record.state import Budget, TrainState
from lm.system import failpoint
from lm.system.errors import NonFiniteError, OutOfMemoryError
from lm.system.tensors import load_tensors
from tests.helpers import MODELS, TINY_TRANSFORMER, Killed, rows, timed


@pytest.fixture
def trained(cfg, tiny, tmp_path):
    """trained("name", ...): the directory of a finished run."""

    def run(name, *words):
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        train.train(cfg(*tiny, *words), out)
        return out

    return run


@pytest.mark.parametrize("case", MODELS)
def test_a_run_killed_at_any_step_ends_bit_for_bit_like_one_that_never_stopped(
    case, trained, monkeypatch
):
    words = (*MODELS[case], "train.save_every=6", "train.log_every=4")
    whole = trained("whole", *words)
    real, kills = update.Update.step, iter([3, 9, 17])
    dies_at = [next(kills)]

    def dies(self, step):
        if step == dies_at[0]:
            raise Killed
        return real(self, step)

    monkeypatch.setattr(update.Update, "step", dies)
    for _ in range(3):
        with pytest.raises(Killed):
            trained("killed", *words)
        dies_at[0] = next(kills, -1)
    killed = trained("killed", *words)
    assert rows(killed) == rows(whole)
    assert rows(killed, "samples.jsonl") == rows(whole, "samples.jsonl")
    for name in ("model.safetensors", "optimizer.safetensors"):
        a, b = (checkpoint.folder(out, 20) / name for out in (killed, whole))
        assert a.read_bytes() == b.read_bytes()


def test_a_run_that_gets_no_better_ends_when_its_patience_does(trained, cfg, tiny, tmp_path):
    heard = []
    out = tmp_path / "still"
    out.mkdir()
    words = ("optimizer.lr=0", *TINY_TRANSFORMER, "train.eval_every=3", "train.patience=2")
    summary = train.train(cfg(*tiny, *words), out, report=lambda step, bpb: heard.append(step))
    assert (summary["step"], summary["best_step"], heard) == (6, 0, [0, 3])
    assert checkpoint.steps(out)[-1] == 6
    whole = trained("learning", *words[1:])
    assert rows(whole)[-1]["step"] == 20
    assert rows(trained("no_patience", *words[1:-1])) == rows(whole)


def test_patience_ends_a_resumed_run_where_it_ends_the_one_that_was_not_killed(
    trained, monkeypatch
):
    """The score is best at step 6, so two evaluations later is step 12."""
    scores = {0: 9.0, 3: 8.0, 6: 7.0, 9: 8.0, 12: 7.5, 15: 1.0}
    words = (*TINY_TRANSFORMER, "train.eval_every=3", "train.patience=2", "train.save_every=4")
    real = loop.evaluate_and_log
    dies_at = [-1]

    def scored(run, track):
        if run.state.step == dies_at[0]:
            raise Killed
        return real(run, track) | {"bpb": scores[run.state.step]}

    monkeypatch.setattr(loop, "evaluate_and_log", scored)
    whole = trained("whole", *words)
    for step in (6, 9, 12):
        dies_at[0] = step
        with pytest.raises(Killed):
            trained("killed", *words)
    dies_at[0] = -1
    killed = trained("killed", *words)
    assert rows(whole)[-1]["step"] == 12
    assert rows(killed) == rows(whole)
    assert json.loads((killed / "summary.json").read_text())["best_step"] == 6


def test_how_often_a_run_is_evaluated_sampled_or_saved_changes_no_loss(trained):
    words = (*MODELS["dropout"], "train.log_every=1")
    often = trained("often", *words, "train.eval_every=1", "train.sample_every=3")
    seldom = trained("seldom", *words, "train.eval_every=0", "train.save_every=0")
    losses = [[r["train/loss"] for r in rows(o) if "train/loss" in r] for o in (often, seldom)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 20


def test_an_evaluation_that_is_not_better_neither_moves_the_best_nor_saves(trained, monkeypatch):
    """A loop that took each evaluation for an improvement was noticed by no test."""
    scores = iter([3.0, 2.0, 2.5, 2.0, 4.0])
    real = loop.evaluate

    def scored(*arguments):
        return real(*arguments) | {"bpb": next(scores)}

    monkeypatch.setattr(loop, "evaluate", scored)
    out = trained("run", *TINY_TRANSFORMER, "train.eval_every=5", "train.save_every=0")
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["best_val_bpb"], summary["best_step"]) == (2.0, 5)
    # The best, and the last: what was evaluated in between was not saved.
    saved = sorted(path.name for path in (out / "checkpoints").glob("step_*"))
    assert saved == ["step_000005", "step_000020"]


def test_the_same_command_gives_the_same_bits_and_another_seed_others(trained):
    first, second = trained("a", *TINY_TRANSFORMER), trained("b", *TINY_TRANSFORMER)
    other = trained("c", *TINY_TRANSFORMER, "seed=1")
    assert rows(first) == rows(second)
    assert rows(first) != rows(other)


def test_accumulated_gradients_are_those_of_the_whole_batch(trained):
    words = (*TINY_TRANSFORMER, "train.log_every=1", "train.steps=3")
    whole, parts = trained("whole", *words), trained("parts", *words, "train.micro_batch=1")
    for a, b in zip(rows(whole), rows(parts), strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key] == pytest.approx(b[key], rel=1e-4), key


def test_a_bad_loss_stops_before_the_update_and_saves_nothing_bad(trained, tmp_path, monkeypatch):
    real = metrics.next_token_loss
    calls = []

    def nan_at_step_12(logits, targets):
        calls.append(0)
        return real(logits, targets) * (float("nan") if len(calls) == 13 else 1.0)

    monkeypatch.setattr(metrics, "next_token_loss", nan_at_step_12)
    with pytest.raises(NonFiniteError, match="step 12: the loss is nan"):
        trained("bad", *TINY_TRANSFORMER, "train.skip=0", "train.rollbacks=0")
    for step in checkpoint.steps(tmp_path / "bad"):
        weights = load_tensors(checkpoint.folder(tmp_path / "bad", step) / "model.safetensors")
        assert all(torch.isfinite(w).all() for w in weights.values())
    assert not (tmp_path / "bad" / "summary.json").exists()


def test_losses_that_are_read_later_end_in_the_same_files(trained, monkeypatch):
    """As on a GPU, where the CPU begins steps before it knows the losses of the last ones."""
    failpoint.switch_on("train.loss=nan@11-12,train.grad=inf@17")
    words = *TINY_TRANSFORMER, "train.log_every=7", "train.save_every=5"
    at_once, read = trained("at once", *words), []
    plain, init = guard.judge, update.Update.__init__

    def ahead(self, *parts):
        init(self, *parts)
        self.ahead = True

    def judge(state, step, *numbers):
        read.append((step, state.step))
        return plain(state, step, *numbers)

    monkeypatch.setattr(update.Update, "__init__", ahead)
    monkeypatch.setattr(guard, "judge", judge)
    later = trained("later", *words)
    assert [step for step, _ in read] == list(range(20)) and sum(a < b for a, b in read) > 10
    assert rows(later) == rows(at_once) and any("train/skipped" in row for row in rows(later))
    for name in ("model.safetensors", "optimizer.safetensors"):
        a, b = (checkpoint.folder(out, 20) / name for out in (later, at_once))
        assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize(
    ("words", "steps"),
    [(("train.steps=7",), 7), (("train.tokens=500",), 8), (("train.tokens=64",), 1)],
)
def test_the_budget_is_steps_or_tokens(trained, words, steps):
    summary = json.loads((trained("run", "model=bigram", *words) / "summary.json").read_text())
    assert summary["step"] == steps
    assert summary["tokens"] == steps * 4 * 16


def test_a_budget_of_operations_is_spent_to_the_last_step(trained):
    out = trained("run", *TINY_TRANSFORMER, "train.flops=1e8")
    summary = json.loads((out / "summary.json").read_text())
    step = summary["flops"] / summary["step"]
    assert 1e8 <= summary["flops"] < 1e8 + step and summary["step"] > 1


def test_a_budget_of_operations_is_refused_where_there_are_none(trained):
    with pytest.raises(ValueError, match="no matrix products"):
        trained("run", "model=bigram", "train.flops=1e8")


@pytest.mark.parametrize("schedule", ["constant", "cosine", "wsd", "range"])
def test_a_run_of_one_step_moves_the_weights(trained, schedule):
    words = ("model=bigram", f"schedule={schedule}", "train.log_every=1", "train.save_every=1")
    out = trained("run", *words, "train.steps=1")
    before, after = (load_tensors(checkpoint.folder(out, i) / "model.safetensors") for i in (0, 1))
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert all(row["optim/lr"] > 0 for row in rows(out) if "optim/lr" in row)


@timed
def test_a_budget_in_seconds_ends_in_time_with_a_decayed_rate(trained):
    out = trained("run", "model=bigram", "train.seconds=0.5", "train.log_every=1")
    summary = json.loads((out / "summary.json").read_text())
    assert 0.5 <= summary["seconds"] < 1.5
    rates = [r["optim/lr"] for r in rows(out) if "optim/lr" in r]
    assert rates[-1] < 0.3 * max(rates)


def test_a_resumed_run_refuses_another_tokenizer(trained):
    trained("run", "model=bigram")
    with pytest.raises(ValueError, match="was trained with another tokenizer"):
        trained("run", "model=bigram", "tokenizer=char")


@pytest.mark.parametrize("text", [None, "{}"])
def test_a_tokenizer_file_that_is_not_the_run_s_is_told_and_written_anew(trained, caplog, text):
    path = trained("run", "model=bigram") / "tokenizer.json"
    right = path.read_bytes()
    assert not [r for r in caplog.records if "written anew" in r.message]
    path.unlink() if text is None else path.write_text(text)
    trained("run", "model=bigram", "train.steps=21")
    assert [r for r in caplog.records if "not the tokenizer of this run" in r.message]
    assert path.read_bytes() == right


def test_a_resumed_run_refuses_another_text_with_both_checksums(trained, tmp_path):
    trained("run", "model=bigram")
    (tmp_path / "other.txt").write_text("another text, " * 500)
    there = json.loads((tmp_path / "run" / "data.json").read_text())["tokens"]["corpus"][:12]
    with pytest.raises(ValueError, match=rf"another corpus \({there}, now [0-9a-f]{{12}}\)"):
        trained("run", "model=bigram", f"corpus.path={tmp_path}/other.txt")


def test_a_finished_run_has_every_file_of_the_architecture(trained):
    out = trained("run", *TINY_TRANSFORMER)
    names = {p.name for p in out.iterdir()} - {"code.diff"}  # only if there are changes
    assert names == {
        "checkpoints", "code.json", "data.json", "metrics.jsonl", "samples.jsonl",
        "summary.json", "tokenizer.json",
    }  # fmt: skip
    keys = {key for row in rows(out) for key in row}
    assert keys >= {
        "step", "tokens", "train/loss", "val/loss", "val/ppl", "val/bpb", "optim/lr",
        "optim/grad_norm",
    }  # fmt: skip
    last = [r for r in rows(out) if "val/bpb" in r][-1]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["val/bpb"] == last["val/bpb"]


def test_the_grammars_floor_is_logged_and_not_beaten(cfg, tmp_path):
    words = ("corpus=grammar", "corpus.n_documents=500", "tokenizer=byte", "track=off")
    out = tmp_path / "g"
    out.mkdir()
    summary = train.train(cfg(*words, "train=smoke", "model=bigram"), out)
    assert summary["val/bpb"] > summary["corpus/floor_bpb"] > 0
    assert all(r["corpus/floor_bpb"] > 0 for r in rows(out) if "val/bpb" in r)


def test_every_evaluation_has_what_counting_reaches_beside_it(trained, monkeypatch):
    """The trained 5-gram is that level itself, so the two are one number."""
    out = trained("a", "model=ngram", "model.order=5", f"model.context_len={baselines.CONTEXT}")
    (row,) = rows(out)
    assert row["baseline/ngram_bpb"] == pytest.approx(row["val/bpb"], abs=2e-6)
    assert row["baseline/unigram_bpb"] > row["baseline/bigram_bpb"] > row["baseline/ngram_bpb"]
    monkeypatch.setattr(
        baselines, "LIMIT_AT_START", 1000
    )  # tokens: counting more would keep a run waiting
    assert not [key for key in rows(trained("b", "model=bigram_counts"))[0] if "baseline" in key]


def test_the_uncommitted_changes_of_the_code_are_kept_as_a_patch(tmp_path, monkeypatch):
    def git(*words: str) -> str:
        name = ("-c", "user.name=a", "-c", "user.email=b@c")
        done = subprocess.run(["git", *name, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    git("init")
    (tmp_path / "code.py").write_text("x = 1\n")
    git("add", ".")
    git("commit", "-m", "one")
    monkeypatch.setattr(origin, "__file__", str(tmp_path / "code.py"))
    assert origin.code_diff() == ""
    (tmp_path / "code.py").write_text("x = 2\n")
    (tmp_path / "kept.diff").write_text(origin.code_diff())
    git("checkout", "code.py")
    git("apply", "kept.diff")
    assert (tmp_path / "code.py").read_text() == "x = 2\n"


def test_a_batch_that_does_not_fit_goes_through_in_halves_with_the_same_result(
    trained, monkeypatch, caplog
):
    failpoint.switch_on("train.forward=memory@9-10")
    words = (*TINY_TRANSFORMER, "train.log_every=1")
    auto = trained("auto", *words, "train.micro_batch=auto")
    assert "2 windows of model.context_len=16" in caplog.text
    state = json.loads((checkpoint.folder(auto, 20) / "state.json").read_text())["state"]
    assert state["micro_batch"] == 1
    failpoint.switch_on("")
    whole = trained("whole", *words)
    for a, b in zip(rows(whole), rows(auto), strict=True):
        for key in a:
            assert a[key] == pytest.approx(b[key], rel=1e-4), key


def test_without_memory_the_message_names_what_would_take_less(trained, monkeypatch):
    failpoint.switch_on("train.forward=memory@9-10")
    with pytest.raises(OutOfMemoryError) as caught:
        trained("run", *TINY_TRANSFORMER)
    for part in ("model.context_len=16", "train.batch_size=4", "train.micro_batch=2 takes less"):
        assert part in str(caught.value)


def test_a_resumed_run_is_told_what_may_change_its_bits(trained, caplog):
    out = trained("run", "model=bigram")
    record = json.loads((out / "code.json").read_text())
    assert record["exact_resume"] and record["device"].startswith("cpu")
    trained("run", "model=bigram", "train.steps=25")
    assert "the bits may differ" not in caplog.text
    (out / "code.json").write_text(json.dumps({**record, "torch": "1.0", "threads": 7}))
    for steps in (30, 35):
        trained("run", "model=bigram", f"train.steps={steps}")
        assert not json.loads((out / "code.json").read_text())["exact_resume"]
    assert caplog.text.count("threads was 7 and is 1") == 1


def test_weights_that_are_not_finite_are_followed_by_a_return_to_finite_ones(trained, caplog):
    words = "model=mlp", "optimizer.lr=1e38", "schedule=constant", "schedule.warmup=0"
    with pytest.raises(NonFiniteError, match="1 rollbacks did not help"):
        trained("run", *words, "train.save_every=1")
    assert "back to the checkpoint of step 0" in caplog.text


@pytest.mark.parametrize("model", ["mlp", "gru"])
def test_a_model_that_came_apart_is_told_so_by_its_loss_and_not_by_its_sample(trained, model):
    words = "optimizer.lr=1e30", "schedule=constant", "schedule.warmup=0"
    with pytest.raises(NonFiniteError):
        trained("run", f"model={model}", *words, "train.sample_every=1", "train.save_every=5")


def test_the_loss_told_beside_an_evaluation_is_that_of_the_steps_just_before(trained, caplog):
    words = *TINY_TRANSFORMER, "train.steps=10"
    each = [
        r["train/loss"] for r in rows(trained("a", *words, "train.log_every=1")) if "epoch" in r
    ]
    caplog.set_level("INFO")
    caplog.clear()
    trained("b", *words, "train.log_every=5")  # points at 0 and 5; the next is of 6 to 10
    (line,) = [
        r.message
        for r in caplog.records
        if r.message.startswith("step     10  ") and "val" in r.message
    ]
    assert f"loss {sum(each[6:10]) / 4:.3f}  val loss" in line


@pytest.mark.parametrize(
    ("bpb", "last", "bad_in_a_row", "expected"),
    [
        (1.9, False, 0, True),
        (2.0, False, 0, False),
        (2.1, True, 0, False),
        (1.9, False, 1, False),  # amid skipped steps nothing is saved
        (1.9, True, 1, True),  # but at the end
    ],
)
def test_the_best_is_what_is_better_and_can_be_saved(bpb, last, bad_in_a_row, expected):
    state = TrainState(best_val_bpb=2.0, bad_in_a_row=bad_in_a_row)
    assert loop.is_improvement(state, bpb, last) is expected


def steps_read(ahead: bool = True, seconds: float = 0.0) -> list[int]:
    """The steps of 0 to 99 after which the losses are read, as on a GPU."""
    every = {"log_every": 40, "eval_every": 25, "sample_every": 0, "save_every": 30}
    cfg = config.TrainConfig(**every, seconds=seconds)
    run = setup.TrainingRun.__new__(setup.TrainingRun)  # of which nothing else is asked
    run.cfg, run.state = SimpleNamespace(train=cfg), TrainState()
    run.update, run.budget = SimpleNamespace(ahead=ahead), Budget(98, cfg)
    found = []
    for run.state.step in range(100):
        if loop.must_read_losses(run):
            found.append(run.state.step)
    return found


def test_a_gpu_is_waited_for_only_where_the_losses_are_needed():
    """After steps that are logged, and before what happens at the next step: evaluation, a save,
    the end."""
    assert steps_read() == sorted({0, 40, 80} | {24, 49, 74, 99} | {29, 59, 89} | {97})
    assert steps_read(ahead=False) == steps_read(seconds=9.0) == list(range(100))


def test_a_point_of_the_curve_is_of_the_steps_since_the_last():
    model = config.BigramConfig(context_len=8).build(5)
    model.flops_per_token = lambda: 600
    run = SimpleNamespace(
        state=TrainState(step=30, losses=[1.0, 2.0, 6.0]),
        batches=SimpleNamespace(batch_size=4, n_windows=700, tokens=32),
        numbers={"loss": 6.0, "grad_norm": 0.5, "noise": 7.0},
        step_seconds=[0.5, 0.25, 0.25],
        peak_flops=None,
        model=model,
    )
    point = loop.training_point(run, {"optim/lr": 0.1})
    assert point == {
        "train/loss": 3.0,
        "epoch": 0.1714,
        "optim/lr": 0.1,
        "optim/grad_norm": 0.5,
        "optim/noise": 7.0,
        "speed/tokens_per_s": 96.0,
    }
    run.peak_flops, run.state.losses = 1e6, []
    point = loop.training_point(run, {})
    assert point["speed/mfu"] == pytest.approx(96 * 600 / 1e6) and "train/loss" not in point
