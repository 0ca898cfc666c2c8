"""docs/own_model.md, run as it stands there."""

import re
import shlex
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "own_model.md"


def files(text: str) -> dict[str, str]:
    """The content of each file that the page names above a block."""
    return dict(re.findall(r"`([\w./]+)`\n```\w+\n(.*?)```", text, re.S))


def test_the_documented_model_takes_at_most_40_lines():
    found = files(PAGE.read_text(encoding="utf-8"))
    assert [Path(name).suffix for name in found] == [".py", ".yaml"]
    assert sum(len(body.splitlines()) for body in found.values()) <= 40


@pytest.mark.slow
def test_the_documented_model_is_checked_trained_and_seen(command, toy_text, tmp_path):
    text = PAGE.read_text(encoding="utf-8")
    for name, body in files(text).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(body, encoding="utf-8")
    commands = re.search(r"```sh\n(.*?)```", text, re.S).group(1).splitlines()
    assert len(commands) == 3
    for line in commands:
        python, dash_m, module, *words = shlex.split(line)
        assert (python, dash_m) == ("python", "-m")
        if module == "lm.train":  # on a short text, which is read in no time
            words += ["corpus=files", f"corpus.path={toy_text}"]
        done = command(module, *words)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if module == "lm.train":  # what it tells to do next can be done
            next_one = re.search(
                r"python -m lm.sample (import=my_models.average run=\S+)", done.stdout
            )
            assert command("lm.sample", *next_one[1].split(), "max_tokens=4").returncode == 0
    assert list(tmp_path.glob("outputs/runs/*/*/lens.html"))
    lost = command("lm.sample", "run=latest")
    assert lost.returncode == 2 and "model.name=average" in lost.stderr
