"""--help: every key of every command, read from where it is declared, and at once."""

import dataclasses
import os
import resource
import subprocess
import sys

import pytest

from lm import config
from lm.launch import keys, presets, usage
from lm.settings import MISSING, commands
from lm.system.errors import ConfigError
from lm.tokenizer import ACTIONS
from tests.helpers import ROOT, timed

CLASSES = [config.Config, config.TrainConfig, config.TrackConfig, commands.TunerConfig]
CLASSES += [part for group in config.PARTS for part in config.options(group).values()]
CLASSES += commands.COMMANDS.values()


def helped(words: list[str]) -> tuple[subprocess.CompletedProcess[str], float]:
    """The end of a command, and the seconds it takes of a processor: those by the clock, where
    nothing else runs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", *words, "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@timed
@pytest.mark.parametrize("name", ["", "tokenizer", *commands.COMMANDS])
def test_help_loads_nothing_slow_and_takes_no_half_second(name):
    """Seven of them took 2.8 to 3.9 seconds, as torch was loaded first."""
    words = f"lm.{name}".strip(".").split()
    tries = [helped(words)]
    while tries[-1][1] > 0.5 and len(tries) < 4:
        tries.append(helped(words))  # a busy machine has slower seconds
    ended, seconds = tries[-1]
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in ended.stderr.splitlines()}
    assert "lm" in loaded and not loaded & {"torch", "hydra", "omegaconf", "wandb", "numpy"}
    assert ended.returncode == 0 and seconds <= 0.5
    assert all(len(line) <= 80 for line in ended.stdout.splitlines())
    assert name in ended.stdout


@pytest.mark.parametrize("cls", CLASSES)
def test_every_key_has_a_meaning_in_one_line(cls):
    for key in keys.of_class(cls):
        assert key.meaning.strip("; "), f"{key.name} has no comment"


def test_the_help_of_a_key_is_its_comment_limits_and_default():
    text = " ".join(usage.page("train", []).split())
    f = next(f for f in dataclasses.fields(config.TransformerConfig) if f.name == "n_kv_head")
    meaning = "heads of keys and values (GQA); 0: as many as n_head; from 0 to 1024"
    assert f"model.n_kv_head={f.default} {meaning}" in text
    comment = (ROOT / "lm/config.py").read_text(encoding="utf-8")
    assert "# heads of keys and values (GQA); 0: as many as n_head\n" in comment
    assert "model.activation=relu2 in the MLP; relu2, gelu or swiglu" in text


def test_the_help_shows_the_keys_of_the_choices_that_the_words_make():
    text = usage.page("train", ["-m", "model=gru,gpt2", "optimizer=adamw"])
    assert "model.n_hidden=256" in text and "model.n_layer=12" in text
    assert "optimizer.lr=0.003" in text and "momentum" not in text
    assert "model.n_layer=4" not in usage.page("check", [])
    assert "model.n_hidden=256" in usage.page("check", ["model=gru"])
    with pytest.raises(ConfigError, match=r"model=gru2: choose bigram, .*gru"):
        usage.page("train", ["model=gru2"])


def test_a_preset_of_the_users_own_is_shown_with_its_values(tmp_path):
    (tmp_path / "model").mkdir()
    preset = "defaults: [{/schema/model@_here_: gru}, _self_]\nn_hidden: 7\n"
    (tmp_path / "model/mine.yaml").write_text(preset)
    for words in (["--config-dir", str(tmp_path)], [f"--config-dir={tmp_path}"]):
        text = usage.page("train", [*words, "model=mine"])
        assert "model=mine" in text and "model.n_hidden=7" in text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"a: [1", "is not valid YAML"),
        (b"\xff\xfe", "is not valid YAML"),
        (b"a: *b", "is not valid YAML"),
        (b"- 3", "holds no settings"),
        (b"gru", "holds no settings"),
        (b"defaults: 3", ""),
        (b"defaults: [{x: [1]}, {x: {y: z}}, 3]", ""),
    ],
)
def test_a_broken_preset_is_one_line_that_names_its_file(text, reason, tmp_path):
    path = tmp_path / "model/mine.yaml"
    path.parent.mkdir()
    path.write_bytes(text)
    words = [f"--config-dir={tmp_path}", "model=mine"]
    if not reason:
        assert "model.context_len=128" in usage.page("train", words)
        return
    with pytest.raises(ConfigError, match=f"^{path} {reason}") as caught:
        usage.page("train", words)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("group", config.GROUPS)
def test_what_a_preset_is_made_of_is_what_hydra_composes(group):
    from lm.launch import compose

    for name in presets.names(group):
        words = [f"{group}={name}"]
        cls, values = presets.read(group, name)
        required = {f.name for f in dataclasses.fields(cls) if f.default == MISSING}
        words += [f"{group}.{key}=a/b" for key in required]
        if name == "mix":
            words += ["corpus.parts.a.path=a", "corpus.weights.a=1"]
        if name == "hf":
            continue
        composed = getattr(compose.compose_run(words), group)
        assert type(composed) is cls
        assert {key: getattr(composed, key) for key in values} == values


def test_the_actions_of_a_verb_are_its_commands():
    there = {f"tokenizer {name}": settings for name, (settings, _) in ACTIONS.items()}
    known = {n: cls for n, cls in commands.COMMANDS.items() if n.startswith("tokenizer ")}
    assert there == known


@pytest.mark.parametrize("data", [None, b"\xff\xfe", b"\0", b"[", b"- x", b"x"])
def test_a_preset_that_is_none_is_one_line_and_not_waited_for(data, tmp_path):
    """--help with a pipe in the folder of --config-dir hung."""
    path = tmp_path / "model" / "x.yaml"
    path.parent.mkdir()
    if data is None:
        os.mkfifo(path)
    else:
        path.write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.yaml") as refused:
        presets.read("model", "x", [f"--config-dir={tmp_path}"])
    assert "\n" not in str(refused.value)
