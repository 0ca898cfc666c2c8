"""The wheel: what it carries, and that it works where nothing of the repository is."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.helpers import ROOT

pytestmark = pytest.mark.faults  # a build and an environment: half a minute


def build(project: Path, folder: Path) -> Path:
    """The wheel of a project, built without a network by the backend that it names."""
    pytest.importorskip("hatchling")
    words = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [sys.executable, *words, "--wheel-dir", str(folder), str(project)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def environment(wheel: Path, home: Path) -> Path:
    """The folder of packages of a new environment with this wheel alone."""
    venv.create(home, with_pip=False)
    site = next(home.glob("lib/python*/site-packages"))
    words = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([sys.executable, *words, str(wheel)], check=True, capture_output=True)
    return site


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The programs of a new environment: the wheel, and what it needs from this one."""
    home = tmp_path_factory.mktemp("environment")
    site = environment(wheel, home)
    # After its own packages, so that lm is that of the wheel.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_the_wheel_has_the_settings_the_experiments_the_pages_and_the_mark_of_types(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {"lm/py.typed", "lm/lens/web/lens.html", "lm/report/web/report.html"}
    expected |= {f"lm/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    expected |= {f"lm/{path.relative_to(ROOT)}" for path in ROOT.glob("experiments/*/run.yaml")}
    expected |= {str(path.relative_to(ROOT)) for path in (ROOT / "lm").rglob("*.py")}
    assert expected - names == set()
    assert not [name for name in names if name.startswith(("tests", "outputs"))]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--help", "train one run, an experiment or a sweep"),
        ("train --cfg job", "n_layer: 4"),
        ("train --cfg job experiment=003_scaling_law", "name: 003_scaling_law"),
    ],
)
def test_an_installed_lm_answers_in_an_empty_folder_without_a_network(
    installed, words, text, tmp_path
):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [installed / "python", "-P", "-m", "lm", *words.split()],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert text in done.stdout
    assert list(tmp_path.iterdir()) == []
    where = "import lm; print(lm.__file__)"
    found = subprocess.run(
        [installed / "python", "-P", "-c", where], cwd=tmp_path, env=env, capture_output=True
    )
    assert found.stdout.decode().startswith(str(installed.parent))


def test_the_tokenizer_is_installed_alone_with_numpy_and_regex(tmp_path):
    wheel = build(ROOT / "packaging/tokenizer", tmp_path / "wheel")
    home = tmp_path / "environment"
    site = environment(wheel, home)
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if path.name.startswith(("numpy", "regex")):
            (site / path.name).symlink_to(path)
    (tmp_path / "text").write_text("one two three two one two " * 40)
    code = "from lm.tokenizers.command import main; main()"
    for words in (
        "train path=text vocab_size=300 out=t.json",
        "encode tokenizer=t.json path=text out=ids",
        "decode tokenizer=t.json path=ids out=again",
    ):
        done = subprocess.run(
            [home / "bin/python", "-P", "-c", code, *words.split()],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "again").read_text() == (tmp_path / "text").read_text()
    names = {Path(name).parts[:2] for name in zipfile.ZipFile(wheel).namelist()}
    mine = {name for name in names if name[0] == "lm"}
    assert mine == {("lm", "tokenizers"), ("lm", "system"), ("lm", "py.typed")}
