"""A text of any size: the first part as any corpus, the rest in shards packed on demand."""

import contextlib
import json
import os
import random
import sys

import pytest

from lm import pack, setup, train
from lm.corpora import base
from lm.corpora import shards as source
from lm.data import packing, pipeline
from lm.data import shards as packed
from lm.data.packing import packed_beside
from lm.data.shards import Shards
from lm.launch import cli
from lm.record import origin
from lm.record.schemas import DataRecord, read_part
from lm.settings.commands import PackConfig
from lm.system import files, store
from lm.system.errors import ConfigError

WORDS = ["corpus=shards", "corpus.shard_mb=1", "corpus.first_mb=1", "tokenizer=byte"]


def written(folder, n_words):
    """Four files of 200 documents that all differ, about 8,000 bytes a word."""
    random.seed(1)
    for name in "abcd":
        lines = []
        for i in range(200):
            text = " ".join(str(random.randrange(10**9)) for _ in range(n_words))
            lines.append(json.dumps({"text": f"{name}{i} {text}"}))
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def web(tmp_path, monkeypatch):
    """The settings' megabytes have 16,000 bytes, and the files 100,000 in all."""
    monkeypatch.setattr(source, "MB", 16_000)
    folder = tmp_path / "web"
    folder.mkdir()
    return written(folder, 12)


def test_first_part_and_shards_have_every_document_once(cfg, web):
    corpus = base.build(cfg(*WORDS, f"corpus.path={web}").corpus)
    first = list(corpus.documents())
    rest = [text for number in range(len(corpus.shards)) for text in corpus.shard(number)]
    expected = []
    for path in sorted(web.iterdir()):
        expected += [json.loads(line)["text"] for line in path.read_text().splitlines()]
    assert sorted(first + rest) == sorted(expected)
    assert 16_000 <= sum(map(len, first)) < 18_000
    assert {text[0] for text in first} == set("abcd")  # it has some of every file
    assert len(corpus.shards) >= 3


@pytest.fixture
def started(monkeypatch):
    """The processes that packed_beside has started, and the session of each."""
    found = []
    start = packing._start

    def noted(shards):
        process = start(shards)
        found.append((process, os.getsid(process.pid)))
        return process

    monkeypatch.setattr(packing, "_start", noted)
    return found


def test_a_shard_is_packed_once_and_the_same_beside_as_on_demand(
    cfg, tmp_path, monkeypatch, started
):
    folder = tmp_path / "web"
    folder.mkdir()
    written(folder, 350)  # 2.8 MB
    shards = pipeline.prepare(cfg(*WORDS, f"corpus.path={folder}")).shards
    assert len(shards) == 2 and not any(map(shards.is_packed, range(2)))
    script = tmp_path / "script.py"  # as of a person who calls lm from it
    script.write_text(f"open({str(tmp_path / 'ran_again')!r}, 'w')")
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.setattr(main, "__file__", str(script), raising=False)
    with packed_beside(shards):
        assert started[0][0].wait(300) == 0
    assert all(map(shards.is_packed, range(2)))
    assert not (tmp_path / "ran_again").exists()
    beside = [shards.ids(number).tolist() for number in range(2)]
    assert shards.pack(0) is None
    for stage in files.cache_dir().glob("shards-*"):
        store.remove(stage)
    again = Shards(shards.text, shards.folder, shards.tokenizer)
    assert [again.ids(number).tolist() for number in (1, 0)] == beside[::-1]


def test_ctrl_c_reaches_the_run_alone_and_the_process_beside_ends_with_it(cfg, web, started):
    shards = pipeline.prepare(cfg(*WORDS, f"corpus.path={web}")).shards
    with pytest.raises(KeyboardInterrupt), packed_beside(shards):
        raise KeyboardInterrupt
    [(process, session)] = started
    assert session != os.getsid(0)
    assert process.returncode is not None


@pytest.mark.parametrize(
    ("error", "n_tried", "n_notes"),
    [(ValueError("no JSON"), 9, packing.MAX_NOTES), (OSError(28, "No space left"), 1, 1)],
)
def test_what_cannot_be_packed_is_told_a_few_times(capsys, error, n_tried, n_notes):
    class Broken:
        tried = []

        def __len__(self):
            return 9

        def is_packed(self, number):
            return False

        def pack(self, number):
            self.tried.append(number)
            raise error

    packing.pack_those_left(Broken())
    assert Broken.tried == list(range(n_tried))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == n_notes
    assert lines[0] == f"note: shard 0 of 9 cannot be packed: {error}"


def test_few_shards_are_mapped_at_a_time(cfg, web, monkeypatch):
    """Each takes a file descriptor, of which a process has a thousand."""
    shards = pipeline.prepare(cfg(*WORDS, f"corpus.path={web}")).shards
    expected = [shards.ids(number).tolist() for number in range(len(shards))]
    monkeypatch.setattr(packed, "MAX_MAPPED", 2)
    again = Shards(shards.text, shards.folder, shards.tokenizer)
    order = [0, 1, 2, 3, 1, 0, 3, 2]
    for number in order:
        assert again.ids(number).tolist() == expected[number]
        assert len(again._mapped) <= 2
    store.remove(again._stage(0))  # by a person who makes room
    assert again.ids(0).tolist() == expected[0]


def test_a_file_that_is_written_to_meanwhile_is_named(cfg, web):
    shards = pipeline.prepare(cfg(*WORDS, f"corpus.path={web}")).shards
    for path in web.iterdir():
        with path.open("a") as file:
            file.write('\n"one more"')
    with pytest.raises(ValueError, match=r"\.jsonl was written to since training began"):
        shards.pack(0)
    assert not shards.is_packed(0)


def test_a_run_goes_on_with_the_text_behind_its_first_part_alone(cfg, web, tmp_path):
    words = [*WORDS, f"corpus.path={web}"]
    for _ in range(2):
        origin.record_data(tmp_path, pipeline.prepare(cfg(*words)))
    recorded = read_part(tmp_path, DataRecord)
    assert 5 < recorded.times_first < 9  # 100,000 bytes, of which it begins with 16,000
    assert recorded.n_train == round(recorded.tokens.splits.train.n_tokens * recorded.times_first)
    path = web / "c.jsonl"
    path.write_text(path.read_text()[:-5] + 'end"}')  # which the first part does not have
    with pytest.raises(ValueError, match="was trained with another corpus"):
        origin.record_data(tmp_path, pipeline.prepare(cfg(*words)))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_the_name_of_a_file_need_not_be_utf_8(cfg, web):
    (web / "a.jsonl").rename(web / os.fsdecode(b"\xff.jsonl"))
    shards = pipeline.prepare(cfg(*WORDS, f"corpus.path={web}")).shards
    assert len(shards.ids(0)) > 1000


def test_characters_that_later_shards_may_have_are_spoken_of_at_once(cfg, web, caplog):
    with caplog.at_level("WARNING"):
        pipeline.prepare(cfg(*WORDS, f"corpus.path={web}", "tokenizer=char"))
    assert "tokenizer=char knows the characters of the first part alone" in caplog.text


def text_of(ids):
    return bytes(ids[ids < 256].astype("uint8")).decode()


def test_a_shard_leaves_out_what_repeats_the_validation_text_or_itself(cfg, web):
    words = [*WORDS, f"corpus.path={web}", "corpus.first_mb=2", "corpus.val_fraction=0.5"]
    again = list(pipeline.read(pipeline.prepare(cfg(*words)).shards.folder, "val")) * 2
    (web / "e.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in again))
    shards = pipeline.prepare(cfg(*words)).shards
    val = list(pipeline.read(shards.folder, "val"))
    assert len(val) > 50
    texts = [text_of(shards.ids(number)) for number in range(len(shards))]
    kept = [document for document in again if any(document in text for text in texts)]
    assert kept and not set(kept) & set(val)
    assert max(text.count(document) for text in texts for document in kept) == 1
    with_all = pipeline.prepare(cfg(*words, "corpus.near_duplicates=keep")).shards
    all_texts = [text_of(with_all.ids(number)) for number in range(len(with_all))]
    assert sum(map(len, all_texts)) > sum(map(len, texts)) + 50 * len(set(again))


def test_training_goes_through_first_part_and_shards_and_resumes_to_the_bit(
    cfg, tiny, web, tmp_path, monkeypatch
):
    words = [*tiny, *WORDS, f"corpus.path={web}", "train.batch_size=64", "model.context_len=32"]
    words += ["model=bigram", "train.eval_every=13", "train.save_every=13"]
    once = cfg(*words, "train.steps=40")  # 80,000 tokens: most of an epoch
    monkeypatch.setattr(setup, "packed_beside", lambda _: contextlib.nullcontext())
    train.train(once, tmp_path / "once")
    n_shards = len(list(files.cache_dir().glob("shards-*")))
    assert n_shards > 2
    for stage in files.cache_dir().glob("shards-*"):
        store.remove(stage)

    def stop(step, _):
        if step == 13:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train.train(once, tmp_path / "twice", report=stop)
    assert 0 < len(list(files.cache_dir().glob("shards-*"))) < n_shards
    train.train(once, tmp_path / "twice")
    weights = [
        next((tmp_path / name).glob("checkpoints/step_*40/model.safetensors")).read_bytes()
        for name in ("once", "twice")
    ]
    assert weights[0] == weights[1]


def test_a_counting_model_is_refused_in_one_line(cfg, tiny, web, tmp_path):
    words = [*WORDS, f"corpus.path={web}", "model=bigram_counts", "track=off"]
    with pytest.raises(ConfigError, match="corpus=files reads the same files"):
        train.train(cfg(*words), tmp_path / "run")


def test_several_commands_divide_the_packing(cfg, web, capsys):
    words = [*WORDS, f"corpus.path={web}"]
    pack.command(cli.parse(PackConfig, ["first=1", "every=2", *words]))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["1", "3"]
    pack.command(cli.parse(PackConfig, words))
    origins = [line.split()[4] for line in capsys.readouterr().out.splitlines()]
    assert origins == ["built", "reused", "built", "reused"]
    with pytest.raises(ConfigError, match="first=4: there are 4 shards"):
        pack.command(cli.parse(PackConfig, ["first=4", *words]))
    with pytest.raises(ConfigError, match="corpus=grammar has no shards"):
        pack.command(cli.parse(PackConfig, ["corpus=grammar"]))


def test_a_changed_file_is_packed_anew_and_a_damaged_one_is_named(cfg, web):
    def prepare():
        return pipeline.prepare(cfg(*WORDS, f"corpus.path={web}")).shards

    shards = prepare()
    numbers = range(len(shards))
    for number in numbers:
        shards.pack(number)
    assert all(map(prepare().is_packed, numbers))
    path = web / "c.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[:-205] + b"\n{oops" + data[-199:])  # of the same size
    source.sample.cache_clear()
    shards = prepare()
    changed = [number for number in numbers if not shards.is_packed(number)]
    with pytest.raises(ValueError, match=r"c\.jsonl, the line at byte [\d,]+ is not JSON"):
        list(map(shards.pack, changed))
    assert not all(map(shards.is_packed, changed))


@pytest.mark.slow
def test_launchers_of_hydra_divide_the_packing_and_what_fails_is_told(command, tmp_path):
    folder = tmp_path / "web"
    folder.mkdir()
    written(folder, 350)  # 2.8 MB: two shards
    words = ["-m", "every=2", *WORDS, f"corpus.path={folder}"]

    def run(*words):
        done = command("lm.pack", *words)
        return done.stdout, done.stderr, done.returncode

    out, err, code = run("first=1", *words)
    assert (out, code) == ("", 2)
    assert "first=1 beside -m, which starts all 2: leave it out" in err
    out, err, code = run(*words, "hydra/launcher=local")
    assert code == 0, err
    shards = [line.split() for line in out.splitlines() if line.startswith("shard ")]
    assert sorted((line[1], line[4]) for line in shards) == [("0", "built"), ("1", "built")]
    last = sorted(folder.iterdir())[-1]
    text = last.read_text()
    last.write_text(text[: len(text) // 2] + "no JSON\n")
    out, err, code = run(*words)
    assert code == 1
    assert "is not JSON" in err and "1 of 2 jobs failed; the same command goes on" in err
