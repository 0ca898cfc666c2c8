"""Lesson 5, the transformer: train one, then walk through it from token to probability.

python experiments/tour 5
"""

import marimo  # not there? pip install -e '.[tour]' -c constraints.txt

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="5 The transformer")

with app.setup:
    import json

    import draw
    import lesson
    import marimo as mo
    import torch

    from lm import notebook
    from lm.lens import probe


@app.cell(hide_code=True)
def _():
    mo.md(f"""
    # 5 The transformer

    {lesson.road("tokens", "embeddings", "contextual embeddings", "probabilities")}

    Attention lets positions talk, an MLP lets each think alone, and both **add** to what is
    there. That, a few times over, is all.
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Train a small one

    Two layers, two heads, 32 channels. The words are those of the command line. Opened again, the
    lesson finds the run and does not train anew; change a word, and it does.
    """)
    return


@app.cell
def _():
    corpus = lesson.corpus("shakespeare")
    words = [f"corpus={corpus}", "tokenizer=char", "model=transformer", "model.context_len=32"]
    words += ["model.n_layer=2", "model.n_head=2", "model.n_embd=32"]
    words += ["train.steps=400", "train.batch_size=16", "train.eval_every=100"]
    words += ["train.threads=1", "train.dtype=float32", "track=off"]
    run = notebook.train(*words, out=lesson.folder("5_transformer", words))
    return run, words


@app.cell
def _(run):
    rows = run.metrics()
    learned = [(row["step"], row["val/bpb"]) for row in rows if "val/bpb" in row]
    first = rows[0]
    counted = {
        "counting pairs": first["baseline/bigram_bpb"],
        "counting up to 5": first["baseline/ngram_bpb"],
    }
    draw.curves({"transformer": learned}, "bits per byte on validation", "step", counted)
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    Below the upper line it knows more than pairs. To pass the lower one takes longer training and
    a larger model: that is the default run.
    """)
    return


@app.cell
def _(run):
    mo.md(f"```\n{run.sample('The ', max_tokens=200)}\n```")
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Walk through it

    The residual stream is a vector for each position. Embeddings begin it; each part of a block
    reads a normed copy and adds what it found.
    """)
    return


@app.cell
def _():
    prompt = mo.ui.text(value="the other men were there", label="text")
    prompt
    return (prompt,)


@app.cell
def _(prompt, run):
    mo.stop(not prompt.value, mo.md("Write something above."))
    model = run.model()
    ids = torch.tensor([run.tokenizer.encode(prompt.value)[:32]])  # (1, T)
    names = [draw.visible(run.tokenizer.show(i)) for i in ids[0].tolist()]
    return ids, model, names


@app.cell
def _(ids, model):
    with torch.no_grad():
        x, rope = model.embed(ids, torch.arange(ids.shape[1]))  # (1, T, C), angles by position
        streams = {"embeddings": x[0]}
        for number, block in enumerate(model.blocks):
            x = x + block.attn(block.norm_attn(x), rope, None)  # positions talk
            x = x + block.mlp(block.norm_mlp(x))  # each thinks alone
            streams[f"after block {number}"] = x[0]
        logits = model.unembed(x)  # (1, T, V)
        gap = (logits - model(ids)).abs().max().item()
    mo.md(f"These lines and the model itself differ by at most **{gap:.1g}**.")
    return logits, streams


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Contextual embeddings

    Here is one character, wherever it stands in your text. At first its vectors are the same: all
    cosines are 1. After each block they hold more of what stands before them. (Positions come in
    as angles, by which attention turns its queries and keys.)
    """)
    return


@app.cell
def _(names):
    found = sorted(set(names), key=names.count)  # the one that comes most often is the last
    letter = mo.ui.dropdown(found, value=found[-1], label="character")
    letter
    return (letter,)


@app.cell
def _(letter, names, streams):
    places = [t for t, name in enumerate(names) if name == letter.value][:6]
    labels = ["".join(names[max(0, t - 4) : t + 1]) for t in places]
    likeness = []
    for _stage in streams.values():
        unit = torch.nn.functional.normalize(_stage[places], dim=-1)  # (n, C)
        likeness.append(unit @ unit.T)  # cosines (n, n)
    mo.hstack(
        [
            draw.grid(table, labels, labels, f"cosines, {stage}")
            for stage, table in zip(streams, likeness, strict=True)
        ],
        justify="start",
        wrap=True,
        gap=1.5,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Who looks at whom

    The weights of each head, as the lens records them while the model runs. Row: who looks.
    """)
    return


@app.cell
def _(ids, model, names):
    trace = probe.record(model, ids)
    maps = []
    for depth, layer in enumerate(trace.attention):
        for h, head in enumerate(layer.weights[0]):  # (T, T)
            maps.append(draw.grid(head, names, names, f"layer {depth}, head {h}", -1))
    mo.hstack(maps, justify="start", wrap=True, gap=1.5)
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Probabilities

    The last position's vector meets the vector of each token: V logits. Divide them by a
    **temperature**, and softmax makes them shares. A low one makes the likeliest surer, a high one
    makes all alike.
    """)
    return


@app.cell
def _():
    temperature = mo.ui.slider(0.2, 2.0, 0.1, value=1.0, label="temperature", show_value=True)
    temperature
    return (temperature,)


@app.cell
def _(logits, run, temperature):
    shares = (logits[0, -1] / temperature.value).softmax(-1)  # (V,)
    top = shares.topk(10)
    likely = [draw.visible(run.tokenizer.show(i)) for i in top.indices.tolist()]
    percent = (100 * top.values).tolist()
    draw.bars(dict(zip(likely, percent, strict=True)), "what comes next", " %")
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## All of it on one page

    The lens shows every step with its numbers; click on one.
    """)
    return


@app.cell
def _(ids, run):
    notebook.lens(run, run.tokenizer.decode(ids[0].tolist()))
    return


@app.cell
def _(run, words):
    summary = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
    command = f"python -m lm.train {' '.join(words)}"
    expected = f"best val/bpb {summary['best_val_bpb']:.4f} at step {summary['best_step']}"
    lesson.ending(
        command,
        expected,
        "The same words give the same bits, here and there. Next: which words are better?",
    )
    return


if __name__ == "__main__":
    app.run()
