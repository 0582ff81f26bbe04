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

// A table from columns [{title, class, cell(row)}] and rows; the first column names the row.
export function table(caption, columns, rows) {
  const head = el("tr", {}, columns.map((column) => el("th", { scope: "col", class: column.class }, column.title)));
  const line = (row) => el("tr", {}, columns.map((column, i) => {
    const content = column.cell(row);
    return el(i === 0 ? "th" : "td", { scope: i === 0 ? "row" : null, class: column.class, title: typeof content === "string" && content.length > 50 ? content : null }, content instanceof Node ? content : String(content ?? "–"));
  }));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", {}, el("caption", { class: "sr" }, caption), el("thead", {}, head), el("tbody", {}, rows.map(line))));
}
