"""corpus=mix: parts that are split and packed by themselves, and mistakes in their settings."""

import json
import logging

import numpy as np
import pytest

from lm import config, setup, train
from lm.corpora.base import MANY
from lm.data import pipeline
from lm.launch import compose, resume
from lm.record.run import Run
from lm.report import records
from lm.scoring import evaluate
from lm.system.errors import ConfigError
from tests.helpers import TINY, rows

MIX = ("corpus=mix", "corpus.parts.book.path=book.txt", "corpus.parts.notes.path=notes.jsonl")
WEIGHTS = ("corpus.weights.book=0.75", "corpus.weights.notes=0.25")
BUILT = {"corpus": "built", "tokenizer": "built", "tokens": "built"}


def notes(n, seed=0):
    """Documents of twelve words, none of which repeats another."""
    random = np.random.default_rng(seed)
    return [" ".join(f"w{i}" for i in random.integers(0, 900, 12)) for _ in range(n)]


def write_jsonl(name, texts):
    with open(name, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)


@pytest.fixture
def parts(tmp_path, toy_text):
    """The files of the parts, in the current directory: one text and 200 documents."""
    (tmp_path / "book.txt").write_text(toy_text.read_text()[:6000])
    write_jsonl("notes.jsonl", notes(2 * MANY))


def alone(cfg, *words):
    """The packed text of a corpus by itself."""
    return pipeline.prepare(cfg("tokenizer=byte", *words))


def test_each_part_is_packed_as_it_would_be_alone(cfg, parts):
    mixed = alone(cfg, *MIX, *WEIGHTS)
    book = alone(cfg, "corpus=files", "corpus.path=book.txt")
    other = alone(cfg, "corpus=files", "corpus.path=notes.jsonl")
    for split in ("train", "val"):
        found = mixed.parts(split)
        assert list(found) == ["book", "notes"]
        assert np.array_equal(found["book"], getattr(book, split))
        assert np.array_equal(found["notes"], getattr(other, split))
        assert np.array_equal(np.concatenate(list(found.values())), getattr(mixed, split))
    assert mixed.corpus.parts["notes"].splits == other.corpus.splits
    assert mixed.tokens.parts == {"book": book.tokens.splits, "notes": other.tokens.splits}
    whole = mixed.tokens.splits
    for split in ("train", "val"):
        parts_of = [getattr(one.tokens.splits, split) for one in (book, other)]
        for count in ("n_tokens", "n_bytes", "n_documents"):
            total = sum(getattr(part, count) for part in parts_of)
            assert getattr(getattr(whole, split), count) == total
    assert not book.parts("val") and not book.tokens.parts


def test_other_weights_build_nothing_again(cfg, parts, caplog):
    def stages(*words):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            prepared = pipeline.prepare(cfg("tokenizer=bpe", "tokenizer.vocab_size=300", *words))
        lines = [r.message.split() for r in caplog.records if r.name == "lm.data.pipeline"]
        return {line[0]: line[2] for line in lines if line[0] in BUILT}, prepared.folder

    built, folder = stages(*MIX, *WEIGHTS)
    assert built == BUILT
    again = stages(*MIX, "corpus.weights.book=0", "corpus.weights.notes=1")
    assert again == (dict.fromkeys(BUILT, "reused"), folder)


def test_the_same_documents_divided_in_another_way_are_packed_anew(cfg, parts):
    texts = notes(4 * MANY)
    folders = set()
    for cut in (150, 250):
        write_jsonl("book.jsonl", texts[:cut])
        write_jsonl("notes.jsonl", texts[cut:])
        mixed = alone(cfg, *MIX, *WEIGHTS, "corpus.parts.book.path=book.jsonl")
        assert mixed.corpus.parts["notes"].splits.train.n_documents < 4 * MANY - cut
        folders.add(mixed.folder)
    assert len(folders) == 2


def test_what_repeats_an_earlier_part_is_left_out(cfg, parts):
    first = notes(MANY + 50, seed=1)
    write_jsonl("book.jsonl", first)
    write_jsonl("notes.jsonl", [*first[:40], *notes(MANY + 20)])
    words = (*MIX, *WEIGHTS, "corpus.parts.book.path=book.jsonl")
    found = alone(cfg, *words).corpus
    assert found.near_duplicates.n_documents == 40
    assert found.parts["book"].near_duplicates.n_documents == 0
    kept = alone(cfg, *words, "corpus.parts.book.near_duplicates=keep").corpus
    assert kept.parts["notes"].near_duplicates.n_documents == 40  # though its own are not looked at
    whole = alone(cfg, *words, "corpus.near_duplicates=keep").corpus
    assert whole.near_duplicates is None
    assert whole.parts["notes"].splits.train.n_documents > 120


def test_each_part_is_scored_as_lm_evaluate_scores_it_and_the_config_survives(cfg, parts, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    made = cfg(*TINY, "model=bigram", *MIX, *WEIGHTS)
    config.save(made, out / config.RESOLVED)
    train.train(made, out)
    run = Run.open(str(out))
    last = [row for row in rows(out) if "val/bpb" in row][-1]
    lengths = run.tokenizer.token_lengths()
    for name, path in (("book", "book.txt"), ("notes", "notes.jsonl")):
        ids = alone(cfg, "corpus=files", f"corpus.path={path}").val
        expected = evaluate(run.model("last"), ids, lengths)["bpb"]
        assert last[f"val_{name}/bpb"] == pytest.approx(expected, rel=1e-6)
    whole = evaluate(run.model("last"), pipeline.prepare(run.cfg).val, lengths)["bpb"]
    assert last["val/bpb"] == pytest.approx(whole, rel=1e-6)
    assert run.cfg == config.load(out / config.RESOLVED)
    assert records.read(out).settings["corpus.weights.book"] == 0.75
    with pytest.raises(ConfigError, match=r"corpus.weights.book is 0.75 there and 0.7 here"):
        resume.job([f"resume={out}", "corpus.weights={book:0.7,notes:0.3}"])


BAD = {
    "negative": (["corpus.weights.notes=-0.25"], r"corpus.weights.notes=-0.25: must be from 0 to"),
    "nan": (["corpus.weights.notes=nan"], "corpus.weights.notes=nan: must be from 0 to 1"),
    "sum": (["corpus.weights.book=0.8"], "book=0.8, notes=0.25 sum to 1.05: they must sum to 1"),
    "no part": (["corpus.weights.web=0"], "corpus.weights.web=0.0 has no part: .* are book, notes"),
    "no weight": (["corpus.parts.web.name=names"], "corpus.parts.web has no weight: give corp"),
    "no parts": (["~corpus.parts.book", "~corpus.parts.notes"], "corpus.parts is empty: give"),
    "two of one name": (
        ["corpus.parts.book.path=other.txt"],
        "corpus.parts.book.path is given as book.txt and as other.txt: two parts need two names",
    ),
    "no setting": (["corpus.parts.book.pth=1"], r"corpus.parts.book.pth \(did you mean corpus.pa"),
    "out of range": (["corpus.parts.book.val_fraction=3"], "corpus.parts.book.val_fraction=3.0: m"),
    "no corpus": (["corpus.parts.notes.name=wikipedia"], "corpus.parts.notes.* choose pydocs"),
    "a mix in a mix": (["corpus.parts.web.name=mix"], "a part is one corpus, no mix"),
    "shards in a mix": (
        ["corpus.parts.web.name=shards"],
        "packed before training begins, as files",
    ),
    "a word": (["corpus.parts.web=web.txt"], "give corpus.parts.web.path=FILE, or the name of a"),
    "a dot": (["corpus.parts.web.en.path=web.txt"], "corpus.parts.web=.*: give corpus.parts.web.p"),
    "together": (["corpus.parts.book.near_duplicates=together"], "in a mix choose drop or keep"),
    "a weight in words": (
        ["corpus.weights.book=much"],
        "corpus.weights.book=much; Value 'much' o",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_settings_that_make_no_mix_are_refused_in_one_line(kind):
    words, message = BAD[kind]
    with pytest.raises(ConfigError, match=message) as error:
        compose.compose_run([*MIX, *WEIGHTS, *words])
    assert "\n" not in str(error.value)


def test_a_name_that_no_metric_can_have_is_refused():
    part = {"path": "a.txt"}
    for name in ("", "a/b", "a b", "a.b", "\u00e9", "x" * 41):
        with pytest.raises(ConfigError, match="a part's name has 1 to 40 of A-Z"):
            config.MixConfig(parts={name: part}, weights={name: 1.0})


BAD_TEXTS = {
    "empty": ([""], "corpus.parts.notes: corpus notes holds no text"),
    "shorter than a window": (["a few words"], "corpus.parts.notes: .* has 9 tokens, and one wind"),
    "no validation split": (
        ["ab"],
        r"too short \(1 tokens\): .*parts.notes.val_fraction=0.1",
    ),
    "the same": (
        ["TOY"],
        "nothing is left of corpus notes, as all of it repeats earlier parts: l",
    ),
    "no field": (None, "no field text holds text"),
}


@pytest.mark.parametrize("kind", BAD_TEXTS)
def test_a_part_without_text_to_learn_from_is_named(kind, cfg, parts, tmp_path):
    texts, message = BAD_TEXTS[kind]
    if texts is None:
        (tmp_path / "notes.jsonl").write_text('{"body": "words"}\n')
    else:
        book = (tmp_path / "book.txt").read_text()
        write_jsonl("notes.jsonl", [text.replace("TOY", book) for text in texts])
    made = cfg(*TINY, "model=bigram", *MIX, *WEIGHTS)
    with pytest.raises(ValueError, match=message) as error:
        setup.set_up(made, tmp_path / "run")
    assert "\n" not in str(error.value)
    cache = pipeline.files.cache_dir()
    assert not [path for path in cache.glob(".*") if path.is_dir()]  # nothing half-written


def test_a_part_that_is_not_there_is_named_with_its_key(cfg, parts, tmp_path):
    made = cfg(*TINY, *MIX, *WEIGHTS, "corpus.parts.notes.path=nowhere.txt")
    with pytest.raises(ConfigError, match=r"^corpus.parts.notes.path=nowhere.txt does not exist"):
        pipeline.prepare(made)
