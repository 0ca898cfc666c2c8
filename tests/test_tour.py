"""The lessons: each runs as a script, and its last command prints the number that it promises."""

import ast
import html.parser
import importlib.util
import re
import runpy
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.helpers import ROOT

if importlib.util.find_spec("marimo") is None:
    pytest.skip("the extra `tour` is not installed", allow_module_level=True)

TOUR = ROOT / "experiments/tour"
LESSONS = sorted(TOUR.glob("[0-9]_*.py"))
SLOW = [pytest.param(path, marks=pytest.mark.faults, id=path.stem) for path in LESSONS]


@pytest.fixture
def load(monkeypatch):
    """load(path): the module of a file of the tour, which finds its neighbours as a script does."""
    monkeypatch.syspath_prepend(TOUR)
    monkeypatch.setattr(sys, "argv", ["lesson"])

    def make(path: Path):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield make
    for name in ("draw", "lesson"):
        sys.modules.pop(name, None)


def run(module, **inputs: object) -> dict:
    """The variables of a lesson after all its cells; `inputs` is what somebody has typed or set."""
    _, names = module.app.run(defs={name: SimpleNamespace(value=v) for name, v in inputs.items()})
    return dict(names)


@pytest.mark.parametrize("path", SLOW)
def test_the_last_command_of_a_lesson_prints_the_number_that_it_promises(path, load, command):
    names = run(load(path))
    python, module, verb, *words = shlex.split(names["command"])
    assert (python, module) == ("python", "-m")
    done = command(verb, *words)
    assert done.returncode == 0, done.stderr
    assert names["expected"] in done.stdout


@pytest.mark.faults
def test_without_the_well_known_texts_a_lesson_reads_what_every_python_has(load, monkeypatch):
    monkeypatch.delenv("LM_DATA_DIR", raising=False)
    names = run(load(TOUR / "3_bigram_twice.py"))
    assert "corpus=pydocs" in names["command"]
    assert abs(names["by_gradient"] - names["by_counts"]) < 0.01


def test_merges_by_hand_are_those_of_the_project(load):
    load(TOUR / "draw.py")
    names = run(load(TOUR / "2_my_own_merges.py"))
    assert len(names["merges"]) > 10 and names["agrees"]


@pytest.mark.faults
@pytest.mark.parametrize("text", ["", "1 2", "<b>&", "\U0001f642"])
def test_a_lesson_goes_on_whatever_is_typed_into_it(load, text):
    run(load(TOUR / "1_text_and_bytes.py"), text=text)
    names = run(load(TOUR / "2_my_own_merges.py"), text=text)
    assert names.get("agrees", not text)


def test_one_head_by_hand_is_the_attention_of_the_model_and_nothing_leaks_back(load):
    names = run(load(TOUR / "4_one_attention_head.py"))
    assert names["gap"] < 1e-5
    assert (names["by_position"][:, :-1] == 0).all() and (names["by_position"][:, -1] > 0).all()
    torch.testing.assert_close(names["weights"].sum(-1), torch.ones(3, 6))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_is_as_marimo_writes_it_and_names_the_extra_where_marimo_is_missing(path):
    from marimo._ast.codegen import generate_filecontents_from_ir
    from marimo._ast.parse import parse_notebook

    text = path.read_text(encoding="utf-8")
    notebook = parse_notebook(text)
    assert notebook.violations == [] and len(notebook.cells) > 10
    written = generate_filecontents_from_ir(notebook)
    assert [ast.dump(node) for node in ast.parse(written).body[3:]] == [
        ast.dump(node) for node in ast.parse(text).body[3:]
    ]
    assert "import marimo  # not there? pip install -e '.[tour]' -c constraints.txt" in text


def test_the_lessons_are_listed_and_a_wrong_number_or_no_marimo_is_one_line(capsys, monkeypatch):
    def tour(*words: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["tour", *words])
        code = 0
        try:
            runpy.run_path(str(TOUR / "__main__.py"), run_name="__main__")
        except SystemExit as end:
            code = end.code
        return code, "".join(capsys.readouterr())

    code, listed = tour()
    assert code == 0 and len(listed.splitlines()) == len(LESSONS) + 1 == 7
    assert tour("7") == (2, "error: 7 is no lesson: give one of 1, 2, 3, 4, 5, 6\n")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "marimo" else find(name)
    )
    code, said = tour("1")
    assert code == 2 and said.count("\n") == 1 and "pip install -e '.[tour]'" in said


class Tags(html.parser.HTMLParser):
    """Raises AssertionError where an element is closed that is not the one last opened."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_pictures_are_whole_html_in_which_text_stays_text(load):
    draw = load(TOUR / "draw.py")
    nasty = "<b>&\"'"
    numbers = torch.tensor([[1.0, -torch.inf], [-2.0, 0.0]])
    pictures = [
        draw.chips([nasty], nasty),
        draw.table([nasty], [[nasty]]),
        draw.grid(numbers, [nasty, "b"], ["a", nasty], marked=1),
        draw.sheets(numbers[None], [[nasty, "b"]]),
        draw.bars({nasty: 0.0}),
        draw.curves({nasty: [(1.0, 2.0)]}, levels={nasty: 2.0}, x=nasty),
        draw.curves({"a": [(0.001, 1.0), (0.1, 2.0)]}, log_x=True, dots=True),
    ]
    for picture in pictures:
        Tags(picture.text)
        assert '<b>&"' not in picture.text and "nan" not in picture.text
    shown = re.findall(r"<td[^>]*>([^<]*)</td>", pictures[2].text)
    assert shown == ["1.00", "", "-2.00", "0.00"]  # what is masked is blank
