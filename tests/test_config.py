"""Every preset composes; every mistake is named with its key, its value and what is allowed."""

import copy
import dataclasses
import itertools

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from lm import config
from lm.launch import compose
from lm.system.errors import ConfigError

PRESETS = [
    (g, p.stem) for g in config.GROUPS for p in sorted((compose.folder("conf") / g).glob("*.yaml"))
]


@pytest.mark.filterwarnings("error")  # Hydra announces by warnings what its next version refuses
@pytest.mark.parametrize(("group", "name"), PRESETS)
def test_every_preset_composes_and_survives_a_file(group, name, cfg, tmp_path):
    words = [f"{group}.path=x.txt"] * (name in ("files", "shards", "hf"))
    if name == "hub":
        words = ["corpus.dataset=OWNER/SET"]
    if name == "mix":
        words = ["corpus.parts.a.path=x.txt", "corpus.weights.a=1"]
    loaded = cfg(f"{group}={name}", *words)
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


def test_an_experiment_without_a_name_has_that_of_its_folder(cfg, monkeypatch, tmp_path):
    """Its arms trained to their ends, and then no report found them."""
    for folder, text in {"my_idea": "train: {steps: 3}", "other": "name: mine"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "run.yaml").write_text(f"{text}\narms: {{a: {{seed: 1}}}}\n")
    places = {"experiments": tmp_path, "conf": compose.folder("conf")}
    monkeypatch.setattr(compose, "folder", places.__getitem__)
    cfg()  # Hydra's own options are registered by the first composition, and go to no copy
    store = ConfigStore.instance()
    monkeypatch.setattr(store, "repo", copy.deepcopy(store.repo))
    found = compose.compose_run(["experiment=my_idea", "arm=my_idea/a"])
    assert (found.name, found.train.steps, found.seed) == ("my_idea", 3, 1)
    assert compose.compose_run(["experiment=other"]).name == "mine"
    assert compose.compose_run(["experiment=my_idea", "name=x"]).name == "x"


def test_an_experiment_beats_the_defaults_and_the_command_line_beats_both(cfg):
    for words in itertools.permutations(["experiment=003_scaling_law", "train.threads=3"]):
        found = cfg(*words)
        assert (found.tokenizer.name, found.optimizer.lr) == ("byte", 8e-3)
        assert found.train.threads == 3


def test_no_preset_names_code():
    """Hydra would call whatever a `_target_` names; its own block list lets most of it through."""
    files = [*compose.folder("conf").rglob("*.yaml")]
    files += compose.folder("experiments").glob("*/run.yaml")
    assert len(files) > 20
    for path in files:
        assert "_target_" not in path.read_text(encoding="utf-8"), path


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


@pytest.mark.parametrize("key", ["optimizer.lr", "optimizer.weight_decay", "train.tokens", "seed"])
@pytest.mark.parametrize("number", [10**400, -(10**400)])
def test_a_file_with_a_number_that_no_float_holds_is_refused_in_a_short_line(cfg, key, number):
    """It raised OverflowError; found by fuzzing."""
    values = dataclasses.asdict(cfg())
    group, _, name = key.rpartition(".")
    (values[group] if group else values)[name] = number
    with pytest.raises(ConfigError, match=key) as caught:
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
