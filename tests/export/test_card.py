"""A model card says how good its checkpoint is, and how to load it."""

import json

import pytest

from lm import tokenizers
from lm.export import card, files
from lm.record.run import Run
from tests.helpers import BPE, tiktoken_of_card


def test_the_card_gives_the_results_of_the_checkpoint_that_is_exported(trained):
    run = Run.open(str(trained(*BPE)))
    points = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    for step in (10, 20):
        (bpb,) = [p["val/bpb"] for p in points if p["step"] == step and "val/bpb" in p]
        text = card.write(run, str(step), "hf", "out")
        assert f"| val/bpb | {bpb:.4f} |" in text and f"which is step {step}." in text


def test_the_card_reads_what_was_exported_last_to_a_path(toy_bpe, tmp_path):
    """Its code once went through tiktoken's cache, which knows a file by its path alone."""
    pytest.importorskip("tiktoken")
    for tokenizer in (
        toy_bpe,
        tokenizers.BPETokenizer.of_merges([(116, 104, 256), (256, 101, 257)]),
    ):
        files.to_tiktoken(tokenizer, "a-run", tmp_path)
        assert tiktoken_of_card(tmp_path).encode("the cat") == tokenizer.encode("the cat")
