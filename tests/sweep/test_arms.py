"""An arm is found wherever its directory is, and only there."""

import json

import pytest

from lm.sweep import arms, ranking
from lm.sweep.arms import RESULT

PLACES = {  # hydra.sweep.subdir -> the arm's name
    "7": "7",
    "t_0": "t_0",
    "bigram/16": "bigram/16",
    "a b/ü=1,2/#": "a b/ü=1,2/#",
    "s/../t": "t",
    "./x": "x",
    "../beside/0": "/beside/0",
}


@pytest.mark.parametrize("subdir", PLACES)
@pytest.mark.parametrize("relative", [True, False])
def test_an_arm_is_found_where_it_said_that_it_is(subdir, relative, tmp_path):
    root = (tmp_path / "s").relative_to(tmp_path) if relative else tmp_path / "s"
    out = tmp_path / "s" / subdir
    out.mkdir(parents=True)
    (out / RESULT).write_text('{"value": 1.5}')
    arms.register(root, 7, out)
    name = PLACES[subdir].replace("/beside", f"{tmp_path}/beside")
    assert (root / arms.ARMS).exists() == (name != "7")
    assert arms.place(root, 7).resolve() == out.resolve()
    assert {n: p.resolve() for n, p in arms.places(root).items()} == {name: out.resolve()}
    assert list(ranking.read(root)) == [name]


def test_a_sweep_finds_the_arms_of_older_versions_and_no_other_sweep_below_it(tmp_path):
    for name in ("0", "1", "other/0"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / RESULT).write_text("{}")
    arms.register(tmp_path, 1, tmp_path / "other/0")
    arms.register(tmp_path, 1, tmp_path / "1")
    arms.register(tmp_path, 2, tmp_path / "gone")
    assert sorted(arms.places(tmp_path)) == ["0", "1"]
    assert arms.place(tmp_path, 0) == tmp_path / "0"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"directory": 3}', json.dumps("a")])
def test_a_damaged_note_of_a_place_is_named_in_one_line(text, tmp_path, caplog):
    arms.register(tmp_path, 0, tmp_path / "x")
    (tmp_path / arms.ARMS / "0.json").write_text(text)
    assert arms.place(tmp_path, 0) == tmp_path / "0"
    assert len(caplog.messages) == 1 and "0.json" in caplog.messages[0]
