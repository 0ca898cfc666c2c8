// Sections 4 to 6, and the keys.
const lowerIndex = (q, k) => q * (q + 1) / 2 + k;
const perHead = T * (T + 1) / 2;
const ink = (text) => getComputedStyle(document.documentElement).getPropertyValue(text).trim();
function rgb(color) {
  const c = document.createElement("canvas").getContext("2d");
  c.fillStyle = color; c.fillRect(0, 0, 1, 1);
  return c.getImageData(0, 0, 1, 1).data;
}

// ------------------------------------------------------------------------------- 4 attention
const layers = D.attention.layers.map((l) => ({ ...l, w: bytes(l.weights),
  v: l.values ? new Int8Array(bytes(l.values).buffer) : null }));
function paint(canvas, layer, head, large) {
  const [r, g, b] = rgb(ink("--accent"));
  const image = new ImageData(T, T);
  for (let q = 0; q < T; q++) for (let k = 0; k <= q; k++) {
    const w = layer.w[head * perHead + lowerIndex(q, k)];
    image.data.set([r, g, b, Math.min(255, 14 + 241 * Math.sqrt(w / 255))], 4 * (q * T + k));  // the root: small shares stay visible
  }
  const small = el("canvas", { width: T, height: T });
  small.getContext("2d").putImageData(image, 0, 0);
  const ratio = large ? window.devicePixelRatio || 1 : 1, whole = Math.max(280, canvas.clientWidth) * ratio;
  const left = large ? labels * ratio : 0, cell = large ? (whole - left) / T : 1;
  canvas.width = T * cell + left; canvas.height = T * cell;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, left, 0, T * cell, T * cell);
  if (!large) return;
  context.strokeStyle = context.fillStyle = ink("--ink"); context.lineWidth = 1.5 * ratio;
  context.strokeRect(left + 1, at.t * cell + 1, (at.t + 1) * cell - 2, Math.max(3, cell - 2));
  context.textAlign = "right"; context.textBaseline = "middle";
  const size = Math.min(13, Math.max(10, cell / ratio * 0.6)) * ratio, apart = Math.ceil(size / cell);
  const first = Math.ceil(size / 2 / cell - 0.5);  // the first row in whose middle a label has room
  for (let t = 0; t < T; t++) if (t === at.t || (t >= first && (t - first) % apart === 0 && Math.abs(t - at.t) >= apart)) {
    context.font = `${t === at.t ? "bold " : ""}${size}px monospace`;
    context.fillText(name(D.tokens[t].id).slice(0, 10), left - 4 * ratio, Math.min(Math.max((t + 0.5) * cell, size / 2), T * cell - size / 2));
  }
}
const labels = 82;  // pixels on the left, for the tokens that look
if (!layers.length) fill("attention", el("h2", {}, el("i", {}, "4"), " Attention"),
  el("p", { class: "lead" }, `${A.class} has no attention: there are no shares to show.`));
else {
  const wanted = A.layer < 0 ? D.attention.n_all + A.layer : A.layer;
  const nearest = layers.reduce((best, l) => (Math.abs(l.layer - wanted) < Math.abs(best.layer - wanted) ? l : best));
  at.layer = layers.indexOf(nearest);
  choice("layer", layers.map((l, i) => [i, `layer ${l.layer}`]), "layer");
  let drawn = "", over = null;  // over: the position under the pointer, to look at
  views.push(() => {
    const layer = layers[at.layer];
    at.head = Math.min(at.head, layer.H - 1);
    if (drawn !== `${at.layer}`) {
      drawn = `${at.layer}`;
      fill("heads", ...Array.from({ length: layer.H }, (_, h) => { const c = el("canvas", { "aria-hidden": "true" }); paint(c, layer, h, false);
        return el("button", { onclick: () => go({ head: h }), "data-head": h }, c, `head ${h}`); }));
    }
    for (const b of $("heads").children) b.setAttribute("aria-checked", String(+b.dataset.head === at.head));
    paint($("matrix"), layer, at.head, true);
    const row = Array.from({ length: at.t + 1 }, (_, k) => layer.w[at.head * perHead + lowerIndex(at.t, k)] / 255);
    const order = [...row.keys()].sort((a, b) => row[b] - row[a]).slice(0, 8);
    const k = over === null ? -1 : over;
    fill("pair", `layer ${layer.layer}, head ${at.head}. ` + (k >= 0 && k <= at.t ? `${at.t + 1} ${name(D.tokens[at.t].id)} looks at ${k + 1} ${name(D.tokens[k].id)}: ${percent(row[k])}`
      : k > at.t ? `${k + 1} ${name(D.tokens[k].id)} comes later: masked` : "Down: who looks; across, from first to last: at whom. Point, click or use the keys."),
      el("span", { class: "legend" }, "0", el("i"), "100 %"));
    const parts = [el("h3", {}, "Position ", el("span", { class: "token" }, `${at.t + 1} ${name(D.tokens[at.t].id)}`), " looks at"),
      ...order.map((k) => bar(`${k + 1} ${name(D.tokens[k].id)}`, row[k], percent(row[k])))];
    if (layer.v) parts.push(...weightedSum(layer, row, order));
    fill("looks", ...parts);
    $("attnote").textContent = layer.v && layer.error === null ? "Numbers in this layer are infinite or not a number: they are drawn as 0."
      : layer.v ? `Recomputed by the plain softmax; the fused kernel's result differs by at most ${layer.error.toExponential(1)}.`
      : "The model writes its own softmax; its values are not visible from outside.";
    if (layer.H < layer.all_heads) $("attnote").textContent += ` The first ${layer.H} of ${layer.all_heads} heads: with so long a text no more fit.`;
  });
  const place = (event) => { const box = $("matrix").getBoundingClientRect(), cell = box.height / T;
    const nth = (x) => Math.min(T - 1, Math.max(0, Math.floor(x / cell)));
    over = event.clientX - box.left < box.width - T * cell ? null : nth(event.clientX - box.right + T * cell);
    go({ t: nth(event.clientY - box.top) }); };
  for (const kind of ["pointermove", "click"]) $("matrix").addEventListener(kind, place);
  $("matrix").addEventListener("pointerleave", () => { over = null; go({}); });
}
function weightedSum(layer, row, order) {
  const n = layer.D, value = (k, d) => layer.v[(at.head * T + k) * n + d] / 127 * layer.scale;
  const sum = Array.from({ length: n }, (_, d) => row.reduce((s, w, k) => s + w * value(k, d), 0));
  const shown = order.slice(0, 4), width = Math.min(n, 64);
  const vectors = shown.map((k) => Array.from({ length: width }, (_, d) => row[k] * value(k, d)));
  const top = Math.max(1e-9, ...vectors.flat().map(Math.abs), ...sum.slice(0, width).map(Math.abs));
  const strip = (label, vector, text, cls = "") => el("div", { class: "strip " + cls }, el("span", {}, label),
    el("div", { class: "cells" }, ...vector.map((x) => el("i", { title: x.toFixed(3),
      style: x >= 0 ? tint(x / top) : `background: color-mix(in srgb, var(--ink) ${(75 * -x / top).toFixed(1)}%, transparent)` }))), el("span", { class: "num" }, text));
  const size = (v) => Math.hypot(...v).toFixed(2);
  return [el("h3", { style: "margin-top:1.4rem" }, "and takes from there"),
    ...shown.map((k, i) => strip(`${percent(row[k])} of ${name(D.tokens[k].id)}`, vectors[i], size(vectors[i]))),
    strip("sum of all", sum.slice(0, width), size(sum), "sum"),
    el("p", { class: "quiet" }, `share times value: ${width === n ? n : `${width} of ${n}`} numbers, colour above 0, grey below; right, the length of the vector`)];
}

// ------------------------------------------------------------------------------ 5 prediction
const L = D.layers;
if (!L) {
  document.querySelector("#prediction .lead").textContent = "How the model's answer becomes one drawn token.";
  fill("grid", el("p", { class: "quiet" }, `${A.class} has no row of layers to read one by one.`));
} else {
  choice("lensmode", [["p", "probability of the top token"], ...(L.rows.some((r) => r.to_last) ? [["to_first", "likeness to the embedding"], ["to_last", "likeness to the end"]] : [])], "shade");
  views.push(() => {
    const line = (title, text) => el("tr", {}, el("th", {}, title), ...D.tokens.map((_, t) => el("th", { title: `position ${t + 1}` }, text(t))));
    const head = line("reads", (t) => seen(D.tokens[t].text)), next = line("comes next", (t) => (t + 1 < T ? seen(D.tokens[t + 1].text) : "?"));
    const rows = L.rows.map((row) => el("tr", {}, el("th", { title: row.path }, row.path.replace(/^.*\./, "layer ")), ...row.top.map((ids, t) => {
      const x = at.shade === "p" ? row.p[t][0] : (row[at.shade] || [])[t] ?? 0;
      const says = ids.map((id, i) => `${name(id)} ${percent(row.p[t][i])}`).join("\n");
      const right = at.shade === "p" && t + 1 < T && ids[0] === D.tokens[t + 1].id;
      return el("td", { class: right ? "right" : "", style: tint(x * 0.9), title: `${row.path}, position ${t + 1}\n${says}\nlength ${row.norm[t]}`, "aria-selected": String(t === at.t),
        onclick: () => go({ t }) }, at.shade === "p" ? name(ids[0]) : x.toFixed(2));
    })));
    const scroll = $("grid").scrollLeft;
    fill("grid", el("table", {}, next, ...rows.reverse(), head));
    const cell = $("grid").querySelector("td[aria-selected=true]");
    $("grid").scrollLeft = scroll;
    if (cell && (cell.offsetLeft < scroll + 90 || cell.offsetLeft + cell.offsetWidth > scroll + $("grid").clientWidth)) $("grid").scrollLeft = cell.offsetLeft - $("grid").clientWidth / 2;
  });
}
views.push(() => {
  const n = D.next[at.t];
  fill("top", ...n.ids.map((id, i) => bar(name(id), n.p[i] / n.p[0], percent(n.p[i]), id === n.came ? "chosen" : "")),
    el("p", { class: "quiet" }, `bars relative to the likeliest; entropy ${n.entropy.toFixed(2)} bits: as unsure as among ${(2 ** n.entropy).toFixed(1)} equal tokens (a blind guess: ${Math.log2(A.vocab_size).toFixed(2)} bits)` +
      (n.came === undefined ? "" : `. The text goes on with ${name(n.came)}, rank ${n.rank}`)));
});

const S = D.sampling, control = { temperature: S.temperature, top_k: S.top_k, top_p: S.top_p, draw: 0 };
const stored = new Map(S.rows.map((r) => [r.t, r]));
function distribution(row) {  // as lm.generate.sample: temperature, then top-k, then top-p
  const raw = new Uint16Array(bytes(row.numbers).buffer), logits = Array.from(raw, (x) => row.low + row.step * x);
  const soften = (temperature) => { const top = Math.max(...logits), e = logits.map((x) => Math.exp((x - top) / temperature));
    const sum = e.reduce((a, b) => a + b, 0); return e.map((x) => x / sum); };
  const before = soften(1), order = [...logits.keys()].sort((a, b) => logits[b] - logits[a] || a - b);
  if (control.temperature === 0) return { before, order, kept: [order[0]], p: new Map([[order[0], 1]]) };
  const shaped = soften(control.temperature);
  let kept = control.top_k || control.top_p < 1 ? order : [...logits.keys()];
  if (control.top_k) kept = kept.slice(0, control.top_k);
  let sum = kept.reduce((a, i) => a + shaped[i], 0);
  if (control.top_p < 1) { let so_far = 0; kept = kept.filter((i) => { const in_ = so_far < control.top_p; so_far += shaped[i] / sum; return in_; });
    sum = kept.reduce((a, i) => a + shaped[i], 0); }
  return { before, order, kept, p: new Map(kept.map((i) => [i, shaped[i] / sum])) };
}
function slider(key, label, min, max, step, format) {
  const input = el("input", { type: "range", min, max, step, id: `s_${key}`, "aria-label": label });
  input.value = control[key];
  input.addEventListener("input", () => { control[key] = +input.value; drawSampling(); });
  return el("label", { class: "control" }, label, input, el("output", { id: `o_${key}`, class: "num" }, format(control[key])));
}
const formats = { temperature: (x) => x.toFixed(2), top_k: (x) => (x ? String(x) : "all"), top_p: (x) => x.toFixed(2) };
fill("draw", slider("temperature", "temperature", 0, 2, 0.05, formats.temperature), slider("top_k", "top-k", 0, Math.min(50, A.vocab_size), 1, formats.top_k),
  slider("top_p", "top-p", 0.05, 1, 0.01, formats.top_p), el("div", { id: "drawn" }));
function drawSampling() {
  for (const key in formats) $(`o_${key}`).textContent = formats[key](control[key]);
  const row = stored.get(at.t);
  if (!row) return fill("drawn", el("p", { class: "quiet" }, "For a vocabulary of this size the page holds the last position alone: go there to draw."));
  if (row.numbers === undefined) return fill("drawn", el("p", { class: "quiet" }, "Some logits of this position are infinite or not a number: nothing can be drawn."));
  const { before, order, kept, p } = distribution(row), { u, seed } = S.draws[control.draw];
  let low = 0, hit = kept[kept.length - 1], from = 0, to = 1;
  for (const i of kept) { const high = low + p.get(i); if (u * (1 - 1e-6) < high) { hit = i; from = low; to = high; break; } low = high; }
  const pieces = []; let rest = 0;  // thin neighbours become one segment
  for (const i of kept) { if (p.get(i) < 0.004 && i !== hit) { rest += p.get(i); continue; }
    if (rest) { pieces.push([rest, "others", false]); rest = 0; } pieces.push([p.get(i), name(i), i === hit]); }
  if (rest) pieces.push([rest, "others", false]);
  const top = Math.max(...order.slice(0, 8).map((i) => Math.max(before[i], p.get(i) || 0)));
  fill("drawn", ...order.slice(0, 8).map((i) => bar(name(i), (p.get(i) || 0) / top, p.has(i) ? percent(p.get(i)) : "cut",
      (p.has(i) ? "" : "cut ") + (i === hit ? "chosen" : ""), before[i] / top)),
    el("p", { class: "quiet" }, `Bars: after the settings, ${count(kept.length)} of ${count(order.length)} tokens left; mark: before. Below, all that are left, each as wide as its probability; the line is the random number, and where it falls is drawn.`),
    el("div", { class: "wheel", id: "wheel" }, ...pieces.map(([share, label, is]) => el("i", { class: is ? "hit" : "", title: `${label} ${percent(share)}`, style: `width:${100 * share}%` })),
      el("span", { class: "needle", style: `left:${100 * u}%` })),
    el("div", { class: "needles" }, el("button", { id: "again", onclick: () => { control.draw = (control.draw + 1) % S.draws.length; drawSampling(); } }, "draw again"),
      el("span", { id: "why" }, control.temperature === 0 ? `temperature 0 takes the likeliest: ${name(hit)}`
        : `seed ${seed} draws ${u.toFixed(4)}: in ${from.toFixed(4)} to ${to.toFixed(4)}, which is `, control.temperature === 0 ? null : el("span", { class: "token", id: "hit", "data-id": hit }, name(hit)))));
}
views.push(drawSampling);

// ----------------------------------------------------------------------------------- 6 bigram
const B = D.bigram;
if (B.missing !== undefined) fill("compare", el("p", { class: "quiet" }, `Not here: ${B.missing}.`));
else views.push(() => {
  const id = D.tokens[at.t].id, row = B.rows[id], n = D.next[at.t], came = n.came;
  const widest = Math.max(row.p[0] || 0, row.neural_p[0], n.p[0]);  // the same scale in all three
  const list = (ids, shares, text) => ids.slice(0, 8).map((i, k) => bar(name(i), shares[k] / widest, text(k), i === came ? "chosen" : ""));
  const column = (title, sub, rows) => el("div", {}, el("h3", {}, title, el("span", { class: "quiet" }, sub)), ...rows);
  const sum = (bits) => bits.filter((b) => b !== null).reduce((a, b) => a + b, 0);
  const nBytes = D.tokens.slice(1).reduce((m, x) => m + x.n, 0);
  const totals = [["counts of pairs", sum(B.bits.counts)], ["neural bigram", sum(B.bits.neural)], [A.model, sum(D.bits)]];
  const most = Math.max(...totals.map((x) => x[1]), 1e-9);
  fill("compare", el("div", { class: "three" },
    column("Counts", `after ${name(id)}, seen ${count(row.total)} times; share: (count + 1) / (${count(row.total)} + ${count(A.vocab_size)} tokens)`, row.ids.length ? list(row.ids, row.p, (k) => `${count(row.counts[k])}: ${percent(row.p[k])}`) : [el("p", { class: "quiet" }, "never seen in training: every token equally likely")]),
    column("Neural bigram", `the same row learned by gradient, ${B.steps} steps, not smoothed`, list(row.neural_ids.filter((_, k) => row.neural_p[k] >= 0.0005), row.neural_p, (k) => percent(row.neural_p[k]))),
    column(A.model, A.memory === 0 ? `after ${name(id)} alone` : `after ${A.memory >= A.context_len - 1 ? `all ${at.t + 1} tokens` : `the last ${Math.min(at.t, A.memory) + 1} tokens`}`, list(n.ids, n.p, (k) => percent(n.p[k])))),
    T < 2 ? null : el("div", { class: "ladder" }, el("h3", {}, "Bits for the whole text"), ...totals.map(([label, bits]) => bar(label, bits / most, `${bits.toFixed(1)} bits`, label === A.model ? "chosen" : "")),
      el("p", { class: "quiet" }, `${nBytes} bytes; ` + totals.map(([label, bits]) => `${label} ${(bits / nBytes).toFixed(2)}`).join(", ") + ` bits a byte. ${count(B.n_pairs)} pairs of the training text were counted.`)));
});

if (B.missing === undefined && B.grid.ids.length) {
  const G = B.grid, n = G.ids.length, canvas = el("canvas", { id: "table", "aria-label": "Counts of pairs" }), said = el("p", { class: "quiet" });
  const share = (r, c) => G.counts[r][c] / G.totals[r];
  $("pairs").append(el("h3", {}, "The table of pairs"),
    el("p", { class: "quiet" }, `Down: a token; across: what came next; colour: how large a share of the row. ${n < A.vocab_size ? `The ${n} most frequent of ${count(A.vocab_size)}: ` : ""}the whole table has ${count(A.vocab_size)} \u00d7 ${count(A.vocab_size)} = ${count(A.vocab_size ** 2)} places` +
      (A.model === "bigram" ? ". This model is that table, learned: the row of a token holds its logits, so its width C is the vocabulary, and nothing lies between looking a row up and the softmax." : ".")), canvas, said);
  canvas.onpointermove = (event) => { const box = canvas.getBoundingClientRect(), left = 60, cell = box.height / (n + 1), r = Math.min(n - 1, Math.floor((event.clientY - box.top) / cell) - 1), c = Math.floor((event.clientX - box.left - left) / (box.width - left) * n);
    if (r >= 0 && c >= 0 && c < n) said.textContent = `after ${name(G.ids[r])}, seen ${count(G.totals[r])} times, came ${name(G.ids[c])} ${count(G.counts[r][c])} times: ${percent(share(r, c))}`; };
  views.push(() => {
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, tall = 13, left = 60;
    canvas.style.height = `${tall * (n + 1)}px`; canvas.width = width * ratio; canvas.height = tall * (n + 1) * ratio;
    const context = canvas.getContext("2d"), [red, green, blue] = rgb(ink("--accent")), w = (width - left) / n;
    context.scale(ratio, ratio); context.textAlign = "right"; context.textBaseline = "middle"; context.font = "11px monospace";
    context.fillStyle = ink("--ink"); context.textAlign = "left";
    for (let c = 0; c < n; c++) context.fillText(name(G.ids[c]).slice(0, Math.max(1, Math.floor(w / 7))), left + c * w + 1, tall / 2);
    context.textAlign = "right"; context.translate(0, tall);
    for (let r = 0; r < n; r++) {
      context.fillStyle = ink("--ink"); context.fillText(name(G.ids[r]).slice(0, 8), left - 5, (r + 0.5) * tall);
      for (let c = 0; c < n; c++) { context.fillStyle = `rgba(${red},${green},${blue},${Math.sqrt(share(r, c))})`; context.fillRect(left + c * w, r * tall, Math.ceil(w), tall); }
    }
  });
}

// --------------------------------------------------------------------------------------- keys
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") return;
  const wrap = (x, n) => (x + n) % n, n = layers.length;
  const moves = { ArrowLeft: { t: at.t - 1 }, ArrowRight: { t: at.t + 1 }, Home: { t: 0 }, End: { t: T - 1 } };
  if (n) Object.assign(moves, { ArrowUp: { layer: Math.min(n - 1, at.layer + 1) }, ArrowDown: { layer: Math.max(0, at.layer - 1) },
    "]": { head: wrap(at.head + 1, layers[at.layer].H) }, "[": { head: wrap(at.head - 1, layers[at.layer].H) } });
  const vertical = event.key === "ArrowUp" || event.key === "ArrowDown";
  if (vertical && document.activeElement !== $("matrix")) return;  // else these keys scroll the page
  if (moves[event.key]) { event.preventDefault(); go(moves[event.key]); }
  else if (/^[1-7]$/.test(event.key)) document.querySelectorAll("main > section")[event.key - 1].scrollIntoView();
});
addEventListener("resize", () => go({}));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => go({}));
go({});
