"""Text generation: cached equals uncached, rows are independent, streams are whole characters."""

import copy
import itertools
import warnings

import pytest
import torch

from lm import config
from lm.generate import generate, generate_text, readable, sample, uniform_draws
from lm.models.kv_cache import KVCache
from tests import reference

V, CONTEXT = 23, 16
MODELS = {
    "transformer": config.TransformerConfig(n_layer=2, n_head=2, n_embd=16, context_len=CONTEXT),
    "learned": config.TransformerConfig(
        n_layer=2, n_head=4, n_kv_head=2, n_embd=16, context_len=CONTEXT, positions="learned"
    ),
    "gru": config.GRUConfig(n_layer=2, n_embd=8, n_hidden=16, context_len=CONTEXT),
    "mlp": config.MLPConfig(window=4, n_embd=8, n_hidden=16, context_len=CONTEXT),
    "ngram": config.NgramConfig(order=3, context_len=CONTEXT),
    "bigram_counts": config.BigramCountsConfig(context_len=CONTEXT),
}


def build(name: str):
    torch.manual_seed(0)
    model = MODELS[name].build(V)
    model.fit(torch.randint(V, (2000,)).numpy().astype("uint16"))
    for p in model.parameters():
        p.data += 0.3 * torch.randn_like(p)  # decided opinions, so that a wrong context shows
    return model


@pytest.fixture(params=list(MODELS))
def model(request):
    return build(request.param)


def rows(model, prompts, **how) -> list[list[int]]:
    steps = list(generate(model, prompts, **how))
    return [[t for t in row if t is not None] for row in zip(*steps, strict=True)]


PROMPTS = [[1], [2, 3, 4, 5, 6, 7, 8], [9, 10, 11], list(range(CONTEXT))]


@pytest.mark.parametrize("how", [{"temperature": 0}, {}, {"top_k": 5}, {"top_p": 0.7}])
def test_cached_text_equals_uncached_text_also_beyond_the_context(model, how):
    draws = uniform_draws(3, len(PROMPTS), 3 * CONTEXT)
    texts = rows(model, PROMPTS, max_tokens=3 * CONTEXT, seed=3, **how)
    for prompt, text, row in zip(PROMPTS, texts, draws, strict=True):
        assert text == reference.generate(model, prompt, row, **how)


def test_a_draw_depends_on_its_position_and_not_on_how_many_are_made():
    draws = uniform_draws(3, 2, 1000)
    assert torch.equal(uniform_draws(3, 2, 300), draws[:, :300])
    assert torch.equal(uniform_draws(3, 1, 1)[0], draws[0, :1])
    assert len(draws.unique()) > 1990 and 0 <= draws.min() <= draws.max() < 1


def test_the_draws_are_those_of_their_positions_beyond_the_first_block(monkeypatch):
    used = []

    def takes_note(logits, draws, *how):
        used.append(draws)
        return sample(logits, draws, *how)

    monkeypatch.setattr("lm.generate.sample", takes_note)
    list(generate(build("bigram_counts"), [[1], [2]], max_tokens=600, seed=3))
    assert torch.equal(torch.stack(used, dim=1), uniform_draws(3, 2, 600))


@pytest.mark.parametrize("name", ["bigram_counts", "gru", "transformer"])
def test_memory_does_not_depend_on_max_tokens(name):
    """All draws were made at the start: a traceback for two billion."""
    steps = generate(build(name), [[1], [2]], max_tokens=2_000_000_000)
    taken = list(itertools.islice(steps, 20))
    assert len(taken) == 20
    steps.close()


def test_a_row_does_not_depend_on_the_other_rows(model):
    together = rows(model, PROMPTS, max_tokens=20, seed=1)
    others = [PROMPTS[0], [5], PROMPTS[2], [1, 2]]
    again = rows(model, others, max_tokens=20, seed=1)
    assert (again[0], again[2]) == (together[0], together[2])


def test_the_same_seed_repeats_and_another_differs(model):
    a, b, c = (rows(model, PROMPTS, max_tokens=20, seed=s) for s in (1, 1, 2))
    assert a == b != c


def test_rows_with_the_same_prompt_differ(model):
    a, b = rows(model, [[1, 2], [1, 2]], max_tokens=20)
    assert a != b


def test_a_stop_token_ends_its_row_alone_and_is_not_passed_on(model):
    free = rows(model, PROMPTS, max_tokens=30, seed=5)
    stop = free[1][4]
    stopped = rows(model, PROMPTS, max_tokens=30, seed=5, stop_ids=(stop,))
    for row, text in zip(stopped, free, strict=True):
        assert row == list(itertools.takewhile(lambda token: token != stop, text))


def test_steps_give_none_for_ended_rows_and_end_with_the_last(model):
    free = rows(model, PROMPTS[:2], max_tokens=10, seed=5, temperature=1.0)
    steps = list(generate(model, PROMPTS[:2], max_tokens=10, seed=5, stop_ids=(free[0][0],)))
    assert all(step[0] is None for step in steps)
    assert all(len(step) == 2 for step in steps)
    steps = list(generate(model, PROMPTS[:2], max_tokens=9, stop_ids=tuple(range(V))))
    assert steps == []


def test_generation_leaves_the_model_and_the_random_stream_as_they_were(model):
    model.train()
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    steps = generate(model, PROMPTS, max_tokens=40)
    next(steps)
    assert torch.zeros(1).is_inference() is False  # the caller's own code between two steps
    steps.close()
    assert model.training
    list(generate(model, PROMPTS, max_tokens=4))
    assert model.training
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(a, before[name]) for name, a in model.state_dict().items())
    if model.trainable:
        model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()


def test_a_long_prompt_is_cut_at_the_front_with_a_warning(model):
    long = [i % V for i in range(CONTEXT + 9)]
    with pytest.warns(UserWarning, match=f"prompt 1 has 25 tokens: .* last {CONTEXT}"):
        cut = rows(model, [[1], long], max_tokens=5)
    assert cut == rows(model, [[1], long[9:]], max_tokens=5)


def test_a_prompt_that_fills_the_context_is_read_whole_without_a_warning(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(rows(model, [list(range(CONTEXT))], max_tokens=1)[0]) == 1


@pytest.mark.parametrize("context_len", [2, 3])
def test_the_smallest_contexts_roll_too(context_len):
    torch.manual_seed(0)
    cfg = config.TransformerConfig(n_layer=1, n_head=2, n_embd=8, context_len=context_len)
    model = cfg.build(V)
    (text,) = rows(model, [[1, 2]], max_tokens=9, seed=2)
    assert text == reference.generate(model, [1, 2], uniform_draws(2, 1, 9)[0])


def test_wrong_prompts_are_refused_with_what_to_do(model):
    with pytest.raises(ValueError, match="prompt 1 is empty: give at least one token"):
        next(generate(model, [[1], []], max_tokens=3))
    for bad in (V, -1):
        with pytest.raises(ValueError, match=f"prompt 0 has token {bad}, .* 0 to {V - 1}"):
            next(generate(model, [[0, V - 1, bad]], max_tokens=3))


def test_no_prompts_and_no_tokens_give_nothing(model):
    assert list(generate(model, [], max_tokens=3)) == []
    assert list(generate(model, [[1]], max_tokens=0)) == []


def test_a_step_of_the_model_is_made_for_each_token_and_none_behind_the_last(model, monkeypatch):
    calls, step = [], model.step
    monkeypatch.setattr(model, "step", lambda *ids: calls.append(0) or step(*ids))
    long = rows(model, PROMPTS[:3], max_tokens=4, seed=3)  # no window is full
    assert len(calls) == 4
    assert rows(model, PROMPTS[:3], max_tokens=1, seed=3) == [row[:1] for row in long]
    assert len(calls) == 5


def test_only_a_transformer_is_compiled_and_only_if_asked(monkeypatch):
    compiled = []
    monkeypatch.setattr(KVCache, "compile", lambda state: compiled.append(state))
    for name, how in (("transformer", {}), ("gru", {"compiled": True})):
        rows(build(name), [[1]], max_tokens=2, **how)
    assert not compiled
    rows(build("transformer"), [[1]], max_tokens=2, compiled=True)
    assert len(compiled) == 1


# ------------------------------------------------------------------------------------ sampling


def frequencies(logits: torch.Tensor, n: int = 20_000, **how) -> torch.Tensor:
    """Shares of the tokens over evenly spread draws: what the sampler's probabilities are."""
    draws = (torch.arange(n) + 0.5) / n
    return sample(logits.expand(n, -1), draws, **how).bincount(minlength=len(logits)) / n


LOGITS = torch.tensor([2.0, 0.0, 3.0, 1.0, -9.0])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_the_softmax_says(temperature):
    expected = (LOGITS / temperature).softmax(-1)
    got = frequencies(LOGITS, temperature=temperature)
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=0)


def test_a_draw_runs_through_the_tokens_by_their_ids_or_from_the_likeliest_on():
    """Or the samples of a run that goes on after an update of the code change amid it."""
    logits = torch.tensor([0.25, 0.5, 0.25]).log().expand(3, -1)
    draws = torch.tensor([0.2, 0.3, 0.8])
    assert sample(logits, draws).tolist() == [0, 1, 2]
    assert sample(logits, draws, top_k=3)[:2].tolist() == [1, 1]
    assert sample(logits, draws, top_p=0.99)[:2].tolist() == [1, 1]


def test_temperature_0_takes_the_likeliest():
    assert frequencies(LOGITS, temperature=0)[2] == 1.0


@pytest.mark.parametrize("how", [{}, {"top_k": 3}, {"top_p": 0.9}, {"top_k": 4, "top_p": 0.5}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_temperatures_near_0_take_the_likeliest(dtype, how):
    """1e-40 took the last id, as the logits overflowed; ids come after 2 and before it."""
    logits = LOGITS.to(dtype)
    assert frequencies(logits, temperature=1e-1, **how)[2] > 0.99
    for exponent in (2, 5, 20, 37, 38, 39, 45, 46, 150, 300, 323):
        for shifted in (logits, 1e4 * logits, 1e9 * logits, logits.where(logits > 0, -torch.inf)):
            assert frequencies(shifted, n=99, temperature=10.0**-exponent, **how)[2] == 1.0


def test_temperatures_near_0_take_the_likeliest_of_each_row_by_itself():
    logits = 1e9 * torch.tensor([[9.0, 0.0], [1.0, 0.0]])
    assert sample(logits, torch.tensor([0.9, 0.1]), temperature=1e-30).tolist() == [0, 0]


def test_huge_temperatures_take_all_alike_but_the_impossible():
    logits = LOGITS.where(LOGITS > -9, -torch.inf)
    for temperature in (1e9, 1e38, 1e300):
        got = frequencies(logits, n=1000, temperature=temperature)
        torch.testing.assert_close(got[:4], torch.full((4,), 0.25), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("top_k", "kept"), [(1, [2]), (2, [0, 2]), (99, [0, 1, 2, 3, 4])])
def test_top_k_keeps_the_k_likeliest_in_proportion(top_k, kept):
    expected = torch.zeros(5)
    expected[kept] = LOGITS[kept].softmax(-1)
    torch.testing.assert_close(frequencies(LOGITS, top_k=top_k), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("top_p", "kept"), [(0.5, [2]), (0.7, [0, 2]), (1e-6, [2])])
def test_top_p_keeps_the_fewest_that_reach_p(top_p, kept):
    """Probabilities: 0.64, 0.24, 0.09, 0.03, 0.00."""
    expected = torch.zeros(5)
    expected[kept] = LOGITS[kept].softmax(-1)
    torch.testing.assert_close(frequencies(LOGITS, top_p=top_p), expected, atol=1e-3, rtol=0)


def test_top_p_takes_no_more_than_reach_it_to_the_bit():
    shares = frequencies(torch.zeros(4), top_p=0.5)  # each has 0.25
    assert sorted(shares.tolist()) == pytest.approx([0.0, 0.0, 0.5, 0.5], abs=1e-3)


@pytest.mark.parametrize("how", [{}, {"top_k": 3}, {"top_p": 0.9}])
def test_of_logits_that_are_no_numbers_some_token_is_chosen(how):
    """It is the loss that tells a run that it came apart."""
    tokens = sample(torch.full((2, 5), torch.nan), torch.tensor([0.0, 0.9]), **how)
    assert tokens.shape == (2,) and all(0 <= token < 5 for token in tokens)


def test_top_k_comes_before_top_p():
    got = frequencies(LOGITS, top_k=2, top_p=0.7)  # of two, the first alone has 0.73
    assert got[2] == 1.0


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-24])
@pytest.mark.parametrize("how", [{}, {"top_k": 3}, {"top_p": 0.9}, {"top_k": 9, "top_p": 0.5}])
def test_the_extreme_draws_never_choose_an_impossible_token(draw, how):
    logits = torch.full((1, 300), -torch.inf)
    logits[0, 40:60] = torch.randn(20)
    assert 40 <= sample(logits, torch.tensor([draw]), **how).item() < 60


# ---------------------------------------------------------------------------------------- text


class Letters:
    """A tokenizer of 'a' to 'v' that streams as the real ones do."""

    vocab_size, eot_id = V, V - 1

    def encode_ordinary(self, text: str) -> list[int]:
        return [ord(c) - 97 for c in text]

    def decode_stream(self, ids):
        for i in ids:
            yield chr(97 + i)


class Scripted:
    """Stands in for `generate`: writes given letters and sees what it was asked."""

    def __init__(self, text: str):
        self.ids = [ord(c) - 97 for c in text]

    def __call__(self, model, prompts, *, max_tokens, stop_ids, **how):
        self.prompts, self.stop_ids, self.how = prompts, stop_ids, how
        for i in self.ids[:max_tokens]:
            yield [i]


@pytest.mark.parametrize(
    ("stop", "expected"),
    [("", "abcabdabe"), ("abd", "abc"), ("z", "abcabdabe"), ("a", ""), ("abf", "abcabdabe"),
     ("abcabdabe", ""), ("be", "abcabda"), ("cabe", "abcabdabe")],
)  # fmt: skip
def test_text_ends_before_the_stop_string_and_never_shows_a_part_of_it(monkeypatch, stop, expected):
    monkeypatch.setattr("lm.generate.generate", Scripted("abcabdabe"))
    pieces = list(generate_text(None, Letters(), "a", max_tokens=99, stop=stop))
    assert "".join(pieces) == expected
    assert all(pieces)


def test_text_that_cannot_begin_the_stop_string_is_not_held_back(monkeypatch):
    monkeypatch.setattr("lm.generate.generate", Scripted("xyabq"))
    pieces = list(generate_text(None, Letters(), "a", max_tokens=99, stop="abc"))
    assert pieces == ["x", "y", "abq"]


@pytest.mark.parametrize(
    ("pieces", "stop", "expected"),
    [
        (["a-b-", "c"], "-", "a"),
        (["xab", "cdy"], "abcd", "x"),
        (["xabc", "abcdy"], "abcd", "xabc"),
    ],
)
def test_text_in_pieces_ends_before_the_first_stop_string(pieces, stop, expected, monkeypatch):
    monkeypatch.setattr("lm.generate.generate", Scripted("abc"))
    monkeypatch.setattr(Letters, "decode_stream", lambda self, ids: iter(pieces))
    assert "".join(generate_text(None, Letters(), "a", max_tokens=9, stop=stop)) == expected


def test_without_a_stop_string_none_is_looked_for(monkeypatch):
    text = "aXXXXb"
    monkeypatch.setattr("lm.generate.generate", Scripted(text))
    assert "".join(generate_text(None, Letters(), "a", max_tokens=9)) == text


def test_an_empty_prompt_is_the_start_of_a_document(monkeypatch):
    script = Scripted("abc")
    monkeypatch.setattr("lm.generate.generate", script)
    assert "".join(generate_text(None, Letters(), "", max_tokens=2)) == "ab"
    assert script.prompts == [[V - 1]] and script.stop_ids == (V - 1,)


def test_every_setting_of_a_text_reaches_its_tokens(monkeypatch):
    script = Scripted("abc")
    monkeypatch.setattr("lm.generate.generate", script)
    how = {"temperature": 0.5, "top_k": 7, "top_p": 0.9, "seed": 4, "compiled": True}
    assert "".join(generate_text(None, Letters(), "b", max_tokens=9, **how)) == "abc"
    assert script.prompts == [[1]] and script.how == how


def test_unless_it_is_told_otherwise_a_text_is_drawn_from_the_model_s_own_probabilities():
    model, plain = build("gru"), {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0}
    assert rows(model, PROMPTS, max_tokens=20) == rows(model, PROMPTS, max_tokens=20, **plain)
    texts = ["".join(generate_text(model, Letters(), "abc", max_tokens=20, **how))
             for how in ({}, {**plain, "stop": "", "compiled": False})]  # fmt: skip
    assert texts[0] == texts[1]
    draws = torch.rand(99)
    expected = sample(LOGITS.expand(99, -1), draws, temperature=1.0, top_k=0, top_p=1.0)
    assert torch.equal(sample(LOGITS.expand(99, -1), draws), expected)


def test_a_prompt_with_a_character_that_the_tokenizer_lacks_becomes_the_start_of_a_document():
    class Strict(Letters):
        def encode_ordinary(self, text):
            if not text.isascii():
                raise ValueError("no such character")
            return super().encode_ordinary(text)

    assert readable("abc", Strict()) == "abc" and readable("é", Strict()) == ""


def test_the_draws_of_a_seed_stay_what_they_were():
    """Or the samples of a run that goes on after an update of the code change amid it."""
    draws = uniform_draws(3, 2, 258)[:, [0, 1, 256]]
    expected = [[0.194638, 0.601383, 0.810112], [0.556802, 0.729559, 0.288550]]
    torch.testing.assert_close(draws, torch.tensor(expected), atol=1e-6, rtol=0)


def test_text_of_a_real_model_streams_and_repeats():
    model, how = build("transformer"), {"max_tokens": 30, "seed": 4, "temperature": 0.9}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = "".join(generate_text(model, Letters(), "abc", **how))
    assert first == "".join(generate_text(model, Letters(), "abc", **how))
    assert 0 < len(first) <= 30
