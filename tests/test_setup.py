"""What a run is made of before its first step: lm/setup.py."""

import pytest

from lm import setup
from lm.record.run import Run
from lm.report import board, records
from lm.scoring import evaluate
from tests.helpers import TINY_TRANSFORMER


def test_other_texts_are_scored_beside_the_validation_split(trained, tmp_path):
    other = tmp_path / "my other text.txt"
    other.write_text("a few words of another kind, again and again; " * 40, encoding="utf-8")
    out = trained(*TINY_TRANSFORMER, f"train.also=['{other}']", "train.eval_every=10")
    run = Run.open(str(out))
    rows = [row for row in records.read(out).rows if "val/bpb" in row]
    assert len(rows) == 3
    ids = run.tokenizer.encode_to_numpy(other.read_text(encoding="utf-8"))
    expected = evaluate(run.model("last"), ids, run.tokenizer.token_lengths())["bpb"]
    assert rows[-1]["val_my_other_text/bpb"] == pytest.approx(expected, rel=1e-6)
    assert list(board.run_view(records.read(out))["also"]) == ["val_my_other_text/bpb"]


def test_a_text_to_score_besides_changes_no_weight(trained, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("another text, and more of it " * 30, encoding="utf-8")
    out = trained(*TINY_TRANSFORMER)
    alone = records.read(out).score
    (out / "config.resolved.yaml").parent.rename(tmp_path / "alone")
    beside = records.read(trained(*TINY_TRANSFORMER, f"train.also=[{other}]")).score
    assert alone == beside


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("[nowhere.txt]", "^train.also=nowhere.txt is neither a corpus .* nor a file that exists"),
        ("[TEXT,TEXT]", "train.also=.*other.txt: its scores would be those of val_other, too"),
        ("['']", "train.also=: its scores"),
        ("[CHINESE]", "train.also=.*chinese.txt: .*'\u4e2d'"),
    ],
)
def test_a_text_that_cannot_be_scored_is_refused_in_one_line(
    cfg, tiny, toy_text, tmp_path, words, message
):
    text = tmp_path / "other.txt"
    text.write_text(toy_text.read_text(encoding="utf-8")[:900], encoding="utf-8")
    chinese = tmp_path / "chinese.txt"
    chinese.write_text("\u4e2d\u6587" * 100, encoding="utf-8")
    words = words.replace("TEXT", str(text)).replace("CHINESE", str(chinese))
    made = cfg(*tiny, "model=bigram_counts", f"train.also={words}", "tokenizer=char")
    with pytest.raises(ValueError, match=message):
        setup.set_up(made, tmp_path)
