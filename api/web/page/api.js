// The server's answers. Whole numbers beyond 2^53 become BigInt, so that no digit is lost.

export function parse(text) {
  return JSON.parse(text, (_, value, context) => {
    if (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) && context && /^-?\d+$/.test(context.source)) return BigInt(context.source);
    return value;
  });
}

export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw { title: "The server does not answer", detail: "it may be stopping or starting again; the page tries again by itself" };
  }
  const text = await response.text();
  if (!response.ok) {
    let problem = null;
    try { problem = parse(text); } catch { /* not a problem of ours: say the status below */ }
    throw problem ?? { title: `HTTP ${response.status}`, detail: text.slice(0, 300) };
  }
  return parse(text);
}

export function post(path, body) {
  return ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
}

const link = document.getElementById("link");

// The state of the connection, as shown in the bar: live, lost or nothing.
export function showLink(state) {
  const text = { live: "Live", lost: "Reconnecting", paused: "Paused", "": "" }[state];
  if (link.dataset.state === state) return;
  link.dataset.state = state;
  link.textContent = text;
}

// Events of the server until the returned function is called; reconnects by itself.
export function listen(path, handlers) {
  let source = null;
  let timer = null;
  const open = () => {
    source = new EventSource(path);
    source.onopen = () => showLink("live");
    source.onerror = () => {
      showLink("lost");
      // The browser tries again by itself unless the answer was an error; then we do.
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, 3000);
    };
    for (const [name, handle] of Object.entries(handlers)) source.addEventListener(name, (event) => handle(parse(event.data)));
  };
  open();
  return () => { clearTimeout(timer); source?.close(); };
}

// Asks again and again while the page is seen, until the returned function is called.
export function poll(every, work) {
  let stopped = false;
  let timer = null;
  const turn = async () => {
    if (!document.hidden) await work();
    if (!stopped) timer = setTimeout(turn, every);
  };
  const seen = () => { if (!document.hidden) { clearTimeout(timer); turn(); } };
  document.addEventListener("visibilitychange", seen);
  turn();
  return () => { stopped = true; clearTimeout(timer); document.removeEventListener("visibilitychange", seen); };
}
