// The data, the position that all sections share, and sections 1 to 3.
const D = JSON.parse(document.getElementById("data").textContent);
const T = D.tokens.length;
const at = { t: T - 1, layer: 0, head: 0, frame: 0, step: null, cell: 0, batch: "text", heat: "bits", shade: "p", token: null };
const $ = (id) => document.getElementById(id);
const views = [];  // functions that draw what depends on `at`

function el(tag, attributes = {}, ...children) {
  const node = document.createElementNS(
    ["circle", "text", "line"].includes(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml", tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") node.style.cssText = value;
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((c) => c !== null).map((c) => (typeof c === "number" ? String(c) : c)));
  return node;
}
const fill = (id, ...children) => $(id).replaceChildren(...children.filter((c) => c !== null));
const count = (n) => n.toLocaleString("en-US");
function short(n) {  // 1234567 -> 1.23 M
  for (const [size, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (n >= size) return (n / size).toPrecision(3) + " " + name;
  return Math.round(n) + " ";
}
const percent = (p) => (p === null ? "\u2013" : p >= 0.9995 ? "100 %" : (100 * p).toPrecision(p < 0.1 ? 2 : 3) + " %");
const tint = (x) => `background: color-mix(in srgb, var(--accent) ${(100 * Math.min(1, Math.max(0, x))).toFixed(1)}%, transparent)` +
  (x > 0.62 ? "; color: var(--on-accent)" : "");
// What the eye should see of a token: spaces and line breaks as marks.
const seen = (text) => text.replace(/ /g, "\u00b7").replace(/\\n|\n/g, "\u21b5");
const name = (id) => seen(D.vocab[id]);
const bytes = (b64) => Uint8Array.from(atob(b64), (c) => c.charCodeAt(0));

function bar(label, share, text, cls = "", before = null) {
  const track = el("div", { class: "track" }, el("i", { style: `width:${100 * share}%` }),
    before === null ? null : el("i", { class: "before", style: `width:${100 * before}%` }));
  return el("div", { class: "row " + cls }, el("span", { class: "token", title: label }, label), track,
    el("span", { class: "num" }, text));
}
function choice(id, options, key) {  // [[value, label], ...]: one of them, with arrow keys too
  const draw = () => fill(id, ...options.map(([value, label]) => el("button", {
    role: "radio", "aria-checked": String(at[key] === value), onclick: () => go({ [key]: value }) }, label)));
  views.push(draw);
}
function go(change) {
  Object.assign(at, change);
  at.t = Math.min(T - 1, Math.max(0, at.t));
  // Drawing makes buttons anew: the focus goes to the same one, so that the keyboard can go on.
  const focused = document.activeElement, home = focused && focused.closest("[id]");
  const alike = () => [...home.querySelectorAll(focused.tagName)].filter((node) => node.textContent === focused.textContent);
  const nth = home ? alike().indexOf(focused) : -1;
  for (const draw of views) draw();
  if (nth >= 0 && !focused.isConnected) alike()[nth]?.focus({ preventScroll: true });
}

// ---------------------------------------------------------------------------------- header
const A = D.about;
document.title = `lens: ${A.prompt.slice(0, 40)}`;
$("title").textContent = `${A.model} reads \u201c${A.prompt.length > 48 ? A.prompt.slice(0, 47) + "\u2026" : A.prompt}\u201d`;
$("about").textContent = `${A.name}${A.step ? `, step ${count(A.step)}` : ""}: ${count(A.n_params)} ` +
  `${A.trained ? "parameters" : "untrained parameters"}, corpus ${A.corpus}, ${A.tokenizer} tokenizer of ${count(A.vocab_size)} tokens, ` +
  `up to ${count(A.context_len)} at once.`;
views.push(() => {
  $("where").textContent = `${at.t + 1} of ${T}`;
  $("what").textContent = name(D.tokens[at.t].id);
  const n = D.next[at.t];
  $("then").textContent = `then, most likely: ${name(n.ids[0])} (${percent(n.p[0])})` +
    (n.came === undefined ? "" : `; in the text: ${name(n.came)} (${percent(n.p_came)})`);
  $("back").disabled = at.t === 0; $("on").disabled = at.t === T - 1;
});
$("back").onclick = () => go({ t: at.t - 1 });
$("on").onclick = () => go({ t: at.t + 1 });

// ---------------------------------------------------------------------------------- 1 shapes
const SAYS = {
  Embedding: "look up a row per token", embedding: "look up a row per token", Linear: "times a matrix",
  linear: "times a matrix", RMSNorm: "scale to size one", LayerNorm: "centre and scale", rms_norm: "scale to size one",
  query: "what each position looks for", key: "what each position offers", value: "what it hands over",
  scores: "query times key, scaled", softmax: "shares that sum to 1", "weighted sum": "shares times values",
  relu: "negative to 0", gelu: "smooth step", silu: "smooth gate", tanh: "squeeze to -1..1", GRU: "gates, token by token",
  square: "each number squared", add: "number by number", mul: "number by number", div: "number by number", rotate: "rotary positions",
  cat: "side by side", cumsum: "the sum up to each position", unfold: "each position with those before it",
};
function shape(axes) {
  const S = D.shapes.training;
  const size = ([letter, n, byRow, byPosition]) => {
    if (at.batch === "text") return n;
    return byRow && byPosition ? S.B * S.T : byRow ? S.B : byPosition ? S.T + (n - T) : n;
  };
  const boxes = axes.flatMap((a, i) => [i ? "\u00d7" : null, el("span", { class: "axis" }, el("em", {}, a[0]),
    el("span", {}, count(size(a))))]);
  return el("div", { class: "shape" }, ...boxes);
}
const scaleFlops = () => (at.batch === "text" ? 1 : D.shapes.training.B * D.shapes.training.T / T);
const most = Math.max(1, ...D.shapes.steps.map((s) => s.flops));
function stepRow(title, says, axes, params = "", flops = 0, note = "", open = null) {
  const cost = el("div", { class: "num" }, flops ? short(flops * scaleFlops()) + "FLOP" : "",
    flops ? el("div", { class: "cost", style: `width:${Math.max(2, 100 * flops / most)}%` }) : null);
  const name = open === null ? el("b", {}, title) : el("button", { class: "open", "aria-expanded": String(at.step === open),
    onclick: () => go({ step: at.step === open ? null : open, cell: 0 }) }, el("b", {}, title));
  return el("div", { class: "step" }, el("div", {}, name, el("small", {}, says)),
    el("div", {}, shape(axes), note ? el("small", {}, note) : null), el("div", { class: "num" }, params), cost);
}
function modelStep(s) {
  const inside = s.layer === null ? s.path : s.path.replace(/^[a-z_]+\.\d+\.?/, "");
  const isFunction = /^[a-z]/.test(s.kind);  // a class is a module, which has a name of its own
  const shapes = Object.entries(s.params).map(([k, v]) => `${k.split(".").slice(-2).filter((part) => !/^\d+$/.test(part)).join(".")} ${v.join("\u00d7")}`);
  const where = isFunction ? (inside ? `in ${inside}` : "") : s.kind, title = isFunction ? s.kind : inside || s.kind;
  const i = D.shapes.steps.indexOf(s), isLast = i === D.shapes.steps.length - 1;
  const row = stepRow(isLast ? "logits" : title, [isLast ? title : where === title ? "" : where, SAYS[s.kind]].filter(Boolean).join(": "), s.axes,
    s.n_params ? `${count(s.n_params)} par.` : "", s.flops, [s.note, shapes.slice(0, 2).join(", ")].filter(Boolean).join("; "), i);
  return at.step === i ? [row, hasNumbers(i) ? numbersOf(i) : noNumbers(i)] : [row];
}
let flowOf = null;  // what the list is drawn for
views.push(() => {
  if (flowOf === `${at.batch} ${at.step}`) return drawNumbers();
  flowOf = `${at.batch} ${at.step}`;
  drawNumbers = () => {};
  const nBytes = D.tokens.reduce((sum, token) => sum + token.n, 0);
  const ids = [["B", 1, 1, 0], ["T", T, 0, 1]];
  const flow = [
    stepRow("text", "UTF-8", [["", nBytes, 0, 0]], "", 0, at.batch === "text" ? "bytes" : "bytes of this text"),
    stepRow("ids", `${A.tokenizer} tokenizer`, ids),
  ];
  const open = new Set([...document.querySelectorAll("#flow details[open]")].map((d) => +d.dataset.layer));
  for (let i = 0; i < D.shapes.steps.length; ) {
    const s = D.shapes.steps[i];
    if (s.layer === null) { flow.push(...modelStep(s)); i += 1; continue; }
    const part = D.shapes.steps.filter((x) => x.layer === s.layer);
    const total = part.reduce((sum, x) => sum + x.n_params, 0);
    flow.push(el("details", { "data-layer": s.layer, ...(s.layer === 0 && !at.drawn || open.has(s.layer) ? { open: "" } : {}) },
      el("summary", {}, `layer ${s.layer} `, el("span", { class: "quiet" }, `${part.length} step${part.length > 1 ? "s" : ""}, ${count(total)} parameters`)),
      el("div", {}, ...part.flatMap(modelStep))));
    i += part.length;
  }
  at.drawn = true;
  const V = ["V", A.vocab_size, 0, 0];
  flow.push(stepRow("probabilities", "softmax: one distribution per position", [...ids, V]));
  const asked = at.batch === "text" ? ["T\u22121", T - 1, 0, 0] : ["T", T, 0, 1];  // here nothing follows the last
  flow.push(stepRow("loss", "minus log of what came next", [ids[0], asked], "", 0,
    at.batch === "text" ? "in bits: section 2" : "the answers are the ids, one further on; training lowers the mean of these"));
  fill("flow", ...flow);
  drawNumbers();
  $("flops").textContent = `${short(A.flops * scaleFlops())}FLOP forward, ${short(A.flops / T)}FLOP a token`;
});
const meet = [["scores", "in attention, from the scores to the weighted sum"], ["GRU", "in the GRU, which reads them one after the other"],
  ["unfold", "where each is laid beside those before it"], ["cumsum", "in the sum up to each position"]]
  .filter(([kind]) => D.shapes.steps.some((s) => s.kind === kind)).map((pair) => pair[1]).join(" and ");
$("story").textContent = `The text becomes T ids, and all T positions of all B rows go down this list at once. Rows never meet` +
  (A.memory && meet ? `; positions meet only ${meet}` : "") + ". What stands at a position depends on its own token" +
  (A.memory === 0 ? " alone" : A.memory >= A.context_len - 1 ? " and all before it, never on a later one" : ` and the ${A.memory} before it, never on a later one`) +
  ". So one pass asks T questions: at each position, which token comes next?";
$("reach").textContent = A.memory === 0 ? ", from the last token as well" : A.memory >= A.context_len - 1 ? ", from the whole context" : `, from the last ${A.memory + 1} tokens`;
choice("batch", [["text", "this text"], ["training", `a training batch of ${D.shapes.training.B}`]], "batch");
fill("axes", ...Object.entries(D.shapes.axes).map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", {}, v))));

// ---------------------------------------------------------------------------------- 2 tokens
const E = D.embeddings;
const perByte = D.bits.map((b, i) => (b === null ? null : b / Math.max(1, D.tokens[i].n)));
choice("heat", [["bits", "bits a token"], ["byte", "bits a byte"], ["none", "pieces only"]], "heat");
fill("ribbon", ...D.tokens.map((token, i) => {
  const broken = token.plain.includes("\n") ? "\n" : "";
  const part = token.shared === undefined ? "" : "part" + (token.is_first ? " first" : "") + (token.is_last ? " last" : "");
  return el("button", { role: "option", onclick: () => go({ t: i }), "data-t": i, class: part,
    title: `id ${token.id}` + (part ? `; with its neighbours it spells ${token.shared}` : "") }, seen(token.text) + broken);
}));
views.push(() => {
  const values = at.heat === "byte" ? perByte : D.bits;
  const top = Math.max(1, ...values.filter((v) => v !== null));
  fill("scale", ...(at.heat === "none" ? [] : ["0", el("i"), `${top.toFixed(1)} bits`]));
  for (const button of $("ribbon").children) {
    const i = +button.dataset.t, v = values[i];
    button.style.cssText = at.heat === "none" ? tint(i % 2 ? 0.1 : 0.22) : tint(v === null ? 0 : v / top * 0.9);
    button.setAttribute("aria-selected", String(i === at.t));
  }
  const token = D.tokens[at.t], bits = D.bits[at.t];
  const known = D.bits.filter((b) => b !== null), sum = known.reduce((a, b) => a + b, 0);
  const nBytes = D.tokens.slice(1).reduce((n, x) => n + x.n, 0);
  const fact = (value, label) => el("div", {}, el("b", {}, value), el("span", { class: "quiet" }, label));
  fill("piece", fact(seen(token.text), "the piece"), fact(count(token.id), "its id"), fact(token.hex || "none", `bytes: ${token.n}`),
    fact(bits === null ? "\u2013" : bits.toFixed(2), bits === null ? "nothing before it predicts it" : "bits spent on it"),
    token.shared === undefined ? null : fact(token.shared, "spelled together with its neighbours"),
    E && E.n_train ? fact(count(E.n_train[E.ids.indexOf(token.id)]), "times in the training text") : null,
    fact(known.length ? (sum / nBytes).toFixed(3) : "\u2013", "bits a byte, whole text"),
    fact(known.length ? `${sum.toFixed(1)}` : "\u2013", `bits for ${known.length} tokens, ${nBytes} bytes`));
});

// ------------------------------------------------------------------------------ 3 embeddings
if (!E) fill("embeddings", el("h2", {}, el("i", {}, "3"), " Embeddings"), el("p", { class: "lead" }, "This model has no table with a row of numbers for each token, or it is still zero, or not finite."));
else {
  at.frame = E.frames.length - 1;
  const place = new Map(E.ids.map((id, i) => [id, i]));
  const inText = new Set(D.tokens.map((token) => token.id));
  const W = Math.max(280, $("map").clientWidth), H = W * 0.8;  // as on the screen, so that labels keep their size
  const flat = E.frames.flatMap((f) => f.xy), wide = (all) => all.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  const xs = wide(flat.filter((_, i) => i % 2 === 0)), ys = wide(flat.filter((_, i) => i % 2));
  const to = (v, [low, high], length) => 24 + (v - low) / (high - low || 1) * (length - 48);
  const px = E.frames.map((f) => E.ids.map((_, i) => [to(f.xy[2 * i], xs, W), H - to(f.xy[2 * i + 1], ys, H)]));
  const unseen = (i) => E.n_train && E.n_train[i] === 0;
  $("map").setAttribute("viewBox", `0 0 ${W} ${H}`);
  const dots = E.ids.map((id, i) => el("circle", { r: inText.has(id) ? 4.5 : 3, class: inText.has(id) ? "here" : unseen(i) ? "unseen" : "",
    onclick: () => pick(id) }, el("title", {}, name(id) + (E.n_train ? `, ${count(E.n_train[i])} times in the training text` : ""))));
  const order = [...E.ids.keys()].sort((a, b) => inText.has(E.ids[a]) - inText.has(E.ids[b]));
  const labelled = order.filter((i) => inText.has(E.ids[i]) || E.ids.length <= 130);
  const labels = labelled.map((i) => el("text", {}, name(E.ids[i])));
  const lines = el("line"), chosenLabel = el("text", { class: "chosen" });
  $("map").append(...order.map((i) => dots[i]), ...labels, lines, chosenLabel);
  const pick = (id) => { const t = D.tokens.findIndex((token) => token.id === id); go(t >= 0 ? { t, token: null } : { token: id }); };
  $("frame").max = E.frames.length - 1;
  $("frame").oninput = (event) => go({ frame: +event.target.value });
  $("stepper").hidden = E.frames.length < 2;
  $("mapaxes").textContent = `The two directions of largest variance of ${E.width} (PCA): across ${percent(E.share[0])} of it, up ${percent(E.share[1] || 0)}. ` +
    `${count(E.ids.length)} of ${count(E.n_all)} tokens` + (E.ids.some((_, i) => unseen(i)) ? "; rings: not in the training text." : ".") + " Click a dot.";
  let lastT = at.t;
  views.push(() => {
    if (at.t !== lastT) { at.token = null; lastT = at.t; }
    const id = at.token ?? D.tokens[at.t].id, i = place.get(id), now = px[at.frame], f = E.frames[at.frame];
    dots.forEach((dot, k) => { dot.setAttribute("cx", now[k][0]); dot.setAttribute("cy", now[k][1]); });
    const taken = [[now[i][0], now[i][1], 9 * name(id).length]];  // a label that would lie on another stays away
    labelled.forEach((k, j) => { const [x, y] = now[k], long = 7 * labels[j].textContent.length;
      const free = taken.every(([a, b, w]) => x > a + w || a > x + long || Math.abs(y - b) > 12);
      labels[j].setAttribute("x", x + 6); labels[j].setAttribute("y", y - 5);
      labels[j].style.display = k !== i && free ? "" : "none";
      if (k !== i && free) taken.push([x, y, long]); });
    chosenLabel.textContent = name(id);
    chosenLabel.setAttribute("x", now[i][0] + 7); chosenLabel.setAttribute("y", now[i][1] - 6);
    const home = px[0][i];
    for (const [key, v] of [["x1", home[0]], ["y1", home[1]], ["x2", now[i][0]], ["y2", now[i][1]]]) lines.setAttribute(key, v);
    $("frame").value = at.frame;
    $("framestep").textContent = count(f.step);
    fill("near", el("h3", {}, "Nearest to ", el("span", { class: "token" }, name(id))),
      ...E.near[i].map((other, k) => { const row = bar(name(other), Math.max(0, E.cosine[i][k]), E.cosine[i][k].toFixed(2));
        row.style.cursor = "pointer"; row.addEventListener("click", () => pick(other)); return row; }),
      el("p", { class: "quiet" }, "cosine of the angle between the two rows: 1 is the same direction"),
      ...(E.frames.length < 2 ? [] : [el("h3", {}, "On the way here"), ...E.frames.map((g) =>
        bar(`step ${count(g.step)}`, Math.max(0, g.same[i]), g.same[i].toFixed(2), g === f ? "chosen" : "")),
        el("p", { class: "quiet" }, "cosine with the row as it is at the last step shown")]));
  });
}
