// The simulation player.

import { h, patch, button, caption, count, fit, foot, many, seconds, term, view } from "./parts.js";
import { alerts, elections, hands, logs, messageMark, ring } from "./nodes.js";

const PACES = [0.01, 0.05, 0.1, 0.5, 1, 2, 10];
const SIDE = 84;
const TOP = 22;
const ROW = 40;

function instant(value) {
  return value < 1 ? `${(value * 1000).toFixed(value < 0.01 ? 2 : 1)} ms` : `${value.toFixed(3)} s`;
}

// --- messages on their way, one by one ----------------------------------------------------------------------------

function inTheAir(state, ui, act) {
  const { data } = state;
  return (at, size) => data.pending.map(([number, source, destination, type, kind, t, sent, arrives]) => {
    const from = at[source];
    const to = at[destination];
    if (!from || !to || source === destination) return null;
    const way = Math.hypot(to[0] - from[0], to[1] - from[1]);
    const rim = Math.min(0.35, (size + 8) / way);
    const share = arrives === null ? 0.5 : rim + (1 - 2 * rim) * Math.min(1, Math.max(0, (data.now - sent) / Math.max(1e-9, arrives - sent)));
    const angle = (Math.atan2(to[1] - from[1], to[0] - from[0]) * 180) / Math.PI;
    // Beside the line, to the right of its way: what goes and what comes do not cover each other.
    const [ox, oy] = [(-(to[1] - from[1]) / way) * 5, ((to[0] - from[0]) / way) * 5];
    const x = from[0] + (to[0] - from[0]) * share + ox;
    const y = from[1] + (to[1] - from[1]) * share + oy;
    const label = `${type} from ${source} to ${destination}, ${arrives === null ? "held" : `arrives at ${instant(arrives)}`}`;
    const chosen = ui.message === number;
    const pick = () => {
      ui.message = chosen ? null : number;
      state.paint();
    };
    return h("g", {
      key: `m${number}`, class: `af-message${chosen ? " af-picked" : ""}${arrives === null ? " af-held" : ""}`, style: `transform:translate(${x.toFixed(1)}px,${y.toFixed(1)}px)`,
      tabindex: 0, role: "button", "aria-label": label, "data-message": number, "data-node": "",
      onClick: pick,
      onKeydown: (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          pick();
        }
      },
    }, h("title", null, label), h("circle", { class: "af-pick", r: 10 }), messageMark(kind, t, angle, false),
      arrives === null ? h("path", { key: "h", class: "af-cross", d: "M-2 -8V-13M2 -8V-13" }) : null);
  });
}

function pendingPart(state, ui, act) {
  const { data } = state;
  const rows = data.pending.slice(0, 14);
  const held = data.pending.some((each) => each[7] === null);
  return h("div", { key: "pending", class: "af-part" },
    h("div", { class: "af-row" }, caption("messages under way", data.pending.length ? many(data.pending.length, "message") : "none"),
      h("span", { class: "af-push" }), held ? button("release all", { class: "af-mini", onClick: () => act("release") }) : null),
    h("ul", { class: "af-pending" }, rows.map(([number, source, destination, type, kind, , , arrives]) => h("li", { key: number, class: ui.message === number ? "af-on" : "", "data-testid": "af-pending" },
      h("span", { class: "af-kind" }, type.replace(/^Msg/, "")), h("span", { class: "af-soft" }, `${source} → ${destination}`),
      h("small", null, arrives === null ? "held" : instant(arrives)),
      button("deliver", { class: "af-mini", "aria-label": `deliver ${type} to ${destination}`, onClick: () => act("deliver", { message: number }) }),
      arrives === null
        ? button("release", { key: "r", class: "af-mini", "aria-label": `release ${type} to ${destination}`, onClick: () => act("release", { message: number }) })
        : button("hold", { key: "h", class: "af-mini", "aria-label": `hold ${type} to ${destination}`, onClick: () => act("hold", { message: number }) }),
      button("drop", { class: "af-mini", "aria-label": `drop ${type} to ${destination}`, onClick: () => act("drop", { message: number }) })))),
    data.pending.length > rows.length ? h("div", { class: "af-soft" }, `and ${count(data.pending.length - rows.length)} more`) : null);
}

// --- the space-time diagram ---------------------------------------------------------------------------------------

function diagram(state, ui, act) {
  const { data } = state;
  const story = data.diagram;
  const width = Math.max(420, ui.width || 900);
  const nodes = story.nodes || [];
  const height = TOP + Math.max(1, nodes.length) * ROW + 10;
  const span = Math.max(1e-9, story.end - story.start);
  const x = (t) => SIDE + ((t - story.start) / span) * (width - SIDE - 14);
  const y = (row) => TOP + ROW * (row + 0.55);
  const raw = span / Math.max(2, (width - SIDE) / 90);
  const base = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * base).find((each) => each >= raw);
  const ticks = [];
  for (let t = Math.ceil(story.start / step) * step; t <= story.end + 1e-9; t += step) ticks.push(t);
  const seek = (event) => {
    const bounds = event.currentTarget.getBoundingClientRect();
    const at = ((event.clientX - bounds.left) / bounds.width) * width;
    const t = story.start + ((at - SIDE) / (width - SIDE - 14)) * span;
    if (t >= 0 && at >= SIDE - 4) act("seek", { value: Math.min(Math.max(0, t), data.end) });
  };
  const labels = [];
  const free = (left, right, at) => {
    if (labels.some(([l, r, v]) => left < r && right > l && Math.abs(v - at) < 11)) return false;
    labels.push([left, right, at]);
    return true;
  };
  return h("div", { key: "diagram", class: "af-part af-pad" },
    h("div", { class: "af-row" }, caption("space-time", `${instant(story.start)} to ${instant(story.end)}${story.hidden ? `, ${count(story.hidden)} messages not shown` : ""}`), h("span", { class: "af-push" }),
      h("label", { class: "af-slider" }, h("input", { type: "checkbox", checked: data.beats, onChange: (event) => act("beats", { value: event.target.checked }) }), "heartbeats"),
      button("−", { class: "af-mini", "aria-label": "show more time", onClick: () => act("span", { value: Math.min(1e5, data.span * 2) }) }),
      button("+", { class: "af-mini", "aria-label": "show less time", onClick: () => act("span", { value: Math.max(0.002, data.span / 2) }) })),
    h("svg", {
      viewBox: `0 0 ${width} ${height}`, class: "af-spacetime", role: "img", "data-testid": "af-diagram",
      "aria-label": `space-time diagram of ${many(nodes.length, "node")}, ${many((story.hops || []).length, "message")}, cursor at ${instant(data.now)}; click an instant to go there`,
      onClick: seek,
    },
      h("rect", { key: "back", x: 0, y: 0, width, height, class: "af-back" }),
      ticks.map((t) => [
        h("line", { key: `g${t}`, x1: x(t), x2: x(t), y1: TOP - 4, y2: height - 4, class: "af-tick" }),
        h("text", { key: `t${t}`, x: x(t), y: 12, class: "af-ticklabel" }, span < 1 ? `${Math.round(t * 1e6) / 1e3} ms` : `${Math.round(t * 1000) / 1000} s`),
      ]),
      nodes.map((node, i) => h("text", { key: `n${node}`, x: SIDE - 10, y: y(i) + 4, class: "af-rowname" }, fit(node, 12))),
      nodes.map((node, i) => h("line", { key: `l${node}`, x1: SIDE, x2: width - 14, y1: y(i), y2: y(i), class: "af-lifeline" })),
      (story.stretches || []).map(([row, from, to, what, role, t], i) => h("line", {
        key: `s${i}`, x1: x(from), x2: Math.max(x(from) + 1, x(Math.min(to, story.end))), y1: y(row), y2: y(row),
        class: what !== "up" ? "af-stretch af-gone" : `af-stretch af-role-${String(role).replace("_", "-") || "node"}`,
        style: what === "up" && t > 0 ? `stroke:var(--af-t${term(t)})` : "",
      })),
      (story.stretches || []).filter((each) => each[4] === "leader" && each[3] === "up").map(([row, from, , , , t], i) =>
        free(x(from), x(from) + 80, y(row) - 9) ? h("text", { key: `r${i}`, x: Math.max(SIDE, x(from)) + 3, y: y(row) - 8, class: "af-hoplabel" }, `leader, term ${t}`) : null),
      (story.hops || []).map(([number, source, destination, sent, ended, lost, family, t, label]) => {
        const until = ended === null ? data.end : ended;
        const [x1, y1] = [x(sent), y(source)];
        let [x2, y2] = [x(until), y(destination)];
        if (lost || ended === null) {
          x2 = x1 + (x2 - x1) * (lost ? 0.6 : 0.85);
          y2 = y1 + (y2 - y1) * (lost ? 0.6 : 0.85);
        }
        const angle = (Math.atan2(y2 - y1, x2 - x1) * 180) / Math.PI;
        const kind = family === "heartbeat" ? "beat" : family === "client" ? "client" : "raft";
        const later = sent > data.now + 1e-9;
        const mine = kind === "raft" && t > 0 ? `--af-mine:var(--af-t${term(t)})` : "";
        const [mx, my] = [(x1 + x2) / 2, (y1 + y2) / 2];
        const room = Math.abs(x2 - x1) >= 7 && mx + 6 + label.length * 6 < width;
        const words = label && room && free(mx + 3, mx + 3 + label.length * 6, my) ? label : "";
        return h("g", { key: `h${number}`, class: `af-hop af-hop-${kind}${later ? " af-later" : ""}`, style: mine },
          h("title", null, `${label || family}: ${nodes[source]} → ${nodes[destination]}, ${instant(sent)}${lost ? ", lost" : ended === null ? ", under way" : ` to ${instant(ended)}`}`),
          h("line", { x1, y1, x2, y2, class: lost ? "af-lost" : "" }),
          lost ? h("path", { key: "x", d: `M${x2 - 4} ${y2 - 4}L${x2 + 4} ${y2 + 4}M${x2 - 4} ${y2 + 4}L${x2 + 4} ${y2 - 4}`, class: "af-cutmark" })
            : h("path", { key: "a", d: "M0 0L-7 -3L-7 3Z", transform: `translate(${x2.toFixed(1)} ${y2.toFixed(1)}) rotate(${angle.toFixed(1)})`, class: "af-head2" }),
          words ? h("text", { key: "w", x: mx + 4, y: my + 3, class: "af-hoplabel" }, words) : null);
      }),
      (story.marks || []).filter((mark) => mark[1] <= story.end).map(([row, t, kind, said], i) => h("g", { key: `k${i}` }, h("title", null, `${said || kind} at ${instant(t)}`),
        row < 0 ? h("line", { x1: x(t), x2: x(t), y1: TOP, y2: height - 6, class: "af-netmark" })
          : kind === "restart" || kind === "start" || kind === "resume" ? h("circle", { cx: x(t), cy: y(row), r: 4.5, class: "af-startmark" })
          : h("path", { d: `M${x(t) - 4.5} ${y(row) - 4.5}L${x(t) + 4.5} ${y(row) + 4.5}M${x(t) - 4.5} ${y(row) + 4.5}L${x(t) + 4.5} ${y(row) - 4.5}`, class: "af-cutmark" }),
        kind !== "start" && free(x(t), x(t) + said.length * 6, row < 0 ? TOP + 4 : y(row) - 9) ? h("text", { key: "w", x: x(t) + 6, y: row < 0 ? TOP + 6 : y(row) - 7, class: "af-hoplabel" }, fit(said || kind, 30)) : null)),
      h("g", { key: "cursor", class: "af-cursor", transform: `translate(${x(Math.min(data.now, story.end)).toFixed(1)} 0)` },
        h("line", { x1: 0, x2: 0, y1: TOP - 4, y2: height - 2 }), h("path", { d: `M-6 ${TOP - 12}H6L0 ${TOP - 3}Z` }))));
}

// --- everything -----------------------------------------------------------------------------------------------------

function verdicts(state, ui) {
  const { data } = state;
  if (!data.verdicts.length) return null;
  const bad = data.verdicts.filter((each) => each[1] === "violated");
  const unknown = data.verdicts.filter((each) => each[1] === "unknown");
  const good = data.verdicts.length - bad.length - unknown.length;
  return h("span", { key: "verdicts", class: "af-verdicts" },
    bad.map(([promise, , why]) => h("span", { key: promise, class: "af-bad", title: why }, `✗ ${promise}`)),
    unknown.length ? h("span", { key: "u", title: unknown.map((each) => each[0]).join(", ") }, `? ${many(unknown.length, "promise")} open`) : null,
    h("button", { key: "good", type: "button", class: `af-mini ${bad.length ? "" : "af-good"}`, "aria-expanded": String(Boolean(ui.promises)), "data-testid": "af-verdict", onClick: () => { ui.promises = !ui.promises; state.paint(); } }, `✓ ${many(good, "promise")} kept so far`));
}

function draw(state) {
  const { root, data, ui } = state;
  ui.width = root.clientWidth - 30;
  const act = (name, given) => state.do(name, given || {});
  const free = !data.frozen && !state.resting;
  const event = data.event;
  root.setAttribute("aria-label", `simulation with seed ${data.seed}`);
  root.classList.toggle("af-resting", Boolean(state.resting));
  patch(root, [
    h("div", { key: "head", class: "af-head" }, h("strong", null, "simulation"),
      h("span", null, "seed ", h("b", { "data-testid": "af-seed" }, data.seed)),
      h("span", null, "at ", h("b", { "data-testid": "af-now" }, instant(data.now))),
      h("span", null, "leader ", h("b", { "data-testid": "af-leader" }, data.leader || "none")),
      h("span", { class: "af-push" }), verdicts(state, ui)),
    ui.promises ? h("div", { key: "promises", class: "af-part af-pad af-promises" }, data.verdicts.map(([promise, outcome, why], i) =>
      h("span", { key: i, class: outcome === "violated" ? "af-bad" : outcome === "ok" ? "af-good" : "af-soft", title: why }, `${outcome === "ok" ? "✓" : outcome === "violated" ? "✗" : "?"} ${promise}`))) : null,
    alerts(data),
    free ? h("div", { key: "deck", class: "af-deck", role: "toolbar", "aria-label": "time" },
      button("◀ step", { onClick: () => act("back") }, "to the event before"),
      data.playing ? button("‖ pause", { key: "pause", "data-testid": "af-play", onClick: () => act("pause_play") })
        : button("▶ play", { key: "play", "data-testid": "af-play", onClick: () => act("play") }),
      button("step ▶", { onClick: () => act("step") }, "one event"),
      h("label", { class: "af-slider" }, "speed", h("select", { "aria-label": "speed", onChange: (e) => act("pace", { value: Number(e.target.value) }) },
        [...new Set([...PACES, data.pace])].sort((a, b) => a - b).map((each) => h("option", { key: each, value: String(each), selected: each === data.pace }, `×${each}`)))),
      h("input", { key: "scrub", type: "range", class: "af-scrub", min: 0, max: 1000, step: 1, value: Math.round((1000 * data.now) / Math.max(1e-9, data.end)), "aria-label": "go to an instant", "aria-valuetext": instant(data.now), "data-testid": "af-scrub",
        onInput: (e) => { ui.scrub = (Number(e.target.value) / 1000) * data.end; if (!ui.scrubbing) { ui.scrubbing = setTimeout(() => { ui.scrubbing = 0; act("seek", { value: ui.scrub }); }, 90); } } }),
      h("span", { class: "af-soft" }, data.past ? `looking back, ${instant(data.end - data.now)} before the end` : `end: ${instant(data.end)}`),
      data.past ? button("to the end", { key: "end", onClick: () => act("seek", { value: data.end }) }) : null,
      !data.leader && data.masters.length ? button("until a leader", { key: "lead", onClick: () => act("until_leader") }) : null,
      data.busy ? h("span", { key: "busy", class: "af-bad" }, "a cell moves this simulation") : null) : null,
    diagram(state, ui, act),
    event ? h("div", { key: "event", class: "af-event" }, h("b", null, `event ${count(event.seq)}`), h("code", null, [event.node, event.kind, event.type, event.source && event.source !== event.node ? `from ${event.source}` : "", event.destination ? `to ${event.destination}` : ""].filter(Boolean).join(" ")),
      event.said ? h("span", { class: "af-soft", title: event.said }, fit(event.said, 90)) : null, h("span", { class: "af-push" }),
      event.cause >= 0 ? h("span", { class: "af-soft" }, `caused by ${count(event.cause)}`) : null, h("span", { class: "af-soft" }, `lamport ${event.lamport}`)) : null,
    h("div", { key: "body", class: "af-body" },
      h("div", { key: "left", class: "af-left" }, ring(state, ui, act, 300, inTheAir(state, ui, act)),
        free ? hands(state, ui, act) : null,
        free ? h("div", { key: "more", class: "af-knobs" }, button("heal", { disabled: !data.cuts.length, onClick: () => act("heal") }),
          [...ui.picked].slice(0, 1).map((node) => button(`time out ${node}`, { key: node, onClick: () => act("timeout", { node }) }, "its timer is due now")),
          button("script", { onClick: () => act("script") }, "everything done by hand, as Python")) : null),
      h("div", { key: "right", class: "af-right" }, logs(data), free ? pendingPart(state, ui, act) : null, elections(data))),
    ui.script ? h("div", { key: "script", class: "af-part af-pad" }, h("div", { class: "af-row" }, caption("script", "the same run, anywhere"), h("span", { class: "af-push" }),
      button(ui.copied ? "copied" : "copy", { class: "af-mini", onClick: () => { navigator.clipboard && navigator.clipboard.writeText(ui.script); ui.copied = true; state.paint(); } }),
      button("✕", { class: "af-mini", "aria-label": "close", onClick: () => { ui.script = ""; state.paint(); } })),
      h("pre", { tabindex: 0, "data-testid": "af-script" }, ui.script)) : null,
    foot(state),
  ]);
}

export default {
  render({ model, el }) {
    const ui = { picked: new Set(), drag: null, at: {}, message: null, script: "", promises: false };
    return view(model, el, {
      name: "player",
      draw: (state) => {
        state.ui = ui;
        state.hint = "click the diagram to go to an instant; what is done in the past is done from there";
        state.answered = (said) => { if (said.script) { ui.script = said.script; ui.copied = false; } };
        draw(state);
      },
    });
  },
};
