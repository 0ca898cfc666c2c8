"""The lens: its numbers are the model's, its page works in a browser without a network."""

import copy
import io
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from lm import config
from lm.generate import generate, sample
from lm.lens import bigram_view, embedding_map, page, terminal, training_step, values, views
from lm.lens.__main__ import command as lens_command
from lm.lens.subject import Subject
from lm.settings.commands import LensConfig
from lm.system.errors import ConfigError
from tests.browser import needs_browser
from tests.helpers import TINY_TRANSFORMER

TEXT = "the cat said:\n7 plus </script> is 8"


@pytest.fixture(autouse=True)
def _one_cache(monkeypatch, tmp_path_factory):
    """Corpus, tokenizer and tokens of the toy text are built once for all tests here."""
    monkeypatch.setenv("LM_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "lens-cache"))


@pytest.fixture(scope="module")
def subject(trained_once):
    out = trained_once(*TINY_TRANSFORMER, "model.context_len=64")
    return Subject.of_run(str(out), "best", trust=True)


@pytest.fixture(scope="module")
def looked():
    """What the first of the tests has seen."""
    return {}


@pytest.fixture
def view(subject, looked):
    """What the lens knows of TEXT, which takes it a while: looked up once, a copy for each test."""
    if not looked:
        looked.update(look(subject))
    return copy.deepcopy(looked)


def look(subject, prompt=TEXT, **settings):
    return page.look(subject, LensConfig(prompt=prompt, **settings))


def test_the_bits_of_the_text_are_the_models_loss(subject, view):
    ids = torch.tensor([subject.tokenizer.encode_ordinary(TEXT)])
    loss = torch.nn.functional.cross_entropy(subject.model(ids)[0, :-1], ids[0, 1:])
    mean = sum(view["bits"][1:]) / (len(view["bits"]) - 1)
    assert mean * torch.log(torch.tensor(2.0)) == pytest.approx(loss.item(), abs=1e-3)
    assert view["bits"][0] is None
    assert "".join(token["plain"] for token in view["tokens"]) == TEXT


def next_probs(subject: Subject, ids: list[int]) -> torch.Tensor:
    """Probabilities (V,) of the token after `ids`."""
    with torch.no_grad():
        logits = subject.model(torch.tensor([ids]))  # (1, T, V)
    return logits[0, -1].softmax(dim=-1)


def test_the_training_step_is_the_one_that_the_run_took(trained_once):
    """Batch, rate and the optimizer's memory: the weights after it are those that were saved."""
    out = trained_once(*TINY_TRANSFORMER, "train.save_every=1", "train.keep_last=100")
    before, after = (Subject.of_run(str(out), step, trust=True) for step in ("7", "8"))
    found = training_step.of(before)
    assert "missing" not in found, found
    saved = dict(after.model.named_parameters())
    for row in found["parameters"]:
        place = tuple(row["index"])
        assert row["to"] == pytest.approx(saved[row["name"]][place].item(), abs=1e-6)
        assert row["from"] != row["to"]
    batch = torch.tensor(found["ids"])
    for subject, loss in ((before, found["loss"]), (after, found["loss_after"])):
        assert subject.model.nats(batch[:, :-1], batch[:, 1:]).mean().item() == pytest.approx(loss)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("model=ngram",), "takes no steps"),
        (("model=bigram", "train.batch_size=4096"), "tokens, and 16,384 fit"),
    ],
)
def test_where_no_training_step_can_be_shown_the_page_says_why(words, reason, cfg, tiny):
    assert reason in look(Subject.untrained(cfg(*tiny, *words)), "the cat")["training"]["missing"]


@pytest.mark.parametrize("gone", ["gone.txt", "/scratch/amelia/gone.txt"])
def test_a_page_without_the_text_says_so_and_names_no_folder(
    gone, trained_once, tmp_path, toy_text
):
    """The message ended with the current directory, where no slash follows."""
    out = shutil.copytree(trained_once(*TINY_TRANSFORMER), tmp_path / "run")
    settings = out / config.RESOLVED
    settings.write_text(settings.read_text().replace(str(toy_text), gone))
    missing = look(Subject.of_run(str(out), "best", trust=True), "the")["training"]["missing"]
    assert "gone.txt does not exist" in missing
    assert str(Path.cwd()) not in missing and "amelia" not in missing


def test_the_next_tokens_are_those_of_generation(subject, view):
    ids = subject.tokenizer.encode_ordinary(TEXT)
    top = next_probs(subject, ids).topk(10)
    assert view["next"][-1]["ids"] == top.indices.tolist()
    assert view["next"][-1]["p"] == pytest.approx(top.values.tolist(), abs=1e-4)
    assert view["layers"]["rows"][-1]["top"][-1] == top.indices[:3].tolist()
    assert view["layers"]["rows"][-1]["to_last"] == pytest.approx([1.0] * len(ids))


def test_the_draws_are_those_of_the_sample_command(subject):
    ids = subject.tokenizer.encode_ordinary(TEXT)
    drawn = [d["u"] for d in look(subject, seed=3)["sampling"]["draws"]]
    probs = next_probs(subject, ids).log()
    assert (
        look(subject, seed=3, top_k=5)["sampling"]["drawn"]
        == next(generate(subject.model, [ids], max_tokens=1, temperature=0.8, top_k=5, seed=3))[0]
    )
    for i in (0, 5):
        token = sample(probs[None], torch.tensor([drawn[i]]), 0.8, 5, 0.9)
        made = generate(
            subject.model, [ids], max_tokens=1, temperature=0.8, top_k=5, top_p=0.9, seed=3 + i
        )
        assert next(made) == token.tolist()


def test_the_map_of_embeddings_begins_untrained_and_ends_at_the_model(subject, view):
    found = view["embeddings"]
    assert [frame["step"] for frame in found["frames"]] == [0, 10, 20]
    assert found["frames"][-1]["same"] == pytest.approx([1.0] * len(found["ids"]))
    assert min(found["frames"][0]["same"]) < 0.99
    table = subject.model.wte.weight
    i = found["ids"].index(116)  # "t"
    cosine = torch.nn.functional.cosine_similarity(table[116], table[found["near"][i][0]], dim=0)
    assert found["cosine"][i][0] == pytest.approx(cosine.item(), abs=1e-3)


def test_the_bigram_rows_are_counts_of_the_training_text():
    import numpy as np

    ids = np.array([0, 1, 0, 1, 0, 2, 0, 1])
    found = bigram_view.bigram(ids, 4, torch.tensor([0, 1]))
    assert found["rows"][0]["ids"] == [1, 2]
    assert found["rows"][0]["counts"] == [3, 1]
    assert found["rows"][0]["neural_p"][:2] == pytest.approx([0.75, 0.25], abs=0.02)
    assert found["bits"]["counts"][1] == pytest.approx(1.0)  # (3 + 1) / (4 + 4)


def test_the_table_of_pairs_holds_the_most_frequent_tokens():
    import numpy as np

    ids = np.array([0, 1, 0, 1, 0, 2, 0, 1])
    grid = bigram_view.bigram(ids, 4, torch.tensor([0, 1]))["grid"]
    assert grid == {"ids": [0, 1, 2], "totals": [4, 2, 1],
                    "counts": [[0, 3, 1], [2, 0, 0], [1, 0, 0]]}  # fmt: skip


def test_tokens_that_share_a_character_know_it(subject):
    tokens = look(subject, "a\u00e9\u2603b")["tokens"]
    assert [t.get("shared") for t in tokens] == [None, *"\u00e9\u00e9", *"\u2603\u2603\u2603", None]
    assert [t.get("is_first") for t in tokens] == [None, True, False, True, False, False, None]
    assert [t.get("is_last") for t in tokens] == [None, False, True, False, False, True, None]


@pytest.mark.parametrize("name", ["gru", "mlp", "bigram", "bigram_counts", "ngram"])
def test_models_without_attention_say_so(name, cfg, tiny, capsys):
    subject = Subject.untrained(cfg(*tiny, f"model={name}"))
    view = look(subject, "the cat")
    terminal.show(view)
    assert f"{type(subject.model).__name__} has no attention" in capsys.readouterr().out
    assert view["attention"]["layers"] == []
    # The bigram's table is zero before training, and counts have none.
    assert (view["embeddings"] is None) == ("gram" in name)


def test_an_untrained_model_is_seen_from_the_configuration_alone(command, tiny):
    done = command("lm.lens", *tiny, *TINY_TRANSFORMER, "prompt=the cat")
    assert done.returncode == 0, done.stderr
    assert "transformer (untrained), " in done.stdout
    assert "1 7 16" in done.stdout


@pytest.mark.parametrize(
    ("context", "shown"), [(16, "\u8bdd\u8bf4\u5929\u4e0b"), (2, "\u8bdd\u8bf4")]
)
def test_without_a_prompt_a_text_of_other_letters_is_seen_from_its_beginning(
    context, shown, cfg, tiny, tmp_path
):
    (tmp_path / "t.txt").write_text("\u8bdd\u8bf4\u5929\u4e0b" * 60, encoding="utf-8")
    words = (f"corpus.path={tmp_path}/t.txt", "tokenizer=char", f"model.context_len={context}")
    subject = Subject.untrained(cfg("corpus=files", *tiny, *words))
    assert page.look(subject, LensConfig())["about"]["prompt"] == (shown * 4)[:context]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": "x" * 65}, "prompt has 65 tokens but the model reads 64"),
        ({"prompt": "x", "layer": 2}, "layer=2: the model has layers 0 to 1"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(subject, settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        page.look(subject, LensConfig(**settings))


@pytest.mark.parametrize("width", [60, 100])
def test_the_prediction_fits_the_terminal_and_is_never_cut(view, width):
    out = io.StringIO()
    terminal.show(view, Console(file=out, width=width, force_terminal=True))
    lines = out.getvalue().split("5 prediction")[1].splitlines()
    table = [line for line in lines if "blocks." in line or "reads" in line]
    assert len(table) == 3 and not any("\u2026" in line for line in table)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_digit_is_cut_on_a_narrow_terminal(view, width):
    for step in view["shapes"]["steps"]:
        step["flops"] *= 10_000  # as many digits as those of GPT-2
        step["n_params"] *= 500
    out = io.StringIO()
    terminal.show(view, Console(file=out, width=width, force_terminal=True, no_color=True))
    shown = out.getvalue().split("1 shapes")[1].split("2 tokens")[0]
    for step in view["shapes"]["steps"]:
        if step["layer"] in (None, 0):
            assert not step["flops"] or f"{step['flops']:,}" in shown
            assert not step["n_params"] or f"{step['n_params']:,}" in shown
            assert " ".join(f"{axis[1]:,}" for axis in step["axes"]) in shown


@pytest.mark.parametrize("width", [50, 80])
def test_long_tokens_leave_room_for_fewer_of_them_and_none_is_cut(subject, width):
    """Six heads of long tokens did not fit 80 columns, and their shares were cut."""
    view = look(subject)
    view["vocab"] = [f"documentation{token}" for token in view["vocab"]]
    for token in view["tokens"]:
        token["text"] = "\u8bdd" * 12
    out = io.StringIO()
    terminal.show(view, Console(file=out, width=width, force_terminal=True, no_color=True))
    shown = out.getvalue().split("3 embeddings")[1]
    assert "\u2026" not in shown
    of_tokens = out.getvalue().split("2 tokens")[1].split("3 embeddings")[0]
    for token in view["tokens"]:
        assert f"{token['text']} {token['id']}" in re.sub(r"\x1b\[[0-9;]*m", "", of_tokens)
    assert ("1 of 2 heads" in shown) == (width == 50)


def test_a_run_and_settings_together_are_refused():
    with pytest.raises(ConfigError, match=r"leave out model\.n_layer=2"):
        lens_command(LensConfig(run="somewhere", overrides=["model.n_layer=2"]))


def test_the_page_holds_its_data_whatever_the_text(view):
    html = page.html(view)
    data = re.search(r'<script id="data"[^>]*>(.*?)</script>', html, re.S).group(1)
    assert json.loads(data) == json.loads(json.dumps(view))
    assert not re.search(r"(?:src|href)=[\"'](?!#)", html)  # nothing to fetch


@pytest.mark.parametrize("name", ["norm.weight", "blocks.0.attn.qkv.weight", "wte.weight"])
def test_a_model_with_nan_gives_a_page_that_can_be_read(name, cfg, tiny):
    subject = Subject.untrained(cfg(*tiny, *TINY_TRANSFORMER))
    with torch.no_grad():
        subject.model.get_parameter(name).fill_(torch.nan)
    view = look(subject, "the cat")
    terminal.show(view, Console(file=io.StringIO()))
    html = page.html(view)
    data = re.search(r'<script id="data"[^>]*>(.*?)</script>', html, re.S).group(1)
    bits = json.loads(data, parse_constant=pytest.fail)["bits"]
    assert bits == [None] * 7


@needs_browser
@pytest.mark.parametrize("name", ["transformer", "bigram", "gru"])
@pytest.mark.parametrize("number", [torch.nan, torch.inf, 1e30])
def test_a_page_of_broken_weights_works_in_a_browser(browsers, name, number, cfg, tiny, tmp_path):
    """One number that was none in the training step stopped the whole script."""
    words = TINY_TRANSFORMER if name == "transformer" else (f"model={name}", "model.n_embd=16")
    subject = Subject.untrained(cfg(*tiny, *words[: 1 if name == "bigram" else None]))
    with torch.no_grad():
        for parameter in subject.model.parameters():
            parameter.view(-1)[::7] = number
    page.write(look(subject, "the cat"), tmp_path / "lens.html")
    with browsers() as browser:
        browser.open(tmp_path / "lens.html")
        for i in range(browser.script("return D.shapes.steps.length")):
            browser.script("if (hasNumbers(arguments[0])) go({ step: arguments[0] })", i)
        browser.press("ArrowLeft")
        assert browser.text("#where") == "6 of 7"
        assert not re.search("null|undefined|NaN|Infinity", browser.text("main"))
        assert browser.errors() == []


@pytest.mark.parametrize(("T", "n_heads"), [(300, 12), (1024, 4)])
def test_attention_to_a_long_text_is_shown_in_part(T, n_heads):
    """The last layer came on top of those that fit, with all its heads: 22 MB."""
    from lm.lens.tracing import Attention, Trace

    weights = torch.full((1, 12, T, T), 1 / T)
    maps = [Attention(f"blocks.{i}", weights, torch.ones(1, 12, T, 64)) for i in range(12)]
    layers = views.attention(Trace(torch.empty(0), attention=maps))["layers"]
    assert layers[-1]["layer"] == 11
    assert {layer["H"] for layer in layers} == {n_heads}
    assert len(json.dumps(layers)) < 3.5e6


@pytest.mark.slow
def test_a_page_of_128_tokens_of_gpt2s_size_is_under_5_megabytes():
    """124M parameters are slow to make: what fills the page has the same size with random maps."""
    from lm.lens.tracing import Attention, Trace

    maps = [
        Attention(f"blocks.{i}", torch.rand(1, 12, 128, 128).tril(), torch.randn(1, 12, 128, 64))
        for i in range(12)
    ]
    found = views.attention(Trace(torch.empty(0), attention=maps))
    assert len(found["layers"]) == 12  # none is skipped
    tables = [(s, torch.randn(50257, 16)) for s in (0, 1, 2)]
    points = embedding_map.embeddings(tables, list(range(128)))
    logits = views.sampling(torch.randn(128, 50257), 0, 1.0, 0, 1.0)
    vocabulary = ["x" * 7] * 50257
    assert len(json.dumps([found, points, logits, vocabulary])) < 4.5e6


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_the_page_works_in_a_browser(browsers, subject, tmp_path, width, dark):
    path = tmp_path / "lens.html"
    page.write(look(subject, top_k=5), path)
    T = len(subject.tokenizer.encode_ordinary(TEXT))
    with browsers(width, dark=dark) as browser:
        browser.open(path)
        assert browser.errors() == []
        assert browser.text("#where") == f"{T} of {T}"
        browser.press("ArrowLeft")
        assert browser.text("#where") == f"{T - 1} of {T}"
        browser.click("#ribbon button:nth-child(3)")
        assert browser.text("#where") == f"3 of {T}"
        assert browser.script("return document.querySelectorAll('#looks .track').length") == 3
        browser.click("#on")
        assert browser.text("#where") == f"4 of {T}"
        before = browser.script("return document.querySelector('#matrix').toDataURL()")
        browser.press("]")
        assert "head 1" in browser.text("#pair")
        assert before != browser.script("return document.querySelector('#matrix').toDataURL()")
        browser.click("#batch button:nth-child(2)")
        assert "64" in browser.text("#flow")  # context_len
        browser.click("#matrix")
        assert browser.text("#where") != f"4 of {T}"
        browser.press("ArrowDown")
        assert "layer 0" in browser.text("#pair")
        wide = browser.script("return document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, "the page is wider than the window"
        assert browser.errors() == []
        assert browser.screenshot()[:4] == b"\x89PNG"


EXPLAINED = """
const wrong = [], kinds = new Set();
D.shapes.steps.forEach((step, i) => {
  if (!hasNumbers(i)) return;
  const out = table(D.values.steps[i].out);
  for (let h = 0; h < out.heads; h++) for (const t of [0, 3, T - 1]) for (let c = 0; c < out.width; c += 5) {
    const said = explain(i, h, t, c).value, is = out.at(h, t, c);
    if (said === null) continue;
    kinds.add(step.kind);
    if (!(Math.abs(said - is) < 2e-3 * Math.max(1, Math.abs(is)))) wrong.push([step.kind, h, t, c, said, is]);
  }
});
return [wrong.slice(0, 9), [...kinds].sort().join(" ")];
"""  # noqa: E501
ATTENDING = "Linear RMSNorm add linear scores softmax weighted sum rotate"


@needs_browser
@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        ((*TINY_TRANSFORMER, "model.n_kv_head=1"), f"{ATTENDING} relu rms_norm square"),
        (("model=llama", *TINY_TRANSFORMER[1:]), f"{ATTENDING} mul silu"),
        (
            ("model=gpt2", *TINY_TRANSFORMER[1:]),
            "LayerNorm Linear add linear scores softmax weighted sum gelu",
        ),
        (
            ("model=nanochat", *TINY_TRANSFORMER[1:]),
            f"{ATTENDING} relu rms_norm square div tanh mul",
        ),
        (("model=gru", "model.n_embd=16", "model.n_layer=2"), "GRU Linear"),
        (("model=mlp",), "Linear tanh unfold"),
    ],
)
def test_the_page_works_out_every_number_as_the_model_did(
    browsers, words, kinds, cfg, tiny, tmp_path
):
    subject = Subject.untrained(cfg(*tiny, *words))
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in subject.model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise))
    page.write(look(subject, "the cat"), tmp_path / "lens.html")
    with browsers() as browser:
        browser.open(tmp_path / "lens.html")
        wrong, explained = browser.script(EXPLAINED)
        assert wrong == []
        assert set(explained.split()) == set(kinds.split())


@needs_browser
def test_where_not_all_numbers_fit_one_layer_is_whole_and_the_others_say_how_to_see_them(
    browsers, subject, monkeypatch, tmp_path
):
    """The values of a weighted sum had the last rows alone, and its number could not be shown."""
    monkeypatch.setattr(values, "MAX_NUMBERS", 12_000)
    page.write(look(subject, layer=1), tmp_path / "lens.html")
    with browsers() as browser:
        browser.open(tmp_path / "lens.html")
        wrong, explained = browser.script(EXPLAINED.replace("[0, 3, T - 1]", "[T - 1]"))
        assert wrong == [] and "weighted sum" in explained and "scores" in explained
        browser.click("details .open")
        assert browser.text(".numbers").endswith("layer=0 shows those of this one.")
        assert browser.errors() == []


def test_a_page_stays_below_its_limit_or_says_which_prompt_would(subject, monkeypatch):
    """Attention, numbers and matrices each had a limit of their own: 1,000 tokens gave 5.7 MB."""
    whole = len(page.html(look(subject)).encode())
    limit = whole - 20_000
    monkeypatch.setattr(page, "MAX_BYTES", limit)
    assert limit - 90_000 < len(page.html(look(subject)).encode()) <= limit
    monkeypatch.setattr(page, "MAX_BYTES", page.OWN_BYTES + 60_000)
    with pytest.raises(ConfigError, match=r"^prompt has 35 tokens: .* shorten it to \d+ tokens$"):
        look(subject)


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_a_click_on_a_step_shows_its_numbers_and_one_taken_apart(browsers, view, tmp_path, width):
    page.write(view, tmp_path / "lens.html")
    with browsers(width) as browser:
        browser.open(tmp_path / "lens.html")
        browser.click("details .open")
        assert "numbers of each" in browser.text(".numbers")
        browser.click(".numbers canvas")
        assert "Divided by the size" in browser.text(".how")
        said = browser.text(".value"), browser.text(".how p:last-child")
        assert said[1] == f"= {said[0]}"
        browser.click("#losses")
        assert "nats" in browser.text("#step")
        wide = browser.script("return document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, "the page is wider than the window"
        browser.click("details .open")
        assert browser.script("return document.querySelectorAll('.numbers').length") == 0
        assert browser.errors() == []


@needs_browser
def test_the_keyboard_alone_opens_a_step_and_goes_through_its_numbers(browsers, view, tmp_path):
    """Every key drew the page anew and lost the focus; a slider could not be held, either."""
    page.write(view, tmp_path / "lens.html")
    with browsers() as browser:
        browser.open(tmp_path / "lens.html")
        for selector in ("#flow button.open", "#heat button:nth-child(2)", "#batch button"):
            browser.script(f"document.querySelector('{selector}').focus()")
            said = browser.script("return document.activeElement.textContent")
            browser.press("Enter")
            assert browser.script("return document.activeElement.textContent") == said
        browser.script("document.querySelector('.numbers input').focus()")
        for _ in range(3):
            browser.press("ArrowRight")
        assert "number 4" in browser.text(".pick")
        browser.script("const s = held = document.activeElement; s.value = 5; s.oninput?.()")
        browser.click("#ribbon button:nth-child(2)")
        assert browser.script("return held.isConnected")
        assert browser.text(".numbers .token").startswith("2 ")
        assert browser.errors() == []


@needs_browser
@pytest.mark.parametrize(("name", "prompt"), [("bigram_counts", "the cat"), ("gru", "t")])
def test_no_page_shows_a_value_that_is_not_there(browsers, name, prompt, cfg, tiny, tmp_path):
    path = tmp_path / "lens.html"
    page.write(look(Subject.untrained(cfg(*tiny, f"model={name}")), prompt), path)
    with browsers() as browser:
        browser.open(path)
        assert not re.search("null|undefined|NaN|Infinity", browser.text("main"))
        alone = name == "bigram_counts"  # which sees no token but the last
        assert ("after t alone" in browser.text("#compare")) == alone
        assert ("whole context" in browser.text("main")) != alone
        slider = "document.querySelector('#stepper')?.offsetHeight"
        assert not browser.script(f"return {slider}")  # one table: nothing to slide through
        assert browser.errors() == []


@needs_browser
def test_the_page_draws_the_token_that_the_sample_command_draws(browsers, subject, tmp_path):
    path = tmp_path / "lens.html"
    ids = subject.tokenizer.encode_ordinary(TEXT)
    for top_k, top_p, temperature in ((0, 1.0, 1.0), (5, 1.0, 0.8), (0, 0.7, 1.3), (9, 0.5, 0.6)):
        settings = {"top_k": top_k, "top_p": top_p, "temperature": temperature}
        page.write(look(subject, **settings), path)
        with browsers() as browser:
            browser.open(path)
            for seed in range(4):
                made = generate(subject.model, [ids], max_tokens=1, seed=seed, **settings)
                assert (
                    browser.script("return +document.querySelector('#hit').dataset.id")
                    == (next(made)[0])
                )
                browser.click("#again")


def test_a_file_of_somebodys_own_is_not_replaced(tmp_path):
    """lens.html in the current directory was overwritten, whatever it was."""
    (tmp_path / "lens.html").write_text("the user's own")
    with pytest.raises(ConfigError, match=r"lens\.html is there, and lm did not write it"):
        page.write({}, tmp_path / "lens.html")
    assert (tmp_path / "lens.html").read_text() == "the user's own"
