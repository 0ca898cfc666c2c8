"""A corpus of one's own that is none is told in one line."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from lm import config
from lm.corpora.base import Corpus
from lm.data import pipeline


@dataclass
class OwnConfig(config.GrammarConfig):  # not of CorpusConfig: it would be a choice in all tests
    builds: ClassVar[str] = "tests.corpora.test_own:own"
    name: str = "own"


class Silent(Corpus):
    def source(self):
        return {}


class Sourceless(Corpus):
    def documents(self):
        yield "a text"


class Numbers(Silent):
    def documents(self):
        yield from range(1, 200)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda cfg: ["a text"], "gave a list: give a Corpus"),
        (Silent, r"has no method documents\(\)"),
        (Sourceless, r"has no method source\(\)"),
        (Numbers, "gave a document that is a int: give texts"),
    ],
)
def test_a_corpus_that_breaks_its_contract_is_told_how(make, told, monkeypatch):
    monkeypatch.setattr("tests.corpora.test_own.own", make)
    with pytest.raises(ValueError, match=told):
        pipeline.prepare_corpus(OwnConfig())


own = None  # what OwnConfig builds, set by the test
