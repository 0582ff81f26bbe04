// The token that this server asks for, if it asks for one. It is kept for this tab only, and goes with every request.

import { el } from "./dom.js";

const KEY = "millpond.token";

export const token = () => sessionStorage.getItem(KEY);

// The options of a request, with the token.
export function withToken(options = {}) {
  const kept = token();
  return kept ? { ...options, headers: { ...options.headers, authorization: `Bearer ${kept}` } } : options;
}

let asking = null;

// Asks the person for a token; everybody who waits goes on when there is one.
export function askForToken(detail) {
  asking ??= new Promise((done) => {
    const field = el("input", { type: "password", autocomplete: "current-password", "aria-label": "Token", required: "" });
    const dialog = el("dialog", { class: "token", "aria-label": "Token" });
    const take = (event) => {
      event.preventDefault();
      if (!field.value.trim()) return;
      sessionStorage.setItem(KEY, field.value.trim());
      dialog.close();
      dialog.remove();
      asking = null;
      done();
    };
    dialog.append(el("form", { onsubmit: take },
      el("h2", {}, "This server asks for a token"), el("p", { class: "dim" }, detail), field,
      el("button", { type: "submit", class: "primary" }, "Go on")));
    // There is nothing behind it that could be used without.
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    document.body.append(dialog);
    dialog.showModal();
    field.focus();
  });
  return asking;
}
