"""Data sets of the Hugging Face hub, from a stand-in for it: lm/corpora/hub.py."""

import io
import sys
import time
from types import SimpleNamespace

import pytest

from lm.config import HubConfig, load
from lm.corpora import hub as hub_corpus
from lm.record import ownership
from lm.system.errors import ConfigError, DamagedError
from tests.helpers import timed

from ..hub_server import HubServer

pa = pytest.importorskip("pyarrow")
constants = pytest.importorskip("huggingface_hub.constants")
from huggingface_hub import file_download  # noqa: E402
from pyarrow import parquet as pq  # noqa: E402


def shard(*texts, column="text"):
    file = io.BytesIO()
    pq.write_table(pa.table({column: list(texts)}), file)
    return file.getvalue()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one set in two shards, and empty caches."""
    with HubServer() as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)  # read from HF_ENDPOINT at import
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("LM_CACHE_DIR", str(tmp_path / "cache"))
        server.put("data/train-00000-of-00002.parquet", shard("a", "b"))
        server.put("data/train-00001-of-00002.parquet", shard("c"))
        server.put("data/test-00000-of-00001.parquet", shard("t"))
        server.put("script.py", b"raise SystemExit")
        yield server


def corpus(**settings):
    return HubConfig(**{"dataset": "OWNER/SET", **settings}).build()


def read(**settings):
    return list(corpus(**settings).documents())


def test_the_shards_of_a_split_are_read_in_order_and_nothing_else_is_fetched(hub):
    assert read() == ["a", "b", "c"]
    assert read(split="test") == ["t"]
    assert not any("script.py" in request for request in hub.requests)


def test_the_source_names_the_commit_and_a_pinned_one_is_read_as_it_was(hub):
    before = corpus().source()
    assert before["revision"] == hub.head
    hub.put("data/train-00000-of-00002.parquet", shard("new"))
    assert read() == ["new", "c"]
    assert corpus().source() != before
    assert corpus(revision=before["revision"]).source() == before


@pytest.mark.parametrize("how", ["gone", "offline"])
def test_what_was_fetched_is_read_without_a_hub(hub, how, monkeypatch):
    source = corpus().source()
    hub.die() if how == "gone" else monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert corpus().source() == source
    assert read() == ["a", "b", "c"]
    with pytest.raises(ConfigError, match="not fetched before"):
        read(split="test")


@pytest.mark.slow  # the client tries again
def test_a_split_of_which_a_shard_is_missing_is_not_read_offline(hub, monkeypatch):
    """The shards in the client's cache alone do not say how many there are."""
    hub.put("data/train-00001-of-00002.parquet", b"no parquet")
    hub.mode = "cut"
    no_wait = SimpleNamespace(sleep=lambda _: None)  # the client tries five times, each second
    monkeypatch.setattr(file_download, "time", no_wait)
    with pytest.raises(ConfigError, match="could not be fetched"):
        read()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="not fetched before"):
        read()


WRONG = {
    "split": ({"split": "dev"}, "corpus.split=dev: OWNER/SET has test, train in default"),
    "config": ({"config": "en"}, "corpus.config=en: OWNER/SET has default"),
    "field": ({"field": "body"}, "no column body: its columns are text"),
    "revision": ({"revision": "v9"}, "corpus.revision=v9: OWNER/SET has no such branch"),
    "dataset": ({"dataset": "OWNER/NONE"}, "OWNER/NONE is not on the hub, or private"),
    "a name that is a path": ({"dataset": "../x"}, "give OWNER/SET"),
    "dots": ({"dataset": "a/b..c"}, "give OWNER/SET"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_there_is_named_with_what_is(hub, what):
    settings, says = WRONG[what]
    with pytest.raises(ValueError) as caught:
        read(**settings)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gated_set_says_how_to_get_in(hub):
    hub.mode = "gated"
    with pytest.raises(ConfigError, match=r"is gated: ask for access .* hf auth login"):
        read()


@timed
def test_a_hub_that_does_not_answer_is_given_up(hub, monkeypatch):
    monkeypatch.setattr(hub_corpus, "TIMEOUT", 0.2)
    hub.mode = "hang"
    start = time.monotonic()
    with pytest.raises(ConfigError, match="the hub does not answer"):
        read()
    assert time.monotonic() - start < 5


def test_a_set_without_parquet_points_to_its_conversion(hub):
    hub.commits = {}
    hub.put("data.csv", b"text\na\n")
    with pytest.raises(ConfigError, match=r"no .parquet files.*corpus.revision=refs/convert"):
        read()


def test_a_shard_that_changed_in_the_cache_is_refused(hub):
    path = next(iter(corpus().fetched().values()))
    path.resolve().write_bytes(shard("another text"))
    with pytest.raises(DamagedError, match="is not what the hub has: remove "):
        corpus().source()


def test_without_the_client_the_command_to_install_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"needs huggingface_hub: pip install huggingface_hub"):
        read()


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("train.parquet", ("default", "train")),
        ("data/train-00000-of-00002.parquet", ("default", "train")),
        ("data/train-00000-of-00002-0f1e2d3c.parquet", ("default", "train")),
        ("en/validation-00000-of-00001.parquet", ("en", "validation")),
        ("default/train/0000.parquet", ("default", "train")),
        ("en/my_split/0000.parquet", ("en", "my_split")),
        ("data/en/part.parquet", ("en", "train")),
        ("x_dev.parquet", ("default", "validation")),
        ("training.parquet", ("default", "train")),
    ],
)
def test_config_and_split_follow_from_a_files_name(name, place):
    config, split = place
    assert hub_corpus.layout([name]) == {config: {split: [name]}}


def test_a_card_says_what_names_do_not():
    names = ["a/1.parquet", "a/b/2.parquet", "c.parquet"]
    card = [
        {"config_name": "one", "data_files": [{"split": "x", "path": ["a/*.parquet"]}]},
        {"config_name": "two", "data_files": "**/*.parquet"},
        {"config_name": "none", "data_files": "*.csv"},
    ]
    assert hub_corpus.layout(names, card) == {"one": {"x": names[:1]}, "two": {"train": names}}


@pytest.mark.parametrize(
    "name", ["../x.parquet", "/x.parquet", "a/../../x.parquet", "..\\x.parquet"]
)
def test_a_name_that_leads_out_of_the_set_is_refused(name):
    with pytest.raises(DamagedError, match="leads out of the set"):
        hub_corpus.layout([name])


@pytest.mark.parametrize(
    "words",
    [
        {"name": "hub", "dataset": "OWNER/SET"},
        {
            "name": "mix",
            "parts": {"a": {"name": "hub", "dataset": "OWNER/SET"}},
            "weights": {"a": 1.0},
        },
    ],
)
def test_a_strangers_run_fetches_nothing_before_it_is_trusted(words, tmp_path):
    groups = {"tokenizer": "byte", "model": "bigram", "optimizer": "adamw", "schedule": "constant"}
    parts = {group: {"name": name} for group, name in groups.items()}
    cfg = load({"corpus": words, **parts, "train": {}, "track": {}})
    with pytest.raises(ConfigError, match=r"would read OWNER/SET: .* give trust=true"):
        ownership.check_reads(tmp_path, cfg, False, [ownership.CORPUS])
    ownership.check_reads(tmp_path, cfg, True)
