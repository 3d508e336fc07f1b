// The cluster panel.

import { h, patch, bar, button, caption, count, fit, foot, seconds, view } from "./parts.js";
import { alerts, elections, fly, hands, header, logs, ring } from "./nodes.js";

const SPEEDS = [0, 0.01, 0.05, 0.2, 1];
const LAYERS = ["low", "medium", "high", "urgent"];

function queue(data) {
  const width = 300;
  const height = 62;
  const points = data.queue.map(([t, ...layers]) => [t, layers]);
  points.push([data.now, data.waiting]);
  const from = points[0][0];
  const span = Math.max(1e-6, data.now - from);
  const top = Math.max(1, ...points.map(([, layers]) => layers.reduce((a, b) => a + b, 0)));
  const x = (t) => ((t - from) / span) * width;
  const y = (v) => height - (v / top) * (height - 4);
  const areas = LAYERS.map((name, layer) => {
    const sum = (layers, upto) => layers.slice(0, upto).reduce((a, b) => a + b, 0);
    const upper = points.map(([t, layers]) => `${x(t).toFixed(1)} ${y(sum(layers, layer + 1)).toFixed(1)}`);
    const lower = points.map(([t, layers]) => `${x(t).toFixed(1)} ${y(sum(layers, layer)).toFixed(1)}`).reverse();
    return h("path", { key: name, d: `M${[...upper, ...lower].join("L")}Z`, style: `fill:var(--af-p${layer + 1})` });
  });
  const depth = data.waiting.reduce((a, b) => a + b, 0);
  const said = `${count(depth)} waiting${data.oldest ? `, oldest ${seconds(data.oldest)}` : ""}`;
  return h("div", { key: "queue", class: "af-part" }, caption("queue", said),
    h("svg", { viewBox: `0 0 ${width} ${height}`, class: "af-queue", preserveAspectRatio: "none", role: "img", "aria-label": `queue depth over ${seconds(span)}, at most ${count(top)}: ${said}` },
      h("line", { x1: 0, y1: height, x2: width, y2: height, class: "af-axis" }), areas),
    h("div", { class: "af-legend" }, LAYERS.map((name, i) => h("span", { key: name }, h("i", { style: `background:var(--af-p${i + 1})` }), `${name} ${count(data.waiting[i])}`))));
}

function workers(state, ui, act) {
  const data = state.data;
  const gone = (status) => status === "OFFLINE" || status === "DOWN";
  const up = data.workers.filter((each) => !gone(each[2])).length;
  const running = data.workers.reduce((sum, each) => sum + each[3], 0);
  const slots = data.workers.reduce((sum, each) => sum + (gone(each[2]) ? 0 : each[4]), 0);
  let rows = data.workers.map(([id, group, status, busy, room, load]) => ({ key: id, node: id, name: `${group} ${id}`, status, busy, room, load }));
  const grouped = rows.length > 8;
  if (grouped) {
    const groups = new Map();
    for (const [, group, status, busy, room] of data.workers) {
      const mine = groups.get(group) || { key: group, name: group, busy: 0, room: 0, up: 0, all: 0, status: "ACTIVE" };
      mine.all += 1;
      if (!gone(status)) {
        mine.up += 1;
        mine.busy += busy;
        mine.room += room;
      }
      groups.set(group, mine);
    }
    rows = [...groups.values()];
  }
  return h("div", { key: "workers", class: "af-part" },
    caption("workers", `${up} of ${data.workers.length + data.more_workers} up, ${count(running)} of ${count(slots)} slots in use`),
    rows.length ? h("div", { class: "af-workers" }, rows.slice(0, 12).map((each) => {
      const off = gone(each.status);
      const share = each.room ? Math.min(1, each.busy / each.room) : 0;
      const kind = off ? "off" : each.status === "BUSY" || (grouped && share === 1) ? "busy" : each.status === "ACTIVE" ? "ok" : "idle";
      return h("div", { key: each.key, class: "af-worker" },
        h("span", { title: each.name }, fit(each.name, 22)),
        h("span", { class: `af-meter af-${kind}`, role: "meter", "aria-label": each.name, "aria-valuenow": each.busy, "aria-valuemin": 0, "aria-valuemax": each.room }, h("i", { style: `width:${share * 100}%` })),
        h("small", { class: off ? "af-bad" : "" }, grouped ? `${each.busy}/${each.room}, ${each.up} of ${each.all} up` : off ? "✕ " + each.status.toLowerCase() : `${each.busy}/${each.room} ${each.status.toLowerCase()}`),
        each.node && ui.act ? (each.status === "DOWN"
          ? button("restart", { key: "r", class: "af-mini", "aria-label": `restart ${each.node}`, onClick: () => act("restart", { node: each.node }) })
          : button("kill", { key: "k", class: "af-mini", "aria-label": `kill ${each.node}`, onClick: () => act("kill", { node: each.node }) })) : null);
    })) : h("div", { class: "af-soft" }, "none is registered"));
}

function runs(data) {
  if (!data.runs.length) return h("div", { key: "runs", class: "af-part" }, caption("runs", "none yet: cluster.submit(flow)"));
  return h("div", { key: "runs", class: "af-part" }, data.runs.map((run) => h("div", { key: run.id, class: "af-run" },
    caption("run", `${run.id} ${run.name}`),
    bar(run.counts, seconds((run.ended === null ? data.now : run.ended) - run.began)))),
    data.more_runs ? h("div", { key: "more", class: "af-soft" }, `and ${count(data.more_runs)} earlier`) : null);
}

function slider(label, value, most, step, shown, act) {
  return h("label", { key: label, class: "af-slider" }, label,
    h("input", { type: "range", min: 0, max: most, step, value, "aria-label": label, onChange: (event) => act(Number(event.target.value)) }),
    h("output", null, shown));
}

function draw(state) {
  const { root, data, ui } = state;
  const act = (name, given) => state.do(name, given || {});
  const free = !data.frozen && !data.closed && !state.resting;
  ui.act = free;
  root.setAttribute("aria-label", `cluster ${data.title}`);
  root.classList.toggle("af-resting", Boolean(state.resting));
  const controls = free ? [
    data.speed === 0 ? button("▶ go on", { key: "go", onClick: () => act("speed", { value: ui.before || 1 }) })
      : button("‖ stop time", { key: "stop", onClick: () => { ui.before = data.speed; act("speed", { value: 0 }); } }),
    button("kill leader", { key: "kill", disabled: !data.leader, onClick: () => act("kill", { node: data.leader }) }),
    button("heal", { key: "heal", disabled: !data.cuts.length, onClick: () => act("heal") }),
  ] : null;
  patch(root, [
    header(state, [h("span", { key: "rate" }, "tasks/s ", h("b", null, count(data.rate))), controls]),
    alerts(data),
    h("div", { key: "body", class: "af-body" },
      h("div", { key: "left", class: "af-left" }, ring(state, ui, act), free ? hands(state, ui, act) : null,
        free ? h("div", { key: "knobs", class: "af-knobs" },
          slider("loss", data.loss, 0.5, 0.01, `${Math.round(data.loss * 100)} %`, (value) => act("loss", { value })),
          slider("latency", data.latency[1], 200, 5, `${Math.round(data.latency[1])} ms`, (value) => act("latency", { value })),
          h("label", { key: "speed", class: "af-slider" }, "speed",
            h("select", { value: String(data.speed), "aria-label": "speed", onChange: (event) => act("speed", { value: Number(event.target.value) }) },
              [...new Set([...SPEEDS, data.speed])].sort((a, b) => a - b).map((each) => h("option", { key: each, value: String(each), selected: each === data.speed }, each === 0 ? "stopped" : `×${each}`)))),
          button("add worker", { key: "add", onClick: () => act("add_worker") })) : null),
      h("div", { key: "right", class: "af-right" }, logs(data), runs(data))),
    h("div", { key: "bottom", class: "af-bottom" }, elections(data), queue(data), workers(state, ui, act)),
    foot(state),
  ]);
  fly(state, ui);
}

export default {
  render({ model, el }) {
    const ui = { picked: new Set(), drag: null, at: {} };
    return view(model, el, { name: "cluster", draw: (state) => { state.ui = ui; draw(state); } });
  },
};
