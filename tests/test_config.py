"""Every preset composes; every mistake is named with its key, its value and what is allowed."""

import dataclasses
import itertools

import pytest
from omegaconf import OmegaConf

from lm import config
from lm.launch import compose, preflight
from lm.system.errors import ConfigError

PRESETS = [
    (g, p.stem) for g in config.GROUPS for p in sorted((compose.folder("conf") / g).glob("*.yaml"))
]


@pytest.mark.filterwarnings("error")  # Hydra announces by warnings what its next version refuses
@pytest.mark.parametrize(("group", "name"), PRESETS)
def test_every_preset_composes_and_survives_a_file(group, name, cfg, tmp_path):
    words = [f"{group}={name}"] + [f"{group}.path=x.txt"] * (name in ("files", "hf"))
    loaded = cfg(*words)
    config.save(loaded, tmp_path / "c.yaml")
    assert config.load(tmp_path / "c.yaml") == loaded


@pytest.mark.parametrize("group", config.PARTS)
def test_every_dataclass_has_a_preset(group):
    names = {name for g, name in PRESETS if g == group}
    assert set(config.options(group)) <= names


def test_the_defaults_are_those_of_the_dataclasses(cfg):
    loaded = cfg()
    assert loaded.model == config.TransformerConfig()
    assert loaded.train == config.TrainConfig()
    assert loaded.tokenizer == config.BPEConfig()


def test_every_experiment_and_every_arm_of_it_composes(cfg):
    names = sorted(p.parent.name for p in compose.folder("experiments").glob("*/run.yaml"))
    assert names
    for name in names:
        assert cfg(f"experiment={name}").name == name
        arms = OmegaConf.load(compose.folder("experiments") / name / "run.yaml").get("arms", {})
        found = [cfg(f"experiment={name}", f"arm={name}/{arm}") for arm in arms]
        assert all(a != b for a, b in itertools.combinations(found, 2))


def test_an_experiment_beats_the_defaults_and_the_command_line_beats_both(cfg):
    for words in itertools.permutations(["experiment=003_scaling_law", "train.threads=3"]):
        found = cfg(*words)
        assert (found.tokenizer.name, found.optimizer.lr) == ("byte", 6e-3)
        assert found.train.threads == 3


def test_no_preset_names_code():
    """Hydra would call whatever a `_target_` names; its own block list lets most of it through."""
    files = [*compose.folder("conf").rglob("*.yaml")]
    files += compose.folder("experiments").glob("*/run.yaml")
    assert len(files) > 20
    for path in files:
        assert "_target_" not in path.read_text(encoding="utf-8"), path


def test_a_typo_in_a_preset_of_one_s_own_is_named(tmp_path):
    (tmp_path / "my/model").mkdir(parents=True)
    text = "defaults: [{/schema/model@_here_: gru}, _self_]\nn_hiden: 3\n"
    (tmp_path / "my/model/mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match="n_hiden") as caught:
        preflight.check(["--config-dir", "my", "model=mine"])
    assert "\n" not in str(caught.value)


BAD = {
    "model.n_layr=3": "unknown setting model.n_layr (did you mean model.n_layer?)",
    "+model.n_layr=3": "unknown setting model.n_layr (did you mean model.n_layer?)",
    "++model.n_layr=3": "unknown setting model.n_layr (did you mean model.n_layer?)",
    "+foo.bar=1": "unknown setting foo",
    "sed=3": "did you mean seed?",
    "model=transformr": "Available options in 'model': bigram",
    "nosuchgroup=x": "unknown setting nosuchgroup",
    "model.n_layer=three": "Value 'three' of type 'str' could not be converted to Integer",
    "model.n_layer=0": "model.n_layer=0: must be from 1 to 1024",
    "model.n_layer=-5": "model.n_layer=-5: must be from 1 to 1024",
    "model.n_layer=1.5": "could not be converted to Integer",
    "model.n_head=3": "model.n_embd=128 is not a multiple of model.n_head=3",
    "model.n_kv_head=3": "model.n_head=4 is not a multiple of model.n_kv_head=3",
    "model.n_embd=4": "which is odd",
    "model.dropout=1.5": "model.dropout=1.5: must be from 0.0 to 0.99",
    "model.activation=tanh": "model.activation=tanh: choose relu2 or gelu or swiglu",
    "model.norm=batch": "model.norm=batch: choose rmsnorm or layernorm",
    "model.qk_norm=maybe": "is not a valid bool",
    "model.context_len=1": "model.context_len=1: must be from 2 to 1048576",
    "optimizer.lr=nan": "optimizer.lr=nan: must be at least 0",
    "optimizer.lr=inf": "optimizer.lr=inf: must be at least 0",
    "optimizer.lr=-1e-3": "optimizer.lr=-0.001: must be at least 0",
    "optimizer.beta1=1.1": "optimizer.beta1=1.1: must be from 0.0 to 1.0",
    "optimizer=muon optimizer.momentum=1": "optimizer.momentum=1.0: must be from 0.0 to 0.9999",
    "optimizer=sgd": "Available options in 'optimizer': adamw muon",
    "schedule.warmup=2": "schedule.warmup=2.0: must be from 0.0 to 1.0",
    "train.steps=0": "train.steps=0: must be at least 1",
    "train.steps=1e3": "could not be converted to Integer",
    "train.steps=": "train.steps",
    "train.micro_batch=4 train.compile=graphs": "whole batches, and train.micro_batch=4",
    "train.micro_batch=5": "train.batch_size=16 is not a multiple of train.micro_batch=5",
    "train.device=tpu": "train.device=tpu: choose auto or cpu or cuda or mps",
    "train.dtype=fp8": "train.dtype=fp8: choose auto or float32 or bfloat16",
    "train.prompts=hello": "train.prompts",
    "tokenizer.vocab_size=100": "tokenizer.vocab_size=100: must be at least 257",
    "tokenizer.tie_break=random": "choose first-pair or greatest-bytes",
    "corpus=files": "corpus.path has no value",
    "corpus.val_fraction=0.95": "corpus.val_fraction=0.95: must be from 0.001 to 0.9",
    "track.mode=maybe": "track.mode=maybe: choose auto or online or offline or off",
    "seed=-1": "seed=-1: must be from 0",
    "seed=99999999999999": "must be from 0",
    "seed": "seed is not key=value",
    "--steps 30": "--steps is no option: settings are key=value",
    "lr=1": "unknown setting lr (did you mean optimizer.lr?)",
    "steps=1 seed=1": "unknown setting steps (did you mean train.steps?)",
    "train.steps=1e4": "could not be converted to Integer: write 10000",
    "init_from=x model=gru tokenizer=char model.dropout=0": "leave out model=gru, tokenizer=char",
    "train.steps=5 train.tokens=99": "train.steps beside train.tokens=99: a run has one budget",
    "experiment=003_scaling_law train.steps=5 seed=0 train.tokens=9 model.n_embd=32": "one budget",
    "experiment=003_scaling_law model.n_layr=3": "did you mean model.n_layer?",
    "-m experiment=003_scaling_law model.n_layr=3": "did you mean model.n_layer?",
    "model=bigram -m seed=0,1": "seed=0,1: put -m and other options before the settings",
    "experiment=001_model_ladder": "a sweep of corpus, model, seed: python -m lm.train -m exper",
    "experiment=001_model_ladder model=gru seed=0": "this experiment is a sweep of corpus:",
    "+=gru": "a word here is not key=value",  # Hydra fails an assertion of its own
    "name=a=b": "two pairs of quotes",
    "optimizer=adamw,muon": "add --multirun",
    "track.notes=${oc.env:WANDB_API_KEY}": "WANDB_API_KEY would be written into the run's files",
    "track.notes=${oc.env:HF_TOKEN,none}": "HF_TOKEN would be written",
    "track.notes=${oc.env:NO_SUCH_VARIABLE_HERE}": "NO_SUCH_VARIABLE_HERE",
    "model.n_layer=1000000000": "must be from 1 to 1024",
    "model.n_embd=1000000": "must be from 1 to 65536",
    "train.steps=1" + "0" * 400: "train.steps",
    "optimizer.lr=1e400": "optimizer.lr=inf: must be at least 0",
    "model.builds=os:system": "unknown setting model.builds",
    "model=../../../etc/passwd": "model",
    "seed=0,1": "add --multirun",
    "+corpus._target_=os.system": "unknown setting corpus._target_",
    "track.notes='\udcff'": "track.notes='\\udcff': this is not UTF-8",  # the byte 0xff in a shell
    "+model.builds=os:system": "unknown setting model.builds",
}


@pytest.mark.parametrize("word", BAD)
def test_a_mistake_is_named_in_one_line_and_makes_nothing(word, tmp_path):
    with pytest.raises(ConfigError) as caught:
        preflight.check(word.split())
    assert BAD[word] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_model_of_one_s_own_without_import_is_told_what_is_missing(tmp_path):
    (tmp_path / "my/model").mkdir(parents=True)
    (tmp_path / "my/model/average.yaml").write_text(
        "defaults: [{/schema/model@_here_: average}, _self_]\n"
    )
    with pytest.raises(ConfigError, match="a model of your own takes import=MODULE too"):
        preflight.check(["--config-dir", "my", "model=average"])


@pytest.mark.parametrize("nothing", ["", "''"])
def test_an_empty_init_from_leaves_the_model_free(nothing):
    preflight.check([f"init_from={nothing}", "model=gru"])


def test_one_run_of_an_experiment_needs_all_that_it_sweeps():
    preflight.check(["experiment=001_model_ladder", "model=gru", "seed=0", "corpus=grammar"])


def test_a_file_in_place_of_a_setting_is_told_how_to_be_trained_on(tmp_path):
    (tmp_path / "my.txt").touch()
    with pytest.raises(ConfigError, match=r"corpus=files corpus\.path=my\.txt"):
        preflight.check(["my.txt"])


@pytest.mark.parametrize("name", ["a\nb", "x" * 300, "\x1b[2J", "\u202eabc"])
def test_a_name_that_is_not_one_short_line_is_refused(name, cfg):
    values = dataclasses.asdict(cfg()) | {"name": name}
    with pytest.raises(ConfigError, match="one line of at most 100 characters"):
        config.load(values)


def test_a_file_whose_name_of_a_part_is_no_word_is_refused(cfg):
    """A mapping raised TypeError; found by fuzzing."""
    values = dataclasses.asdict(cfg())
    values["optimizer"]["name"] = {"a": 1}
    with pytest.raises(ConfigError, match=r"optimizer.name=\{'a': 1\}: choose adamw, muon"):
        config.load(values)


def test_a_file_with_an_endless_value_is_refused_in_a_short_line(cfg):
    """All 5,000 characters were repeated; found by fuzzing."""
    values = dataclasses.asdict(cfg())
    values["model"]["n_head"] = "a" * 5000
    with pytest.raises(ConfigError, match=r"model\.n_head: Value 'aaa") as caught:
        config.load(values)
    assert len(str(caught.value)) < 500


def test_two_budgets_are_one_too_many():
    with pytest.raises(ConfigError, match="choose one budget"):
        config.TrainConfig(tokens=5, seconds=5.0)


def test_warmup_and_decay_cannot_be_more_than_the_run():
    with pytest.raises(ConfigError, match="at most 1"):
        config.WSDConfig(warmup=0.6, decay=0.6)


def test_all_mistakes_are_told_at_once(cfg):
    values = dataclasses.asdict(cfg())
    values["model"]["n_layer"] = 0
    values["train"]["steps"] = -1
    values["optimizer"]["name"] = "sgd"
    with pytest.raises(ConfigError) as caught:
        config.load(values)
    for part in ("model.n_layer=0", "train.steps=-1", "optimizer.name=sgd: choose adamw, muon"):
        assert part in str(caught.value)


def test_a_saved_file_cannot_read_the_environment(cfg, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "sentinel")
    config.save(cfg(), tmp_path / "c.yaml")
    text = (tmp_path / "c.yaml").read_text()
    assert "notes: ''" in text
    (tmp_path / "c.yaml").write_text(text.replace("notes: ''", "notes: ${oc.env:SECRET_KEY}"))
    with pytest.raises(ConfigError, match="write the value itself") as caught:
        config.load(tmp_path / "c.yaml")
    assert "sentinel" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "a: [1, 2\n", "\t- x", "\x00", "model: 3\n"])
def test_a_file_that_is_no_configuration_is_refused_in_one_line(text, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(tmp_path / "c.yaml")
    assert "\n" not in str(caught.value)


def test_every_setting_says_what_it_affects():
    kinds = [config.TrainConfig, config.TrackConfig, config.Config]
    kinds += [kind for group in config.PARTS for kind in config.options(group).values()]
    for kind in kinds:
        for f in dataclasses.fields(kind):
            assert kind.effect(f.name) in ("result", "rounding", "nothing"), kind.key(f.name)


@pytest.mark.parametrize(
    ("key", "keeps"),
    [
        ("train.keep_last", True),
        ("train.n_proc", True),
        ("track", True),
        ("track.lens", True),
        ("name", True),
        ("train", False),
        ("train.steps", False),
        ("train.eval_every", False),  # decides which step is the best
        ("model", False),
        ("model.n_layer", False),
        ("seed", False),
        ("run.extended_from", False),  # no setting at all
        ("train.of_another_version", False),
    ],
)
def test_what_changes_no_result_follows_from_the_declarations(key, keeps):
    assert config.keeps_result(key) == keeps
