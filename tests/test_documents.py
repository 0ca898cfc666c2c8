"""What CONTRIBUTING.md, AGENTS.md and CITATION.cff say is so: commands, files and names."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import lm
from lm import config
from lm.settings.yaml_files import read_yaml
from lm.system import files
from tests.helpers import ROOT, TINY, TINY_TRANSFORMER

PAGES = ("CONTRIBUTING.md", "AGENTS.md")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands(name: str, start: str) -> list[str]:
    """The commands of a page that begin so, of its blocks and of its lines."""
    found = re.findall(rf"^{start}[^\n#]*|`{start}[^`]*`", text_of(name), re.M)
    return [command.strip("` ") for command in found]


@pytest.mark.parametrize("name", PAGES)
def test_every_file_and_folder_that_a_page_names_is_there(name):
    text = text_of(name)
    assert len(text.splitlines()) <= 60
    named = re.findall(r"\]\(([^)]+)\)", text) + re.findall(
        r"`((?:lm|conf|experiments)/[^`]*)`", text
    )
    assert len(named) > 5
    for path in named:
        assert (ROOT / path).exists(), path


def test_the_targets_of_make_that_they_name_are_what_a_change_must_pass():
    required = set(re.findall(r"^make \S+", text_of(".ci/run"), re.M))
    assert set(commands("CONTRIBUTING.md", "make ")) == required
    assert set(commands("AGENTS.md", "make ")) < required
    for command in required:
        words = [*command.split(), "-n"]
        assert subprocess.run(words, cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.slow
def test_one_file_of_tests_runs_by_itself():
    (line,) = commands("CONTRIBUTING.md", "python -m pytest ")
    words = [*shlex.split(line)[1:], "-p", "no:cacheprovider"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_program_that_follows_agents_md_tunes_a_model(command, toy_text):
    """Each command as it stands, on a model and a text that need no minutes."""
    small = [*TINY[1:], *TINY_TRANSFORMER, "corpus=files", f"corpus.path={toy_text}"]
    small += ["train.seconds=0.2"]
    done = {}
    for line in commands("AGENTS.md", "python -m lm."):
        module, *words = shlex.split(line)[2:]
        if any(word.startswith("train.seconds=") for word in words):
            words += small
        if words:
            done[line] = command(module, *words)
            assert done[line].returncode in ((0, 1) if module == "lm.check" else (0,)), line
            assert "Traceback" not in done[line].stderr
    printed = "".join(process.stdout for process in done.values())
    assert len(done) == 7
    assert json.loads(Path("outputs/compare.jsonl").read_text())["runs"] >= 6
    assert "95 % interval" in printed and "is already complete" in printed
    summary = files.read_json(Path("outputs/tune/lr/summary.json"))
    assert re.search(r"`(best_val_bpb)` in the run's `summary.json`", text_of("AGENTS.md"))
    assert summary["best_val_bpb"] > 0 and summary["seconds"] < 10
    lr = config.load(Path("outputs/tune/lr") / config.RESOLVED).optimizer.lr
    assert f"optimizer.lr={lr}" in text_of("AGENTS.md")


def test_the_citation_names_this_version_and_its_licence():
    cited = read_yaml(ROOT / "CITATION.cff")
    assert cited["version"] == lm.__version__
    assert f"{cited['license']} License" in text_of("LICENSE")
    assert cited["authors"][0]["name"] in text_of("LICENSE")
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
