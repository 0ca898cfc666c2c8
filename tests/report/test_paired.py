"""Two runs are compared on the same bytes, with an interval that covers the truth."""

from types import SimpleNamespace

import numpy as np
import pytest

from lm import config, scoring, tokenizers, train
from lm.data import pipeline
from lm.record.run import Run
from lm.report import paired


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.706), (10, 2.228), (11, 2.201), (30, 2.042), (200, 1.972)]
)
def test_student_s_quantile_is_that_of_the_tables(degrees, quantile):
    """From twelve seeds on it was the normal's 1.96: an interval of 92.4 %, called 95."""
    assert paired.t95(degrees) == pytest.approx(quantile, abs=5e-4)


def test_student_s_quantile_is_the_more_exact_the_more_degrees():
    """The error of the series falls with their fourth power, down to that of the normal's 1.96."""
    assert paired.t95(30) == pytest.approx(2.042272456, abs=2.2e-6)
    assert paired.t95(200) == pytest.approx(1.971896224, abs=2e-8)


def test_what_student_s_quantile_lacks_is_the_next_term_of_its_series():
    """Of Abramowitz and Stegun's 26.7.5, which has four."""
    z = 1.959964
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * 30**4)
    assert paired.t95(30) + fourth == pytest.approx(2.042272456, abs=3e-8)


def test_spans_are_the_same_bytes_for_both_tokenizers():
    """Text of 18 bytes: tokens of 3 bytes at one bit a byte against tokens of 2 at two bits."""
    ends_a, ends_b = np.arange(3, 19, 3), np.arange(2, 19, 2)
    bits_a = np.concatenate(([0.0], np.cumsum(np.full(5, 3.0))))
    bits_b = np.concatenate(([0.0], np.cumsum(np.full(8, 4.0))))
    cuts, a, b = paired.common_spans(ends_a, bits_a, ends_b, bits_b, span=1)
    assert cuts.tolist() == [6, 12, 18]
    assert a.tolist() == [6.0, 6.0] and b.tolist() == [12.0, 12.0]


def test_the_last_span_takes_the_rest_of_the_text():
    ends, bits = np.arange(1, 15), np.arange(14.0)
    cuts, a, _ = paired.common_spans(ends, bits, ends, bits, span=5)
    assert cuts.tolist() == [1, 6, 14] and a.tolist() == [5.0, 8.0]


def test_a_text_of_one_span_is_told_to_be_too_short():
    ends, bits = np.arange(1, 10), np.arange(9.0)
    with pytest.raises(ValueError, match="two spans of 5 bytes"):
        paired.common_spans(ends, bits, ends, bits, span=5)


def test_tokenizers_that_never_end_at_the_same_byte_cannot_be_compared():
    ends_a, ends_b = np.arange(1, 20, 2), np.arange(2, 21, 2)
    with pytest.raises(ValueError, match="too short to compare"):
        paired.common_spans(ends_a, np.arange(10.0), ends_b, np.arange(10.0), span=1)


def test_a_comparison_says_how_much_of_the_text_it_is_of():
    found = paired.Comparison(2.0, 1.5, -0.6, -0.4, 3, 3100, 3104)
    assert paired.describe("outputs/a", "outputs/b", found).splitlines() == [
        "A      2.0000 bits/byte  outputs/a",
        "B      1.5000 bits/byte  outputs/b",
        "B - A  -0.5000 bits/byte, 95 % interval -0.6000 to -0.4000",
        "B is better (Student's t over 3 spans, 3,100 of the text's 3,104 bytes; one training seed "
        "each)",
    ]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.3, "A is better"),
        (-0.3, -0.1, "B is better"),
        (0.0, 0.0, "neither"),
        (0.0, 0.4, "neither"),
        (-0.4, 0.0, "neither"),
        (-0.1, 0.2, "neither"),
    ],
)
def test_a_run_is_called_better_where_the_interval_is_clear_of_0(low, high, verdict):
    found = paired.Comparison(1.0, 1.0 + (low + high) / 2, low, high, 3, 3100, 3104)
    assert paired.describe("A", "B", found).splitlines()[-1].startswith(verdict)


def test_special_tokens_have_no_bytes_and_do_not_move_the_cuts():
    ends = np.array([0, 2, 4, 4, 4, 6])
    bits = np.array([0.0, 1.0, 2.0, 2.0, 2.0, 3.0])
    cuts, a, _ = paired.common_spans(ends, bits, np.array([2, 4, 6]), np.arange(3.0), span=1)
    assert cuts.tolist() == [2, 4, 6] and a.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("n", [2, 3, 10, 60])
def test_the_interval_covers_the_truth_as_often_as_it_says_for_few_spans_too(n):
    """A bootstrap's covered 53 % at 2 spans, 78 at 3, 88 at 10 and 93 at 60. Of 2000 at 95 % the
    standard deviation is 0.5 points."""
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(2000):
        sizes = random.integers(1000, 1020, size=n)
        sizes[-1] += random.integers(1000)  # the last span takes the rest
        differences = sizes * 0.05 + random.normal(0, 1.3 * sizes**0.5)
        low, high = paired.interval(differences, sizes)
        hits += low <= 0.05 <= high
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)


@pytest.mark.slow
def test_runs_of_different_tokenizers_compare_and_agree_with_their_own_scores(
    cfg, toy_text, tmp_path
):
    outs = []
    for name in ("byte", "bpe"):
        words = ["corpus=files", f"corpus.path={toy_text}", "track=off", "model=bigram_counts"]
        words += [
            f"tokenizer={name}",
            "train=smoke",
            *["tokenizer.vocab_size=300"] * (name == "bpe"),
        ]
        outs.append(tmp_path / name)
        outs[-1].mkdir()
        loaded = cfg(*words)
        config.save(loaded, outs[-1] / config.RESOLVED)
        train.train(loaded, outs[-1])
    found = paired.compare(str(outs[0]), str(outs[1]))
    for out, bpb in zip(outs, (found.a, found.b), strict=True):
        run = Run.open(str(out))
        ids = pipeline.prepare(run.cfg).val
        whole = scoring.evaluate(run.model(), ids, run.tokenizer.token_lengths())["bpb"]
        assert bpb == pytest.approx(whole, rel=2e-3)  # of the text less its first bytes
    assert found.low < found.b - found.a < found.high
    text = paired.describe("A", "B", found)
    assert ("B is better" in text) == (found.high < 0)
    same = paired.compare(str(outs[0]), str(outs[0]))
    assert (same.low, same.high) == (0.0, 0.0) and "neither" in paired.describe("A", "A", same)


@pytest.fixture
def counted(cfg, toy_text, tmp_path):
    """counted(text): a run, as far as it is read here, whose model has counted `text` alone."""

    def make(text: str = "", corpus=toy_text) -> SimpleNamespace:
        tokenizer = tokenizers.train("byte", [])
        model = config.BigramCountsConfig(context_len=16).build(tokenizer.vocab_size)
        model.fit(np.array(tokenizer.encode(text)))
        settings = cfg("corpus=files", f"corpus.path={corpus}")
        return SimpleNamespace(
            path=tmp_path, cfg=settings, tokenizer=tokenizer, model={"best": model}.__getitem__
        )

    return make


def test_a_model_that_knows_nothing_spends_the_same_on_every_byte_but_the_first(counted, tmp_path):
    """And nothing on the ends of documents, which have no bytes."""
    (tmp_path / "notes").mkdir()
    for letter in "abc":
        (tmp_path / "notes" / f"{letter}.md").write_text(letter * 100, encoding="utf-8")
    run = counted(corpus=tmp_path / "notes")
    corpus = pipeline.prepare_corpus(run.cfg.corpus)
    ids = pipeline.pack(corpus, run.tokenizer).val
    found = paired.code_length(run)
    assert found.text == pipeline.corpus_record(corpus).sha256.val
    is_byte = run.tokenizer.token_lengths()[ids] > 0
    assert 1 < np.count_nonzero(~is_byte) < 10
    assert found.ends.tolist() == np.cumsum(is_byte).tolist()
    each = np.log2(run.tokenizer.vocab_size)
    assert found.bits == pytest.approx(each * (np.cumsum(is_byte) - is_byte[0]))  # not predicted


def test_two_runs_are_scored_on_their_whole_text_and_the_better_is_seen(
    counted, toy_text, monkeypatch
):
    runs = {"a": counted(), "b": counted(toy_text.read_text())}
    monkeypatch.setattr(Run, "open", runs.__getitem__)
    found = paired.compare("a", "b", trust=True)
    ids = pipeline.pack(pipeline.prepare_corpus(runs["a"].cfg.corpus), runs["a"].tokenizer).val
    lengths = runs["a"].tokenizer.token_lengths()
    assert found.a == pytest.approx(np.log2(runs["a"].tokenizer.vocab_size))
    whole = scoring.evaluate(runs["b"].model("best"), ids, lengths)["bpb"]
    assert found.b == pytest.approx(whole, rel=1e-3)
    assert found.low < found.b - found.a < found.high < 0
    assert found.n_text == lengths[ids].sum() and found.n_bytes == found.n_text - 1
    assert found.n_spans == found.n_bytes // paired.SPAN > 1


def test_runs_on_different_texts_are_not_compared(counted, tmp_path, monkeypatch):
    (tmp_path / "other.txt").write_text("another text, " * 500)
    runs = {"a": counted(), "b": counted(corpus=tmp_path / "other.txt")}
    monkeypatch.setattr(Run, "open", runs.__getitem__)
    with pytest.raises(ValueError, match="different validation texts"):
        paired.compare("a", "b", trust=True)


def test_of_a_run_from_elsewhere_nothing_but_the_text_is_read(counted, monkeypatch):
    asked = []
    monkeypatch.setattr(paired.ownership, "check_reads", lambda *words: asked.append(words))
    monkeypatch.setattr(Run, "open", lambda name: counted())
    paired.compare("a", "b", trust=True)
    assert [words[2:] for words in asked] == [(True, [paired.ownership.CORPUS])] * 2


def test_a_stranger_s_run_reads_no_file_of_this_machine_without_trust(counted, monkeypatch):
    monkeypatch.setattr(Run, "open", lambda name: counted())
    with pytest.raises(ValueError, match="was not made by you on this machine"):
        paired.compare("a", "b")
