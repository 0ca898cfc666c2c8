"""What is typed for a text setting is what the run gets, whatever Hydra's grammar makes of it."""

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lm import config
from lm.launch import compose, hydra_internals, resume
from lm.launch.words import as_typed, read
from lm.system.errors import ConfigError

NAMES = ["my (1)", "кот", "it's", '"q"', "a&b", "[1]", "a,b", "a=b", "a\\b", "a\\,b", "a\\", "~x"]
NAMES += ["${x}", "\\${x}", "1984", "1e5", "true", "null", " a ", "a\tb", "a\nb", "$HOME", "a#b"]
NAMES += ["'", '"', "range(1,2)", "{a}", "a:b", "x!", "a\u202fb", "\U0001f600", "[a,b]", "f(x)"]


def value(word: str) -> object:
    """The value of a word after Hydra and OmegaConf have read it."""
    return OmegaConf.create({"value": hydra_internals.read_value(word.partition("=")[2])}).value


def test_a_path_that_exists_is_read_whatever_its_characters(tmp_path):
    """A parenthesis, a quote or a letter of another alphabet was an error of a lexer."""
    (tmp_path / "a folder").mkdir()
    for name in NAMES:
        for path in (name, f"a folder/{name}"):
            Path(path).touch()
            (word,) = as_typed([f"corpus.path={path}"])
            assert value(word) == path
            assert config.FilesConfig(path=path).path == path


def test_a_path_with_a_meaning_to_every_reader_survives_a_run_s_file(tmp_path):
    name = "it's ${x}, \\${y} (1).txt"
    Path(name).touch()
    cfg = compose.compose_run(["corpus=files", f"corpus.path={name}"])
    config.save(cfg, tmp_path / "c.yaml")
    assert config.load(tmp_path / "c.yaml").corpus.path == name


TYPED = {
    "name=1e5": "1e5",
    "name=true": "true",
    "name=null": "null",
    "name=1_000": "1_000",
    "name=.5": ".5",
    "name=a=b": "a=b",
    "name=a, b (c)": "a, b (c)",
    "name=it's": "it's",
    "name=[x": "[x",
    "name='two words'": "two words",
    "++name=0x10": "0x10",
    "name=": "",
    "track.notes=50%: good": "50%: good",
    "track.project=1984": "1984",
    "track.entity=1e5": "1e5",
    "track.entity=null": None,
    "track.tags=[1e5,a,'b c',2_0]": ["1e5", "a", "b c", "2_0"],
    "train.prompts=[true,null]": ["true", "null"],
    "track.tags=[lr=3,\u0436,c&d]": ["lr=3", "\u0436", "c&d"],
    "track.tags=[a=b,'c, d']": ["a=b", "c, d"],
    "tokenizer.pattern=\\w{1,3}|(\\d)": "\\w{1,3}|(\\d)",
    "corpus.field=1": "1",
    "corpus.path=1984": "1984",
    "corpus.path=[1984,true]": ["1984", "true"],
    "corpus.path=books (1)/**/*.md": "books (1)/**/*.md",
}


@pytest.mark.parametrize("word", TYPED)
def test_a_text_setting_keeps_what_was_typed(word):
    """name=1e5 became 100000.0, and corpus.path=1984 was refused."""
    assert value(*as_typed([word])) == TYPED[word]


def test_a_run_gets_what_was_typed():
    words = ["corpus=files", "corpus.path=1984", "name=1e5", "track.notes=a, b (c)"]
    cfg = compose.compose_run([*words, "train.prompts=[true,'x y']", "track.entity=null"])
    assert (cfg.corpus.path, cfg.name, cfg.track.notes) == ("1984", "1e5", "a, b (c)")
    assert (cfg.train.prompts, cfg.track.entity) == (["true", "x y"], None)


def test_every_text_setting_keeps_what_was_typed():
    kinds = [config.Config, config.TrainConfig, config.TrackConfig]
    for part in (*kinds, *(part for g in config.PARTS for part in config.options(g).values())):
        for f in dataclasses.fields(part):
            if f.type in (str, str | None):
                assert as_typed([f"{part.key(f.name)}=1e5"]) == [f"{part.key(f.name)}='1e5'"]


def test_each_text_of_a_sweep_keeps_what_was_typed(tmp_path):
    for name in ("my (1).txt", "b,c.txt"):
        (tmp_path / name).touch()
    for words, key, values in [
        (["-m", "name=1e5,true,a b"], "name", ["1e5", "true", "a b"]),
        (["-m", "name=choice(1e5,null)"], "name", ["1e5", "null"]),
        (["-m", "track.notes='a,b',1984", "seed=3"], "track.notes", ["a,b", "1984"]),
        (
            ["-m", "corpus=files", "corpus.path=my (1).txt,1984"],
            "corpus.path",
            ["my (1).txt", "1984"],
        ),
        (["-m", "corpus.path=b,c.txt"], "corpus.path", ["b,c.txt"]),
        (["-m", "corpus.path=[1984,a],x"], "corpus.path", [["1984", "a"], "x"]),
    ]:
        with compose.composing():
            grid = hydra_internals.grid(hydra_internals.overrides_parser(), {}, as_typed(words)[1:])
        found = [value(w) for job in grid for w in job if w.startswith(key)]
        assert found == values


UNCLEAR = {
    "corpus.path=[my (1).txt,b]": ["my (1).txt", "b"],
    "train.prompts=[What (is) this?,a]": ["What (is) this?", "a"],
    "corpus.path=a,b": "a,b",
}


@pytest.mark.parametrize("word", UNCLEAR)
def test_the_word_that_a_message_prints_works_when_it_is_pasted_into_a_shell(word):
    with pytest.raises(ConfigError, match=r"is not clear, see README\.md, Settings: ") as caught:
        as_typed([word])
    ways = dict(way.split(" is ", 1) for way in str(caught.value).split(": ", 1)[1].split("; "))
    pasted = ways["a list" if isinstance(UNCLEAR[word], list) else "one text"]
    done = subprocess.run(["bash", "-c", f"printf %s {pasted}"], capture_output=True, text=True)
    assert value(*as_typed([done.stdout])) == UNCLEAR[word]


def test_words_that_are_no_text_are_left_to_hydra():
    words = ["-m", "model=gru,mlp", "optimizer.lr=1e-3,1e-2", "seed=range(3)", "name=${model.name}"]
    words += ["+x=1", "hydra.run.dir=runs/${now:%H}", "train.compile=on,off", "--cfg", "job"]
    assert as_typed(words) == words


ODD = [
    "x=${seed}",
    "lr=${seed}/s",
    "\u0436_${seed}",
    "(${seed})",
    "[${seed}]",
    "q'${seed}",
    "${seed}\n",
]


@pytest.mark.parametrize("subdir", ODD)
def test_a_reference_in_the_name_of_an_arm_s_directory_is_one_whatever_stands_beside_it(subdir):
    """`x=${seed}` was taken for a text without a reference, so all arms had one directory."""
    (word,) = as_typed([f"hydra.sweep.subdir={subdir}"])
    text = hydra_internals.read_value(word.partition("=")[2])
    assert OmegaConf.create({"seed": 7, "name": text}).name == subdir.replace("${seed}", "7")


@pytest.mark.parametrize("name", ["s,b", "my (1),b", "choice(a,b)", "range(1,3)", "a b,${seed}"])
def test_a_folder_of_hydra_s_may_have_a_comma_as_no_sweep_goes_over_it(name):
    """`-m hydra.sweep.dir=s,b` was a sweep over Hydra's configuration, which there is none of."""
    for key in ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"):
        _, word = as_typed(["-m", f"{key}={name}"])
        text = hydra_internals.read_value(word.partition("=")[2])
        assert OmegaConf.create({"seed": 7, "name": text}).name == name.replace("${seed}", "7")


@pytest.mark.parametrize("place", ["~", "~/texts/a b.txt"])
def test_a_tilde_is_the_home_directory_wherever_a_path_is_taken(place, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    there = os.path.expanduser(place)
    assert value(*as_typed([f"corpus.path={place}"])) == there
    assert config.FilesConfig(path=[place]).path == [there]
    assert config.HFTokenizerConfig(path=place).path == there
    words = [f"{key}={place}" for key in ("init_from", "hydra.run.dir", "hydra.sweep.dir")]
    assert [read(word) for word in as_typed(words)] == [there] * 3
    for option in ("--config-dir", "-cd", "--config-path", "-cp"):
        assert as_typed([f"{option}={place}"]) == [f"{option}={there}"]
        assert as_typed([option, place, "seed=1"]) == [option, there, "seed=1"]
    assert as_typed(["-cp"]) == ["-cp"]
    Path("~").mkdir()  # a file of that very name comes first
    Path("~/texts").mkdir()
    Path("~/texts/a b.txt").touch()
    assert value(*as_typed([f"corpus.path={place}"])) == place


def test_a_resumed_run_keeps_what_was_typed_too(cfg, tmp_path):
    config.save(cfg("track=off"), tmp_path / config.RESOLVED)
    job = resume.job([f"resume={tmp_path}", "name=1e5", "track.notes=a (b), c"])
    assert (job.cfg.name, job.cfg.track.notes) == ("1e5", "a (b), c")


def test_one_text_for_a_list_is_a_list_of_it(tmp_path, monkeypatch):
    """train.tasks=all, as README has it, was an error of Hydra's about a ListConfig."""
    monkeypatch.chdir(tmp_path)
    Path("my (1).txt").touch()
    for typed in ("shakespeare", "1984", "my (1).txt", "'two words'"):
        (word,) = as_typed([f"train.also={typed}"])
        assert value(word) == [typed.strip("'")]
    assert as_typed(["train.also=[]", "train.tasks=[a,b]"]) == [
        "train.also=[]",
        "train.tasks=[a,b]",
    ]
    assert compose.compose_run(["train.tasks=all"]).train.tasks == ["all"]
