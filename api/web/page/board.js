// What the pages about the server share: a heading, sections that fill themselves again and again, counts and states.

import { ask, poll, showLink } from "./api.js";
import { el, failed, loading } from "./dom.js";
import { number } from "./format.js";

// A page of sections. `look` is called again and again with what `paths` answer, and fills them.
export function board(main, { title, sub, sections, paths, every = 3000, look }) {
  document.title = `${title} – Millpond`;
  const line = el("p", { class: "sub" }, sub);
  const trouble = el("div", {});
  main.replaceChildren(el("div", { class: "head" }, el("div", { class: "grow" }, el("h1", {}, title), line)), trouble, el("div", { class: "grid" }, sections.map((section) => section.card ?? section)));
  let seen = false;
  const again = async () => {
    try {
      const answers = await Promise.all(paths.map((path) => ask(path)));
      seen = true;
      trouble.replaceChildren();
      showLink("live");
      await look(answers, { line, again });
    } catch (problem) {
      showLink("lost");
      if (!problem.title) console.error(problem);
      if (!seen || problem.detail) trouble.replaceChildren(el("section", { class: "card" }, failed(problem.title ? problem : { title: "This page failed", detail: String(problem.message ?? problem) }, again)));
    }
  };
  const stop = poll(every, again);
  return { close: () => { stop(); showLink(""); }, again };
}

export function section(width, title, lead) {
  const body = el("div", { class: "pad" }, loading());
  const card = el("section", { class: `card ${width}`, "aria-label": title }, el("header", {}, el("h2", {}, title)), lead ? el("p", { class: "lead" }, lead) : null, body);
  return { card, body };
}

// Keeps the place where somebody scrolled to, and the focus, while figures change.
export function fill(part, node) {
  if (part.body.querySelector("details.pop[open]")) return;
  const old = part.body.querySelector(".scroll");
  const [top, left, focused] = [old?.scrollTop ?? 0, old?.scrollLeft ?? 0, old && old === document.activeElement];
  part.body.className = node.classList.contains("scroll") || node.classList.contains("flow") ? "" : "pad";
  part.body.replaceChildren(node);
  const scroll = part.body.querySelector(".scroll");
  if (scroll) { scroll.scrollTop = top; scroll.scrollLeft = left; if (focused) scroll.focus({ preventScroll: true }); }
}

export function count(value, kind) {
  return value ? el("span", { class: `tag ${kind}` }, number(value)) : number(value ?? 0);
}

export function tag(text, kind = "", title = null) {
  return el("span", { class: `tag ${kind}`, title }, text);
}
