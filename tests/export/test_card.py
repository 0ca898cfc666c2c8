"""A model card says how good its checkpoint is, and how to load it."""

import dataclasses
import json
import re

import pytest

from lm import config, tokenizers
from lm.export import card, files
from lm.record.run import Run
from lm.settings.commands import ExportConfig
from tests.helpers import BPE, TINY_TRANSFORMER, tiktoken_of_card


def test_every_format_that_can_be_asked_for_has_a_writer_and_a_card():
    """A format without a card was written, and then failed with a KeyError."""
    fields = {field.name: field for field in dataclasses.fields(ExportConfig)}
    choices = fields["format"].metadata["choices"]
    assert sorted(choices) == sorted(files.WRITERS) == sorted(card.USES)


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


def test_a_card_holds_no_html_of_a_stranger_and_no_path_of_this_machine(trained_once):
    run = Run.open(str(trained_once(*TINY_TRANSFORMER)))
    run.cfg.name = "<script>x</script> [a](b) `c`"
    run.cfg.corpus = config.FilesConfig(path=["/home/me/secret/my.txt", "/home/me/b.txt"])
    run.cfg.track.notes = "```\n<img src=x>\x1b[2J"
    text = card.write(run, "best", "tokenizers", 'o"u\\t')
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", text, flags=re.M | re.S)
    assert "<" not in outside and "[a]" not in outside and "img" not in outside
    assert "/home" not in text and "['my.txt', 'b.txt']" in text and "\x1b" not in text
    assert 'Tokenizer.from_file("o\\"u\\\\t/tokenizer.json")' in text
