"use strict";
// Draws the charts and tables of the report from the one JSON object in the page. No network, no storage.
const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const MOST_LINES = 6;
const SYMBOLS = { matters: "circle", equivalent: "circle", undecided: "x", mixed: "diamond" };
const HOLLOW = new Set(["equivalent", "mixed"]);
const MARKS = { matters: "●", equivalent: "○", undecided: "✕", mixed: "◇" };
const HEADS = {
  cells: "cells", pairs: "pairs", effect: "effect", low: DATA.aggregated ? "lowest" : "low",
  high: DATA.aggregated ? "highest" : "high", verdict: "verdict", direction: "direction",
  verdict_familywise: "familywise verdict", sensitive: "sensitive to bootstrap", pairs_needed: "more pairs needed",
  reason: "reason", accuracy_bias: "accuracy with bias", accuracy_no_bias: "accuracy without", rho: "ρ",
  gain: "gain 1/(1-ρ)", bootstrap_low: "bootstrap low", bootstrap_high: "bootstrap high",
  only_bias: "pictures only with bias gets right", only_no_bias: "pictures only without gets right",
  seed_spread: "spread, run to run", picture_spread: "spread, finite test set", diverged_bias: "diverged with bias",
  diverged_no_bias: "diverged without", rate_bias: "rate with bias", rate_no_bias: "rate without",
  cells_matters: "matters", cells_equivalent: "equivalent", cells_undecided: "undecided",
};
const AXES = { width: "width (channels of each convolution)", depth: "depth (convolutions)" };

// Plotly reads a little HTML in labels: a level's name is text.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const words = (name) => name.replaceAll("_", " ");
const points = (value, digits = 2) => (value === null ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits));
const share = (value) => (value === null ? "–" : `${value.toFixed(2)} %`);

function records(table) {
  return table.rows.map((row, index) => {
    const record = { index };
    table.factors.forEach((name, n) => { record[name] = table.levels[n][row[n]]; });
    table.columns.forEach((name, n) => { record[name] = row[table.factors.length + n]; });
    return record;
  });
}

function setting(name, level) {
  if (name === "batch_norm") return level ? "with batch norm" : "without batch norm";
  return `${words(name)} ${level === null ? "all" : level}`;
}

const describe = (record, names) =>
  [...names].sort((a, b) => (b === "batch_norm") - (a === "batch_norm")).map((name) => setting(name, record[name])).join(", ");

const CELLS = records(DATA.cells);
const FACTORS = DATA.cells.factors;
const levelsOf = (name) => DATA.cells.levels[FACTORS.indexOf(name)];
const state = { x: ["width", "depth", ...FACTORS].find((name) => FACTORS.includes(name)) ?? null, chosen: {}, cell: 0, ladder: 0 };

// ---- choosing what is drawn -----------------------------------------------------------------------------------------

function chooser(parent, title, options, selected, changed) {
  const label = document.createElement("label");
  label.append(title);
  const select = document.createElement("select");
  options.forEach(([value, text]) => select.append(new Option(text, value, false, value === selected)));
  select.addEventListener("change", () => changed(select.value));
  label.append(select);
  parent.append(label);
}

// Every factor that is not on the axis is held at one level, or makes a line a level where these are few.
function others() { return FACTORS.filter((name) => name !== state.x); }

function settle() {
  state.chosen = {};
  const ordered = others().sort((a, b) => (b === "batch_norm") - (a === "batch_norm"));
  let lines = 1;
  for (const name of ordered) {
    const count = levelsOf(name).length;
    if (lines * count <= MOST_LINES) { lines *= count; state.chosen[name] = "all"; } else { state.chosen[name] = "0"; }
  }
}

function controls() {
  const box = $("controls");
  box.replaceChildren();
  if (FACTORS.length > 1) {
    chooser(box, "against", FACTORS.map((name) => [name, words(name)]), state.x, (value) => {
      state.x = value; settle(); controls(); drawEffects();
    });
  }
  for (const name of others()) {
    const levels = levelsOf(name).map((level, n) => [String(n), name === "batch_norm" ? (level ? "with" : "without") : String(level ?? "all")]);
    chooser(box, words(name), [["all", "every level"], ...levels], state.chosen[name], (value) => {
      state.chosen[name] = value; drawEffects();
    });
  }
}

function lines() {
  const fixed = others().filter((name) => state.chosen[name] !== "all");
  const free = others().filter((name) => state.chosen[name] === "all");
  const groups = new Map();
  for (const cell of CELLS) {
    if (fixed.some((name) => cell[name] !== levelsOf(name)[Number(state.chosen[name])])) continue;
    const label = describe(cell, free) || "all pairs";
    if (!groups.has(label)) groups.set(label, []);
    groups.get(label).push(cell);
  }
  const found = [...groups].map(([label, cells]) => ({ label, cells: order(cells) }));
  found.sort((a, b) => a.label.startsWith("with ") - b.label.startsWith("with "));
  return { shown: found.slice(0, MOST_LINES), left: Math.max(0, found.length - MOST_LINES) };
}

function order(cells) {
  const x = state.x;
  if (x === null || typeof cells[0][x] !== "number") return cells;
  return [...cells].sort((a, b) => a[x] - b[x]);
}

const ordered = () => state.x === "width" || state.x === "depth";
const at = (cell) => (state.x === null ? "all pairs" : ordered() ? cell[state.x] : state.x === "batch_norm" ? setting("batch_norm", cell.batch_norm) : plain(cell[state.x] ?? "all"));

// ---- charts ---------------------------------------------------------------------------------------------------------

function layout(more = {}) {
  const axis = { gridcolor: colour("rule"), zerolinecolor: colour("quiet"), linecolor: colour("rule"), automargin: true, title: { standoff: 8 } };
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", height: 400,
    font: { color: colour("ink"), size: 13, family: "system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif" },
    margin: { l: 52, r: 12, t: 14, b: 40 }, hovermode: "closest", dragmode: false,
    hoverlabel: { bgcolor: colour("raised"), bordercolor: colour("rule"), font: { color: colour("ink") }, align: "left" },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, xanchor: "left" }, showlegend: true,
  };
  const { xaxis = {}, yaxis = {}, ...rest } = more;
  return { ...base, ...rest, xaxis: { ...axis, ...xaxis, title: { ...axis.title, ...xaxis.title } }, yaxis: { ...axis, ...yaxis, title: { ...axis.title, ...yaxis.title } } };
}

function plot(id, traces, more) {
  const target = typeof id === "string" ? $(id) : id;
  return Plotly.react(target, traces, layout(more), { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false });
}

function xaxis() {
  if (state.x === null) return { type: "category" };
  if (!ordered()) return { type: "category", title: { text: words(state.x) } };
  const levels = [...levelsOf(state.x)].sort((a, b) => a - b);
  const wide = state.x === "width";
  const kept = thinned(levels, wide);
  return { type: wide ? "log" : "linear", tickvals: kept, ticktext: kept.map(String), title: { text: AXES[state.x] } };
}

function thinned(levels, wide) {
  const place = (level) => (wide ? Math.log2(level) : level);
  const least = (place(levels[levels.length - 1]) - place(levels[0])) / 16;
  const kept = [];
  for (const level of levels) if (!kept.length || place(level) - place(kept[kept.length - 1]) >= least) kept.push(level);
  return kept;
}

function said(cell) {
  const range = DATA.aggregated ? `its cells from ${points(cell.low)} to ${points(cell.high)}` : `${DATA.confidence} % interval ${points(cell.low)} to ${points(cell.high)}`;
  const n = DATA.aggregated ? `${cell.cells} cells, n = ${cell.pairs} pairs in all` : `n = ${cell.pairs} pairs`;
  return `<b>${plain(describe(cell, FACTORS) || "all pairs")}</b><br>effect ${points(cell.effect)} points<br>${range}<br>${n}` +
    `<br>accuracy ${share(cell.accuracy_bias)} with bias, ${share(cell.accuracy_no_bias)} without<br>${cell.verdict}${cell.direction ? ` (${cell.direction})` : ""}`;
}

// A small step aside, so that equal effects do not hide one another.
function aside(n, count) {
  const step = n - (count - 1) / 2;
  if (state.x === "width") return (level) => level * 2 ** (0.07 * step);
  const reach = state.x === "depth" ? Math.max(...levelsOf("depth")) - Math.min(...levelsOf("depth")) : 0;
  return (level) => (state.x === "depth" ? level + 0.01 * step * reach : level);
}

// The line stands in the legend without a mark: marks are verdicts.
function effectTraces(label, cells, n, moved) {
  const tone = colour(`line-${n}`), x = cells.map((cell) => moved(at(cell))), y = cells.map((cell) => cell.effect);
  const line = ordered()
    ? { name: label, x, y, mode: "lines", line: { color: tone, dash: DASHES[n], width: 2 }, hoverinfo: "skip", legendgroup: label }
    : { name: label, x: x.slice(0, 1), y: [null], mode: "markers", marker: { color: tone, size: 10, symbol: "square" }, hoverinfo: "skip", legendgroup: label };
  const marks = {
    name: label, x, y, mode: "markers", showlegend: false, legendgroup: label,
    marker: { color: cells.map((cell) => (HOLLOW.has(cell.verdict) ? colour("ground") : tone)), size: 10, symbol: cells.map((cell) => SYMBOLS[cell.verdict]), line: { width: cells.map((cell) => (cell.verdict === "undecided" ? 0 : 2)), color: tone } },
    error_y: { type: "data", symmetric: false, array: cells.map((cell) => (cell.high === null ? 0 : cell.high - cell.effect)), arrayminus: cells.map((cell) => (cell.low === null ? 0 : cell.effect - cell.low)), color: tone, thickness: 1.3, width: 4 },
    text: cells.map(said), hovertemplate: "%{text}<extra></extra>",
  };
  return [line, marks];
}

function drawEffects() {
  const { shown, left } = lines();
  const known = shown.map(({ label, cells }) => ({ label: plain(label), cells: cells.filter((cell) => cell.effect !== null) }));
  const named = FACTORS.length > 1;
  const zone = { type: "rect", xref: "paper", x0: 0, x1: 1, y0: -DATA.margin, y1: DATA.margin, fillcolor: colour("zone"), line: { width: 0 }, layer: "below" };
  const effect = known.flatMap(({ label, cells }, n) => effectTraces(label, cells, n, aside(n, known.length)));
  const ends = known.flatMap(({ cells }) => cells.flatMap((cell) => [cell.low ?? cell.effect, cell.high ?? cell.effect]));
  const [least, most] = [Math.min(...ends, -1.2 * DATA.margin), Math.max(...ends, 1.2 * DATA.margin)];
  const free = 0.05 * (most - least) || 0.1;
  plot("effect", effect, { xaxis: xaxis(), yaxis: { title: { text: "effect (points)" }, zeroline: true, range: [least - free, most + free] }, shapes: [zone], showlegend: named });
  const arms = known.flatMap(({ label, cells }, n) => ["bias", "no_bias"].map((arm) => ({
    name: `${named ? `${label}, ` : ""}${arm === "bias" ? "bias" : "no bias"}`, x: cells.map(at), y: cells.map((cell) => cell[`accuracy_${arm}`]),
    mode: ordered() ? "lines+markers" : "markers",
    line: { color: colour(`line-${n}`), dash: arm === "bias" ? "solid" : "dash", width: 2 },
    marker: { color: colour(`line-${n}`), size: 8, symbol: arm === "bias" ? "circle" : "square-open" },
    text: cells.map(said), hovertemplate: "%{text}<extra></extra>",
  })));
  plot("accuracies", arms, { xaxis: xaxis(), yaxis: { title: { text: "test accuracy (%)" } } });
  if (DATA.pairs) drawPairs(known, zone);
  if (FACTORS.includes("width") && FACTORS.includes("depth")) drawHeat();
  $("effect-caption").dataset.left = left;
  $("lines-left")?.remove();
  if (left) {
    const note = document.createElement("p");
    note.id = "lines-left"; note.className = "caption";
    note.textContent = `Drawn are the first ${MOST_LINES} of ${MOST_LINES + left} lines: hold a setting at one level to see others.`;
    $("effect-caption").after(note);
  }
}

function drawPairs(known, zone) {
  const places = new Map();
  known.flatMap(({ cells }) => cells).sort((a, b) => (ordered() ? at(a) - at(b) : 0)).forEach((cell) => { if (!places.has(at(cell))) places.set(at(cell), places.size); });
  const wide = 0.7 / known.length;
  const traces = known.map(({ label, cells }, n) => {
    const trace = { name: label, mode: "markers", x: [], y: [], text: [], marker: { color: colour(`line-${n}`), size: 6, opacity: 0.75, symbol: [] }, hovertemplate: "%{text}<extra></extra>" };
    for (const cell of cells) {
      const [seeds, withBias, without, bad] = DATA.pairs[cell.index];
      seeds.forEach((seed, i) => {
        const effect = withBias[i] - without[i];
        trace.x.push(places.get(at(cell)) + wide * (n - (known.length - 1) / 2 + 0.7 * (((i * 0.6180339887) % 1) - 0.5)));
        trace.y.push(effect);
        trace.marker.symbol.push(bad[i] ? "x" : n % 2 ? "circle-open" : "circle");
        trace.text.push(`<b>${plain(describe(cell, FACTORS) || "all pairs")}, seed ${seed}</b><br>effect ${points(effect)} points<br>accuracy ${share(withBias[i])} with bias, ${share(without[i])} without${bad[i] ? "<br>a run diverged" : ""}`);
      });
    }
    return trace;
  });
  const names = [...places.keys()];
  const step = Math.ceil(names.length / 16);
  const kept = names.map((_, n) => n).filter((n) => n % step === 0);
  const title = state.x === null ? "" : AXES[state.x] ?? words(state.x);
  plot("pairs", traces, { xaxis: { tickvals: kept, ticktext: kept.map((n) => String(names[n])), title: { text: title }, showgrid: false, zeroline: false, range: [-0.6, names.length - 0.4] }, yaxis: { title: { text: "effect (points)" } }, shapes: [zone], showlegend: FACTORS.length > 1 });
}

function drawHeat() {
  const rest = FACTORS.filter((name) => !["width", "depth", "batch_norm"].includes(name));
  const at = (name) => levelsOf(name)[state.chosen[name] === undefined || state.chosen[name] === "all" ? 0 : Number(state.chosen[name])];
  const cells = CELLS.filter((cell) => rest.every((name) => cell[name] === at(name)));
  const norms = FACTORS.includes("batch_norm") ? [...levelsOf("batch_norm")] : [null];
  const [widths, depths] = ["width", "depth"].map((name) => [...levelsOf(name)].sort((a, b) => a - b));
  const reach = Math.max(DATA.margin, ...cells.map((cell) => Math.abs(cell.effect ?? 0))) || 1;
  const box = $("heat");
  while (box.children.length < norms.length) box.append(document.createElement("div"));
  norms.forEach((norm, n) => {
    const z = depths.map(() => widths.map(() => null)), text = depths.map(() => widths.map(() => "")), hover = depths.map(() => widths.map(() => ""));
    for (const cell of cells) {
      if (norm !== null && cell.batch_norm !== norm) continue;
      const [row, column] = [depths.indexOf(cell.depth), widths.indexOf(cell.width)];
      z[row][column] = cell.effect;
      text[row][column] = { helps: "▲", hurts: "▼" }[cell.direction] ?? MARKS[cell.verdict];
      hover[row][column] = said(cell);
    }
    const few = widths.length * depths.length <= 400;
    const trace = { type: "heatmap", x: widths.map(String), y: depths.map(String), z, text, customdata: hover, texttemplate: few ? "%{text}" : "", hovertemplate: "%{customdata}<extra></extra>", hoverongaps: false, zmin: -reach, zmax: reach, xgap: 1, ygap: 1, colorscale: [[0, colour("heat-low")], [0.5, colour("heat-zero")], [1, colour("heat-high")]], colorbar: { thickness: 12, outlinewidth: 0, title: { text: "points" } } };
    const where = [norm === null ? "" : setting("batch_norm", norm), ...rest.map((name) => setting(name, at(name)))].filter(Boolean).join(", ");
    plot(box.children[n], [trace], { height: 340, margin: { l: 48, r: 8, t: 34, b: 40 }, title: { text: plain(where), font: { size: 14 } }, xaxis: { type: "category", title: { text: "width" }, showgrid: false }, yaxis: { type: "category", title: { text: "depth" }, showgrid: false }, showlegend: false });
  });
}

function drawMargins() {
  const one = DATA.margins[state.ladder];
  const place = (level, missing) => (level === null ? missing : one.levels.indexOf(level));
  const x = one.ladder.map((step) => step[0]);
  const none = "none shown";
  const hover = one.ladder.map(([margin, upTo, from]) => `margin ${margin} points<br>matters up to ${upTo ?? none}<br>equivalent from ${from ?? none}`);
  const trace = (name, y, more) => ({ name, x, y, mode: "lines+markers", text: hover, hovertemplate: "%{text}<extra></extra>", ...more });
  const top = one.levels.length;
  const step = Math.ceil(top / 16);
  const kept = one.levels.map((_, n) => n).filter((n) => n % step === 0);
  plot("margins", [
    trace("matters up to", one.ladder.map((s) => place(s[1], -1)), { line: { shape: "hvh", color: colour("line-0") }, marker: { symbol: "circle", size: 7 } }),
    trace("equivalent from", one.ladder.map((s) => place(s[2], top)), { line: { shape: "hvh", color: colour("line-1"), dash: "dash" }, marker: { symbol: "circle-open", size: 8 } }),
  ], {
    xaxis: { type: x[0] > 0 ? "log" : "linear", tickvals: [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50].filter((tick) => tick >= Math.min(...x) && tick <= Math.max(...x)), title: { text: "margin (points)" } },
    yaxis: { tickvals: [-1, ...kept, top], ticktext: ["none", ...kept.map((n) => String(one.levels[n])), "none"], title: { text: one.axis }, range: [-1.5, top + 0.5], zeroline: false },
    shapes: [{ type: "line", yref: "paper", y0: 0, y1: 1, x0: DATA.margin, x1: DATA.margin, line: { color: colour("quiet"), dash: "dot" } }],
  });
}

function drawCurves() {
  const traces = DATA.curves[state.cell].arms.flatMap(([steps, n, mean, low, high], arm) => {
    const name = arm === 0 ? "with bias" : "without bias", tone = colour(`line-${arm}`);
    const whole = steps.map((_, i) => i).filter((i) => low[i] !== null);
    const band = { x: [...whole.map((i) => steps[i]), ...whole.map((i) => steps[i]).reverse()], y: [...whole.map((i) => high[i]), ...whole.map((i) => low[i]).reverse()], fill: "toself", fillcolor: tone, opacity: 0.22, line: { width: 0 }, mode: "lines", hoverinfo: "skip", showlegend: false };
    return [band, { name, x: steps, y: mean, mode: "lines+markers", line: { color: tone, dash: arm ? "dash" : "solid", width: 2 }, marker: { size: 6, symbol: arm ? "square-open" : "circle" }, text: steps.map((step, i) => `<b>${name}, step ${step}</b><br>validation accuracy ${share(mean[i])}<br>${DATA.confidence} % interval ${share(low[i])} to ${share(high[i])}<br>n = ${n[i]} runs`), hovertemplate: "%{text}<extra></extra>" }];
  });
  plot("curves", traces, { xaxis: { title: { text: "step" } }, yaxis: { title: { text: "validation accuracy (%)" } } });
}

function drawVariance() {
  const rows = [...DATA.variance].reverse();
  plot("variance", [{ type: "bar", orientation: "h", x: rows.map((row) => row[1]), y: rows.map((row) => plain(row[0])), text: rows.map((row) => `${Math.round(row[1])} %`), textposition: "outside", cliponaxis: false, marker: { color: colour("line-0") }, hovertemplate: "%{y}: %{x:.1f} %<extra></extra>" }],
    { height: 90 + 42 * rows.length, xaxis: { title: { text: "share of variance (%)" }, range: [Math.min(0, ...rows.map((row) => row[1])), Math.max(100, ...rows.map((row) => row[1])) * 1.18] }, yaxis: { type: "category" }, showlegend: false });
}

// ---- tables ---------------------------------------------------------------------------------------------------------

const PLACES = { effect: 2, low: 2, high: 2, bootstrap_low: 2, bootstrap_high: 2 };

function shownValue(name, value) {
  if (value === null || value === undefined) return "";
  if (name in PLACES) return points(value);
  if (name === "verdict" || name === "verdict_familywise") return `${MARKS[value] ?? ""} ${value}`;
  if (name.startsWith("accuracy")) return value.toFixed(2);
  if (name === "batch_norm") return value ? "with" : "without";
  if (typeof value === "boolean") return value ? "yes" : "no";
  return String(value);
}

function tableOf(box, table, tools) {
  const rows = records(table);
  const names = [...table.factors, ...table.columns];
  const view = { sort: null, down: false, verdict: "all", most: 100 };
  const element = document.createElement("table"), head = element.createTHead().insertRow(), body = element.createTBody();
  for (const name of names) {
    const cell = document.createElement("th");
    cell.scope = "col"; cell.ariaSort = "none";
    const button = document.createElement("button");
    button.type = "button"; button.textContent = HEADS[name] && !table.factors.includes(name) ? HEADS[name] : words(name);
    button.addEventListener("click", () => { view.down = view.sort === name && !view.down; view.sort = name; fill(); });
    cell.append(button);
    head.append(cell);
  }
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  const more = document.createElement("button");
  more.type = "button";
  more.addEventListener("click", () => { view.most = Infinity; fill(); });
  function fill() {
    let chosen = rows.filter((row) => view.verdict === "all" || row.verdict === view.verdict);
    const empty = (value) => value === null || value === undefined;
    if (view.sort) {
      // What is missing stands last, whichever way is up.
      chosen = chosen.sort((a, b) => empty(a[view.sort]) - empty(b[view.sort]) || (empty(a[view.sort]) ? 0 : (view.down ? -1 : 1) * compare(a[view.sort], b[view.sort])));
    }
    [...head.cells].forEach((cell, n) => { cell.ariaSort = names[n] === view.sort ? (view.down ? "descending" : "ascending") : "none"; });
    body.replaceChildren(...chosen.slice(0, view.most).map((row) => {
      const line = document.createElement("tr");
      for (const name of names) {
        const cell = line.insertCell();
        cell.textContent = shownValue(name, row[name]);
        cell.className = typeof row[name] === "number" ? "number" : name === "reason" ? "text" : "";
      }
      return line;
    }));
    more.hidden = chosen.length <= view.most;
    more.textContent = `show all ${chosen.length} rows`;
  }
  if (tools) {
    const verdicts = [...new Set(rows.map((row) => row.verdict))];
    if (verdicts.length > 1) chooser(tools, "verdict", [["all", "all"], ...verdicts.map((one) => [one, one])], "all", (value) => { view.verdict = value; fill(); });
    tools.append(more);
  }
  fill();
  box.append(element);
}

function hypotheses() {
  const element = document.createElement("table"), head = element.createTHead().insertRow(), body = element.createTBody();
  for (const name of ["hypothesis", "verdict", "contrast", "estimate", "interval", "unit", "seeds"]) {
    const cell = document.createElement("th");
    cell.scope = "col"; cell.textContent = name;
    head.append(cell);
  }
  for (const [claim, contrast, unit, estimate, low, high, seeds, verdict, reason] of DATA.hypotheses) {
    const line = body.insertRow();
    const interval = low === null ? "" : `${points(low)} to ${points(high)}`;
    [claim, verdict + (reason ? `: ${reason}` : ""), contrast, estimate === null ? "" : points(estimate), interval, unit, seeds].forEach((text, n) => {
      const cell = line.insertCell();
      cell.textContent = String(text ?? "");
      cell.className = [3, 4, 6].includes(n) ? "number" : "text";
    });
  }
  $("hypotheses").append(element);
}

// ---- the page -------------------------------------------------------------------------------------------------------

const THERE = {
  "section-pairs": Boolean(DATA.pairs), "section-heat": FACTORS.includes("width") && FACTORS.includes("depth"), "section-margins": DATA.margins.length > 0,
  "section-curves": DATA.curves.length > 0, "section-variance": DATA.variance.length > 0, "section-hypotheses": DATA.hypotheses.length > 0,
  "section-tuned": DATA.tuned.rows.length > 0,
};

function drawAll() {
  drawEffects();
  if (THERE["section-margins"]) drawMargins();
  if (THERE["section-curves"]) drawCurves();
  if (THERE["section-variance"]) drawVariance();
}

for (const [id, there] of Object.entries(THERE)) if (!there) $(id).remove();
const ends = DATA.aggregated ? "Bars: the range of each group's cells." : `Bars: ${DATA.confidence} % intervals (Student's t).`;
document.querySelectorAll(".ends").forEach((element, n) => { element.textContent = n ? (DATA.aggregated ? "Groups of cells, with the range of their effects." : `Low and high: the ${DATA.confidence} % interval.`) : ends; });
settle();
controls();
if (DATA.margins.length > 1) chooser($("margins-controls"), "threshold", DATA.margins.map((one, n) => [String(n), one.name]), "0", (value) => { state.ladder = Number(value); drawMargins(); });
if (DATA.curves.length > 1) chooser($("curves-controls"), "cell", DATA.curves.map((one, n) => [String(n), one.cell]), "0", (value) => { state.cell = Number(value); drawCurves(); });
tableOf($("cells"), DATA.cells, $("cells-controls"));
if (THERE["section-hypotheses"]) hypotheses();
if (THERE["section-tuned"]) tableOf($("tuned"), DATA.tuned, null);
drawAll();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
