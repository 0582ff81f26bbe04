// What a person has chosen: colours and time zone. Kept in the browser, nowhere else.

function recall(key) {
  try { return localStorage.getItem(key); } catch { return null; }
}

function keep(key, value) {
  try { localStorage.setItem(key, value); } catch { /* storage is switched off: the choice lasts until the page closes */ }
}

const listeners = new Set();
const system = matchMedia("(prefers-color-scheme: dark)");

export const settings = {
  utc: recall("millpond-zone") === "utc",
  get dark() {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : system.matches;
  },
};

export const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)").matches;

export function onSettings(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function changed() {
  for (const listener of listeners) listener();
}

export function toggleTheme() {
  const theme = settings.dark ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  keep("millpond-theme", theme);
  changed();
}

export function toggleZone() {
  settings.utc = !settings.utc;
  keep("millpond-zone", settings.utc ? "utc" : "local");
  changed();
}

system.addEventListener("change", changed);
