// Small views: a table that is brought up to date, and a filter over its rows.

import { h, patch, caption, count, fit, foot, view } from "./parts.js";

const SHOWN = 60;

function draw(state) {
  const { root, data, ui } = state;
  if (!state.fixed) return;
  const wanted = ui.filter.trim().toLowerCase();
  const rows = wanted ? data.rows.filter((row) => wanted.split(/\s+/).every((word) => row.some((cell) => String(cell).toLowerCase().includes(word)))) : data.rows;
  root.setAttribute("aria-label", state.fixed.title);
  root.classList.toggle("af-resting", Boolean(state.resting));
  patch(root, [
    h("div", { key: "head", class: "af-head" }, caption(state.fixed.title, data.said), h("span", { class: "af-push" }),
      data.rows.length > 5 || wanted ? h("input", {
        key: "filter", class: "af-input", type: "search", placeholder: "filter…", "aria-label": `filter the ${state.fixed.title}`, "data-testid": "af-filter", value: ui.filter,
        onInput: (event) => { ui.filter = event.target.value; state.paint(); },
        onKeydown: (event) => event.stopPropagation(),
      }) : null),
    h("div", { key: "body", class: "af-tablebox", tabindex: 0, "aria-label": `${state.fixed.title}, scrollable` },
      h("table", { class: "af-table" },
        h("thead", null, h("tr", null, state.fixed.columns.map((name) => h("th", { key: name, scope: "col" }, name)))),
        h("tbody", null, rows.slice(0, SHOWN).map((row, i) => h("tr", { key: i }, row.map((cell, k) =>
          h("td", { key: k, class: /^(down|offline|lost)/.test(String(cell)) ? "af-bad" : "" }, cell === null ? "–" : typeof cell === "number" ? count(cell) : fit(cell, 60))))))),
      rows.length ? null : h("div", { key: "none", class: "af-soft af-none" }, wanted ? "nothing matches" : "nothing yet")),
    rows.length > SHOWN ? h("div", { key: "more", class: "af-soft af-none" }, `and ${count(rows.length - SHOWN)} more`) : null,
    state.resting ? foot(state) : null,
  ]);
}

export default {
  render({ model, el }) {
    const ui = { filter: "" };
    return view(model, el, { name: "small", draw: (state) => { state.ui = ui; draw(state); } });
  },
};
