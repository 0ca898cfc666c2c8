"""What a person may publish tells neither where their folders lie nor what they are called."""

import json
import shutil
from pathlib import Path

import pytest

from lm import config, notebook, train
from lm.record.run import Run
from lm.sweep import labels
from lm.system import files
from tests.helpers import GPT2, export


def test_a_path_is_public_from_the_current_directory_on_or_by_its_last_part(tmp_path, monkeypatch):
    home = tmp_path / "amelia"
    here = home / "work"
    here.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    table = {
        "texts/my.txt": "texts/my.txt",
        str(here / "texts/my.txt"): "texts/my.txt",
        "./a/../my.txt": "my.txt",
        "../other/my.txt": "my.txt",
        "~/other/my.txt": "my.txt",
        "/scratch/amelia/*.txt": "*.txt",
        "/scratch/run/": "run",
        "shakespeare": "shakespeare",
        str(home): "~",
        "/scratch/amelia": "~",
        "/home/bert/": "~",
        "runs/amelia/a": "a",
        "C:\\Users\\bert\\my.txt": "my.txt",
        "\\\\server\\bert\\my.txt": "my.txt",
        "": "",
    }
    assert {path: files.public(path) for path in table} == table
    for above in (tmp_path, home, Path("/")):  # what is below it names the home directory
        monkeypatch.chdir(above)
        assert files.public(str(here / "my.txt")) == "my.txt"


def test_every_setting_that_is_a_path_is_public_those_inside_a_mix_too():
    nested = {
        "init_from": "/home/amelia/gpt2",
        "corpus": {
            "path": ["/home/amelia/a.txt", "b.txt"],
            "parts": {"book": {"path": "/home/amelia/book.txt", "field": "/text"}},
        },
        "train": {"also": ["shakespeare", "/home/amelia/c.txt"], "prompts": ["/home"]},
    }
    made = config.public(nested)
    assert made["init_from"] == "gpt2" and made["corpus"]["path"] == ["a.txt", "b.txt"]
    assert made["corpus"]["parts"] == {"book": {"path": "book.txt", "field": "/text"}}
    assert made["train"] == {"also": ["shakespeare", "c.txt"], "prompts": ["/home"]}
    words = ["corpus.path=[/home/amelia/a.txt,b.txt]", "model=gru"]
    assert labels.run_name(words, "gru") == "gru path=a.txt,b.txt"


@pytest.mark.slow
def test_export_pages_and_w_and_b_tell_nothing_of_a_folder_or_a_person(
    cfg, tiny, toy_text, tmp_path, server, monkeypatch
):
    home = tmp_path / "amelia"
    (home / "work").mkdir(parents=True)
    monkeypatch.chdir(home / "work")
    for name, value in {"HOME": home, "USER": "amelia", "LOGNAME": "amelia"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("LM_CACHE_DIR", str(home / "cache"))
    text = Path(shutil.copy(toy_text, home / "my.txt"))
    words = [*tiny, *GPT2, f"corpus.path={text}", f"train.also=[{text}]", "track=auto"]
    words += ["track.artifacts=all", "track.lens=true"]
    out = home / "runs/a"
    out.mkdir(parents=True)
    made = cfg(*words)
    config.save(made, out / config.RESOLVED)
    train.train(made, out, name=labels.run_name(words, "gpt2"))

    # Where its files lie W&B's client itself writes into the manifests of artifacts; code.diff is
    # what somebody has changed in lm.
    manifests = [content for name, content in server.files.items() if name.startswith("manifest/")]
    sent = server.files | {f"blob {name}": content for name, content in server.blobs.items()}
    found = {name: content for name, content in sent.items() if content not in manifests}
    diff = found.pop("code.diff", None)
    found = {name: content for name, content in found.items() if content != diff}
    (run,) = server.runs.values()
    assert json.loads(run.variables["config"])["corpus.path"]["value"] == "my.txt"
    assert not run.variables.get("host")
    found["run"] = repr(vars(run)).encode()
    found["artifacts"] = repr(server.artifacts).encode()
    for kind in ("hf", "tokenizers", "tiktoken"):
        for path in export(out, Path(f"export-{kind}"), kind).iterdir():
            found[f"{kind} {path.name}"] = path.read_bytes()
    opened = Run.open(str(out))
    text.unlink()  # the page says that the text is gone
    shutil.rmtree(home / "cache")
    found["lens"] = notebook.lens(opened, "1 plus").html.encode()
    found["report"] = notebook.report(out).html.encode()
    assert "requirements.txt" not in sent and b"torch" in sent["code.json"]  # which says it shorter
    assert b"Not here" in found["lens"] and b"my.txt" in found["report"]
    assert len(found) > 20
    for name, content in found.items():
        for telling in (b"amelia", b"pytest-of"):
            at = content.find(telling)
            assert at < 0, f"{name}: {content[max(0, at - 100) : at + 100]!r}"
