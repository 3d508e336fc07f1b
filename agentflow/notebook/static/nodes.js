// The masters: the ring with its messages, the logs, elections over time. Shared by the panel and the player.

import { h, patch, button, caption, count, fit, seconds, still, term } from "./parts.js";

const NS = "http://www.w3.org/2000/svg";

export function places(masters, width, height) {
  const n = masters.length;
  const r = n === 1 ? 0 : Math.min(width / 2 - 74, height / 2 - 52);
  const found = {};
  masters.forEach((each, i) => {
    const angle = (2 * Math.PI * i) / n - Math.PI / 2;
    found[each.id] = [width / 2 + r * Math.cos(angle), height / 2 + r * Math.sin(angle)];
  });
  return found;
}

export function roleWord(master) {
  if (master.state === "down") return "crashed";
  if (master.state === "paused") return "paused";
  if (master.state === "starting") return "starting";
  return String(master.role).replace("_", "-");
}

function arc(x, y, r, share) {
  const angle = 2 * Math.PI * Math.min(0.999, share);
  return `M${x} ${y - r}A${r} ${r} 0 ${share > 0.5 ? 1 : 0} 1 ${x + r * Math.sin(angle)} ${y - r * Math.cos(angle)}`;
}

function disc(master, at, leader, picked, size, pick) {
  const [x, y] = at;
  const word = roleWord(master);
  const colour = term(master.term);
  const leads = master.id === leader && word === "leader";
  const dim = word === "crashed" || word === "paused";
  const stands = word.includes("candidate");
  const label = `${master.id}: ${word}, term ${master.term}, commit ${master.commit} of ${master.last}`;
  return h("g", {
    key: master.id, class: `af-node${picked ? " af-picked" : ""}`, tabindex: 0, role: "button", "aria-pressed": picked ? "true" : "false",
    "aria-label": label, "data-node": master.id,
    onClick: () => pick(master.id),
    onKeydown: (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        pick(master.id);
      }
    },
  },
    h("title", null, label),
    h("circle", { cx: x, cy: y, r: size + 13, class: "af-pick" }),
    h("circle", {
      cx: x, cy: y, r: size,
      class: `af-disc${dim ? " af-dim" : ""}${stands ? " af-dash" : ""}`,
      style: dim || !master.term ? "" : `stroke:var(--af-t${colour});${leads ? `fill:var(--af-t${colour})` : ""}`,
    }),
    leads ? h("circle", { key: "ring", cx: x, cy: y, r: size + 4.5, class: "af-ring2", style: `stroke:var(--af-t${colour})` }) : null,
    !leads && !dim && master.fuse > 0.01 ? h("path", { key: "fuse", d: arc(x, y, size + 5, master.fuse), class: "af-fuse" }) : null,
    word === "crashed" ? h("path", { key: "x", d: `M${x - 7} ${y - 7}L${x + 7} ${y + 7}M${x - 7} ${y + 7}L${x + 7} ${y - 7}`, class: "af-cross" }) : null,
    word === "paused" ? h("path", { key: "p", d: `M${x - 4} ${y - 8}V${y + 8}M${x + 4} ${y - 8}V${y + 8}`, class: "af-cross" }) : null,
    !dim ? h("text", { key: "t", x, y: y + 5, class: "af-term", style: leads ? `fill:var(--af-k${colour})` : "" }, master.term) : null,
    stands ? master.votes.map((_, i) => h("circle", { key: `v${i}`, cx: x + (i - (master.votes.length - 1) / 2) * 9, cy: y - size - 12, r: 3.2, style: `fill:var(--af-t${colour})` })) : null,
    h("text", { key: "id", x, y: y + size + 20, class: "af-name" }, fit(master.id, 20)),
    dim || stands ? h("text", { key: "w", x, y: y + size + 34, class: `af-sub${word === "crashed" ? " af-badfill" : ""}` }, word) : null,
  );
}

/** The ring. `ui` keeps what is picked and the line that is dragged; `act` takes the commands. */
export function ring(state, ui, act, height = 330, extra = null) {
  const data = state.data;
  const width = 420;
  const at = places(data.masters, width, height);
  ui.at = at;
  const size = data.masters.length > 7 ? 18 : 24;
  const cut = new Map(data.cuts.map(([a, b, since]) => [`${a}|${b}`, since]));
  const links = [];
  data.masters.forEach((a, i) => data.masters.slice(i + 1).forEach((b) => {
    const since = cut.get(`${a.id}|${b.id}`) ?? cut.get(`${b.id}|${a.id}`);
    const [x1, y1] = at[a.id];
    const [x2, y2] = at[b.id];
    links.push(h("line", { key: `${a.id}|${b.id}`, x1, y1, x2, y2, class: since === undefined ? "af-link" : "af-link af-cutlink" }));
    if (since !== undefined) {
      const [mx, my] = [(x1 + x2) / 2, (y1 + y2) / 2];
      links.push(h("path", { key: `x${a.id}|${b.id}`, d: `M${mx - 4} ${my - 4}L${mx + 4} ${my + 4}M${mx - 4} ${my + 4}L${mx + 4} ${my - 4}`, class: "af-cutmark" }));
    }
  }));
  const longest = Math.max(0, ...data.cuts.map((each) => each[2]));
  const pick = (id) => {
    ui.picked.has(id) ? ui.picked.delete(id) : ui.picked.add(id);
    state.paint();
  };
  const spot = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
  };
  return h("svg", {
    key: "ring", viewBox: `0 0 ${width} ${height}`, class: "af-ringsvg", role: "group", "aria-label": "masters; drag a line across to cut the network",
    onPointerdown: (event) => {
      if (event.target.closest("[data-node]") || event.button) return;
      ui.drag = [spot(event), spot(event)];
      event.currentTarget.setPointerCapture(event.pointerId);
    },
    onPointermove: (event) => {
      if (ui.drag) {
        ui.drag[1] = spot(event);
        state.paint();
      }
    },
    onPointerup: (event) => {
      if (!ui.drag) return;
      const [[x1, y1], [x2, y2]] = ui.drag;
      ui.drag = null;
      if (Math.hypot(x2 - x1, y2 - y1) > 60) {
        const side = data.masters.filter((each) => {
          const [x, y] = at[each.id];
          return (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) > 0;
        }).map((each) => each.id);
        if (side.length && side.length < data.masters.length) act("partition", { side });
      }
      state.paint();
    },
    onPointercancel: () => { ui.drag = null; },
  },
    h("rect", { key: "back", x: 0, y: 0, width, height, class: "af-back" }),
    h("g", { key: "links" }, links),
    h("g", { key: "flights", own: true, class: "af-flights", "aria-hidden": "true", ref: (node) => { ui.sky = node; } }),
    data.masters.map((each) => disc(each, at[each.id], data.leader, ui.picked.has(each.id), size, pick)),
    extra ? extra(at, size) : null,
    data.cuts.length ? h("text", { key: "cut", x: width / 2, y: height - 6, class: "af-sub af-badfill" }, `network cut for ${seconds(longest)}`) : null,
    ui.drag ? h("line", { key: "drag", x1: ui.drag[0][0], y1: ui.drag[0][1], x2: ui.drag[1][0], y2: ui.drag[1][1], class: "af-drag" }) : null,
  );
}

/** Let the messages of a snapshot fly. Without motion they stand where they are, until the next snapshot. */
export function fly(state, ui) {
  const sky = ui.sky;
  if (!sky || !sky.isConnected) return;
  ui.flown = ui.flown || new Map();
  const data = state.data;
  const calm = still();
  if (calm) sky.replaceChildren();
  const speed = data.live ? Math.max(0.001, data.speed) : 1;
  for (const [number, source, destination, kind, t, sent, due, lost, flying] of data.flights) {
    const from = ui.at[source];
    const to = ui.at[destination];
    if (!from || !to) continue;
    const shown = ui.flown.get(number);
    if (shown && !(lost && shown !== "lost")) continue;
    if (sky.childNodes.length > 90) break;
    ui.flown.set(number, lost ? "lost" : "sent");
    const mark = document.createElementNS(NS, kind === "append" ? "path" : "circle");
    const angle = (Math.atan2(to[1] - from[1], to[0] - from[0]) * 180) / Math.PI;
    if (kind === "append") {
      mark.setAttribute("d", "M6 0L-5 -4.5L-5 4.5Z");
    } else {
      mark.setAttribute("r", kind === "beat" ? 2.2 : 4);
    }
    mark.setAttribute("class", `af-m af-m-${kind}${lost ? " af-m-lost" : ""}`);
    if (kind !== "beat" && kind !== "work" && t > 0) mark.style.setProperty("--af-mine", `var(--af-t${term(t)})`);
    const way = (share) => `translate(${from[0] + (to[0] - from[0]) * share}px, ${from[1] + (to[1] - from[1]) * share}px) rotate(${angle}deg)`;
    sky.appendChild(mark);
    const length = due !== null && due !== undefined ? ((due - sent) / speed) * 1000 : 450;
    const end = lost ? 0.55 : 0.92;
    if (calm) {
      mark.style.transform = way(0.6);
      continue;
    }
    const began = flying ? Math.min(0.85, Math.max(0.08, due ? (data.now - sent) / Math.max(1e-6, due - sent) : 0.3)) : 0.08;
    const move = mark.animate([{ transform: way(began) }, { transform: way(end) }], { duration: Math.min(20000, Math.max(380, length * (1 - began))), fill: "forwards" });
    move.onfinish = () => {
      if (lost) {
        const cross = document.createElementNS(NS, "path");
        cross.setAttribute("d", "M-5 -5L5 5M-5 5L5 -5");
        cross.setAttribute("class", "af-cutmark");
        cross.style.transform = way(end).split(" rotate")[0];
        sky.appendChild(cross);
        setTimeout(() => cross.remove(), 700);
      }
      mark.remove();
    };
  }
  while (ui.flown.size > 2000) ui.flown.delete(ui.flown.keys().next().value);
}

function brief(number) {
  if (number >= 1e6) return `${(number / 1e6).toPrecision(3)}M`;
  if (number >= 1e3) return `${(number / 1e3).toPrecision(3)}k`;
  return String(number);
}

const MARK = { leader: "●", follower: "○", candidate: "◌", "pre-candidate": "◌", crashed: "✕", paused: "‖", learner: "◇" };

export function logs(data) {
  const last = Math.max(0, ...data.masters.map((each) => each.last));
  const first = Math.max(1, last - 11);
  return h("div", { key: "logs", class: "af-part" },
    caption("replicated log", "solid: committed · dashed: not yet"),
    h("div", { class: "af-logs", role: "table", "aria-label": "replicated log" }, data.masters.map((each) => {
      const word = roleWord(each);
      const tail = each.tail.filter(([index]) => index >= first);
      const before = (tail.length ? tail[0][0] : each.last + 1) - 1;
      return h("div", { key: each.id, class: "af-log", role: "row" },
        h("div", { class: "af-who", role: "rowheader" },
          h("span", { class: "af-mark", "aria-hidden": "true" }, MARK[word] || "○"),
          h("span", null, fit(each.id, 18)), h("small", { class: word === "crashed" ? "af-bad" : "" }, word)),
        h("div", { class: "af-cells", role: "cell" },
          word === "crashed" ? h("span", { key: "c", class: "af-soft" }, "what its disk holds is read at restart") : null,
          word !== "crashed" && before > 0 ? h("span", { key: "b", class: "af-before" }, `+${brief(before)}`) : null,
          word !== "crashed" ? tail.map(([index, t]) => h("i", {
            key: index, title: `entry ${index} of term ${t}${index <= each.commit ? ", committed" : ", not committed"}`,
            class: index <= each.commit ? "af-cell" : "af-cell af-open",
            style: index <= each.commit ? `background:var(--af-t${term(t)});color:var(--af-k${term(t)})` : `border-color:var(--af-t${term(t)})`,
          }, t < 1000 ? t : "…")) : null),
        h("div", { class: "af-numbers", role: "cell", title: "commit / last index" }, word === "crashed" ? "–" : `${count(each.commit)} / ${count(each.last)}`));
    })));
}

export function elections(data) {
  const reigns = data.reigns;
  const bits = [];
  reigns.forEach(([t, leader, began, ended], i) => {
    const last = i === reigns.length - 1;
    const until = ended === null ? data.now : ended;
    bits.push(h("div", {
      key: `t${t}${leader}${began}`, class: "af-reign", style: `flex:${Math.max(5, 100 * Math.sqrt(until - began))} 1 0;background:var(--af-t${term(t)});color:var(--af-k${term(t)})`,
      title: `term ${t}: ${leader} led for ${seconds(until - began)}`,
    }, h("small", null, `term ${t}`), h("span", null, leader)));
    const next = last ? (ended !== null && !data.closed ? data.now : null) : reigns[i + 1][2];
    if (next !== null && next - until > 0.0005) {
      bits.push(h("div", { key: `g${t}${began}`, class: `af-gap${last ? " af-bad" : ""}`, title: "without a leader" }, seconds(next - until)));
    }
  });
  return h("div", { key: "elections", class: "af-part" },
    caption("elections", `${count(data.won)} won${data.lost ? `, ${count(data.lost)} lost` : ""}`),
    reigns.length ? h("div", { class: "af-reigns" }, bits) : h("div", { class: "af-soft" }, "no leader yet"));
}

export function header(state, extra) {
  const data = state.data;
  const up = data.masters.filter((each) => each.state === "up").length;
  const need = Math.floor(data.masters.length / 2) + 1;
  const well = up >= need && data.leader;
  const top = Math.max(0, ...data.masters.map((each) => each.term));
  const commit = Math.max(0, ...data.masters.map((each) => each.commit));
  return h("div", { key: "head", class: "af-head" },
    h("strong", null, data.title),
    h("span", null, "leader ", h("b", { "data-testid": "af-leader" }, data.leader || "none")),
    h("span", null, "term ", h("b", null, count(top))),
    h("span", null, "commit ", h("b", null, count(commit))),
    data.masters.length && !data.closed ? h("span", { class: well ? "af-good" : "af-bad", "data-testid": "af-quorum" }, `${well ? "●" : "✕"} ${up >= need ? "quorum" : "no quorum:"} ${up} of ${data.masters.length}`) : null,
    data.closed ? h("span", { class: "af-soft" }, "closed") : null,
    h("span", { class: "af-push" }), extra);
}

/** One shape a kind of message: arrow heads carry entries, rings are answers, small dots are heartbeats. */
export function messageMark(kind, t, angle, lost) {
  const cls = `af-m af-m-${kind}${lost ? " af-m-lost" : ""}`;
  const style = kind !== "beat" && kind !== "work" && t > 0 ? `--af-mine:var(--af-t${term(t)})` : "";
  return kind === "append"
    ? h("path", { class: cls, style, d: "M7 0L-5 -5L-5 5Z", transform: `rotate(${angle.toFixed(1)})` })
    : h("circle", { class: cls, style, r: kind === "beat" ? 3 : 4.5 });
}

export function alerts(data) {
  return data.alerts.length ? h("div", { key: "alerts", class: "af-alerts", role: "alert" },
    data.alerts.map((each) => h("div", { key: each }, h("b", { "aria-hidden": "true" }, "! "), each))) : null;
}

/** What can be done to the masters that are picked. */
export function hands(state, ui, act) {
  const data = state.data;
  const known = new Set(data.masters.map((each) => each.id));
  const picked = [...ui.picked].filter((id) => known.has(id));
  const one = picked.length === 1 ? data.masters.find((each) => each.id === picked[0]) : null;
  const each = (name) => () => {
    picked.forEach((node) => act(name, { node }));
  };
  if (!picked.length) return h("div", { key: "hands", class: "af-hands af-soft" }, "pick nodes, or drag a line across the ring to cut it");
  return h("div", { key: "hands", class: "af-hands", role: "toolbar", "aria-label": "what to do with the picked nodes" },
    h("b", null, picked.join(", ")),
    one && one.state === "down" ? button("restart", { key: "restart", onClick: each("restart") }) : button("kill", { key: "kill", onClick: each("kill") }),
    one && one.state === "paused" ? button("resume", { key: "resume", onClick: each("resume") }) : button("pause", { key: "pause", onClick: each("pause") }),
    one && one.id !== data.leader && one.state === "up" ? button("make leader", { key: "lead", onClick: each("transfer") }) : null,
    picked.length < data.masters.length ? button("cut off", { key: "cut", onClick: () => act("partition", { side: picked }) }, "cut the network between these and the others") : null,
    button("✕", { key: "none", "aria-label": "pick none", onClick: () => { ui.picked.clear(); state.paint(); } }));
}
