"""A project's runs come back from W&B as run directories, with the real client."""

import json
import os
import time
from pathlib import Path

import pytest

from lm import config, train
from lm.record import wandb_answer, wandb_project
from lm.record.schemas import WandbRecord
from lm.report import records
from lm.report.__main__ import command
from lm.settings.commands import ReportConfig
from lm.system import files
from lm.system.errors import SilentServerError
from tests.helpers import TINY_TRANSFORMER, timed
from tests.wandb_server import Run

NAME = "wandb:me/lm"


def kept(uid: str, lr: float, score: float, group: str = "", old: bool = False) -> Run:
    """A complete run as the server has it: two evaluations, of which the first was the better."""
    bpb, loss, seconds = "bpb/val", "loss/val", "train_seconds"
    if old:
        bpb, loss, seconds = "val/bpb", "val/loss", "seconds"
    settings = {"model.name": "gru", "optimizer.lr": lr, "seed": 0, "baseline/ngram_bpb": 1.25}
    rows = [
        {"_step": n, "_timestamp": 1e9, "step": 10 * n, "tokens": 640 * n, seconds: 1.0 * n,
         bpb: value, loss: value, "ppl/val" if not old else "val/ppl": 9.0}
        for n, value in enumerate((score, score + 0.5))
    ]  # fmt: skip
    summary = {bpb: {"min": score}, "best_val_bpb": score, "best_step": 0, "step": 10,
               "tokens": 640, "seconds": 1.0, "n_params": 99, "flops": 5}  # fmt: skip
    plain = {key: {"value": value} for key, value in settings.items()}
    about = {"displayName": f"gru lr={lr}", "groupName": group, "config": json.dumps(plain)}
    return Run(about, rows, 0, summary=summary)


def fill(server, **runs: Run) -> None:
    server.runs |= runs


def test_a_run_that_was_logged_comes_back_as_it_lies_on_this_machine(cfg, tiny, tmp_path, server):
    out = tmp_path / "outputs/runs/a/b"
    out.mkdir(parents=True)
    words = (*tiny, *TINY_TRANSFORMER, "track=online", f"train.also=[{tiny[1].partition('=')[2]}]")
    made = cfg(*words)
    config.save(made, out / config.RESOLVED)
    train.train(made, out, name="transformer")
    ours = records.read(out)
    (theirs,) = records.find([wandb_project.fetch(NAME)])
    assert theirs.settings == config.public(ours.settings)
    assert theirs.summary == ours.summary and theirs.status == "done"
    assert theirs.code == ours.code and theirs.corpus == ours.corpus
    for key in ("val/bpb", "val/loss", "val/ppl", "val_toy/bpb", "train/loss", "optim/lr"):
        assert theirs.curve(key, "seconds") == ours.curve(key, "seconds") != []
    assert theirs.perplexity == ours.perplexity
    assert theirs.baselines() == ours.baselines() != {}
    assert not server.unknown


def test_the_report_ranks_a_team_s_runs_of_old_and_new_names(server, capsys):
    fill(
        server, aa=kept("aa", 0.01, 2.5), bb=kept("bb", 0.03, 2.25, old=True),
        dd=Run({"config": "{}"}), cc=kept("cc", 0.1, 2.75),
    )  # fmt: skip
    server.runs["cc"].exit_code = 1
    command(ReportConfig(runs=[NAME]))
    table = [line.split() for line in capsys.readouterr().out.splitlines() if "lr=" in line]
    assert [(row[0], row[-1]) for row in table] == [
        ("2.2500", "lr=0.03"), ("2.5000", "lr=0.01"), ("-", "lr=0.1"),
    ]  # fmt: skip
    assert not records.find([Path("outputs")])  # they are no runs of this folder
    home = wandb_project.fetch(NAME)
    assert {path.name for path in home.iterdir()} == {"aa", "bb", "cc"}
    (stopped,) = (run for run in records.find([home]) if run.path.name == "cc")
    assert stopped.status == "stopped" and stopped.day == "2001-09-09"
    assert files.read_record(home / "aa/wandb.json", WandbRecord).url.endswith("/me/lm/runs/aa")


def test_a_complete_run_is_fetched_once_and_a_deleted_one_goes(server):
    fill(server, aa=kept("aa", 0.01, 2.5), bb=kept("bb", 0.03, 2.25))
    server.runs["bb"].exit_code = None
    home = wandb_project.fetch(NAME)
    server.operations.clear()
    wandb_project.fetch(NAME)
    assert server.operations.count("RunSampledHistory") == 2  # of bb, which trains
    del server.runs["bb"]
    assert os.listdir(wandb_project.fetch(NAME)) == ["aa"]
    assert home.parent.parent.parent == files.cache_dir()


def test_a_stranger_s_run_names_no_path_and_a_damaged_file_of_it_is_left_out(server, caplog):
    caplog.set_level("INFO")
    bad = kept("bb", 0.03, 2.25)
    bad.files["data.json"] = b"{"
    fill(server, aa=kept("aa", 0.01, 2.5), bb=bad)
    server.runs["../../out"] = kept("x", 0.1, 2.0)
    home = wandb_project.fetch(NAME)
    assert {path.name for path in home.iterdir()} == {"aa", "bb"}
    assert [run.path.name for run in records.find([home])] == ["aa"]
    assert "and 1 that lm did not make" in caplog.text and "bb is skipped: " in caplog.text


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("wandb:me", "wandb:me: write wandb:ENTITY/PROJECT"),
        ("wandb:me/../lm", "write wandb:ENTITY/PROJECT"),
        ("wandb:me/none", "wandb:me/none: Could not find project none"),
        (NAME, "wandb:me/lm: none of its 0 runs is one of lm"),
    ],
)
def test_what_is_no_project_is_told_in_one_line(server, name, says):
    with pytest.raises(ValueError, match=says) as caught:
        wandb_project.fetch(name)
    assert "\n" not in str(caught.value)
    assert not list(files.cache_dir().glob("wandb-*/me/*/*"))


def test_a_key_that_may_not_read_is_told_in_one_line(server):
    server.mode = "forbidden"
    with pytest.raises(ValueError, match=r"wandb:me/lm: .*403"):
        wandb_project.fetch(NAME)


@timed
def test_a_server_that_hangs_half_way_is_given_up(server, monkeypatch):
    fill(server, aa=kept("aa", 0.01, 2.5))
    monkeypatch.setattr(wandb_answer, "SECONDS", 0.25)
    answer = server.answer

    def hang_soon(name, variables):
        if name == "RunSampledHistory":
            server.mode = "hang"
        return answer(name, variables)

    monkeypatch.setattr(server, "answer", hang_soon)
    begun = time.monotonic()
    with pytest.raises(SilentServerError, match=r"wandb:me/lm: .* does not answer in 0.25 seconds"):
        wandb_project.fetch(NAME)
    assert time.monotonic() - begun < 15
    assert not list(files.cache_dir().glob("wandb-*/me/lm/aa"))


def test_watching_and_a_project_do_not_go_together():
    with pytest.raises(ValueError, match="watch=true looks at runs of this machine"):
        command(ReportConfig(runs=[NAME], watch=True))
