"""Rules of the doctor about a run's log and its text: curves, clipping, counts, repeats, copies."""

import math
import statistics
from collections.abc import Iterator
from operator import itemgetter

from lm.check.evidence import Curve, Evidence, Finding
from lm.corpora import overlap, written
from lm.data import pipeline
from lm.optim.advice import steadier
from lm.record import ownership, schemas
from lm.report.records import Record

MAX_TEXT = 5_000_000  # characters of training text that are searched for copies
MAX_EPOCHS = 20  # after which more steps on the same text teach little
MUCH_COPIED = 0.1  # of the validation text: a score that rests on it says little
MIN_COPY = 50  # characters: a shorter copy is no sign of reciting


def curve(record: Record) -> Finding | None:
    points = (record.curve("val/bpb", "step"), record.curve("train/loss", "step"))
    return judge_curve(*points, steadier(record.settings), read_too_often(record))


def judge_curve(
    evaluations: Curve, losses: Curve, way_out: str = steadier({}), read_often: bool = False
) -> Finding | None:
    """Where val/bpb stands at the end of a run: falling, level, or past its best.

    `evaluations` are points (step, val/bpb), `losses` those of training, `way_out` says what to
    do if it came apart. A text that was `read_often` has little left for more steps. None for
    fewer than three evaluations.
    """
    if len(evaluations) < 3:
        return None
    first = evaluations[0][1]
    earlier_step, earlier = evaluations[-2]
    last_step, last = evaluations[-1]
    best_step, best = min(evaluations, key=itemgetter(1))
    peak_step, peak = max(evaluations[1:], key=itemgetter(1))
    if peak > 1.1 * first and (peak_step < last_step or best > 0.98 * first):
        text = (
            f"val/bpb jumped to {peak:.4f} at step {peak_step:,.0f}, "
            f"from {first:.4f} before training; it ended at {last:.4f}"
        )
        return Finding("curve", "look", text, f"the steps are too long: {way_out}")
    if last > 1.01 * best:
        text = f"val/bpb was best at step {best_step:,.0f} ({best:.4f}) and rose to {last:.4f}"
        if losses_rose(losses, best_step):
            text += ", and with it the training loss"
            advice = f"training came apart: {way_out}"
        else:
            advice = (
                f"checkpoint=best holds that step; try train.steps={best_step:.0f}, more text, "
                "model.dropout=0.1"
            )
        return Finding("curve", "look", text, advice)
    if last > 0.98 * first:
        text = f"val/bpb is {last:.4f} at the end and was {first:.4f} before training"
        advice = "it learned next to nothing: raise optimizer.lr or train.steps"
        if read_often:
            advice = "it learned next to nothing: raise optimizer.lr"
        return Finding("curve", "look", text, advice)
    if last < 0.99 * earlier:
        fall = 1 - last / earlier
        text = f"val/bpb still fell by {fall:.1%} from step {earlier_step:,.0f} to {last_step:,.0f}"
        advice = "not done learning: raise train.steps"
        if read_often:
            advice = "still learning, and more text would teach it more than more steps on this one"
        return Finding("curve", "note", text, advice)
    return Finding("curve", "ok", f"val/bpb is level at the end, {last:.4f}")


def losses_rose(losses: Curve, step: float) -> bool:
    """Whether the training loss ended above its level at `step`: overfitting would lower it."""
    before = [loss for at, loss in losses if at <= step][-5:]
    after = [loss for at, loss in losses if at > step][-5:]
    if not before or not after:
        return bool(after)
    return statistics.median(after) > statistics.median(before)


def clipping(record: Record) -> Finding | None:
    """The norm of the gradient over the run, and how often it was clipped."""
    if len(record.curve("train/loss", "step")) < 4:
        return None
    norms = [norm for _, norm in record.curve("optim/grad_norm", "step")] or [0.0]
    clip = record.settings.get("train.clip") or math.inf
    clipped = sum(norm > clip for norm in norms) / len(norms)
    peak = max(norms)
    middle = statistics.median_high(norms)
    text = f"gradient norm {middle:.3g} in the middle, {peak:.3g} at most, {clipped:.0%} clipped"
    if clipped > 0.5 and middle > 5 * clip:
        advice = "gradients this large come with too high a rate: lower optimizer.lr"
        return Finding("clipping", "look", text, advice)
    if clipped > 0.5:
        advice = "most gradients were shortened to train.clip: usual in a short run, else raise it"
        return Finding("clipping", "note", text, advice)
    if middle and peak > 30 * middle:
        advice = "a spike: try more schedule.warmup or a lower optimizer.lr"
        return Finding("clipping", "look", text, advice)
    return Finding("clipping", "ok", text)


def counts(evidence: Evidence) -> Finding | None:
    """The score in bits per byte beside what counting n-grams reaches on the same text."""
    record = evidence.record
    score = record.score
    baselines = record.baselines()
    if score is None or not baselines:
        return None
    entropy = record.entropy()
    listed = [f"{name} {bpb:.4f}" for name, bpb in (baselines | entropy).items()]
    text = f"{score:.4f} bits a byte at best; {', '.join(listed)}"
    if any(score < bpb - 0.02 for bpb in entropy.values()):
        advice = "below the entropy of its source: the text to score leaks into training"
        return Finding("counts", "failed", text, advice)
    if record.settings.get("model.name") in ("bigram_counts", "ngram"):
        return Finding("counts", "ok", text)
    missed = [name for name, bpb in baselines.items() if score >= bpb]
    if len(missed) == len(baselines):
        guess = math.log2(evidence.run.tokenizer.vocab_size)
        advice = (
            f"worse than unigram counts (a blind guess: {guess:.1f} bits a token): check "
            "optimizer.lr and train.steps first"
        )
        return Finding("counts", "look", text, advice)
    if missed:
        if overtrained(record):
            remedy = "more text or model.dropout=0.1, as more steps only fit this text closer"
        else:
            remedy = "raise train.steps, then try optimizer.lr and a larger model"
        advice = f"has not learned what {missed[0]} hold: {remedy}"
        return Finding("counts", "note", text, advice)
    return Finding("counts", "ok", text)


def read_too_often(record: Record) -> bool:
    """Whether the training text was read so often that more steps teach little."""
    if record.data is None:
        return False
    return n_tokens_trained(record) > MAX_EPOCHS * record.data.n_train


def overtrained(record: Record) -> bool:
    """Whether more steps would only fit the training text closer: fewer of them might do better.

    Every rule that speaks of train.steps asks here, so that they agree.
    """
    if read_too_often(record):
        return True
    evaluations = record.curve("val/bpb", "step")
    if not evaluations:
        return False
    best_step, best = min(evaluations, key=itemgetter(1))
    last = evaluations[-1][1]
    return last > 1.01 * best and not losses_rose(record.curve("train/loss", "step"), best_step)


def n_tokens_trained(record: Record) -> float:
    """Tokens that the run was trained on; 0 if unknown."""
    evaluated_at = [tokens for tokens, _ in record.curve("val/bpb")]
    if record.summary:
        return record.summary.tokens
    return max(evaluated_at, default=0)


def overlap_of_splits(evidence: Evidence) -> Finding | None:
    """How much of the validation text stands in the training text, too."""
    record = evidence.record
    copied = record.data.copied if record.data else None
    if copied is None:
        return None
    text = overlap.in_words(copied, "val")
    if copied.share <= overlap.NOTABLE:
        return Finding("overlap", "ok", text)
    advice = "part of the score is copying, as that of the counts is: compare on this text alone"
    repeats = record.data.corpus.near_duplicates if record.data else None
    if repeats is None:
        advice += ", or set corpus.near_duplicates=drop if it is made of documents"
    verdict = "look" if copied.share > MUCH_COPIED else "note"
    return Finding("overlap", verdict, text, advice)


def epochs(evidence: Evidence) -> Finding | None:
    """How often the training text was read."""
    n_tokens = n_tokens_trained(evidence.record)
    if not n_tokens:
        return None
    data = evidence.record.data
    n_train = data.n_train if data else len(evidence.train)
    n_epochs = n_tokens / n_train
    text = f"{n_epochs:.2f} times the {n_train:,} training tokens"
    summary = evidence.record.summary
    n_params = summary.n_params if summary else 0
    if n_params:
        text += f", {n_tokens / n_params:.2g} tokens a parameter"
    if n_epochs > MAX_EPOCHS:
        advice = "after so many repeats more steps teach little: more text or a smaller model"
        return Finding("epochs", "look", text, advice)
    if n_epochs < 1 and not overtrained(evidence.record):
        advice = "part of the text was never seen: train.steps can be raised without repeating"
        return Finding("epochs", "note", text, advice)
    return Finding("epochs", "ok", text)


# ------------------------------------------------------------------- text learned by heart


def copies(evidence: Evidence) -> Finding | None:
    """The longest piece of the last samples that occurs in the training text."""
    run = evidence.run
    rows = schemas.read_rows(run.path / "samples.jsonl")
    rows = [row for row in rows if "step" in row and "text" in row]
    if not rows:
        return None
    samples = [row["text"] for row in rows if row["step"] == rows[-1]["step"]]
    longest = max(len(sample) for sample in samples)
    if longest == 0:
        advice = "train.prompts: give a beginning as it stands in the text"
        return Finding("copies", "note", "the samples are empty: they ended at once", advice)
    try:
        ownership.check_reads(run.path, run.cfg, False, [ownership.CORPUS])
        with pipeline.quietly():
            corpus = pipeline.prepare_corpus(run.cfg.corpus)
    except (ValueError, OSError):
        return None  # the text lies elsewhere
    train_text = _beginning(written.beginnings(corpus, "train", MAX_TEXT), MAX_TEXT)
    val_text = _beginning(written.beginnings(corpus, "val", longest), longest)[:longest]
    copy = max((longest_copy(sample, train_text) for sample in samples), key=len)
    usual = len(longest_copy(val_text, train_text))
    shown = copy if len(copy) <= 50 else f"{copy[:47]}..."
    text = (
        f"longest copy in the samples: {len(copy)} characters, {shown!r}; "
        f"new text of that length has {usual}"
    )
    if len(copy) > MIN_COPY and len(copy) > 2 * usual:
        earlier = "stop earlier, " if overtrained(evidence.record) else ""
        advice = f"it recites: {earlier}more text, model.dropout=0.1 or a smaller model"
        return Finding("copies", "look", text, advice)
    return Finding("copies", "ok", text)


def _beginning(documents: Iterator[str], n_chars: int) -> str:
    """The first documents, of n_chars characters in all, each on a new line."""
    parts = []
    for document in documents:
        parts.append(document[:n_chars])
        n_chars -= len(document)
        if n_chars <= 0:
            break
    return "\n".join(parts)


def longest_copy(sample: str, text: str) -> str:
    """The longest piece of `sample` that `text` contains."""
    best = ""
    for start in range(len(sample)):
        while start + len(best) < len(sample):
            longer = sample[start : start + len(best) + 1]
            if longer not in text:
                break
            best = longer
    return best
