// The server's answers. Whole numbers beyond 2^53 become BigInt, so that no digit is lost.

import { askForToken, token, withToken } from "./token.js";

export function parse(text) {
  return JSON.parse(text, (_, value, context) => {
    if (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) && context && /^-?\d+$/.test(context.source)) return BigInt(context.source);
    return value;
  });
}

// A good answer; asks the person for a token as often as the server wants another one. Throws the problem.
export async function request(path, options = {}) {
  for (;;) {
    const sent = token();
    let response;
    try {
      response = await fetch(path, withToken({ cache: "no-store", ...options }));
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw { title: "The server does not answer", detail: "it may be stopping or starting again; the page tries again by itself" };
    }
    if (response.ok) return response;
    const text = await response.text();
    let problem = null;
    try { problem = parse(text); } catch { /* not a problem of ours: say the status below */ }
    problem ??= { title: `HTTP ${response.status}`, detail: text.slice(0, 300) };
    if (response.status !== 401) throw problem;
    if (token() === sent) await askForToken(problem.detail);
  }
}

export async function ask(path, options = {}) {
  return parse(await (await request(path, options)).text());
}

// Saves an answer as a file, under the name that the server gives it.
export async function save(path, name, options = {}) {
  const response = await request(path, options);
  const given = /filename="([^"]+)"/.exec(response.headers.get("content-disposition") ?? "")?.[1];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = given ?? name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
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

// Events of the server until the returned function is called; reconnects by itself. Not an EventSource, which cannot carry
// a token.
export function listen(path, handlers) {
  const end = new AbortController();
  let timer = null;
  const open = async () => {
    try {
      const response = await request(path, { signal: end.signal, headers: { accept: "text/event-stream" } });
      showLink("live");
      for await (const { event, data } of events(response.body)) handlers[event]?.(parse(data));
    } catch { /* said below: the connection is lost, whatever the reason */ }
    if (end.signal.aborted) return;
    showLink("lost");
    timer = setTimeout(open, 3000);
  };
  open();
  return () => { clearTimeout(timer); end.abort(); };
}

// The events of a stream of text/event-stream.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let kept = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (kept + value).split("\n\n");
    kept = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n");
      const of = (name) => lines.filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).trimStart());
      const data = of("data").join("\n");
      if (data) yield { event: of("event")[0] ?? "message", data };
    }
  }
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
