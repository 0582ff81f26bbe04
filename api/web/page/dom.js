// Elements without a framework. Text is always text: nothing here takes HTML.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export function loading() {
  return el("div", { class: "wait", role: "status" }, el("span", { class: "sr" }, "Loading"));
}

export function nothing(title, detail) {
  return el("div", { class: "state" }, el("b", {}, title), detail);
}

export function failed(problem, again) {
  return el("div", { class: "state bad", role: "alert" }, el("b", {}, sentence(problem.title ?? "That did not work")), sentence(problem.detail ?? String(problem)),
    again ? el("div", {}, el("button", { type: "button", onclick: again }, "Try again")) : null);
}

export function sentence(text) {
  const trimmed = String(text).trim();
  return trimmed ? trimmed[0].toUpperCase() + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? "" : ".") : "";
}

// A light with a shape of its own for each colour: a disc, a triangle, a square.
const SHAPES = { green: "M8 2.2a5.8 5.8 0 1 0 0 11.6a5.8 5.8 0 1 0 0-11.6z", orange: "M8 1.6L15 14H1z", red: "M2.4 2.4h11.2v11.2H2.4z" };
const WORDS = { green: "good", orange: "watch", red: "alarm" };

export function light(status) {
  if (!(status in SHAPES)) return null;
  return svg("svg", { class: `light ${status}`, viewBox: "0 0 16 16", role: "img", "aria-label": statusWord(status) }, svg("path", { d: SHAPES[status] }));
}

export function statusWord(status) {
  return WORDS[status] ?? "not known";
}

// A button that opens a list of links and buttons below it.
export function menu(label, title, ...items) {
  const details = el("details", { class: "pop" }, el("summary", { class: "quiet button", title, "aria-label": title }, label), el("div", { class: "items" }, items));
  details.addEventListener("focusout", (event) => { if (event.relatedTarget && !details.contains(event.relatedTarget)) details.open = false; });
  details.addEventListener("click", (event) => { if (event.target.closest(".items a, .items button:not(.stay)")) details.open = false; });
  return details;
}
document.addEventListener("keydown", (event) => {
  const open = event.key === "Escape" ? document.querySelector("details.pop[open]") : null;
  if (open) { open.open = false; open.querySelector("summary").focus(); }
});
document.addEventListener("pointerdown", (event) => {
  for (const open of document.querySelectorAll("details.pop[open]")) if (!open.contains(event.target)) open.open = false;
});

// A table from columns [{title, class, cell(row), sort(row)}] and rows; the first column names the row. With `sorting`
// ({by, down}, kept by the caller) the headings are buttons.
export function table(caption, columns, rows, sorting = null) {
  const box = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption });
  const draw = () => {
    const ordered = sorting && sorting.by !== null && columns[sorting.by] ? sorted(rows, columns[sorting.by].sort, sorting.down) : rows;
    const head = el("tr", {}, columns.map((column, i) => heading(column, i, sorting, draw)));
    const line = (row) => el("tr", {}, columns.map((column, i) => {
      const content = column.cell(row);
      const shown = typeof content === "string" && content.length > 50 ? content : null;
      return el(i === 0 ? "th" : "td", { scope: i === 0 ? "row" : null, class: column.class, title: shown }, content instanceof Node ? content : String(content ?? "–"));
    }));
    const focused = [...box.querySelectorAll("thead button")].indexOf(document.activeElement);
    box.replaceChildren(el("table", {}, el("caption", { class: "sr" }, caption), el("thead", {}, head), el("tbody", {}, ordered.map(line))));
    if (focused >= 0) box.querySelectorAll("thead button")[focused]?.focus();
  };
  draw();
  return box;
}

function heading(column, i, sorting, draw) {
  if (!sorting || !column.sort) return el("th", { scope: "col", class: column.class }, column.title);
  const here = sorting.by === i;
  const turn = () => {
    // Numbers are wanted from the largest, texts from A; a third click gives the order back that they came in.
    const first = column.class === "num";
    if (!here) Object.assign(sorting, { by: i, down: first });
    else if (sorting.down === first) sorting.down = !first;
    else sorting.by = null;
    draw();
  };
  return el("th", { scope: "col", class: column.class, "aria-sort": here ? (sorting.down ? "descending" : "ascending") : null },
    el("button", { type: "button", class: "sort", onclick: turn }, column.title, el("span", { class: "arrow", "aria-hidden": "true" }, here ? (sorting.down ? "↓" : "↑") : "↕")));
}

function sorted(rows, key, down) {
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === null || x === undefined) return y === null || y === undefined ? 0 : 1;
    if (y === null || y === undefined) return -1;
    const order = typeof x === "string" || typeof y === "string" ? String(x).localeCompare(String(y), undefined, { numeric: true }) : x < y ? -1 : x > y ? 1 : 0;
    return down ? -order : order;
  };
  return [...rows].sort(compare);
}
