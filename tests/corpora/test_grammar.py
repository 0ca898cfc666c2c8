"""The grammar with a known entropy: lm/corpora/grammar.py."""

import hashlib
import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest

from lm.config import GrammarConfig
from lm.corpora.grammar import ENGLISH, NOUNS, PCFG, VERBS, WORDS, english, sentences
from tests.reference import derivations, tokens

TINY = {
    "S": [(0.5, "A sees A ."), (0.25, "A , B ."), (0.25, "( B ) sleeps .")],
    "A": [(0.9, "the B"), (0.1, "[ B ]")],
    "B": [(0.7, "dog"), (0.3, "cats")],
}


# ---- slow oracles: everything TINY can say, and a parser that counts derivations


def enumerate_all(rules, symbol="S"):
    """Every derivation of a grammar without recursion: (words, probability) pairs."""
    for p, right in rules[symbol]:
        parts = [
            list(enumerate_all(rules, w)) if w in rules else [([w], 1.0)] for w in right.split()
        ]
        for choice in itertools.product(*parts):
            yield [w for words, _ in choice for w in words], p * math.prod(q for _, q in choice)


def spell(words):
    text = " ".join(words)
    return re.sub(r" (?=[,.)\]])|(?<=[(\[]) ", "", text)


def slr_conflicts(rules, start="S"):
    """Conflicts in the SLR(1) parse table of a grammar; a grammar without any is unambiguous.

    Aho, Lam, Sethi, Ullman, Compilers, section 4.6. There are no empty right sides here.
    """
    rights = [("start'", (start,))]
    rights += [(head, tuple(r.split())) for head, choices in rules.items() for _, r in choices]
    first = {symbol: set() for symbol in rules}
    follow = {symbol: set() for symbol in rules} | {"start'": {"end"}}
    changed = True
    while changed:
        sizes = [len(s) for s in (*first.values(), *follow.values())]
        for head, right in rights:
            if head in rules:
                first[head] |= first.get(right[0], {right[0]})
            for left, after in itertools.pairwise([*right, None]):
                if left in rules:
                    follow[left] |= follow[head] if after is None else first.get(after, {after})
        changed = sizes != [len(s) for s in (*first.values(), *follow.values())]

    def closure(items):
        items, todo = set(items), list(items)
        while todo:
            rule, dot = todo.pop()
            wanted = rights[rule][1][dot : dot + 1]
            new = {(i, 0) for i, (head, _) in enumerate(rights) if wanted == (head,)} - items
            items |= new
            todo += new
        return frozenset(items)

    states, todo, conflicts = set(), [closure({(0, 0)})], []
    while todo:
        state = todo.pop()
        if state in states:
            continue
        states.add(state)
        moves, done = {}, []
        for rule, dot in state:
            head, right = rights[rule]
            if dot == len(right):
                done.append((rule, follow[head]))
            else:
                moves.setdefault(right[dot], set()).add((rule, dot + 1))
        for rule, ahead in done:
            conflicts += [("shift", rights[rule], word) for word in ahead & set(moves)]
            conflicts += [
                ("reduce", rights[rule], rights[o]) for o, a in done if o < rule and a & ahead
            ]
        todo += [closure(items) for items in moves.values()]
    return conflicts


LEXICON = {words.split()[0] for words in (*WORDS.values(), NOUNS, *VERBS.values())}
LEXICON |= {word + "s" for word in LEXICON}


# ---- unambiguous, so that a sentence has the probability of its one derivation


def structure():
    """The English rules with categories instead of words, and these categories."""
    rules = english()
    lexical = {c for c, choices in rules.items() if {r for _, r in choices} & LEXICON}
    return {s: choices for s, choices in rules.items() if s not in lexical}, lexical


def test_no_word_is_in_two_categories_or_in_a_rule():
    rules, categories = structure()
    words = [word for c in categories for _, word in english()[c]]
    in_rules = {w for choices in rules.values() for _, r in choices for w in r.split()}
    assert len(words) == len(set(words)) > 200
    assert not set(words) & in_rules
    assert all(re.fullmatch("[a-z]+", w) for w in words)


def test_the_parse_table_has_no_conflict_so_every_sentence_has_one_derivation():
    assert slr_conflicts(structure()[0]) == []


@pytest.mark.parametrize(
    "rules",
    [
        {"S": [(0.5, "S and S"), (0.5, "a")]},
        {"S": [(0.5, "A"), (0.5, "B")], "A": [(1.0, "a")], "B": [(1.0, "a")]},
        {"S": [(0.5, "if S"), (0.25, "if S else S"), (0.25, "a")]},
    ],
)
def test_the_proof_finds_the_classic_ambiguities(rules):
    assert slr_conflicts(rules)


def test_a_parser_finds_one_derivation_of_each_sentence():
    rules = english()
    for sentence in sentences(100, seed=3):
        assert derivations(rules, tokens(sentence))[0] == 1, sentence


def test_the_parser_counts_the_two_readings_of_an_ambiguous_sentence():
    rules = {"S": [(0.5, "A and S"), (0.5, "A")], "A": [(0.5, "a and a"), (0.5, "a")]}
    assert derivations(rules, ["a", "and", "a"]) == (2, pytest.approx(0.5**2 + 0.5**4))


# ---- the entropy


def test_entropy_and_length_are_those_of_an_exhaustive_list():
    listed = {}
    for words, p in enumerate_all(TINY):
        assert spell(words) not in listed
        listed[spell(words)] = p
    assert sum(listed.values()) == pytest.approx(1)
    bits = -sum(p * math.log2(p) for p in listed.values())
    n_bytes = sum(p * len(text) for text, p in listed.items())
    assert PCFG(TINY).facts() == pytest.approx(
        {"floor_bpb": bits / n_bytes, "sentence_bits": bits, "sentence_bytes": n_bytes}, rel=1e-12
    )


@pytest.mark.parametrize("p", [0.1, 0.5, 0.99])
def test_entropy_of_a_recursive_rule_is_that_of_the_geometric_distribution(p):
    bits = -(p * math.log2(p) + (1 - p) * math.log2(1 - p)) / (1 - p)
    facts = PCFG({"S": [(p, "a S"), (1 - p, "b")]}).facts()
    assert facts["sentence_bits"] == pytest.approx(bits, rel=1e-9)
    assert facts["sentence_bytes"] == pytest.approx(2 * p / (1 - p) + 1, rel=1e-9)


def test_length_counts_utf8_bytes():
    assert PCFG({"S": [(1.0, "caf\u00e9 .")]}).facts()["sentence_bytes"] == 6


def test_floor_agrees_with_the_mean_surprisal_of_parsed_samples():
    """Probabilities come from the parser, texts from the sampler, the floor from algebra."""
    rules, floor = english(), ENGLISH.facts()["floor_bpb"]
    texts = list(itertools.islice(sentences(20_000, seed=1), 0, None, 40))  # 500
    bits = np.array([-math.log2(derivations(rules, tokens(text))[1]) for text in texts])
    n_bytes = np.array([len(text) for text in texts])
    error = (bits - floor * n_bytes).std() / n_bytes.mean() / len(texts) ** 0.5
    assert error < 0.01 * floor
    assert abs(bits.sum() / n_bytes.sum() - floor) < 4 * error


def test_mean_length_of_many_samples_is_the_exact_one():
    lengths = np.array([len(text) for text in sentences(40_000, seed=2)])
    error = lengths.std() / len(lengths) ** 0.5
    assert error < 0.5
    assert abs(lengths.mean() - ENGLISH.facts()["sentence_bytes"]) < 4 * error


def test_samples_have_the_listed_probabilities():
    listed = {spell(words): p for words, p in enumerate_all(TINY)}
    n = 50_000
    counts = Counter(PCFG(TINY).generate(n, np.random.default_rng(0)))
    assert set(counts) <= set(listed)
    chi2 = sum((counts[text] - n * p) ** 2 / (n * p) for text, p in listed.items())
    freedom = len(listed) - 1
    assert abs(chi2 - freedom) < 4 * (2 * freedom) ** 0.5


def test_the_largest_random_number_still_picks_the_last_choice_of_its_own_symbol():
    """2 + (1 - 2**-53) is 3 in float64, where the choices of the next symbol begin."""

    class Largest:
        def random(self, n):
            return np.full(n, np.nextafter(1, 0))

    assert PCFG(TINY).generate(1, Largest()) == ["(cats) sleeps."]


# ---- grammars that cannot be


@pytest.mark.parametrize("p", [0.5, 0.6, 1.0])
def test_a_grammar_that_grows_without_limit_is_refused(p):
    choices = [(p, "S S"), (1 - p, "a")] if p < 1 else [(1.0, "S S")]
    with pytest.raises(ValueError, match="spectral radius"):
        PCFG({"S": choices})


def test_the_english_grammar_is_well_below_the_limit():
    assert max(abs(np.linalg.eigvals(ENGLISH.branching()))) < 0.8


@pytest.mark.parametrize("choices", [[(0.5, "a"), (0.4, "b")], [(1.5, "a"), (-0.5, "b")]])
def test_choices_that_are_no_probabilities_are_refused(choices):
    with pytest.raises(ValueError, match="sum to 1"):
        PCFG({"S": choices})


def test_an_empty_right_side_is_refused():
    with pytest.raises(ValueError, match="no empty right sides"):
        PCFG({"S": [(1.0, "")]})


# ---- the text


def test_a_full_stop_ends_each_document_and_is_nowhere_else():
    assert all(text.find(".") == len(text) - 1 for text in sentences(5000, seed=0))


def test_spelling_is_as_in_print_and_reversible():
    for text in sentences(2000, seed=0):
        assert spell(tokens(text)) == text


def test_brackets_nest_and_close_what_they_opened():
    deepest = 0
    for text in sentences(20_000, seed=0):
        stack = []
        for mark in re.findall(r"[()\[\]]", text):
            if mark in "([":
                stack.append(mark)
                deepest = max(deepest, len(stack))
            else:
                assert stack.pop() + mark in ("()", "[]")
        assert not stack
    assert deepest >= 2


def test_a_verb_agrees_with_its_subject_across_a_relative_clause():
    for text, good in (
        ("the farmer whom the kings see sleeps .", 1),
        ("the farmers whom the kings see sleep .", 1),
        ("the farmer whom the kings see sleep .", 0),
        ("the farmers whom the kings see sleeps .", 0),
        ("the farmers whom the kings sees sleep .", 0),
        ("the farmers who sleep see the king .", 1),
        ("the farmers who sleeps see the king .", 0),
    ):
        assert derivations(english(), text.split())[0] == good
    far = [t for t in sentences(3000, seed=0) if re.search(r"farmers wh\w+ .* (are|seem) ", t)]
    assert far


def test_a_seed_gives_the_same_text_and_fewer_sentences_are_its_beginning():
    long = list(sentences(9000, seed=5))
    assert list(sentences(9000, seed=5)) == long
    assert list(sentences(10, seed=5)) == long[:10]
    assert list(sentences(10, seed=6)) != long[:10]
    assert len(set(long)) > 8000


def test_the_text_of_a_seed_is_the_same_on_every_machine():
    text = "\n".join(sentences(10_000, seed=0))
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest.startswith("b33e31ae521e7adb")


def test_the_corpus_gives_its_sentences_again_at_each_reading():
    corpus = GrammarConfig(n_documents=150).build()
    assert list(corpus.documents()) == list(corpus.documents()) == list(sentences(150, 0))
    assert corpus.facts()["floor_bpb"] == ENGLISH.facts()["floor_bpb"]


def test_source_follows_seed_and_length(monkeypatch):
    def source(**settings):
        return str(GrammarConfig(**settings).build().source())

    assert source() == source()
    assert len({source(), source(seed=1), source(n_documents=200)}) == 3
    before = source()
    monkeypatch.setattr(ENGLISH, "rules", TINY)
    assert source() != before
