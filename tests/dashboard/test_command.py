"""`python -m lm.dashboard` with the real clients of W&B, and what it says where it cannot."""

import json
import sys

import pytest

pytest.importorskip("wandb_workspaces")
from lm.dashboard.__main__ import command
from lm.record import wandb_answer
from lm.record.schemas import WandbRecord
from lm.settings.commands import DashboardConfig
from lm.system import files
from lm.system.errors import SilentServerError
from tests.helpers import timed
from tests.record.test_wandb_project import kept


@pytest.fixture
def project(server):
    """Three runs in the project me/lm, two of them of one sweep."""
    for uid, lr, group in (("aa", 0.01, ""), ("bb", 0.03, "sweeps-x"), ("cc", 0.1, "sweeps-x")):
        server.runs[uid] = kept(uid, lr, 2.5, group)
    return server


def spec(view: dict) -> dict:
    return json.loads(view["spec"])["section"]


def test_the_view_is_saved_and_a_second_call_writes_it_anew(project, capsys):
    command(DashboardConfig())
    command(DashboardConfig(project="me/lm", baseline="gru lr=0.03"))
    (view,) = project.views.values()
    assert (view["entityName"], view["projectName"], view["type"]) == ("me", "lm", "project-view")
    addresses = capsys.readouterr().out.split()
    assert addresses == [f"{project.url}/me/lm?nw={view['name'][3:-2]}"] * 2
    assert not project.unknown


def test_a_sweep_of_this_folder_has_a_view_of_its_own(project, tmp_path):
    """Its project is where its arms are, whatever the default is."""
    root = tmp_path / "sweeps/x"
    (root / "0").mkdir(parents=True)
    (root / "0/result.json").write_text("{}")
    record = WandbRecord("bb", mode="online", url=f"{project.url}/me/lm/runs/bb")
    (root / "0/wandb.json").write_text(files.to_json(record))
    command(DashboardConfig(sweep="sweeps/x"))
    command(DashboardConfig(sweep="sweeps-x", project="lm"))
    (view,) = project.views.values()
    assert view["displayName"] == "lm sweeps-x"
    (runs,) = spec(view)["runSets"]
    assert runs["filters"]["filters"][0]["value"] == "sweeps-x"


def test_the_report_of_an_experiment_is_a_new_one_each_time(project, capsys):
    for _ in range(2):
        command(DashboardConfig(report=True, experiment="001_model_ladder"))
    reports = [view for view in project.views.values() if view["type"] == "runs"]
    assert [view["displayName"] for view in reports] == ["001_model_ladder"] * 2
    assert "/me/lm/reports/001_model_ladder--" in capsys.readouterr().out
    assert not project.unknown


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"project": "a/b/c"}, "'a/b/c' is no project of W&B: write ENTITY/PROJECT"),
        ({"project": "me/none"}, "project=me/none: Could not find project none"),
        ({"sweep": "other"}, r"project=me/lm has no run of sweep=other: make sync uploads"),
        ({"sweep": "latest"}, "sweep=latest: there is no sweep under outputs/"),
        ({"baseline": "zz"}, "baseline=zz: no run has this id or name, such as aa"),
        ({"report": True}, "report=true and experiment=NAME go together"),
        ({"experiment": "001_model_ladder"}, "report=true and experiment=NAME go together"),
        ({"report": True, "experiment": "999"}, "experiment=999: there is no .*README.md"),
        ({"report": True, "experiment": "../lm"}, "experiment=../lm: give the name of a folder"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_nothing_is_saved(project, words, says):
    with pytest.raises(ValueError, match=says) as caught:
        command(DashboardConfig(**words))
    assert "\n" not in str(caught.value)
    assert not project.views


@pytest.mark.parametrize(
    ("cfg", "operation", "says"),
    [
        (DashboardConfig(project="me/lm"), "UpsertView2", "the view in me/lm: .*permission denied"),
        (
            DashboardConfig(project="me/lm", report=True, experiment="001_model_ladder"),
            "upsertView",
            "the report in me/lm: .*permission denied",
        ),
        (DashboardConfig(project="me/lm"), "Runs", "project=me/lm: .*permission denied"),
    ],
)
def test_a_key_without_the_right_to_write_or_read_is_told_in_one_line(
    project, cfg, operation, says
):
    project.refused[operation] = "permission denied"
    with pytest.raises(ValueError, match=f"^{says}") as caught:
        command(cfg)
    assert "\n" not in str(caught.value)


def test_an_answer_without_a_view_is_told_in_one_line(project, monkeypatch):
    monkeypatch.setattr(project, "on_UpsertView2", lambda _: {"upsertView": None})
    with pytest.raises(ValueError, match="the view in me/lm: W&B has not saved it"):
        command(DashboardConfig(project="me/lm"))


def test_without_the_extra_the_way_to_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(ValueError, match="extra dashboard: pip install wandb-workspaces"):
        command(DashboardConfig())


def test_without_a_key_the_way_to_one_is_told(fresh_client):
    with pytest.raises(ValueError, match=r"no API key here.*wandb login, or set WANDB_API_KEY"):
        command(DashboardConfig(project="me/lm"))


@timed
def test_a_server_that_hangs_is_given_up(project, monkeypatch):
    monkeypatch.setattr(wandb_answer, "SECONDS", 0.25)
    answer = project.answer

    def hang_soon(name, variables):
        if name == "UpsertView2":
            project.mode = "hang"
        return answer(name, variables)

    monkeypatch.setattr(project, "answer", hang_soon)
    with pytest.raises(SilentServerError, match=r"the view in me/lm: .* does not answer"):
        command(DashboardConfig(project="me/lm"))
