// The view of a run: bar, graph, attempts by worker, and one task in full.

import { h, patch, bar, button, caption, colour, count, fit, foot, many, seconds, view, MARKS, STATES, WORDS } from "./parts.js";

// In the order of the kernel's AttemptState.
const ATTEMPT = ["running", "completed", "failed", "cancelled", "lost", "timed_out"];
const BAD = new Set([2, 4, 5]);

function spread(runs, size) {
  const found = new Uint8Array(size);
  let at = 0;
  for (let i = 0; i < runs.length; i += 2) {
    found.fill(runs[i], at, at + runs[i + 1]);
    at += runs[i + 1];
  }
  return found;
}

function members(spans) {
  const found = [];
  for (let i = 0; i < spans.length; i += 2) for (let k = 0; k < spans[i + 1]; k += 1) found.push(spans[i] + k);
  return found;
}

function joint(counts) {
  for (const state of [4, 2, 5, 1]) if (counts[state]) return state;
  if (counts[0]) return counts[3] ? 2 : 0;
  return [3, 6, 7].reduce((best, state) => (counts[state] > counts[best] ? state : best), 3);
}

// --- what is kept beside the snapshots ----------------------------------------------------------------------

function take(state, from, rows) {
  const ui = state.ui;
  if (from > ui.rows.length) {
    state.resync();
    return;
  }
  for (const row of rows.slice(ui.rows.length - from)) ui.rows.push(row);
}

function keep(state) {
  const ui = state.ui;
  if (state.fixed) state.fixed.ids = state.fixed.ids.flatMap((each) => (typeof each === "string" ? each : Array.from({ length: each[2] }, (_, i) => `${each[0]}[${each[1] + i}]`)));
  const graph = state.fixed && state.fixed.graph;
  ui.boxes = graph ? graph.boxes.map((box) => ({ ...box, members: members(box.tasks) })) : [];
  ui.home = [];
  ui.boxes.forEach((box, i) => box.members.forEach((task) => { ui.home[task] = i; }));
  if (graph && (!ui.graph || ui.graph.width !== graph.width)) ui.zoom = { k: 1, x: 0, y: 0 };
  ui.graph = graph;
}

// --- the graph ------------------------------------------------------------------------------------------------

function graphPart(state, states) {
  const { ui, data } = state;
  const graph = ui.graph;
  const chain = data.critical.length ? `heavier line: the critical path, ${many(data.critical.length, "task")}, ${seconds(data.critical_s)}` : "";
  if (!graph) return h("div", { key: "graph", class: "af-part af-pad" }, caption("graph", state.fixed && state.fixed.ids.length ? "laying it out…" : "no tasks yet"));
  const heavy = new Set();
  const onPath = new Set(data.critical.map((task) => ui.home[task]));
  for (let i = 1; i < data.critical.length; i += 1) heavy.add(`${ui.home[data.critical[i - 1]]}-${ui.home[data.critical[i]]}`);
  const room = { width: Math.max(320, ui.width || 900), height: 0 };
  const factor = Math.min(1, room.width / (graph.width + 16));
  room.height = Math.max(70, Math.min(420, (graph.height + 16) * Math.max(factor, 0.45)));
  const zoom = ui.zoom;
  const base = Math.min(room.width / (graph.width + 16), room.height / (graph.height + 16), 1);
  const scale = base * zoom.k;
  const dx = zoom.x + Math.max(8, (room.width - graph.width * base) / 2) * 1;
  const dy = zoom.y + 8;
  const again = (change) => () => { change(); state.paint(); };
  const by = (k) => () => {
    const cx = room.width / 2;
    const cy = room.height / 2;
    zoom.x = cx - Math.max(8, (room.width - graph.width * base) / 2) - ((cx - dx) * k);
    zoom.y = cy - 8 - (cy - dy) * k;
    zoom.k *= k;
  };
  return h("div", { key: "graph", class: "af-part af-pad" },
    h("div", { class: "af-row" }, caption("graph", chain), h("span", { class: "af-push" }),
      button("−", { key: "out", class: "af-mini", "aria-label": "zoom out", onClick: again(by(1 / 1.4)) }),
      button("+", { key: "in", class: "af-mini", "aria-label": "zoom in", onClick: again(by(1.4)) }),
      button("fit", { key: "fit", class: "af-mini", onClick: again(() => { ui.zoom = { k: 1, x: 0, y: 0 }; }) })),
    h("svg", {
      viewBox: `0 0 ${room.width} ${room.height}`, class: "af-graph", style: `height:${room.height}px`, role: "group", tabindex: 0,
      "aria-label": `graph of ${many(state.fixed.ids.length, "task")}; arrow keys move it, plus and minus zoom`, "data-testid": "af-graph",
      onWheel: (event) => {
        if (!event.ctrlKey && !event.metaKey) return;
        event.preventDefault();
        by(event.deltaY < 0 ? 1.15 : 1 / 1.15)();
        state.paint();
      },
      onKeydown: (event) => {
        const step = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[event.key];
        if (step) { zoom.x += step[0]; zoom.y += step[1]; }
        else if (event.key === "+" || event.key === "=") by(1.3)();
        else if (event.key === "-") by(1 / 1.3)();
        else return;
        event.preventDefault();
        event.stopPropagation();
        state.paint();
      },
      onPointerdown: (event) => {
        if (event.button || event.target.closest("[data-box]")) return;
        ui.pan = [event.clientX - zoom.x, event.clientY - zoom.y];
        event.currentTarget.setPointerCapture(event.pointerId);
      },
      onPointermove: (event) => {
        if (!ui.pan) return;
        zoom.x = event.clientX - ui.pan[0];
        zoom.y = event.clientY - ui.pan[1];
        state.paint();
      },
      onPointerup: () => { ui.pan = null; },
      onPointercancel: () => { ui.pan = null; },
    },
      h("g", { transform: `translate(${dx.toFixed(1)} ${dy.toFixed(1)}) scale(${scale.toFixed(4)})` },
        graph.edges.map(([a, b, d]) => {
          const marked = heavy.has(`${a}-${b}`);
          return h("path", { key: `e${a}-${b}`, d, class: marked ? "af-edge af-heavy" : "af-edge" });
        }),
        ui.boxes.map((box, i) => boxPart(state, box, i, states, onPath.has(i))))));
}

function boxPart(state, box, i, states, onPath) {
  const { ui } = state;
  const single = box.members.length === 1;
  const counts = new Array(8).fill(0);
  for (const task of box.members) counts[states[task]] += 1;
  const now = joint(counts);
  const said = counts.map((n, s) => (n ? `${count(n)} ${WORDS[s]}` : "")).filter(Boolean).join(", ");
  const label = single ? `${box.label}: ${WORDS[now]}` : `${box.label}: ${many(box.members.length, "task")}, ${said}`;
  const open = () => {
    if (single) pickTask(state, box.members[0]);
    else {
      ui.box = ui.box === i ? null : i;
      ui.task = null;
    }
    state.paint();
  };
  const picked = ui.box === i || (single && ui.task === box.members[0]);
  let x = box.x + 9;
  const width = box.w - 18;
  return h("g", {
    key: `b${i}`, class: `af-box af-is-${now}${picked ? " af-chosen" : ""}${onPath ? " af-onpath" : ""}`, tabindex: 0, role: "button", "aria-label": label, "data-box": i,
    onClick: open,
    onKeydown: (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        open();
      }
    },
  },
    h("title", null, label),
    single ? null : h("rect", { key: "back", x: box.x + 3, y: box.y - 3, width: box.w, height: box.h, rx: 6, class: "af-boxback" }),
    h("rect", { key: "r", x: box.x, y: box.y, width: box.w, height: box.h, rx: 6, class: "af-boxrect" }),
    h("text", { key: "m", x: box.x + 9, y: box.y + 18, class: "af-boxmark" }, MARKS[now]),
    h("text", { key: "l", x: box.x + (MARKS[now] ? 24 : 11), y: box.y + 18, class: "af-boxlabel" }, box.label),
    single ? null : h("text", { key: "n", x: box.x + box.w - 9, y: box.y + 18, class: "af-boxcount" }, `×${count(box.members.length)}`),
    single ? null : h("rect", { key: "mini", x: box.x + 9, y: box.y + 28, width, height: 7, rx: 2, class: "af-minibar" }),
    single ? null : [3, 2, 5, 4, 1, 6, 7].map((s) => {
      if (!counts[s]) return null;
      const wide = (width * counts[s]) / box.members.length;
      const part = h("rect", { key: `s${s}`, x, y: box.y + 28, width: wide, height: 7, class: `af-f-${s}` });
      x += wide;
      return part;
    }));
}

// --- the tasks of one box, and one task -----------------------------------------------------------------------

function pickTask(state, task) {
  state.ui.task = task;
  state.ui.answer = null;
  if (!state.data.frozen && !state.resting) state.do("explain", { task });
}

const CELL = 11;

function cells(state, states) {
  const { ui } = state;
  const box = ui.boxes[ui.box];
  const across = Math.max(10, Math.floor((ui.width || 900) / CELL));
  const down = Math.ceil(box.members.length / across);
  const at = (event) => {
    const canvas = event.currentTarget;
    const bounds = canvas.getBoundingClientRect();
    const col = Math.floor((event.clientX - bounds.left) / CELL);
    const row = Math.floor((event.clientY - bounds.top) / CELL);
    return col < across ? box.members[row * across + col] : undefined;
  };
  return h("div", { key: "cells", class: "af-part af-pad" },
    h("div", { class: "af-row" }, caption(fit(box.label, 40), `${many(box.members.length, "task")}; click one, or name it`),
      h("span", { class: "af-push" }), finder(state),
      button("✕", { key: "x", class: "af-mini", "aria-label": "close", onClick: () => { ui.box = null; ui.task = null; state.paint(); } })),
    h("div", { class: "af-scroll" },
      h("canvas", {
        key: "canvas", role: "img", "aria-label": `the tasks of ${box.label}, a cell each, coloured by state`, "data-testid": "af-cells",
        onClick: (event) => {
          const task = at(event);
          if (task !== undefined) pickTask(state, task);
          state.paint();
        },
        onMousemove: (event) => {
          const task = at(event);
          event.currentTarget.title = task === undefined ? "" : `${state.fixed.ids[task]}: ${WORDS[states[task]]}`;
        },
        ref: (canvas) => paintCells(state, canvas, box, across, down, states),
      })));
}

function paintCells(state, canvas, box, across, down, states) {
  const ratio = window.devicePixelRatio || 1;
  const width = across * CELL;
  const height = down * CELL;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const fills = STATES.map((name) => colour(state.root, `s-${name.toLowerCase()}`));
  const edge = colour(state.root, "down");
  const ink = colour(state.root, "t");
  const size = CELL - 2;
  box.members.forEach((task, i) => {
    const x = (i % across) * CELL;
    const y = Math.floor(i / across) * CELL;
    const s = states[task];
    pen.fillStyle = fills[s];
    pen.fillRect(x, y, size, size);
    if (s === 0) {
      pen.strokeStyle = edge;
      pen.strokeRect(x + 0.5, y + 0.5, size - 1, size - 1);
    }
    if (s === 4 || s === 6 || s === 7) {
      // Never by colour alone: what failed is crossed out, what never ran is struck through.
      pen.strokeStyle = ink;
      pen.beginPath();
      pen.moveTo(x + 1.5, y + size - 1.5);
      pen.lineTo(x + size - 1.5, y + 1.5);
      if (s === 4) {
        pen.moveTo(x + 1.5, y + 1.5);
        pen.lineTo(x + size - 1.5, y + size - 1.5);
      }
      pen.stroke();
    }
    if (task === state.ui.task) {
      pen.strokeStyle = ink;
      pen.lineWidth = 2;
      pen.strokeRect(x - 0.5, y - 0.5, size + 1, size + 1);
      pen.lineWidth = 1;
    }
  });
}

function finder(state) {
  return h("input", {
    key: "find", class: "af-input", type: "search", placeholder: "task…", "aria-label": "find a task by its name", "data-testid": "af-find",
    onKeydown: (event) => {
      event.stopPropagation();
      if (event.key !== "Enter") return;
      const wanted = event.currentTarget.value;
      const ids = state.fixed.ids;
      let task = ids.indexOf(wanted);
      if (task < 0) task = ids.findIndex((each) => each.includes(wanted));
      if (wanted && task >= 0) pickTask(state, task);
      state.paint();
    },
  });
}

function detail(state, states) {
  const { ui } = state;
  const answer = ui.answer;
  const name = state.fixed.ids[ui.task];
  const mine = ui.rows.filter((row) => row[0] === ui.task);
  const now = states[ui.task];
  return h("div", { key: "detail", class: "af-part af-pad af-detail", "data-testid": "af-detail" },
    h("div", { class: "af-row" }, h("b", null, `${MARKS[now]} ${name}`), h("span", { class: now === 4 ? "af-bad" : "af-soft" }, WORDS[now]), h("span", { class: "af-push" }),
      button("✕", { class: "af-mini", "aria-label": "close", onClick: () => { ui.task = null; state.paint(); } })),
    answer ? h("p", { key: "said" }, answer.said) : null,
    answer && answer.after.length ? h("p", { key: "after", class: "af-soft" }, `after ${answer.after.join(", ")}${answer.more_after ? ` and ${count(answer.more_after)} more` : ""}`) : null,
    mine.length ? h("ul", { key: "tries" }, mine.slice(-8).map(([, worker, start, length, end, number]) =>
      h("li", { key: number, class: BAD.has(end) ? "af-bad" : "" }, `try ${number} on ${state.data.workers[worker] || "a worker"}: ${ATTEMPT[end].replace("_", " ")}, began at ${seconds(start / 1000)}, took ${seconds(length / 1000)}`))) : null,
    answer && answer.traceback ? h("pre", { key: "trace", tabindex: 0, "aria-label": "traceback", "data-testid": "af-traceback" }, answer.traceback) : null);
}

// --- who worked when --------------------------------------------------------------------------------------------

function ganttPart(state) {
  const { ui, data } = state;
  const retried = ui.rows.reduce((n, row) => n + (row[5] > 1 ? 1 : 0), 0);
  const lost = ui.rows.reduce((n, row) => n + (row[4] === 4 ? 1 : 0), 0);
  const said = `${many(ui.rows.length + data.running.length, "attempt")}${retried ? `, ${count(retried)} again` : ""}${lost ? `, ${count(lost)} lost with a worker` : ""}`;
  return h("div", { key: "gantt", class: "af-part af-pad" }, caption("attempts by worker", said),
    h("canvas", {
      key: "canvas", class: "af-gantt", role: "img", "aria-label": `attempts by worker over ${seconds(data.now)}: ${said}`, "data-testid": "af-gantt",
      ref: (canvas) => paintGantt(state, canvas),
      onClick: (event) => {
        const hit = under(state, event);
        if (hit !== undefined) pickTask(state, hit);
        state.paint();
      },
      onMousemove: (event) => {
        const hit = under(state, event);
        event.currentTarget.title = hit === undefined ? "" : state.fixed.ids[hit] || "";
      },
    }));
}

function under(state, event) {
  const bounds = event.currentTarget.getBoundingClientRect();
  const x = event.clientX - bounds.left;
  const y = event.clientY - bounds.top;
  let found;
  for (const [x1, y1, wide, tall, task] of state.ui.bars || []) {
    if (x >= x1 - 1 && x <= x1 + Math.max(wide, 2) + 1 && y >= y1 && y <= y1 + tall) found = task;
  }
  return found;
}

/** Lanes: where a worker runs several at once, each bar gets the first lane that is free. */
function lanes(state) {
  const { ui, data } = state;
  const kept = ui.lanes || (ui.lanes = { upto: 0, free: [], rows: [] });
  const order = ui.rows.slice(kept.upto).map((row, i) => [row, kept.upto + i]).sort((a, b) => a[0][2] - b[0][2]);
  kept.upto = ui.rows.length;
  // Attempts are told as they end, so one may fit before another that is drawn already.
  const place = (worker, start, end) => {
    const free = kept.free[worker] || (kept.free[worker] = []);
    let lane = free.findIndex((taken) => taken.slice(-16).every(([from, until]) => end <= from + 0.2 || start >= until - 0.2));
    if (lane < 0) {
      lane = free.length < 24 ? free.length : 23;
      free[lane] = free[lane] || [];
    }
    free[lane].push([start, end]);
    return lane;
  };
  for (const [row, i] of order) kept.rows[i] = place(row[1], row[2], row[2] + row[3]);
  const wide = data.workers.map((_, worker) => (kept.free[worker] || []).length);
  const busy = wide.map(() => 0);
  const running = data.running.map(([, worker]) => busy[worker]++);
  return { done: kept.rows, running, wide: wide.map((n, worker) => Math.max(1, n, busy[worker])) };
}

function paintGantt(state, canvas) {
  const { ui, data } = state;
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(300, (ui.width || 900));
  const { done, running, wide } = lanes(state);
  const total = wide.reduce((a, b) => a + b, 0);
  const lane = total ? Math.max(2.5, Math.min(13, 240 / total)) : 13;
  const top = 20;
  const side = 96;
  const tops = [];
  let y = top;
  const order = data.workers.map((name, worker) => [name, worker]).sort((a, b) => a[0].localeCompare(b[0], "en", { numeric: true }));
  for (const [, worker] of order) {
    tops[worker] = y;
    y += Math.max(lane * wide[worker], 13) + 4;
  }
  const height = Math.max(46, y + 2);
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const ink = colour(state.root, "t");
  const soft = colour(state.root, "m");
  const grid = colour(state.root, "grid");
  const fills = ATTEMPT.map((name) => colour(state.root, `s-${name}`));
  const warn = colour(state.root, "warn");
  const end = Math.max(data.now * 1000, 1);
  const scale = (width - side - 6) / end;
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  const step = niceStep(end, (width - side) / 80);
  pen.textAlign = "center";
  for (let t = 0; t <= end; t += step) {
    const x = side + t * scale;
    pen.fillStyle = grid;
    pen.fillRect(Math.round(x), top - 4, 1, height - top);
    pen.fillStyle = soft;
    pen.fillText(seconds(t / 1000), Math.min(x, width - 18), 8);
  }
  pen.textAlign = "right";
  for (const [name, worker] of order) {
    pen.fillStyle = ink;
    pen.fillText(fit(name, 13), side - 8, tops[worker] + Math.max(lane * wide[worker], 13) / 2);
  }
  const onPath = new Set(data.critical);
  const bars = [];
  const draw = (task, worker, start, length, kind, number, at) => {
    const x = side + start * scale;
    const long = Math.max(1, length * scale - 0.7);
    const tall = Math.max(1.5, lane - 1);
    const up = tops[worker] + at * lane;
    pen.fillStyle = fills[kind];
    pen.fillRect(x, up, long, tall);
    if (BAD.has(kind)) {
      pen.strokeStyle = ink;
      pen.beginPath();
      pen.moveTo(x + 1, up + tall);
      pen.lineTo(x + Math.min(long, tall) - 1, up);
      pen.stroke();
    } else if (number > 1) {
      pen.fillStyle = warn;
      pen.fillRect(x, up, Math.min(3, long), tall);
    }
    if (onPath.has(task) && tall > 4) {
      pen.fillStyle = ink;
      pen.fillRect(x, up + tall - 2, long, 2);
    }
    if (task === ui.task) {
      pen.strokeStyle = ink;
      pen.strokeRect(x - 0.5, up - 0.5, long + 1, tall + 1);
    }
    bars.push([x, up, long, tall, task]);
  };
  ui.rows.forEach(([task, worker, start, length, kind, number], i) => draw(task, worker, start, length, kind, number, Math.min(done[i] || 0, wide[worker] - 1)));
  data.running.forEach(([task, worker, start, number], i) => draw(task, worker, start, end - start, 0, number, running[i]));
  ui.bars = bars;
  if (!bars.length) {
    pen.textAlign = "left";
    pen.fillStyle = soft;
    pen.fillText("nothing has started", side, top + 10);
  }
}

function niceStep(span, most) {
  const raw = span / Math.max(1, most);
  const base = 10 ** Math.floor(Math.log10(Math.max(raw, 1)));
  return [1, 2, 5, 10].map((k) => k * base).find((each) => each >= raw) || base * 10;
}

// --- everything -------------------------------------------------------------------------------------------------

function failures(state) {
  const { data } = state;
  if (!data.failures.length) return null;
  return h("div", { key: "failures", class: "af-part af-pad" }, caption("failures", `${many(data.failed, "task")} failed; click one for its traceback`),
    h("ul", { class: "af-failures" }, data.failures.map(([task, kind, message]) => h("li", { key: task },
      h("button", { type: "button", class: "af-link-button", "data-testid": "af-failure", onClick: () => { pickTask(state, task); state.paint(); } },
        h("b", null, `✗ ${fit(state.fixed.ids[task] || "", 40)}`), ` ${kind}: ${fit(message, 160)}`)))),
    data.failed > data.failures.length ? h("div", { key: "more", class: "af-soft" }, `and ${count(data.failed - data.failures.length)} more`) : null);
}

function draw(state) {
  const { root, data, ui } = state;
  if (!state.fixed) return;
  ui.width = root.clientWidth - 30;
  const size = Math.max(state.fixed.ids.length, data.counts.reduce((a, b) => a + b, 0));
  const states = spread(data.states, size);
  const settled = data.counts[3] + data.counts[4] + data.counts[6] + data.counts[7];
  const free = !data.frozen && !data.done && !state.resting;
  const toGo = (data.now / Math.max(1, settled)) * (size - settled);
  const left = settled >= 5 && toGo >= 1 ? `, about ${seconds(toGo)} to go` : "";
  root.setAttribute("aria-label", `run ${state.fixed.id} of ${state.fixed.name}`);
  root.classList.toggle("af-resting", Boolean(state.resting));
  if (ui.box !== null && !ui.boxes[ui.box]) ui.box = null;
  patch(root, [
    h("div", { key: "head", class: "af-head" }, h("strong", null, state.fixed.name), h("span", null, `${state.fixed.id}, ${many(size, "task")}`),
      h("span", { "data-testid": "af-progress" }, h("b", null, `${size ? Math.floor((100 * settled) / size) : 100} %`)),
      !data.leader && !data.done ? h("span", { key: "lead", class: "af-bad" }, "✕ no leader: nothing new starts") : null,
      h("span", { class: "af-push" }), h("span", { key: "took" }, `${data.done ? (settled === data.counts[3] ? "done in" : "ended after") : "running for"} ${seconds(data.now)}${data.done ? "" : left}`),
      ui.box === null ? finder(state) : null,
      free ? button("cancel", { key: "cancel", onClick: () => state.do("cancel") }) : null),
    h("div", { key: "bar", class: "af-part af-pad" }, bar(data.counts)),
    graphPart(state, states),
    ui.box === null ? null : cells(state, states),
    ui.task === null ? null : detail(state, states),
    ganttPart(state),
    failures(state),
    foot(state),
  ]);
  if (data.more) root.dataset.more = "1";
}

export default {
  render({ model, el }) {
    const ui = { rows: [], boxes: [], home: [], graph: null, zoom: { k: 1, x: 0, y: 0 }, box: null, task: null, answer: null };
    return view(model, el, {
      name: "run",
      draw,
      keep: (state) => {
        state.ui = ui;
        state.hint = "click a task to see why it stands where it does";
        state.taken = (data) => take(state, data.from, data.rows);
        state.answered = (said) => { if (said.task !== undefined && said.task === ui.task) ui.answer = said; };
        keep(state);
      },
      rest: (state, data) => {
        if (data.from <= ui.rows.length) for (const row of data.rows.slice(ui.rows.length - data.from)) ui.rows.push(row);
      },
    });
  },
};
