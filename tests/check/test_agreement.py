"""The findings about a run agree, or say which of them comes first."""

import itertools
import json
import re

import pytest

from lm.check import agreement, doctor
from lm.check.evidence import Finding
from tests.helpers import TINY_TRANSFORMER

MORE = r"raise (optimizer\.lr or )?train\.steps|train\.steps can be raised"
FEWER = r"fewer train\.steps|try train\.steps=|stop earlier|more steps teach little"

CURVES = {  # val/bpb at each evaluation
    "falling": [8.0, 6.0, 5.0, 4.0],
    "level": [8.0, 4.0, 3.99, 3.985],
    "past its best": [8.0, 4.0, 4.5, 5.0],
    "nothing learned": [8.0, 7.99, 7.98, 7.97],
}


@pytest.mark.parametrize("often", [False, True])
@pytest.mark.parametrize("curve", CURVES)
def test_no_two_findings_ask_for_more_steps_and_for_fewer(curve, often, trained, toy_text):
    """A run that still learned, and knew its text by heart, was told both."""
    out = trained(*TINY_TRANSFORMER, "train.dtype=float32")
    rows = [
        {"step": 5 * i, "tokens": 320 * i, "seconds": 1.0 * i, "val/bpb": bpb, "val/loss": bpb}
        for i, bpb in enumerate(CURVES[curve])
    ]
    losses = [
        {"step": i, "tokens": 64 * i, "seconds": 0.1 * i, "train/loss": 4 - 0.1 * i,
         "optim/grad_norm": 1.0}
        for i in range(1, 16)
    ]  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows + losses)
    (out / "metrics.jsonl").write_text(text)
    summary = json.loads((out / "summary.json").read_text())
    summary |= {"best_val_bpb": min(CURVES[curve])}
    summary |= {"tokens": 10**9 if often else 100}
    (out / "summary.json").write_text(json.dumps(summary))
    recited = toy_text.read_text(encoding="utf-8")[2000:2300]
    (out / "samples.jsonl").write_text(json.dumps({"step": 20, "text": recited}) + "\n")
    findings = doctor.examine(out)
    assert {"curve", "copies", "epochs"} <= {found.name for found in findings}
    more = [found.name for found in findings if re.search(MORE, found.advice)]
    fewer = [found.name for found in findings if re.search(FEWER, found.advice)]
    assert not (more and fewer)


def test_of_two_opposite_findings_one_says_that_the_other_comes_first():
    findings = [
        Finding("updates", "look", "", "steps hardly move it: raise optimizer.lr"),
        Finding(
            "clipping", "look", "", "a spike: try more schedule.warmup or a lower optimizer.lr"
        ),
        Finding(
            "counts", "note", "", "raise train.steps, then try optimizer.lr and a larger model"
        ),
        Finding("copies", "look", "", "it recites: stop earlier, more text or a smaller model"),
    ]
    agreement.agree(findings)
    assert findings[0].advice.startswith("first what clipping asks for; if this is left, steps")
    assert findings[2].advice.startswith("first what copies asks for; if this is left, raise")
    assert findings[1].advice.startswith("a spike") and findings[3].advice.startswith("it recites")


def test_findings_that_agree_stay_as_they_are():
    advice = ["raise train.steps", "raise optimizer.lr", "more text, model.dropout=0.1", ""]
    for one, other in itertools.combinations(advice, 2):
        findings = [Finding("a", "look", "", one), Finding("b", "look", "", other)]
        agreement.agree(findings)
        assert [found.advice for found in findings] == [one, other]
