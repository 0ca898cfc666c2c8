"""lm-evaluation-harness gives a run of ours the scores that it gives the exported model."""

import json
import sys
from pathlib import Path

import pytest

import lm
from lm import evaluate
from lm.record.run import Run
from lm.settings.commands import EvaluateConfig
from lm.system.errors import ConfigError
from tests.helpers import BPE, TINY_TRANSFORMER, export

pytestmark = pytest.mark.slow  # the harness takes seconds to load
TASKS = {
    "choice": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: right
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "text": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}} {{choices}}"
metric_list: [{metric: byte_perplexity}, {metric: bits_per_byte}]
""",
    "answer": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: [".", "7"], max_gen_toks: 6}
num_fewshot: 1
fewshot_split: test
metric_list: [{metric: exact_match}]
""",
}
TEXTS = ["the", "7 plus 2 is", "said the cat. " * 9, "dog <|endoftext|>12", " ", "\u00e9\u4e2d", ""]


@pytest.fixture(scope="module")
def harness():
    pytest.importorskip("lm_eval", reason="the extra `eval` is not installed")
    from lm import harness

    return harness


@pytest.fixture(scope="module")
def run(trained_once):
    return Run.open(str(trained_once(*BPE, *TINY_TRANSFORMER, "optimizer.lr=0.03")))


@pytest.fixture(scope="module")
def ours(harness, run):
    return harness.Harness(run.model("last"), run.tokenizer)


@pytest.fixture(scope="module")
def theirs(harness, run, tmp_path_factory):
    """The harness's own adapter, on the exported model."""
    pytest.importorskip("accelerate")
    from lm_eval.models.huggingface import HFLM

    out = export(run.path, tmp_path_factory.mktemp("harness") / "out-hf")
    return HFLM(str(out), dtype="float32", device="cpu", batch_size=3)


@pytest.fixture
def task_files(tmp_path):
    """Files of tasks whose documents lie beside them: no network is needed."""
    rows = []
    for i in range(8):
        choices = ["cat", "dog and the cat", str(i)]
        rows.append({"question": f"{i} plus 2, said the", "choices": choices, "right": i % 3})
        rows[-1]["answer"] = choices[i % 3]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    paths = []
    for name, text in TASKS.items():
        paths.append(tmp_path / f"{name}.yaml")
        data = f"{{data_files: {{test: {tmp_path / 'rows.jsonl'}}}}}"
        head = f"task: own_{name}\ndataset_path: json\ndataset_kwargs: {data}\ntest_split: test"
        paths[-1].write_text(head + text)
    return [str(path) for path in paths]


def requests(kind, *arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, pair, i) for i, pair in enumerate(arguments)]


def test_the_probability_of_a_continuation_is_that_of_the_exported_model(ours, theirs):
    """Beyond the context, with spaces between the two, and without a context."""
    pairs = [(a, b) for a in TEXTS for b in TEXTS[:4] if a.strip() or not a]
    pairs = [(a, b) for a, b in pairs if len(ours.tok_encode(b)) <= ours.max_length]  # its limit
    asked = requests("loglikelihood", *pairs, ("7 plus ", "2"))
    for pair, mine, other in zip(
        pairs, ours.loglikelihood(asked), theirs.loglikelihood(asked), strict=False
    ):
        assert mine[0] == pytest.approx(other[0], abs=1e-4), pair
        assert mine[1] == other[1], pair


def test_a_whole_text_has_the_probability_that_it_has_in_the_exported_model(ours, theirs):
    asked = requests("loglikelihood_rolling", *[(text,) for text in TEXTS if text])
    mine = ours.loglikelihood_rolling(asked)
    assert mine == pytest.approx(theirs.loglikelihood_rolling(asked), abs=1e-4)


def test_a_continuation_longer_than_the_context_is_scored_in_parts(ours):
    """The harness's own adapter stops there."""
    text = TEXTS[2]
    assert len(ours.tok_encode(text)) > 2 * ours.max_length
    whole = ours.loglikelihood(requests("loglikelihood", ("", text)))[0][0]
    assert [whole] == ours.loglikelihood_rolling(requests("loglikelihood_rolling", (text,)))


@pytest.mark.parametrize("until", [["."], ["a", "t"], []])
def test_what_is_written_is_what_the_exported_model_writes(until, ours, theirs):
    settings = {"until": until, "max_gen_toks": 9}
    asked = requests("generate_until", *[(text, settings) for text in TEXTS[:4]])
    assert ours.generate_until(asked) == theirs.generate_until(asked)


def test_sampled_text_is_a_function_of_the_request(ours):
    """More than the context holds is written, which the exported model cannot."""
    settings = {"do_sample": True, "temperature": 2.0, "top_k": 50, "max_gen_toks": 40}
    asked = requests("generate_until", *[(text, settings) for text in TEXTS[:3]])
    written = ours.generate_until(asked)
    assert written == ours.generate_until(asked)
    assert len(set(written)) == 3 and all(len(text) > 20 for text in written)


def test_task_files_have_the_results_of_the_exported_model(
    ours, theirs, run, task_files, harness, capsys
):
    import lm_eval

    results = harness.evaluate(ours.model, ours.ours, task_files)
    no_others = lm_eval.tasks.TaskManager(include_defaults=False)  # to read them takes seconds
    found = lm_eval.simple_evaluate(
        theirs, tasks=task_files, task_manager=no_others, bootstrap_iters=harness.RESAMPLES
    )
    assert sorted(results) == sorted(found["results"])
    for name, result in results.items():
        assert result.documents == 8
        values = found["results"][name]
        for metric, (value, error) in result.metrics.items():
            assert value == pytest.approx(values[f"{metric},none"], abs=1e-4)
            if error is not None:
                assert error == pytest.approx(values[f"{metric}_stderr,none"], abs=1e-4)
    capsys.readouterr()
    words = {"checkpoint": "last", "tasks": ",".join(task_files), "limit": 3}
    evaluate.command(EvaluateConfig(run=str(run.path), **words))
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["own_choice", "3", "documents"]
    assert lines[3].split()[0] == "acc" and "+-" in lines[3]


@pytest.mark.parametrize("model", ["bigram_counts", "gru"])
def test_any_model_can_be_asked(model, harness, trained_once, task_files):
    other = Run.open(str(trained_once(f"model={model}")))
    choice, text, _ = task_files
    results = harness.evaluate(other.model("last"), other.tokenizer, [choice, text], limit=2)
    assert 0 <= results["own_choice"].metrics["acc"][0] <= 1
    assert results["own_text"].metrics["bits_per_byte"][0] > 0


def test_a_character_that_the_tokenizer_does_not_know_is_named(harness, trained_once, task_files):
    other = Run.open(str(trained_once("model=bigram", "tokenizer=char")))
    with pytest.raises(ConfigError, match=r"'n' \(U\+006E\) .* is none of the 27 characters"):
        harness.evaluate(other.model("last"), other.tokenizer, task_files[:1])


@pytest.fixture
def few_tasks(harness, monkeypatch):
    """Of the harness's own tasks those of ARC: to read the files of all takes seconds."""
    folder = Path(harness.lm_eval.tasks.__file__).parent / "arc"

    def manager(include_defaults: bool, whole=harness.TaskManager):
        own = folder if include_defaults else None
        return whole(include_path=own, include_defaults=False)

    monkeypatch.setattr(harness, "TaskManager", manager)


def test_what_cannot_be_scored_is_told_in_one_line(
    ours, run, harness, task_files, tmp_path, few_tasks
):
    broken = tmp_path / "broken.yaml"
    broken.write_text("task: own_broken\ndataset_path: json\noutput_type: [nothing\n")
    empty = tmp_path / "empty.yaml"
    empty.write_text(Path(task_files[0]).read_text().replace("rows.jsonl", "no.jsonl"))
    cases = {
        "nowhere.yaml": "tasks=nowhere.yaml: there is no such file",
        "arc_esy": r"no such task \(did you mean arc_easy\?\)",
        str(broken): "broken.yaml: .*",
        str(empty): "no.jsonl",
    }
    for task, message in cases.items():
        with pytest.raises(ConfigError, match=message) as refused:
            harness.evaluate(ours.model, ours.ours, [task])
        assert "\n" not in str(refused.value)


def test_words_without_effect_and_a_missing_extra_are_refused(run, monkeypatch):
    for words, message in (
        ({"limit": 3}, "limit=3 is of tasks="),
        ({"tasks": "x", "split": "val"}, "leave out split=val"),
        ({"tasks": "x", "corpus": "names"}, "leave out corpus=names"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate.command(EvaluateConfig(run=str(run.path), **words))
    monkeypatch.delitem(sys.modules, "lm.harness", raising=False)
    monkeypatch.delattr(lm, "harness", raising=False)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ConfigError, match=r"tasks= needs lm_eval: pip install"):
        evaluate.command(EvaluateConfig(run=str(run.path), tasks="x"))
