"""Mistakes in one line, Ctrl-C without a traceback, and an installed package."""

import ast
import dataclasses
import errno
import json
import os
import runpy
import select
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lm.launch import cli, compose
from lm.settings import commands
from lm.settings.commands import ReportConfig, SampleConfig
from lm.system import files
from lm.system.errors import ConfigError
from tests.helpers import ROOT, TINY_TRANSFORMER

WORDS = (*TINY_TRANSFORMER, "hydra.run.dir=run")


BAD = {
    "lm.train +model.n_layr=3": "did you mean model.n_layer?",
    "lm.train resume=latest model=gru": "and nothing else, not model=gru",
    "lm.train resume=latest --cfg": "takes single settings, such as train.steps=3000",
    "lm.train resume=latest": "no run under outputs/",
    "lm.train resume=nowhere": "there is no run directory 'nowhere'",
    "lm.train corpus=files corpus.path=nowhere.txt track=off": "nowhere.txt",
    "lm.train TINY train.device=cuda": "train.device=cuda is not available",
    "lm.train TINY model.context_len=100000": "one window needs 100001: lower model.context_len",
    "lm.train TINY tokenizer=bpe tokenizer.pattern=( ": "the split pattern '(' does not compile",
    "lm.train TINY hydra.run.dir=/dev/null/run": "choose another hydra.run.dir=",
    "lm.train -m TINY hydra.sweep.dir=/dev/null/s": "choose another hydra.sweep.dir=",
    "lm.sample run=nowhere": "there is no run directory",
    "lm.sample promt=x": "did you mean prompt?",
    "lm.sample hello": "hello is not key=value",
    "lm.sample temperature=-1": "temperature=-1.0: must be at least 0",
    "lm.sample top_p=2": "top_p=2.0: must be from",
    "lm.evaluate split=test": "split=test: choose auto or val or train or all",
}


@pytest.mark.parametrize("words", BAD)
def test_what_cannot_be_is_told_in_one_line_with_exit_code_2(
    words, tiny, monkeypatch, capsys, tmp_path
):
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("this machine has the device")
    module, *rest = words.split()
    rest = [w for word in rest for w in (tiny if word == "TINY" else [word])]
    monkeypatch.setattr(sys, "argv", [module, *rest])
    monkeypatch.delitem(sys.modules, module, raising=False)  # or runpy would warn of it
    with pytest.raises(SystemExit) as caught:
        runpy.run_module(module, run_name="__main__")
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert BAD[words] in error
    assert not list(tmp_path.glob("outputs/runs/*/*"))  # nothing half-written, and no new `latest`


def test_every_command_is_known_and_first_lets_ctrl_c_end_it():
    first = """if __name__ == '__main__':
    from lm.launch import entry
    entry.begin('VERB')"""
    found = []
    for path in (ROOT / "lm").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "\nif __name__ ==" in text and path != ROOT / "lm/__main__.py":
            verb = path.parent.name if path.stem == "__main__" else path.stem
            found.append(verb)
            assert ast.unparse(ast.parse(text).body[1]) == first.replace("VERB", verb), path
    assert sorted(found) == sorted(commands.VERBS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "loaded"),
    [("lm.train", "lm.settings"), ("lm.sample", "lm.system.errors")],
)
def test_ctrl_c_while_a_command_loads_ends_it_without_a_word(module, loaded):
    words = [sys.executable, "-X", "importtime", "-m", module]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:  # one for each import that is done
        if line.split()[-1] == loaded:
            break
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert "Traceback" not in error
    # On a machine that is busy it may have come to its own handling of Ctrl-C, or to its end.
    assert process.returncode in (-signal.SIGINT, 130, 2)


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_DFL])
def test_ctrl_c_in_the_moment_in_which_its_handler_changes_is_no_traceback(monkeypatch, handler):
    """It was taken over outside of what turns KeyboardInterrupt into exit code 130."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    monkeypatch.setattr(sys, "argv", ["lm.sample"])
    real = signal.signal

    def interrupted(number, chosen):
        real(number, chosen)
        if chosen is handler:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(signal, "signal", interrupted)
        with pytest.raises(SystemExit) as caught:
            cli.main(SampleConfig, lambda _: None)
    assert caught.value.code == 130


@pytest.mark.faults
def test_ctrl_c_of_a_script_leaves_alone_what_it_started_with_an_ampersand(tiny):
    words = [sys.executable, "-m", "lm.train", *tiny, *WORDS, "train.steps=60"]
    process = subprocess.Popen(["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *words])
    while not Path("run/metrics.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0 and json.loads(Path("run/summary.json").read_text())["step"] == 60


@pytest.mark.slow
def test_an_installed_package_brings_its_settings_and_shows_them_without_a_run(tmp_path):
    """A relative config_path finds conf/ in the repository and nothing in an installed wheel."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    (target,) = wheel["targets"].values()
    packages = {name: name for name in target["packages"]}
    for source, place in {**packages, **target["force-include"]}.items():
        shutil.copytree(ROOT / source, tmp_path / "site" / place)
    site = str(tmp_path / "site")
    for words, part in {
        "--cfg job --resolve experiment=003_scaling_law": "name: 003_scaling_law",
        "--cfg job -p model model=gpt2": "n_embd: 768",
        "--info searchpath": f"file://{site}/lm/conf",
        "--info plugins": "Installed Hydra Plugins",
    }.items():
        done = subprocess.run(
            [sys.executable, "-m", "lm.train", *words.split()],
            env={**os.environ, "PYTHONPATH": site},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert part in done.stdout
    assert os.listdir() == ["site"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "out of memory: this command needs more than there is"),
        (RuntimeError("can't allocate memory: you tried to allocate 9 bytes"), "allocate 9 bytes"),
    ],
)
def test_no_memory_is_one_line_in_every_command(error, text, capsys):
    with pytest.raises(SystemExit) as ended, cli.errors_in_one_line():
        raise error
    said = capsys.readouterr().err
    assert ended.value.code == 1 and said.startswith("error: out of memory: ")
    assert text in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "way_out"),
    [("mine/t.json", "make room"), ("cache/x", "make room, or set LM_CACHE_DIR to a folder on")],
)
def test_a_full_disk_is_told_by_the_file_and_the_way_out(path, way_out, monkeypatch, capsys):
    """LM_CACHE_DIR was advised to a tokenizer that was to be saved elsewhere."""
    monkeypatch.setenv("LM_CACHE_DIR", "cache")
    full = OSError(errno.ENOSPC, "No space left on device", f".{path}.tmp", None, path)
    with pytest.raises(SystemExit) as ended, cli.errors_in_one_line():
        raise files.named(full, Path(path))
    said = capsys.readouterr().err
    assert ended.value.code == 4
    assert said.startswith(f"error: [Errno 28] No space left on device: '{path}': {way_out}")
    assert said.count("LM_CACHE_DIR") == way_out.count("LM_CACHE_DIR")


@pytest.mark.parametrize(
    ("full", "said"),
    [
        ("elsewhere", "No space left on device: make room"),
        ("cache", "no room in CACHE: make room, or set LM_CACHE_DIR to a folder on another disk"),
        ("here", "no room in HERE: make room"),
    ],
)
def test_a_full_disk_of_an_error_without_a_file_is_told_by_its_folder(
    full, said, monkeypatch, capsys, tmp_path
):
    """LM_CACHE_DIR was advised wherever the cache was."""
    folders = {"cache": tmp_path / "cache", "here": tmp_path / "here", "elsewhere": tmp_path / "x"}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.setenv("LM_CACHE_DIR", "../cache")
    monkeypatch.chdir(folders["here"])

    def usage(folder):
        is_full = Path(folder).resolve() == folders[full]
        return SimpleNamespace(free=0 if is_full else 1 << 30)

    monkeypatch.setattr(cli.shutil, "disk_usage", usage)
    with pytest.raises(SystemExit) as ended, cli.errors_in_one_line():
        raise OSError(errno.ENOSPC, "No space left on device")
    said = said.replace("CACHE:", f"{folders['here']}/../cache:").replace("HERE", os.getcwd())
    text = capsys.readouterr().err.rstrip()
    assert ended.value.code == 4 and text.endswith(said) and text.count("make room") == 1
    assert ("LM_CACHE_DIR" in text) == (full == "cache")


def test_a_broken_disk_is_not_told_to_be_full(capsys):
    """The way out that was told was to make room."""
    with pytest.raises(SystemExit) as ended, cli.errors_in_one_line():
        raise OSError(errno.EIO, "Input/output error", "mine/t.json")
    said = "Input/output error: 'mine/t.json': the disk may be failing; choose a place on another"
    assert capsys.readouterr().err == f"error: [Errno 5] {said}\n"
    assert ended.value.code == 4


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="ours"), cli.errors_in_one_line():
        raise RuntimeError("ours")


ODD = ("[1", "*", "%", "{", "'", "a: b", "${oc.env:HOME}", "???", "", "\x00", "\ud800", "9" * 5000)


@pytest.mark.parametrize("cls", commands.COMMANDS.values())
def test_any_value_of_any_word_of_a_verb_is_taken_as_typed_or_refused_in_our_words(cls):
    """top_k=[1 and temperature=* were tracebacks of a YAML reader."""
    for f in dataclasses.fields(cls):
        for text in ODD:
            try:
                settings = cli.parse(cls, [f"{f.name}={text}"])
            except ConfigError:  # any other error fails the test
                continue
            assert f.type in (str, str | None, list[str]), "an odd text is taken for a number"
            if f.type != list[str]:
                assert getattr(settings, f.name) == text


@pytest.mark.parametrize("word", ["train.steps=???", "seed=???", "name=???", "train.prompts=???"])
def test_a_value_that_stands_for_none_is_not_taken_for_the_default(word):
    with pytest.raises(ConfigError, match=f"has no value: give {word.partition('=')[0]}=VALUE"):
        compose.compose_run([word])
    with pytest.raises(ConfigError, match=r"\[0\] is \?\?\?, which stands for no value"):
        compose.compose_run(["track.tags=[???]"])
    with pytest.raises(ConfigError, match=r"^n: Value '.*' of .* give a whole number, at least 1$"):
        cli.parse(SampleConfig, ["n=${x}"])


def test_a_word_with_dashes_is_no_option():
    """`unknown setting --n` beside the list of settings, where lm.train said what is wrong."""
    with pytest.raises(ConfigError, match=r"^--n=3 is no option: settings are key=value, without"):
        cli.parse(SampleConfig, ["--n=3"])


def test_a_name_with_commas_is_found_among_names_with_commas(tmp_path):
    for name in ("a,b", "c", "d=${x}\\e\u202f"):
        Path(name).mkdir()
    assert cli.names("a,b,c") == ["a,b", "c"]
    assert cli.names("c,a,b,c") == ["c", "a,b", "c"]
    assert cli.names("[c,nowhere]") == ["c", "nowhere"]
    Path(" x ").mkdir()
    assert cli.names("c, x ,c, c") == ["c", " x ", "c", "c"]
    (Path("a")).mkdir()
    (Path("b")).mkdir()
    assert cli.names("a,b,b") == ["a", "b", "b"]
    assert cli.pair("a,b,b", os.path.isdir) == ["a,b", "b"]
    assert cli.pair("[b,a,b]", os.path.isdir) == ["b", "a,b"]
    assert cli.pair("a,b,nowhere", os.path.isdir) == ["a", "b", "nowhere"]
    words = ["a,b", "d=${x}\\e\u202f", "by=model"]
    found = cli.parse(ReportConfig, words, paths="runs")
    assert (found.runs, found.by) == (words[:2], "model")


@pytest.mark.parametrize("name", [".x", "", "a/b", "os;x", "broken", "a.b."])
def test_an_import_that_fails_is_one_line(name):
    Path("broken.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match=r"^import=") as caught:
        cli.import_own_modules([f"import={name}"])
    assert "\n" not in str(caught.value)


def test_an_error_of_a_stranger_s_words_drives_no_terminal(capsys):
    with pytest.raises(SystemExit), cli.errors_in_one_line():
        raise ValueError("bad\x1b[2J\u202e name\nerror: another line")
    assert capsys.readouterr().err == "error: bad\ufffd[2J\ufffd name error: another line\n"


@pytest.mark.skipif(not hasattr(select, "poll"), reason="needs poll")
def test_a_reader_that_has_enough_ends_a_command_without_an_error(monkeypatch, capfd):
    """`lm.sample run=latest | head -c 10` said: Broken pipe."""
    reads, writes = os.pipe()
    with open(writes, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit) as ended, cli.errors_in_one_line():
            raise BrokenPipeError(errno.EPIPE, "of something else")
        assert ended.value.code == 2
        assert capfd.readouterr().err == "error: [Errno 32] of something else\n"
        os.close(reads)
        with pytest.raises(SystemExit) as ended, cli.errors_in_one_line():
            print("x" * 100_000, flush=True)
        assert (ended.value.code, capfd.readouterr().err) == (0, "")


@pytest.mark.parametrize("number", sorted(cli.DENIED))
def test_a_place_that_may_not_be_written_to_is_told_with_the_way_out(number, tmp_path):
    """It was said as Python says it, [Errno 13], and of a read-only disk that room must be made."""
    says = f"{os.strerror(number)}; choose a place that you may read and write"
    text, code = cli._text_and_code(OSError(number, os.strerror(number), "l.html"))
    assert (text, code) == (f"l.html: {says}", 4 if number == errno.EROFS else 2)
    half = str(files.temporary(tmp_path / "mine"))
    assert cli._text_and_code(OSError(number, "", half))[0].startswith(f"{tmp_path}: ")
