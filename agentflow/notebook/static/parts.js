// What all views share: elements kept by key, numbers in words, the theme's colours, and the line to the kernel.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(
  "svg g path line rect circle text tspan title polyline polygon defs clipPath pattern".split(" "),
);

function there(kid) {
  return kid !== null && kid !== undefined && typeof kid !== "boolean";
}

/** One element to be: text given as children is only ever text. */
export function h(tag, props, ...kids) {
  return { tag, props: props || {}, kids: kids.flat(Infinity).filter(there) };
}

/** Make the children of an element those, keeping what is there: a pressed button or a focus survives an update. */
export function patch(parent, children) {
  const kids = children.flat(Infinity).filter(there);
  const keyed = new Map();
  const loose = [];
  for (const node of parent.childNodes) {
    if (node.afKey !== undefined) keyed.set(node.afKey, node);
    else loose.push(node);
  }
  const used = new Set();
  let at = 0;
  for (const kid of kids) {
    let node;
    if (typeof kid !== "object") {
      const said = String(kid);
      node = loose.find((each) => each.nodeType === 3 && !used.has(each));
      if (!node) node = document.createTextNode(said);
      else if (node.data !== said) node.data = said;
    } else {
      const { tag, props } = kid;
      if (props.key !== undefined) {
        node = keyed.get(props.key);
        if (node && node.afTag !== tag) node = undefined;
      } else {
        node = loose.find((each) => each.afTag === tag && !used.has(each));
      }
      if (!node) {
        node = SVG_TAGS.has(tag) && !(tag === "title" && parent.namespaceURI !== SVG)
          ? document.createElementNS(SVG, tag)
          : document.createElement(tag);
        node.afTag = tag;
        node.afProps = {};
        if (props.key !== undefined) node.afKey = props.key;
      }
      dress(node, props);
      if (!props.own) patch(node, kid.kids);
    }
    used.add(node);
    const here = parent.childNodes[at];
    if (here !== node) parent.insertBefore(node, here || null);
    at += 1;
  }
  while (parent.childNodes.length > at) parent.removeChild(parent.lastChild);
}

function dress(node, props) {
  const before = node.afProps;
  for (const [name, value] of Object.entries(props)) {
    if (name === "key" || name === "own") continue;
    if (name.startsWith("on")) {
      node[name.toLowerCase()] = value;
    } else if (name === "ref") {
      value(node);
    } else if (name === "value") {
      // What somebody is dragging or typing in is theirs.
      if (node.value !== String(value) && document.activeElement !== node) node.value = value;
    } else if (before[name] !== value) {
      if (value === false || value === null || value === undefined) node.removeAttribute(name);
      else node.setAttribute(name, value === true ? "" : value);
    }
  }
  for (const name of Object.keys(before)) {
    if (!(name in props)) {
      if (name.startsWith("on")) node[name.toLowerCase()] = null;
      else node.removeAttribute(name);
    }
  }
  node.afProps = props;
}

// --- numbers and words ------------------------------------------------------------------------------------

export const STATES = ["PENDING", "READY", "RUNNING", "COMPLETED", "FAILED", "RETRYING", "CANCELLED", "SKIPPED"];
export const WORDS = ["waiting", "ready", "running", "done", "failed", "retrying", "cancelled", "skipped"];
export const MARKS = ["", "", "▸", "✓", "✗", "↻", "⊘", "⊘"];
export const BAR_ORDER = [3, 2, 5, 4, 1, 6, 7, 0];

export function count(number) {
  return Number(number).toLocaleString("en-US");
}

export function many(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

export function seconds(value) {
  if (value < 0.0005) return "0 s";
  if (value < 1) return `${value < 0.01 ? (value * 1000).toFixed(1) : Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(1)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
}

export function fit(text, most) {
  const said = String(text);
  return said.length <= most ? said : `${said.slice(0, Math.max(1, most - 1))}…`;
}

export function term(number) {
  return (((number - 1) % 5) + 5) % 5;
}

export function still() {
  return window.matchMedia("(prefers-reduced-motion: reduce)").matches;
}

export function colour(root, name) {
  return getComputedStyle(root).getPropertyValue(`--af-${name}`).trim() || "#888";
}

export function caption(title, sub) {
  return h("div", { class: "af-cap" }, h("b", null, title), sub ? h("span", null, sub) : null);
}

export function button(label, props, title) {
  return h("button", { type: "button", class: "af-button", title: title || null, ...props }, label);
}

/** Tasks by state as one bar, and in words. */
export function bar(counts, extra) {
  const total = counts.reduce((a, b) => a + b, 0);
  const said = BAR_ORDER.filter((state) => counts[state]).map((state) => `${count(counts[state])} ${WORDS[state]}`);
  return [
    h("div", { class: "af-bar", role: "img", "aria-label": said.join(", ") || "no tasks" },
      BAR_ORDER.filter((state) => counts[state]).map((state) =>
        h("i", { key: state, class: `af-s-${state}`, style: `flex:${counts[state] / total}` }))),
    h("div", { class: "af-said" },
      BAR_ORDER.filter((state) => counts[state]).map((state) =>
        h("span", { key: state, class: `af-w-${state}` }, `${MARKS[state]} ${count(counts[state])} ${WORDS[state]}`)),
      extra ? h("span", { key: "x" }, extra) : null),
  ];
}

// --- the line to the kernel -------------------------------------------------------------------------------

const BEAT_MS = 4000;
const PATIENCE_MS = 9000;

function read(model, name) {
  const value = model.get(name);
  if (!value || !value.byteLength) return null;
  const bytes = new Uint8Array(value.buffer || value, value.byteOffset || 0, value.byteLength);
  return JSON.parse(new TextDecoder().decode(bytes));
}

/** Begin a view: `draw(data)` is called with every snapshot, `data.fixed` and what `keep` made of it. */
export function view(model, el, { name, draw, keep, rest }) {
  const root = document.createElement("div");
  root.className = `af-live af-${name}`;
  root.tabIndex = -1;
  root.setAttribute("role", "region");
  root.dataset.testid = `af-${name}`;
  // In a row of widgets each gets its share of the width; its own contents claim none.
  el.style.width = "100%";
  el.style.minWidth = "0";
  el.appendChild(root);
  const state = { root, fixed: null, data: null, said: null, resting: "", heard: performance.now(), here: performance.now() };
  let asked = 0;
  let frozen = false;

  // A kernel that is gone takes no messages: the view says that it rests, and no error is left on the console.
  function send(what) {
    try {
      Promise.resolve(model.send(what)).catch(gone);
    } catch {
      gone();
    }
  }
  state.do = (name, given) => {
    state.said = { line: "…", error: "" };
    send({ what: "do", do: name, ...given });
    paint();
  };
  state.resync = () => {
    const now = performance.now();
    if (now - asked > 1000) {
      asked = now;
      send({ what: "resync" });
    }
  };
  state.paint = () => paint();

  let waiting = false;
  function paint() {
    if (waiting) return;
    waiting = true;
    const go = () => {
      waiting = false;
      if (!root.isConnected && state.data) return;
      if (state.data) {
        draw(state);
        root.dataset.n = String((Number(root.dataset.n) || 0) + 1);
      }
    };
    // A hidden page draws no frames, and needs none.
    if (document.visibilityState === "visible") requestAnimationFrame(go);
    else waiting = false;
  }

  function fixed() {
    state.fixed = read(model, "fixed");
    if (keep) keep(state);
    paint();
  }
  function snapshot() {
    state.data = read(model, "snapshot");
    state.heard = performance.now();
    if (state.data && state.data.frozen) frozen = true;
    if (state.data && state.taken) state.taken(state.data);
    paint();
  }
  function message(content, buffers) {
    state.here = performance.now();
    if (content.what === "said") {
      state.said = content;
      if (state.answered) state.answered(content);
      paint();
    } else if (content.what === "rest" && rest) {
      const bytes = buffers[0];
      rest(state, JSON.parse(new TextDecoder().decode(new Uint8Array(bytes.buffer || bytes, bytes.byteOffset || 0, bytes.byteLength))));
      paint();
    }
  }
  function gone() {
    if (frozen || state.dead) return;
    state.dead = true;
    state.resting = "The kernel is gone: this is the last that was known.";
    paint();
  }

  model.on("change:fixed", fixed);
  model.on("change:snapshot", snapshot);
  model.on("msg:custom", message);
  model.on("comm:close", gone);

  let visible = true;
  const observer = new IntersectionObserver((entries) => {
    const now = entries[entries.length - 1].isIntersecting;
    if (now !== visible) {
      visible = now;
      tell();
    }
  });
  observer.observe(root);
  function seen() {
    return visible && document.visibilityState === "visible" && root.isConnected;
  }
  function tell() {
    if (model.comm_live === false) {
      if (!frozen) gone();
      return;
    }
    if (seen()) send({ what: "seen" });
  }
  document.addEventListener("visibilitychange", tell);
  const beat = setInterval(() => {
    if (frozen || !seen()) return;
    tell();
    const now = performance.now();
    const quiet = now - state.heard > PATIENCE_MS;
    const before = state.resting;
    if (!state.dead && model.comm_live !== false) {
      state.resting = !quiet ? ""
        : now - state.here > PATIENCE_MS ? "No word from the kernel: this is the last that was known."
        : "The kernel answers, the cluster does not: its loop stands still.";
    }
    if (before !== state.resting) paint();
  }, BEAT_MS);

  fixed();
  snapshot();
  tell();
  return () => {
    clearInterval(beat);
    observer.disconnect();
    document.removeEventListener("visibilitychange", tell);
    model.off("change:fixed", fixed);
    model.off("change:snapshot", snapshot);
    model.off("msg:custom", message);
    model.off("comm:close", gone);
    root.remove();
  };
}

/** The last line of every view: what was just done, as Python. */
export function foot(state) {
  const said = state.said;
  const resting = state.data.frozen ? "" : state.resting;
  return h("div", { key: "foot", class: "af-foot", "aria-live": "polite" },
    resting ? h("span", { key: "rest", class: "af-bad" }, resting) : null,
    said && said.line ? h("code", { key: "code", "data-testid": "af-line" }, said.line) : null,
    said && said.error ? h("span", { key: "err", class: "af-bad", "data-testid": "af-error" }, said.error) : null,
    said && said.line && !said.error ? h("span", { key: "did", class: "af-soft" }, "# what you just did") : null,
    !said && !resting ? h("span", { key: "hint", class: "af-soft" }, state.hint || "") : null);
}
