"""docs/own_parts.md, run as it stands there, and what is said where a contract is broken."""

import re
import shlex
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "own_parts.md"


def section(title: str) -> tuple[dict[str, str], list[str]]:
    """The files and the commands below a heading of the page."""
    text = PAGE.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]
    found = dict(re.findall(r"`([\w./]+)`\n```\w+\n(.*?)```", text, re.S))
    return found, re.search(r"```sh\n(.*?)```", text, re.S)[1].splitlines()


def write(found: dict[str, str], folder: Path) -> None:
    for name, body in found.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(body, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("title", "told"),
    [
        ("An optimizer", "lion moves every parameter, and goes on alike from a checkpoint"),
        ("A schedule", "root: of the highest rate 0.71"),
        ("A corpus", ""),
    ],
)
def test_the_documented_part_is_checked_trained_and_resumed(
    title, told, command, toy_text, tmp_path
):
    found, commands = section(title)
    write(found, tmp_path)
    printed = ""
    for line in commands:
        python, dash_m, module, *words = shlex.split(line)
        assert (python, dash_m) == ("python", "-m")
        words.append("model=bigram")
        if module == "lm.train":
            words.append("train.steps=4")
        if module == "lm.train" and "corpus=sums" not in words:  # a text that is read in no time
            words += ["corpus=files", f"corpus.path={toy_text}", "tokenizer=byte"]
        done = command(module, *words)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        printed += done.stdout
    assert told in printed and "done: best val/bpb" in printed
    own = words[0]
    again = command("lm.train", own, "resume=latest", "train.steps=6")
    assert again.returncode == 0 and "step      6" in again.stdout, again.stderr
