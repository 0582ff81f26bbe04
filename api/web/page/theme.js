// Runs before the first paint, so that the page never flashes in the wrong colours.
(() => {
  let chosen = null;
  try { chosen = localStorage.getItem("millpond-theme"); } catch { /* storage is switched off: follow the system */ }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
