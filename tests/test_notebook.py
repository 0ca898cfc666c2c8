"""From Python: train, open, score, sample, look; README's example line by line."""

import html
import logging
import math
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import lm
from lm import Run, notebook
from lm.data import pipeline
from lm.system import files
from lm.system.errors import ConfigError
from tests.browser import needs_browser
from tests.helpers import ROOT, TINY_TRANSFORMER


def example() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.search(r"```python\n(.*?)```", text, re.S)[1]


def test_every_line_of_the_readme_s_example_does_what_its_comment_says(
    toy_text, capsys, monkeypatch
):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a program without a log
    monkeypatch.setenv("WANDB_MODE", "disabled")
    shutil.copy(toy_text, "my.txt")
    imports, train, *lines = [line for line in example().splitlines() if line]
    names: dict = {}
    exec(f"{imports}\n{train}", names)
    assert "done: best val/bpb" in capsys.readouterr().out
    values = {}
    for line in lines:
        code = line.partition("  #")[0].strip()
        target, _, call = code.rpartition(" = ")
        values[code] = eval(call, names)
        if target:
            names[target] = values[code]
    opened, loss, text, model, lens, report = values.values()
    assert opened == names["run"] and opened.path.parts[:2] == ("outputs", "runs")
    assert 0 < loss < 20
    assert text.startswith("The import") and len(text) > len("The import")
    assert model(torch.zeros(2, 3, dtype=torch.long)).shape == (2, 3, model.vocab_size)
    assert lens.save("lens.html").read_text() == lens.html
    assert str(opened.path) in report.html


def test_the_loss_of_a_text_is_its_mean_nats_after_an_end_of_document_token(trained_once):
    run = Run.open(str(trained_once(*TINY_TRANSFORMER)))
    ids = torch.tensor([[run.tokenizer.eot_id, *run.tokenizer.encode("The cat")]])
    with torch.inference_mode():
        logp = run.model()(ids[:, :-1]).log_softmax(dim=-1)
    expected = -logp.gather(2, ids[:, 1:, None]).mean().item()
    assert math.isclose(run.loss("The cat"), expected, rel_tol=1e-5)
    assert run.loss("The cat", "last") == run.loss("The cat", 20)
    with pytest.raises(ValueError, match="the text is empty"):
        run.loss("")


def test_a_sample_is_what_the_command_prints(trained_once, command):
    run = Run.open(str(trained_once(*TINY_TRANSFORMER)))
    text = run.sample("1 plus", max_tokens=20, temperature=0.5, seed=3)
    words = [f"run={run.path}", "prompt=1 plus", "max_tokens=20", "temperature=0.5", "seed=3"]
    printed = command("lm.sample", *words).stdout
    assert re.sub("[^ -~]", "?", printed) == re.sub("[^ -~]", "?", text + "\n")
    assert run.sample(max_tokens=1).startswith(run.cfg.corpus.prompt)
    with pytest.raises(ConfigError, match="temperature=-1: must be at least 0"):
        run.sample("1", temperature=-1)


def test_what_a_prompt_shows_of_each_object_is_one_short_line(trained, capsys):
    run = Run.open(str(trained("model=bigram")))
    best = files.read_json(run.path / "summary.json")["best_val_bpb"]
    named = f"<Run {run.path}: bigram on files"
    assert repr(run) == f"{named}, best val/bpb {best:.4f} at step 20>"
    (run.path / "summary.json").write_text("{")
    run.cfg.corpus.name = "a\n\x1b[2Jb"
    assert repr(run).startswith(named.replace("files", "a\ufffd\ufffd[2Jb")) and "\n" not in repr(
        run
    )
    assert re.fullmatch(r"<Page lens, 0\.\d\d MB>", repr(notebook.lens(run, "1 plus")))


def test_the_settings_of_words_are_those_of_the_command_and_prepare_what_it_reads(tiny):
    cfg = notebook.settings(*tiny, "model=gru")
    assert cfg.model.name == "gru" and cfg.train.batch_size == 4
    assert repr(cfg) == "<Config of a gru on files, byte tokens>"
    prepared = pipeline.prepare(cfg)
    sizes = f"{len(prepared.train):,} ids to train on, {len(prepared.val):,} to validate"
    assert repr(prepared) == f"<Prepared {sizes}, 257 in the vocabulary>"
    with pytest.raises(ConfigError, match=r"did you mean model\.n_layer"):
        notebook.settings("model.n_layr=2")


def test_the_metrics_of_a_run_are_its_points_from_the_first_to_the_last(trained_once):
    run = Run.open(str(trained_once("model=bigram")))
    points = run.metrics()
    assert [points[0]["step"], points[-1]["step"]] == [0, 20]
    assert points[-1]["val/bpb"] < points[0]["val/bpb"]


def test_a_page_in_a_notebook_is_a_frame_that_holds_it_and_cannot_reach_out(trained_once):
    page = notebook.report(trained_once("model=bigram"))
    shown = page._repr_html_()
    inside = re.fullmatch(
        r'<iframe sandbox="allow-scripts" [^<>]* srcdoc="([^"<>]*)"></iframe>', shown
    )
    assert html.unescape(inside[1]) == page.html
    Path("mine.html").write_text("mine")
    with pytest.raises(ConfigError, match=r"mine\.html"):
        page.save("mine.html")
    assert Path("mine.html").read_text() == "mine"


@needs_browser
def test_the_frames_of_a_notebook_draw_their_pages_without_an_error(trained_once, browsers):
    run = Run.open(str(trained_once(*TINY_TRANSFORMER)))
    titles = {}
    for page in (notebook.lens(run, "1 plus"), notebook.report(run.path)):
        Path("notebook.html").write_text("<!doctype html><meta charset=utf-8>" + page._repr_html_())
        with browsers() as browser:
            browser.open(Path("notebook.html"))
            browser.call("POST", "/frame", {"id": 0})
            titles[page.title] = browser.text("h1")
            assert browser.errors() == []
            browser.call("POST", "/frame", {"id": None})
    assert titles == {"lens": "transformer reads “1 plus”", "lm report": "1 run, 1 text"}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-m"], "-m is for the command"),
        (["hydra.run.dir=x"], "is for the command"),
        (["experiment=001_model_ladder"], "is for the command"),
        (["train.n_proc=2"], "only python -m lm.train starts several processes"),
        (["model.n_layr=2"], "did you mean model.n_layer"),
        (["seed=0,1"], "several values"),
        (["resume=nope"], "there is no run directory 'nope'"),
    ],
)
def test_a_mistake_in_the_words_is_one_line_and_leaves_nothing(words, text, tmp_path):
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        notebook.train(*words)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_run_trained_from_python_goes_on_and_keeps_strangers_out(tiny, tmp_path):
    logger = logging.getLogger("lm")
    before = logger.level, list(logger.handlers)
    run = notebook.train(*tiny, "model=bigram", out="mine")
    assert (logger.level, logger.handlers) == before
    assert run.path == Path("mine")
    longer = notebook.train("resume=mine", "train.steps=30")
    assert longer.path == run.path and longer.checkpoint("last").name == "step_000030"
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("Dear")
    with pytest.raises(ConfigError, match=r"holds letter\.txt, and no run"):
        notebook.train(*tiny, "model=bigram", out="full")


@pytest.mark.slow
def test_ctrl_c_saves_the_step_and_is_an_ordinary_interrupt(tiny):
    def interrupt() -> None:
        log = Path("mine/metrics.jsonl")
        while not log.exists() or b"train/loss" not in log.read_bytes():
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    words = ["model=bigram", "train.steps=100000", "train.eval_every=0", "train.sample_every=0"]
    with pytest.raises(KeyboardInterrupt):
        notebook.train(*tiny, *words, out="mine")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert Run.open("mine").model("last") is not None


def test_importing_lm_loads_nothing_and_run_is_there_when_asked_for():
    code = "import sys, lm; print([name for name in sys.modules if name.startswith('lm.')])"
    words = [sys.executable, "-c", f"{code}; print('torch' in sys.modules, lm.Run.__name__)"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\nFalse Run\n", done.stderr
    with pytest.raises(AttributeError, match="'lm' has no attribute 'Rum'"):
        _ = lm.Rum
