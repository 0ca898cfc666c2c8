"""Lesson 4, one attention head: what becomes of a batch, B x T x C, number by number.

python experiments/tour 4
"""

import marimo  # not there? pip install -e '.[tour]' -c constraints.txt

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="4 One attention head")

with app.setup:
    import math

    import draw
    import lesson
    import marimo as mo
    import torch
    import torch.nn.functional as F

    from lm import notebook
    from lm.data import pipeline
    from lm.lens.subject import first_weights
    from lm.models import attention


@app.cell(hide_code=True)
def _():
    mo.md(f"""
    # 4 One attention head

    {lesson.road("tokens", "embeddings", "contextual embeddings")}

    A batch goes in, and every position comes out knowing of those before it. Three letters name
    the axes of all that happens:

    - **B** rows: texts side by side, which never see each other
    - **T** positions: the tokens of one text
    - **C** channels: the numbers that stand for one position
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## The batch: B x T

    Three rows of six characters. The targets are the same texts one place further on: at each
    position the model is asked for the next character, so this batch asks B x T = 18 questions.
    """)
    return


@app.cell
def _():
    texts = ["To be, ", "or not ", "to be: "]
    corpus = lesson.corpus("shakespeare")
    words = [f"corpus={corpus}", "tokenizer=char", "model=transformer", "model.context_len=6"]
    words += ["model.n_layer=1", "model.n_head=1", "model.n_embd=8", "model.positions=learned"]
    cfg = notebook.settings(*words)
    tokenizer = pipeline.prepare(cfg).tokenizer
    ids = torch.tensor([tokenizer.encode(text) for text in texts])  # (B, T + 1)
    x, y = ids[:, :-1], ids[:, 1:]  # (B, T) each
    names = [[draw.visible(c) for c in text[:-1]] for text in texts]  # of the positions
    return cfg, names, texts, tokenizer, words, x, y


@app.cell
def _(tokenizer, x, y):
    def shown(batch):
        return [[f"{draw.visible(tokenizer.show(i))} {i}" for i in row] for row in batch.tolist()]

    places = [f"t={t}" for t in range(x.shape[1])]
    mo.hstack(
        [
            draw.table(places, shown(x), "x, what goes in: (B, T)"),
            draw.table(places, shown(y), "y, what is to be predicted: (B, T)"),
        ],
        justify="start",
        wrap=True,
        gap=2,
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Embeddings: B x T x C

    An id is only a name. Row `id` of a table `wte` takes its place: C numbers, to be learned.
    Another table, `wpe`, has a row for each position, and is added: the same character at another
    place is another vector.

    Three axes are best pictured as **B sheets of T rows and C columns**.
    """)
    return


@app.cell
def _(cfg, tokenizer):
    model = first_weights(cfg, tokenizer.vocab_size)  # as training would start
    B, T, C = 3, 6, cfg.model.n_embd
    return B, C, T, model


@app.cell
def _(T, model, names, x):
    embedded = model.wte(x) + model.wpe(torch.arange(T))  # (B, T, C) + (T, C)
    stream = model.blocks[0].norm_attn(embedded)  # (B, T, C), each position of length sqrt(C)
    draw.sheets(stream, names, title="embeddings, scaled to one length: (B, T, C)")
    return embedded, stream


@app.cell(hide_code=True)
def _():
    mo.md("""
    All sheets go through the same tables, so `o` in one row and `o` at the same place in another
    are the same. So far **no position knows of any other**.
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Query, key, value: three times B x T x D

    Each position makes three vectors of D numbers, by three matrices (C, D):

    - its **query**: what I look for
    - its **key**: what I have to be found by
    - its **value**: what I hand over if I am looked at
    """)
    return


@app.cell
def _(C, model, stream):
    D = C  # one head has them all
    Wq, Wk, Wv = model.blocks[0].attn.qkv.weight.split(D)  # (D, C) each
    q = F.rms_norm(stream @ Wq.T, (D,))  # (B, T, C) @ (C, D) -> (B, T, D)
    k = F.rms_norm(stream @ Wk.T, (D,))  # scaled to one length, so that scores stay moderate
    v = stream @ Wv.T
    return D, k, q, v


@app.cell
def _(k, names, q):
    mo.vstack(
        [
            draw.sheets(q, names, title="queries (B, T, D)"),
            draw.sheets(k, names, title="keys (B, T, D)"),
        ]
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Scores: B x T x T

    The product of a query and a key is large where they point the same way. All queries of a row
    of the batch meet all its keys in one matrix product: **C is gone, and T is there twice**.
    The rows of the batch stay apart.
    """)
    return


@app.cell
def _(D, k, names, q):
    scores = q @ k.mT / math.sqrt(D)  # (B, T, D) @ (B, D, T) -> (B, T, T)
    draw.sheets(scores, names, names, "scores: the row looks, the column is looked at (B, T, T)")
    return (scores,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## The mask: no looking ahead

    What comes later is what is to be predicted. Those scores become minus infinity.
    """)
    return


@app.cell
def _(T, names, scores):
    later = torch.ones(T, T).triu(1).bool()  # True where the column is later than the row
    masked = scores.masked_fill(later, -math.inf)  # (B, T, T)
    draw.sheets(masked, names, names, "scores that count (B, T, T)")
    return (masked,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Softmax: shares that sum to 1

    Row by row: e to the score, divided by the sum of the row. The first position has only itself.
    """)
    return


@app.cell
def _(masked, names):
    weights = masked.softmax(dim=-1)  # (B, T, T), each row sums to 1
    draw.sheets(weights.masked_fill(weights == 0, -math.inf), names, names, "weights (B, T, T)", 2)
    return (weights,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## A weighted mean of values: B x T x D again

    Choose a row of the batch and a position, and see its mean being made.
    """)
    return


@app.cell
def _(B, T):
    at_row = mo.ui.slider(0, B - 1, value=0, label="row of the batch", show_value=True)
    at_place = mo.ui.slider(0, T - 1, value=2, label="position t", show_value=True)
    mo.hstack([at_row, at_place], justify="start", wrap=True)
    return at_place, at_row


@app.cell
def _(at_place, at_row, names, v, weights):
    b, t = at_row.value, at_place.value
    taken = weights[b, t, : t + 1]  # (t + 1,)
    parts = taken[:, None] * v[b, : t + 1]  # (t + 1, D)
    made = torch.cat((parts, parts.sum(0, keepdim=True)))
    labels = [f"{w:.2f} x value of {n}" for w, n in zip(taken.tolist(), names[b], strict=False)]
    draw.grid(made, [*labels, "sum"], title=f"position {t}, {names[b][t]}", marked=t + 1)
    return


@app.cell
def _(names, v, weights):
    mixed = weights @ v  # (B, T, T) @ (B, T, D) -> (B, T, D)
    draw.sheets(mixed, names, title="what attention gives (B, T, D)", digits=2)
    return (mixed,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    The same shape as went in, and now each position holds something of those before it. That is
    all there is to *contextual*.
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Is it what the project computes?

    The project's own function, and the whole attention layer with its last matrix:
    """)
    return


@app.cell
def _(k, mixed, model, q, stream, v):
    with torch.no_grad():
        own = attention.attention(q[:, None], k[:, None], v[:, None])[:, 0]  # with an axis of heads
        layer = model.blocks[0].attn
        gap = max(
            (own - mixed).abs().max().item(),
            (layer(stream, None, None) - layer.proj(mixed)).abs().max().item(),
        )
    mo.md(f"Largest difference: **{gap:.1g}**")
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## And does nothing leak from the future?

    Change the last character of each row. Before it nothing may move.
    """)
    return


@app.cell
def _(embedded, model, names):
    with torch.no_grad():
        changed = embedded.clone()
        changed[:, -1] += 1.0
        norm, head = model.blocks[0].norm_attn, model.blocks[0].attn
        moved = head(norm(changed), None, None) - head(norm(embedded), None, None)  # (B, T, C)
    by_position = moved.abs().sum(-1)  # (B, T)
    draw.grid(by_position, ["".join(n) for n in names], [f"t={t}" for t in range(6)], "moved", 3)
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## The shapes once more

    | step | shape | in this lesson |
    |---|---|---|
    | ids | B T | 3 6 |
    | embeddings | B T C | 3 6 8 |
    | queries, keys, values | B T D | 3 6 8 |
    | scores, weights | B T T | 3 6 6 |
    | weighted mean of values | B T D | 3 6 8 |

    The scores are the only thing that grows with T x T: twice the context, four times the scores.
    """)
    return


@app.cell
def _(names, texts, weights, words):
    most = int(weights[0, -1].argmax())  # where the last position of the first row looks
    command = f"python -m lm.lens {' '.join(words)} prompt='{texts[0][:-1]}'"
    expected = f"'{names[0][most]}' {weights[0, -1, most]:.0%}"
    lesson.ending(
        command,
        expected,
        "It stands under *attention of the last position*, and the page that the lens writes "
        "shows all the rest of this lesson. Next: heads and layers, trained.",
    )
    return


if __name__ == "__main__":
    app.run()
