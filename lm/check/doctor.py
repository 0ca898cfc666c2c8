"""Examine a finished run by rules: each finding is a number, its meaning, and what to try.

    for finding in doctor.examine(Path("outputs/runs/...")):
        print(finding.name, finding.verdict, finding.detail, finding.advice)

A new rule is one function from Evidence to Finding (None: nothing to say), named in RULES.
"""

import json
import logging
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from lm.check import agreement, log_rules, model_rules
from lm.check.evidence import Evidence, Finding
from lm.config import ModelConfig
from lm.data import token_files
from lm.models.base import LanguageModel
from lm.record.run import Run
from lm.report import lr_range, records
from lm.report.records import Record
from lm.system import files

log = logging.getLogger(__name__)

LOG_RULES: list[Callable[[Record], Finding | None]] = [log_rules.curve, log_rules.clipping]
RULES: list[Callable[[Evidence], Finding | None]] = [
    log_rules.counts,
    log_rules.overlap_of_splits,
    model_rules.gap,
    model_rules.confidence,
    log_rules.epochs,
    model_rules.dead_units,
    model_rules.activations,
    model_rules.gradients,
    model_rules.updates,
    log_rules.copies,
]


def examine(path: Path, which: str = "last", model: LanguageModel | None = None) -> list[Finding]:
    """All findings about the run in `path`, at the checkpoint `which`.

    `model` saves loading that checkpoint's model where it is at hand. Raises ValueError if the
    run has no such checkpoint.
    """
    run = Run.open(str(path))
    record = records.read(path)
    model = run.model(which) if model is None else model.eval()
    if record.settings.get("schedule.name") == "range":
        detail = "a range test, whose rate rises until training fails; its score says nothing"
        return [Finding("schedule", "note", detail, lr_range.conclusion(record))]
    findings = [rule(record) for rule in LOG_RULES]
    if record.tokens is None:
        detail = "its tokens are no longer in the cache: the rest was not looked at"
        findings.append(Finding("data", "note", detail))
    else:
        token_files.check(record.tokens, run.tokenizer)
        train = token_files.load(record.tokens, "train")
        val = token_files.load(record.tokens, "val")
        evidence = Evidence(run, record, which, model, train, val)
        findings += [rule(evidence) for rule in RULES]
    known = [finding for finding in findings if finding is not None]
    for finding in known:
        finding.advice = possible_advice(finding.advice, run.cfg.model)
    agreement.agree(known)
    return known


def possible_advice(advice: str, model: ModelConfig) -> str:
    """The advice without the settings that this model lacks, or that have the value already."""

    def keep(match: re.Match[str]) -> str:
        current = getattr(model, match["name"], None)
        if current is None or str(current).lower() == match["value"]:
            return ""
        if match["name"] == "dropout" and current > 0:
            return ""
        return match[0]

    setting = r"(,? (or )?(try |set )?)?model\.(?P<name>\w+)(=(?P<value>[\w.]+))?"
    return re.sub(setting, keep, advice)


def after_run(out: Path, model: LanguageModel | None = None) -> list[str]:
    """Write doctor.json into a finished run, and log the findings that deserve a look.

    Returns a line for each of those.
    """
    try:
        findings = examine(out, model=model)
    except Exception as error:  # the run is good whatever goes wrong in looking at it
        reason = " ".join(str(error).split()) or type(error).__name__
        log.warning(f"the doctor could not look at {out}: {reason}")
        return []
    rows = [asdict(finding) for finding in findings]
    files.atomic_write(out / "doctor.json", json.dumps(rows, indent=1) + "\n")
    lines = [
        f"{finding.name}: {finding.detail}; {finding.advice}"
        for finding in findings
        if finding.verdict in ("look", "failed")
    ]
    for line in lines:
        log.info(f"doctor     {line}")
    return lines
