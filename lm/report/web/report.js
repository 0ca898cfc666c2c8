"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const SHADES = 8, SHOWN = 20, LINES = 8;

// What is chosen stands in the address, so that it survives a reload while runs are watched.
const at = { corpus: 0, axis: "tokens", metric: "val", zoom: "late", off: [], on: [], all: false, a: null, b: null, prompt: 0 };
try { Object.assign(at, JSON.parse(decodeURIComponent(location.hash.slice(1)))); } catch { /* a plain #section */ }
at.corpus = Math.min(at.corpus, D.corpora.length - 1);

const SVG = new Set(["svg", "g", "path", "line", "circle", "text", "rect", "title", "clipPath"]);
function el(tag, attributes = {}, ...children) {
  const node = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") node.style.cssText = value;
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined).map((c) => (c instanceof Node ? c : String(c))));
  return node;
}
const fill = (id, ...children) => $(id).replaceChildren(...children.filter((c) => c !== null));
const present = (id, is) => { $(id).hidden = document.querySelector(`nav a[href="#${id}"]`).hidden = !is; };
const known = (x) => typeof x === "number" && isFinite(x);
const whole = (n) => Math.round(n).toLocaleString("en-US");
function short(n) {
  for (const [size, name] of [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (Math.abs(n) >= size) return +(n / size).toPrecision(3) + " " + name;
  return String(+n.toPrecision(3));
}
const time = (s) => (s < 90 ? `${+s.toPrecision(2)} s` : s < 5400 ? `${+(s / 60).toPrecision(2)} min` : `${+(s / 3600).toPrecision(2)} h`);
const say = (v) => (v === null || v === undefined ? "\u2013" : typeof v === "object" ? JSON.stringify(v) : String(v));
const C = () => D.corpora[at.corpus];
const shade = (i) => `var(--c${i % SHADES})`;
const dash = (i) => ["", "6 3", "2 3"][Math.floor(i / SHADES) % 3];
const drawn = () => C().arms.map((arm, i) => [arm, i])
  .filter(([, i]) => at.on.includes(i) || (i < LINES && !at.off.includes(i)));

function go(change) {
  Object.assign(at, change);
  try { history.replaceState(null, "", "#" + encodeURIComponent(JSON.stringify(at))); } catch { /* not allowed here */ }
  draw();
}
function choice(id, options, key, then = {}) {
  fill(id, ...options.map(([value, label]) => el("button", { role: "radio", type: "button",
    "aria-checked": String(at[key] === value), tabindex: at[key] === value ? 0 : -1,
    onclick: () => { go({ [key]: value, ...then }); },
    onkeydown: (event) => {
      const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!way) return;
      event.preventDefault();
      const places = options.map((o) => o[0]), next = (places.indexOf(at[key]) + way + places.length) % places.length;
      go({ [key]: places[next], ...then });
      $(id).children[next].focus();
    } }, label)));
}

// ---------------------------------------------------------------------------------- leaderboard
function board() {
  const arms = C().arms, scored = arms.filter((a) => known(a.mean));
  const shownArms = at.all ? arms : arms.slice(0, SHOWN), ends = scored.some((a) => a.end - a.mean > 5e-5);
  const runs = shownArms.flatMap((a) => a.runs.map((r) => D.runs[r])).filter((r) => known(r.score));
  const low = Math.min(...runs.map((r) => r.score)), high = Math.max(...runs.map((r) => r.score));
  const x = (v) => (high > low ? 4 + 92 * (v - low) / (high - low) : 50);
  $("boardlead").textContent = scored.length ? `Bits per byte of the validation text${C().ppl ? ", and perplexity," : ","} at each run's best checkpoint: lower is better. ` +
    "Each dot is a run, the bar is the mean over seeds; \u00b1 is the standard deviation over seeds." :
    "No run is complete yet; what runs have reached so far is in grey.";
  const inChart = new Set(drawn().map(([, i]) => i));
  const body = shownArms.map((arm, i) => {
    const members = arm.runs.map((r) => D.runs[r]), lost = members.filter((r) => r.status !== "done");
    const best = known(arm.mean) ? arm.mean : Math.min(...members.map((r) => (known(r.score) ? r.score : Infinity)));
    const dots = members.filter((r) => known(r.score)).map((r) => el("circle", { cx: `${x(r.score)}%`, cy: 12, r: 4.5,
      style: `fill:${shade(i)};fill-opacity:${r.status === "done" ? 0.75 : 0.3}` }, el("title", {}, `seed ${r.seed}: ${r.score.toFixed(4)}, ${r.status}`)));
    const isDrawn = inChart.has(i);
    return el("tr", { class: (i === 0 && known(arm.mean) ? "first" : "") + (known(arm.mean) ? "" : " partial"), style: `--shade:${shade(i)}` },
      el("td", { class: "label" }, el("label", {}, el("input", { type: "checkbox", checked: isDrawn, "aria-label": `draw ${arm.label}`,
        onchange: (event) => toggle(i, event.target.checked) }), el("span", {}, arm.label))),
      el("td", { class: "num" }, isFinite(best) ? best.toFixed(4) : "\u2013"),
      el("td", { class: "num" }, known(arm.spread) ? "\u00b1 " + arm.spread.toFixed(4) : ""),
      el("td", { class: "num" }, arm.n),
      el("td", { class: "strip" }, el("svg", { height: 24, "aria-hidden": "true" },
        el("line", { x1: "0", x2: "100%", y1: 12, y2: 12, class: "grid" }), ...dots,
        known(arm.mean) ? el("line", { x1: `${x(arm.mean)}%`, x2: `${x(arm.mean)}%`, y1: 3, y2: 21, style: `stroke:${shade(i)};stroke-width:2.5` }) : null)),
      ends ? el("td", { class: "num wide" }, known(arm.end) ? arm.end.toFixed(4) : "") : null,
      C().ppl ? el("td", { class: "num wide" }, known(arm.ppl) ? arm.ppl.toPrecision(4) : "") : null,
      el("td", { class: "num wide" }, known(arm.params) ? short(arm.params) : ""),
      el("td", { class: "num wide" }, known(arm.tokens) ? short(arm.tokens) : ""),
      el("td", { class: "num wide" }, known(arm.seconds) ? time(arm.seconds) : ""),
      el("td", {}, ...states(lost)));
  });
  const heads = [["", "settings"], ["num", "val/bpb"], ["num", ""], ["num", "seeds"], ["", "runs"], ...(ends ? [["num wide", "at the end"]] : []),
    ...(C().ppl ? [["num wide", "perplexity"]] : []), ["num wide", "params"], ["num wide", "tokens"], ["num wide", "time"], ["", ""]];
  fill("ranking", el("thead", {}, el("tr", {}, ...heads.map(([cls, text]) => el("th", { class: cls, scope: "col" }, text)))), el("tbody", {}, ...body));
  const baselines = Object.entries(C().baselines).map(([name, v]) => `${name} ${v.toFixed(4)}`);
  fill("boardnote", arms.length > SHOWN ? el("button", { class: "more", type: "button", onclick: () => go({ all: !at.all }) },
    at.all ? `show the best ${SHOWN} only` : `show all ${arms.length}`) : "", arms.length > SHOWN ? el("br") : "",
    baselines.length ? `To compare with, on the same text: ${baselines.join(", ")}. ` : "", C().note);
}
function states(runs) {
  const counts = {};
  for (const run of runs) counts[run.status] = (counts[run.status] || 0) + 1;
  return Object.entries(counts).map(([status, n]) => el("span", { class: `chip ${status}` }, n > 1 ? `${n} ${status}` : status));
}
function toggle(i, on) {
  go({ on: on ? [...new Set([...at.on, i])] : at.on.filter((j) => j !== i),
    off: on ? at.off.filter((j) => j !== i) : [...new Set([...at.off, i])] });
}

// --------------------------------------------------------------------------------------- curves
const AXES = { tokens: "tokens", seconds: "seconds of training", flops: "FLOPs" };
function curve(run) {  // [[x, y], ...] on the chosen axes
  const place = { tokens: (p) => p[0], seconds: (p) => p[1], flops: (p) => p[0] * run.flops }[at.axis];
  if (at.axis === "flops" && !known(run.flops)) return [];
  return (run[at.metric] || run.also[at.metric] || []).map((p) => [place(p), p[2]]);
}
function interpolate(points, x) {
  let low = 0, high = points.length - 1;
  while (high - low > 1) { const mid = (low + high) >> 1; if (points[mid][0] <= x) low = mid; else high = mid; }
  const [a, b] = [points[low], points[high]];
  return b[0] === a[0] ? b[1] : a[1] + (b[1] - a[1]) * Math.min(1, Math.max(0, (x - a[0]) / (b[0] - a[0])));
}
function band(arm) {  // mean, lowest, highest over the seeds, where all have values
  let curves = arm.runs.map((r) => curve(D.runs[r])).filter((c) => c.length);
  const whole = arm.runs.filter((r) => D.runs[r].status === "done").map((r) => curve(D.runs[r])).filter((c) => c.length);
  if (whole.length) curves = whole;  // a seed that still runs would cut the others short
  if (!curves.length) return [];
  const from = Math.max(...curves.map((c) => c[0][0])), to = Math.min(...curves.map((c) => c[c.length - 1][0]));
  let grid = [...new Set(curves.flatMap((c) => c.map((p) => p[0])))].filter((x) => x >= from && x <= to).sort((a, b) => a - b);
  if (!grid.length) {  // such as seeds evaluated at their ends alone, and not at one x
    curves = curves.map((c) => c.slice(-1));
    grid = [curves.reduce((sum, c) => sum + c[0][0], 0) / curves.length];
  }
  if (grid.length > 480) grid = grid.filter((_, i) => i % Math.ceil(grid.length / 480) === 0 || i === grid.length - 1);
  return grid.map((x) => { const ys = curves.map((c) => interpolate(c, x)); return [x, ys.reduce((a, b) => a + b) / ys.length, Math.min(...ys), Math.max(...ys)]; });
}
function ticks(low, high, n) {
  const raw = (high - low) / n, size = 10 ** Math.floor(Math.log10(raw)), step = size * [1, 2, 5, 10].find((k) => k * size >= raw);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) found.push(+v.toPrecision(12));
  return found;
}
function spreadOut(labels, low, high, gap) {
  labels.sort((a, b) => a.y - b.y);
  for (const l of labels) l.at = Math.min(high, Math.max(low, l.y));
  for (let round = 0; round < 200; round++) {
    let moved = false;
    for (let i = 1; i < labels.length; i++) {
      const lack = gap - (labels[i].at - labels[i - 1].at);
      if (lack > 0.01) { labels[i - 1].at -= lack / 2; labels[i].at += lack / 2; moved = true; }
    }
    if (labels.length && labels[0].at < low) { labels[0].at = low; }
    if (!moved) break;
  }
}
let cursor = null;  // the horizontal place that is read
function curves() {
  choice("axis", Object.entries(AXES).map(([k, v]) => [k, v.split(" ")[0]]), "axis");
  const metrics = { val: "val/bpb", train: "train/loss" };
  for (const run of D.runs) for (const key of Object.keys(run.also)) metrics[key] = key;
  choice("metric", Object.entries(metrics), "metric");
  choice("zoom", [["late", "the foot"], ["all", "everything"], ["log", "both logarithmic"]], "zoom");
  const box = $("chart"), width = Math.max(320, box.clientWidth || 1080), narrow = width < 620;
  const height = narrow ? 340 : 430, left = 46, right = narrow ? 12 : 290, top = 12, bottom = 44;
  const lines = drawn().map(([arm, i]) => ({ arm, i, points: band(arm) })).filter((l) => l.points.length);
  const levels = at.metric === "val" ? Object.entries(C().baselines) : [];
  // What is counted has its one value before the first token; what is trained may have one at the end.
  const counted = (l) => l.points.length === 1 && l.points[0][0] === 0;
  const moving = lines.filter((l) => !counted(l)), still = lines.filter(counted);
  const xs = moving.flatMap((l) => l.points.map((p) => p[0]));
  const log = at.zoom === "log";
  const xlow = log ? Math.min(...xs.filter((x) => x > 0), Infinity) : 0, xhigh = Math.max(...xs, 1);
  const kept = moving.flatMap((l) => { const cut = at.zoom === "late" ? l.points[0][0] + 0.08 * (l.points[l.points.length - 1][0] - l.points[0][0]) : -1;
    return l.points.filter((p) => p[0] >= cut).flatMap((p) => [p[2], p[3]]); });
  // Counts of single tokens lie far above all else: a level out of sight is named below the chart.
  const top_ = Math.max(...kept, ...still.map((l) => l.points[0][1]));
  const inside = levels.filter(([, v]) => !kept.length || at.zoom !== "late" || v <= top_ * 1.02);
  let ys = [...kept, ...still.map((l) => l.points[0][1]), ...inside.map(([, v]) => v)];
  if (!ys.length) { fill("chart", el("p", { class: "quiet" }, "Nothing to draw: choose settings in the leaderboard.")); $("chartnote").textContent = ""; return; }
  let ylow = Math.min(...ys), yhigh = Math.max(...ys);
  const fx = (v) => (log ? Math.log(v) : v), fy = (v) => (log ? Math.log(v) : v);
  const pad = (fy(yhigh) - fy(ylow)) * 0.05 || 0.05;
  const span = [fy(ylow) - pad, fy(yhigh) + pad];
  const X = (v) => left + (width - left - right) * (fx(Math.max(v, log ? xlow : -Infinity)) - fx(xlow)) / ((fx(xhigh) - fx(xlow)) || 1);
  const Y = (v) => top + (height - top - bottom) * (1 - (fy(v) - span[0]) / (span[1] - span[0]));
  const clamp = (y) => Math.min(height - bottom, Math.max(top, y));
  const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });
  const grid = el("g", { class: "grid" });
  const bottomValue = log ? Math.exp(span[0]) : span[0], topValue = log ? Math.exp(span[1]) : span[1];
  for (const v of ticks(bottomValue, topValue, 5)) if (v > 0 || !log) grid.append(el("line", { x1: left, x2: width - right, y1: Y(v), y2: Y(v) }),
    el("text", { x: left - 8, y: Y(v) + 4, "text-anchor": "end" }, +v.toPrecision(4)));
  svg.append(grid);
  const xticks = log ? Array.from({ length: 20 }, (_, k) => 10 ** k).filter((v) => v >= xlow && v <= xhigh) : ticks(0, xhigh, narrow ? 3 : 6);
  for (const v of xticks) svg.append(el("text", { x: X(v), y: height - bottom + 20, "text-anchor": v === 0 ? "start" : "middle" }, short(v)));
  svg.append(el("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
    el("text", { x: left + (width - left - right) / 2, y: height - 4, "text-anchor": "middle" }, AXES[at.axis]));
  // Of the labels only what tells the drawn lines apart.
  const everyone = lines.map((l) => l.arm.label.split(" ")), common = new Set(everyone.length > 1 ? everyone[0].filter((w) => everyone.every((ws) => ws.includes(w))) : []);
  const brief = (label) => label.split(" ").filter((w) => !common.has(w)).join(" ") || label;
  const labels = [];
  const clip = el("clipPath", { id: "inside" }, el("rect", { x: left, y: top - 4, width: width - left - right + 2, height: height - top - bottom + 8 }));
  svg.append(clip);
  for (const [name, v] of inside) {
    svg.append(el("line", { x1: left, x2: width - right, y1: Y(v), y2: Y(v), style: "stroke:var(--quiet)", "stroke-dasharray": "3 4" }));
    labels.push({ y: Y(v), text: name, value: v, color: "var(--quiet)" });
  }
  const path = (points, k) => points.map((p, i) => `${i ? "L" : "M"}${X(p[0]).toFixed(1)} ${Y(p[k]).toFixed(1)}`).join("");
  for (const l of [...still, ...moving]) {
    const color = shade(l.i), last = l.points[l.points.length - 1];
    if (counted(l)) svg.append(el("line", { x1: left, x2: width - right, y1: Y(last[1]), y2: Y(last[1]), style: `stroke:${color};stroke-width:1.6`, "stroke-dasharray": "8 4" }));
    else if (l.points.length === 1) svg.append(el("line", { x1: X(last[0]), x2: X(last[0]), y1: Y(last[2]), y2: Y(last[3]), style: `stroke:${color};stroke-width:1.6` }),
      el("circle", { cx: X(last[0]), cy: Y(last[1]), r: 4.5, style: `fill:${color}` }));
    else svg.append(el("path", { d: path(l.points, 2) + path([...l.points].reverse(), 3).replace("M", "L") + "Z", "clip-path": "url(#inside)", style: `fill:${color};fill-opacity:.16` }),
      el("path", { d: path(l.points, 1), "clip-path": "url(#inside)", style: `stroke:${color};fill:none;stroke-width:2.2;stroke-linejoin:round`, "stroke-dasharray": dash(l.i) || null }));
    labels.push({ y: clamp(Y(last[1])), text: brief(l.arm.label), value: last[1], color, x: counted(l) ? null : X(last[0]) });
  }
  if (!narrow) {
    spreadOut(labels, top + 4, height - bottom - 2, 17);
    for (const l of labels) {
      const text = l.text.length > 31 ? l.text.slice(0, 30) + "\u2026" : l.text;
      if (Math.abs(l.at - l.y) > 3) svg.append(el("line", { x1: width - right + 3, x2: width - right + 12, y1: l.y, y2: l.at, style: `stroke:${l.color};stroke-opacity:.7` }));
      svg.append(el("text", { x: width - right + 15, y: l.at + 4, style: `fill:${l.color}` }, text, el("title", {}, l.text)),
        el("text", { x: width - 2, y: l.at + 4, "text-anchor": "end", style: `fill:${l.color}` }, l.value.toFixed(3)));
    }
  }
  const rule = el("line", { class: "axis", y1: top, y2: height - bottom, visibility: "hidden" });
  svg.append(rule);
  const tip = el("div", { class: narrow ? "tip below" : "tip", style: "display:none" });
  box.replaceChildren(svg, tip);
  const legend = narrow ? labels.sort((a, b) => a.value - b.value).map((l) => el("div", { style: `color:${l.color}` }, `${l.text}  ${l.value.toFixed(3)}`)) : [];
  const away = levels.filter((l) => !inside.includes(l)).map(([name, v]) => `${name} ${v.toFixed(3)}`);
  fill("chartnote", ...legend, away.length ? `Above the chart: ${away.join(", ")}. ` : "",
    at.metric === "train" && C().note ? "train/loss is in nats per token, and tokens differ between these runs: do not compare it. " : "",
    at.axis === "flops" ? "6 operations per matrix weight and token. " : "");
  box.setAttribute("aria-label", `${metrics[at.metric]} against ${AXES[at.axis]}: ` +
    lines.map((l) => `${l.arm.label} ends at ${l.points[l.points.length - 1][1].toFixed(3)}`).join(", "));
  const all = [...new Set(moving.flatMap((l) => l.points.map((p) => p[0])))].sort((a, b) => a - b);
  function read(x) {
    cursor = x;
    rule.setAttribute("x1", X(x)); rule.setAttribute("x2", X(x)); rule.setAttribute("visibility", "visible");
    const rows = moving.filter((l) => (l.points.length > 1 ? x <= l.points[l.points.length - 1][0] * 1.0001 : x === l.points[0][0])).map((l) => [l, interpolate(l.points, x)]).sort((a, b) => a[1] - b[1]);
    tip.replaceChildren(el("div", { class: "quiet" }, `${short(x)} ${AXES[at.axis]}`),
      ...rows.map(([l, y]) => el("div", { style: `color:${shade(l.i)}` }, el("span", {}, brief(l.arm.label)), el("b", {}, y.toFixed(4)))));
    tip.style.display = "";
    const scale = box.clientWidth / width, beyond = X(x) * scale + 16 + tip.offsetWidth > box.clientWidth;
    tip.style.left = `${Math.max(0, X(x) * scale + (beyond ? -16 - tip.offsetWidth : 16))}px`;
    tip.style.top = "14px";
  }
  const hide = () => { tip.style.display = "none"; rule.setAttribute("visibility", "hidden"); cursor = null; };
  const nearest = (x) => all.reduce((best, v) => (Math.abs(X(v) - x) < Math.abs(X(best) - x) ? v : best), all[0]);
  if (all.length) {
    svg.onpointermove = (event) => { const r = svg.getBoundingClientRect(); read(nearest((event.clientX - r.left) * width / r.width)); };
    svg.onpointerleave = hide;
    box.onblur = hide;
    box.onkeydown = (event) => {
      const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!way && event.key !== "Home" && event.key !== "End") return;
      event.preventDefault();
      const now = cursor === null ? (way > 0 ? -1 : all.length) : all.indexOf(cursor);
      const next = event.key === "Home" ? 0 : event.key === "End" ? all.length - 1 : Math.min(all.length - 1, Math.max(0, now + way));
      read(all[next]);
    };
  }
}

// ---------------------------------------------------------------------------------- range tests
function ranges() {
  present("ranges", D.ranges.length);
  fill("tests", ...D.ranges.map((test, i) => el("div", {}, el("h3", {}, test.label), rangeChart(test, i),
    ...test.says.map((line) => el("p", {}, line)))));
}
function rangeChart(test, i) {
  const points = test.points.filter((p) => p[0] > 0), W = Math.max(320, Math.min(1080, $("chart").clientWidth || 1080)), H = 300, left = 46, bottom = 44, top = 14;
  if (points.length < 2) return el("p", { class: "quiet" }, "Too few points to draw.");
  const ys = points.map((p) => p[1]), low = Math.min(...ys);
  // Where training fails the loss has no end: what lies far above the start is cut.
  const high = Math.min(Math.max(...ys), ys[0] + 0.5 * (ys[0] - low || 1)), pad = (high - low) * 0.06 || 0.1;
  const from = Math.log10(points[0][0]), to = Math.log10(points[points.length - 1][0]);
  const X = (v) => left + (W - left - 12) * (Math.log10(v) - from) / ((to - from) || 1);
  const Y = (v) => top + (H - top - bottom) * (1 - (v - low + pad) / (high - low + 2 * pad));
  const svg = el("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `training loss against the rate of ${test.label}: ${test.says.join("; ")}` });
  for (const v of ticks(low, high, 4)) svg.append(el("line", { class: "grid", x1: left, x2: W - 12, y1: Y(v), y2: Y(v) }), el("text", { x: left - 8, y: Y(v) + 4, "text-anchor": "end" }, +v.toPrecision(4)));
  for (let k = Math.ceil(from); k <= Math.floor(to + 1e-9); k++) svg.append(el("text", { x: X(10 ** k), y: H - bottom + 20, "text-anchor": "middle" }, `1e${k}`));
  const id = `range${i}`;
  svg.append(el("clipPath", { id }, el("rect", { x: left, y: top, width: W - left - 12, height: H - top - bottom })),
    el("line", { class: "axis", x1: left, x2: W - 12, y1: H - bottom, y2: H - bottom }),
    el("text", { x: left + (W - left - 12) / 2, y: H - 4, "text-anchor": "middle" }, "learning rate"),
    el("text", { x: left + 6, y: top + 4 }, "training loss, nats a token"),
    el("path", { d: points.map((p, j) => `${j ? "L" : "M"}${X(p[0]).toFixed(1)} ${Y(p[1]).toFixed(1)}`).join(""), "clip-path": `url(#${id})`, style: `stroke:${shade(i)};fill:none;stroke-width:2.2;stroke-linejoin:round` }));
  if (known(test.mark)) svg.append(el("line", { x1: X(test.mark), x2: X(test.mark), y1: top, y2: H - bottom, style: "stroke:var(--accent);stroke-width:1.5", "stroke-dasharray": "4 4" }),
    el("text", { x: X(test.mark) + 6, y: H - bottom - 8, style: "fill:var(--accent)" }, test.mark.toExponential(1)));
  return el("div", { class: "plot" }, svg);
}

// ------------------------------------------------------------------------------------- settings
const setting = (run, key) => (key in run.settings ? run.settings[key] : D.shared[key]);
function settings() {
  const varied = C().varied, runs = C().arms.flatMap((a, i) => a.runs.map((r) => [D.runs[r], i])).filter(([r]) => r.status === "done" && known(r.score));
  present("settings", varied.length);
  if (!varied.length) return;
  $("settingslead").textContent = `What ${runs.length} complete runs tell about each setting that was varied. The bar is the share of the spread of ` +
    "val/bpb that lies between its values, chance taken off; settings may share what they explain.";
  fill("importance", ...varied.map((v) => el("div", { class: "share" }, el("span", { class: "mono" }, v.key),
    el("span", { class: "track" }, el("i", { style: `width:${100 * v.share}%` })), el("span", { class: "quiet" }, `${Math.round(100 * v.share)} %`))));
  fill("scatter", ...varied.slice(0, 6).map((v) => scatter(v.key, runs)));
  fill("parallel", varied.length > 1 ? parallel(varied.slice(0, 6).map((v) => v.key), runs) : "");
}
function scale(key, runs) {  // value -> 0..1, with its marks
  const values = runs.map(([r]) => setting(r, key)), numeric = values.every(known);
  const distinct = [...new Set(values.map((v) => JSON.stringify(v)))].map((v) => JSON.parse(v));
  if (!numeric || distinct.length < 3 && !values.every(known)) {
    distinct.sort();
    return { at: (v) => (distinct.findIndex((d) => JSON.stringify(d) === JSON.stringify(v)) + 0.5) / distinct.length,
      marks: distinct.map((d, i) => [(i + 0.5) / distinct.length, say(d)]), jitter: 0.5 / distinct.length };
  }
  const low = Math.min(...values), high = Math.max(...values), log = low > 0 && high / low > 20;
  const f = log ? Math.log10 : (v) => v, span = (f(high) - f(low)) || 1;
  let marks = log ? Array.from({ length: 40 }, (_, k) => 10 ** (k - 20)).filter((v) => v >= low * 0.99 && v <= high * 1.01) : ticks(low, high, 4);
  if (distinct.length <= 5 || marks.length < 2) marks = distinct.length <= 5 ? distinct : [low, high];
  return { at: (v) => 0.05 + 0.9 * (f(v) - f(low)) / span, marks: marks.map((v) => [0.05 + 0.9 * (f(v) - f(low)) / span, short(v)]), jitter: 0 };
}
function scatter(key, runs) {
  const W = 320, H = 220, left = 44, bottom = 30, top = 8, s = scale(key, runs);
  const scores = runs.map(([r]) => r.score), low = Math.min(...scores), high = Math.max(...scores), pad = (high - low) * 0.08 || 0.01;
  const X = (u) => left + (W - left - 8) * u, Y = (v) => top + (H - top - bottom) * (1 - (v - low + pad) / (high - low + 2 * pad));
  const svg = el("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `val/bpb against ${key}` });
  for (const v of ticks(low, high, 4)) svg.append(el("line", { class: "grid", x1: left, x2: W - 8, y1: Y(v), y2: Y(v) }), el("text", { x: left - 6, y: Y(v) + 4, "text-anchor": "end" }, +v.toPrecision(4)));
  let free = 0;  // a mark that would lie on the one before is skipped
  for (const [u, text] of [...s.marks].sort((a, b) => a[0] - b[0])) {
    const name = String(text).slice(0, 14), half = 4 * name.length;
    if (X(u) - half < free) continue;
    free = X(u) + half;
    svg.append(el("text", { x: X(u), y: H - 10, "text-anchor": "middle" }, name));
  }
  const best = runs.reduce((a, b) => (a[0].score <= b[0].score ? a : b))[0];
  runs.forEach(([r], i) => svg.append(el("circle", { cx: X(s.at(setting(r, key)) + s.jitter * 0.7 * (((i * 0.618) % 1) - 0.5)), cy: Y(r.score), r: r === best ? 6 : 4,
    style: `fill:var(--accent);fill-opacity:${r === best ? 1 : 0.45}` }, el("title", {}, `${r.name}: ${key}=${say(setting(r, key))}, ${r.score.toFixed(4)}`))));
  return el("div", { class: "plot" }, el("h3", { class: "mono" }, key), svg);
}
function parallel(keys, runs) {
  const W = 1080, H = 300, top = 40, bottom = 34, n = keys.length + 1, scales = keys.map((k) => scale(k, runs));
  const scores = runs.map(([r]) => r.score), low = Math.min(...scores), high = Math.max(...scores);
  const X = (j) => 60 + (W - 130) * j / (n - 1), Y = (u) => top + (H - top - bottom) * (1 - u), good = (v) => (high > low ? (high - v) / (high - low) : 1);
  const svg = el("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "Each line is a run through its settings to its val/bpb" });
  for (const [r] of [...runs].sort((a, b) => b[0].score - a[0].score)) {
    const places = [...keys.map((k, j) => Y(scales[j].at(setting(r, k)))), Y(0.05 + 0.9 * (high > low ? (r.score - low) / (high - low) : 0.5))];
    svg.append(el("path", { d: places.map((y, j) => `${j ? "L" : "M"}${X(j)} ${y}`).join(""), style: `stroke:var(--accent);fill:none;stroke-width:${1 + 1.4 * good(r.score) ** 3};stroke-opacity:${0.08 + 0.85 * good(r.score) ** 4}` },
      el("title", {}, `${r.name}: ${r.score.toFixed(4)}`)));
  }
  [...keys, "val/bpb"].forEach((key, j) => {
    svg.append(el("line", { class: "axis", x1: X(j), x2: X(j), y1: top, y2: H - bottom }),
      el("text", { x: X(j), y: 18, "text-anchor": "middle", style: "fill:var(--ink);font-weight:600" }, key.split(".").slice(-2).join(".").slice(0, 22)));
    const marks = j < keys.length ? scales[j].marks : [[0.05, low.toFixed(3)], [0.95, high.toFixed(3)]];
    for (const [u, text] of marks) svg.append(el("text", { x: X(j) + 7, y: Y(u) + 4 }, String(text).slice(0, 12)));
  });
  return el("div", {}, el("h3", {}, "Every run as a line through its settings; the better, the stronger"), el("div", { class: "scroll" }, el("div", { class: "plot", style: "min-width:680px" }, svg)));
}

// ------------------------------------------------------------------------- samples, differences
function pick(key, label, options) {
  return el("label", { class: "pick" }, label, el("select", { "aria-label": label, onchange: (event) => go({ [key]: +event.target.value }) },
    ...options.map(([value, text]) => el("option", { value, selected: at[key] === value }, text))));
}
function options() {
  return C().arms.flatMap((arm) => arm.runs.map((r) => [r, `${arm.label}, seed ${D.runs[r].seed}` + (D.runs[r].status === "done" ? "" : ` (${D.runs[r].status})`)]));
}
function pair() {
  const mine = options().map((o) => o[0]);
  const firsts = C().arms.map((a) => a.runs[0]);
  if (!mine.includes(at.a)) at.a = firsts[0];
  if (!mine.includes(at.b)) at.b = firsts.length > 1 ? firsts[1] : mine[mine.length - 1];
}
function samples() {
  const all = options();
  fill("pickers", pick("a", "left", all), pick("b", "right", all));
  const chosen = [...new Set([at.a, at.b])], prompts = [...new Set(chosen.flatMap((r) => D.runs[r].samples.map((s) => s[1])))];
  at.prompt = Math.min(at.prompt, Math.max(0, prompts.length - 1));
  fill("prompts", prompts.length > 1 ? pick("prompt", "prompt", prompts.map((p, i) => [i, JSON.stringify(p).slice(0, 60)])) : "");
  $("texts").style.setProperty("--n", chosen.length);
  fill("texts", ...chosen.map((r) => {
    const rows = D.runs[r].samples.filter((s) => s[1] === prompts[at.prompt]), i = C().arms.findIndex((a) => a.runs.includes(r));
    return el("div", {}, el("h3", { style: `--shade:${shade(i)}` }, all.find((o) => o[0] === r)[1]),
      ...(rows.length ? rows.map(([step, prompt, text]) => el("div", { class: "sample" }, el("span", { class: "quiet" }, `step ${whole(step)}`),
        el("p", { tabindex: text.length > 500 ? 0 : null }, el("b", {}, prompt), text))) : [el("p", { class: "quiet" }, "This run wrote no samples.")]));
  }));
}
function differences() {
  present("differences", options().length > 1);
  const all = options();
  fill("pickers2", pick("a", "left", all), pick("b", "right", all));
  const [a, b] = [D.runs[at.a], D.runs[at.b]], name = (r) => all.find((o) => o[0] === r)[1];
  const keys = [...new Set([...Object.keys(a.settings), ...Object.keys(b.settings)])].filter((k) => say(setting(a, k)) !== say(setting(b, k))).sort();
  $("difflead").textContent = at.a === at.b ? "Choose two runs." : keys.length ?
    `${keys.length} setting${keys.length === 1 ? " differs" : "s differ"} between these two runs; the other ${Object.keys({ ...D.shared, ...a.settings }).length - keys.filter((k) => setting(a, k) !== undefined).length} are the same.` : "These two runs have the same settings.";
  const score = (r) => (known(r.score) ? r.score.toFixed(4) : "\u2013"), reached = (r) => (r.step === null ? "\u2013" : whole(r.step));
  const outcome = at.a === at.b ? [] : [["val/bpb, best", score(a), score(b)], ["steps done", reached(a), reached(b)]];
  fill("diff", outcome.length ? el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "setting"), el("th", { scope: "col" }, name(at.a)), el("th", { scope: "col" }, name(at.b)))) : "",
    el("tbody", {}, ...outcome.map((row) => el("tr", {}, ...row.map((text, i) => el("td", { class: i ? "mono" : "" }, text)))), ...keys.map((k) => el("tr", {}, el("td", { class: "mono" }, k), el("td", { class: "mono" }, say(setting(a, k))), el("td", { class: "mono" }, say(setting(b, k)))))));
}
function see(run) {  // what else there is of a run
  const places = [["lens", run.lens], ["W&B", run.wandb]].filter(([, address]) => address);
  const found = run.doctor.map((f) => el("li", {}, el("b", {}, f.name), `: ${f.detail}; `, el("span", { class: "quiet" }, f.advice)));
  return [...places.map(([name, address]) => el("a", { href: address, rel: "noreferrer" }, name)),
    found.length ? el("details", {}, el("summary", {}, `doctor: ${found.length} to look at`), el("ul", {}, ...found)) : null];
}
function runs() {
  const rows = C().arms.flatMap((arm) => arm.runs.map((r) => [arm, D.runs[r]])), shownRows = at.all ? rows : rows.slice(0, 60);
  fill("all", el("thead", {}, el("tr", {}, ...["run", "settings", "seed", "val/bpb", "step", "to see", "state"].map((t, i) => el("th", { scope: "col", class: [2, 3, 4].includes(i) ? "num" : "" }, t)))),
    el("tbody", {}, ...shownRows.map(([arm, r]) => el("tr", {}, el("td", { class: "mono" }, r.path), el("td", { class: "label" }, arm.label),
      el("td", { class: "num" }, r.seed), el("td", { class: "num" }, known(r.score) ? r.score.toFixed(4) : "\u2013"), el("td", { class: "num" }, r.step === null ? "" : whole(r.step)),
      el("td", { class: "see" }, ...see(r)),
      el("td", {}, el("span", { class: `chip ${r.status}` }, r.status), r.error ? el("div", { class: "quiet" }, r.error.slice(0, 200)) : "")))),
    rows.length > shownRows.length ? el("caption", { style: "caption-side:bottom" }, el("button", { class: "more", type: "button", onclick: () => go({ all: true }) }, `show all ${rows.length}`)) : "");
}

// --------------------------------------------------------------------------------------- header
function draw() {
  choice("corpus", D.corpora.length > 1 ? D.corpora.map((c, i) => [i, c.name]) : [], "corpus", { on: [], off: [], a: null, b: null, all: false });
  pair(); board(); curves(); ranges(); settings(); samples(); differences(); runs();
}
const total = D.runs.length, parts = Object.entries(D.counts).map(([status, n]) => `${n} ${status}`);
$("title").textContent = `${whole(total)} run${total === 1 ? "" : "s"}, ${D.corpora.length} text${D.corpora.length === 1 ? "" : "s"}`;
document.title = `lm report: ${$("title").textContent}`;
$("about").textContent = `${parts.join(", ")}; in ${D.about.roots}. ` + (D.corpora.length > 1 ? "Runs on different texts are not ranked against each other." : "");
$("foot").textContent = `Written by python -m lm.report at ${D.about.when}${D.about.watch ? "; written anew while runs go on" : ""}.`;
draw();
let last = innerWidth;
addEventListener("resize", () => { if (innerWidth !== last) { last = innerWidth; curves(); ranges(); } });
