"""python -m lm.compare: pairs of runs until one side is better."""

import json
from pathlib import Path

import pytest

from lm import compare
from lm.corpora import generated
from lm.settings.commands import CompareConfig
from lm.system.errors import ConfigError, DamagedError

SMALL = ["model=bigram", "train.steps=20", "train.eval_every=0", "train.sample_every=0"]


def run(tiny, **settings) -> dict:
    compare.command(CompareConfig(overrides=[*tiny, *SMALL], **settings))
    (*_, line) = Path("outputs/compare.jsonl").read_text().splitlines()
    return json.loads(line)


def test_a_clear_difference_is_told_at_the_first_look_and_nothing_is_trained_again(tiny, capsys):
    found = run(tiny, b="optimizer.lr=0.000001", out="here")
    assert (found["verdict"], found["pairs"], found["runs"]) == ("A is better", 3, 6)
    low, high = found["interval"]
    assert 0 < low < found["difference"] < high
    said = capsys.readouterr().out
    assert json.loads(said.splitlines()[-1]) == found
    assert (
        said.count("\npair ") == 3 and "step " not in said
    )  # the runs' own lines are in their logs
    scores = []
    for side in "ab":
        logs = Path(f"here/{side}_seed2/train.log").read_text()
        assert "done: best val/bpb" in logs
        scores.append(json.loads(Path(f"here/{side}_seed2/summary.json").read_text()))
    weights = Path("here/a_seed0/checkpoints").stat().st_mtime_ns
    again = run(tiny, b="optimizer.lr=0.000001", out="here")
    assert Path("here/a_seed0/checkpoints").stat().st_mtime_ns == weights
    assert {**again, "seconds": 0} == {**found, "seconds": 0}
    (third,) = {s["best_val_bpb"] for s in scores[1:]}
    assert third > scores[0]["best_val_bpb"]


def test_a_budget_that_ends_leaves_it_open(tiny):
    found = run(tiny, b="optimizer.beta1=0.9000001", seconds=0.001)
    assert (found["verdict"], found["pairs"], found["interval"]) == ("not decided", 1, None)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "A and B have the same settings"),
        ({"b": "model=gru seed=3"}, "b=model=gru seed=3: leave out seed=3"),
        (
            {"b": "optimizer.lr=0.2 hydra.run.dir=x"},
            "leave out hydra.run.dir=x; out= is the folder",
        ),
        (
            {"b": "-m optimizer.lr=0.2"},
            "b=-m optimizer.lr=0.2: leave out -m; settings are key=value",
        ),
        ({"b": "tokenizer='"}, "b=tokenizer=': No closing quotation"),
        ({"b": "corpus.val_fraction=0.2"}, "A and B have different texts"),
        ({"b": "train.steps=30"}, "different budgets: train.steps is 20 and 30"),
        ({"b": "train.batch_size=8"}, "different budgets: 20 steps of 64 and of 128 tokens; give"),
        ({"b": "model.context_len=8"}, "different budgets: 20 steps of 64 and of 32 tokens; give"),
        ({"b": "model.n_layr=3"}, "n_layr"),
        ({"b": "model=gru", "out": "theirs"}, "out=theirs holds a compare.json that lm did not"),
        ({"b": "model=gru", "out": "file/x"}, "out=file/x: .*/file is no folder: choose another"),
        ({"b": "model=gru", "out": "mine"}, r"out=mine holds thesis.txt, no part of a comparison"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_nothing_is_made(settings, says, tiny):
    Path("mine").mkdir()
    Path("mine/thesis.txt").touch()
    Path("theirs").mkdir()
    Path("theirs/compare.json").write_text('{"verdict": "mine"}')
    Path("file").write_text("a file")
    with pytest.raises(ConfigError, match=says):
        run(tiny, **settings)
    assert not Path("outputs").exists() and len(list(Path("mine").iterdir())) == 1
    assert Path("theirs/compare.json").read_text() == '{"verdict": "mine"}'


def test_tokens_a_step_may_differ_where_the_budget_is_in_tokens(tiny):
    words = [*tiny, *SMALL[:1], *SMALL[2:], "train.tokens=1280"]
    compare._check({"a": [], "b": ["train.batch_size=8"]}, words)


def test_tokens_for_each_parameter_are_no_common_budget_of_two_sizes(tiny):
    """The larger one was trained for four times as long, and said to be better."""
    words = [*tiny, *SMALL[2:], "model=gru", "train.tokens=2x"]
    says = r"different budgets: train\.tokens is \d+ and \d+; give one number outside of a= and b="
    with pytest.raises(ConfigError, match=says):
        compare.command(CompareConfig(overrides=words, b="model.n_hidden=9"))
    assert not Path("outputs").exists()


def test_a_log_that_cannot_be_written_hides_no_result(tiny, capsys):
    """The line was printed last, after all runs, and a log that refused lost it."""
    Path("outputs/compare.jsonl").mkdir(parents=True)
    with pytest.raises(DamagedError, match=r"compare\.jsonl is not a plain file"):
        run(tiny, b="optimizer.lr=0.5", out="here", seconds=0.001)
    (*_, line) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == json.loads(Path("here/compare.json").read_text())
    # The next corpus.path=**/*.json took it for a text.
    assert generated.what_file(Path("here/compare.json")) == "lm's own comparison"


def test_comparisons_of_one_moment_have_folders_of_their_own(tiny, monkeypatch):
    monkeypatch.setattr(compare.time, "strftime", lambda form: "outputs/compare/now-")
    folders = set()
    for rate in (0.2, 0.3):
        folders.add(run(tiny, b=f"optimizer.lr={rate}", seconds=0.001)["out"])
    assert len(folders) == 2


@pytest.mark.parametrize("was_there", [True, False])
def test_a_run_that_cannot_begin_leaves_no_new_folder(was_there, tiny, monkeypatch):
    def full(job):
        job.out.parent.mkdir(exist_ok=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compare, "run_job", full)
    if was_there:
        Path("pairs").mkdir()
    with pytest.raises(OSError, match="No space left"):
        run(tiny, b="optimizer.lr=0.1", out="pairs")
    assert Path("pairs").exists() == was_there
