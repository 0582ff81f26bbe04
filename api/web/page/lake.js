// The lake: what lies in Parquet, topic by topic, and what does not yet.

import { post } from "./api.js";
import { board, fill, section } from "./board.js";
import * as costs from "./costs.js";
import { el, nothing, table } from "./dom.js";
import { ago, bytes, number } from "./format.js";

export function show(main) {
  const parts = { lake: section("full", "Tables", "Whatever reads Parquet reads these files: Spark, Hive, DuckDB, pyarrow, Polars.") };
  const counted = costs.sections();
  return board(main, {
    title: "Lake", sub: "Asking the server…", sections: [...Object.values(parts), ...Object.values(counted)], paths: ["/v1/lake"],
    async look([lake], { line, again }) {
      const rows = lake.tables.reduce((sum, t) => sum + t.rows, 0);
      line.textContent = `${lake.url} · ${number(rows)} rows · ${bytes(lake.tables.reduce((sum, t) => sum + t.bytes, 0))}`;
      fill(parts.lake, lakeTable(lake, again));
      await costs.look(counted);
    },
  });
}

function lakeTable(lake, look) {
  if (!lake.tables.length) return nothing("Nothing settles in the lake", "Declare [[lake.tables]] with a topic in the configuration.");
  const flush = (topic) => el("button", { type: "button", class: "quiet", onclick: async (event) => {
    event.target.disabled = true;
    try { await post(`/v1/lake/${encodeURIComponent(topic)}/flush`, {}); await look(); } catch (problem) { event.target.textContent = "failed"; event.target.title = problem.detail ?? ""; }
  } }, "Flush now");
  return table(`Lake at ${lake.url}`, [
    { title: "Topic", cell: (t) => el("span", {}, t.topic, t.put_aside.map((one) => el("span", { class: "tag warn beside", title: one.told }, "put aside"))) }, { title: "Files", class: "num", cell: (t) => number(t.files) }, { title: "Merged", class: "num", cell: (t) => (t.merge_error ? el("span", { class: "tag bad", title: t.merge_error }, "failing") : number(t.merged.files)) }, { title: "Rows", class: "num", cell: (t) => number(t.rows) }, { title: "Size", class: "num", cell: (t) => bytes(t.bytes) }, { title: "Not yet", class: "num", cell: (t) => number(t.lag_records) },
    { title: "Last flush", class: "num", cell: (t) => (t.error ? el("span", { class: "tag bad", title: t.error }, "failing") : ago(t.last_flush)) }, { title: "", cell: (t) => flush(t.topic) },
  ], lake.tables);
}
