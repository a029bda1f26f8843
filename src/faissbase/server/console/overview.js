// What an index is made of: its sizes, what is due, what was measured.

import { call } from "./api.js";
import { busy, button, dialog, el, facts, form, table, trouble } from "./dom.js";
import { askDelete, sizeOf } from "./indexes.js";
import { bytes, count, real, several, share } from "./text.js";

const PLACES = { folder: "the data folder", sharded: "object storage, as shards", faiss: "files of FAISS" };

export async function showOverview(context, index, place) {
  if (index.kind === "faiss") {
    place.replaceChildren(
      el(
        "section",
        { class: "card" },
        facts(identity(index)),
        el("div", { class: "actions" }, remover(index)),
      ),
    );
    return;
  }
  const cards = el("div", { class: "cards" });
  const raw = el("pre");
  const draw = async () => {
    const { data } = await call("stats", { index: index.name, signal: context.signal });
    const found = data.placement === "sharded" ? shardedCards(data) : folderCards(data);
    cards.replaceChildren(card("Index", identity({ ...index, ntotal: data.ntotal })), ...found);
    raw.textContent = JSON.stringify(data, null, 2);
  };
  try {
    await draw();
  } catch (error) {
    if (error.code !== "corruption") throw error;
    place.replaceChildren(...damaged(context, index, error));
    return;
  }
  if (!context.isCurrent()) return;
  const all = el("details", {}, el("summary", {}, "All of it, as the API has it"), raw);
  place.replaceChildren(cards, careOf(context, index, draw), all);
}

function identity({
  id,
  name,
  tenant_id: tenant,
  dimension,
  metric,
  index_type: type,
  ntotal,
  placement,
  kind,
}) {
  const data = (text) => el("span", { class: "data" }, text);
  return [
    ["Name", data(name)],
    ["Id", data(id)],
    ["Tenant", data(tenant)],
    ["Records", count(ntotal)],
    ["Dimension", count(dimension)],
    ["Metric", metric],
    ["Type", data(type)],
    ["Kept in", PLACES[kind === "faiss" ? kind : placement]],
  ];
}

function card(title, pairs, ...more) {
  return el("section", { class: "card" }, el("h2", {}, title), facts(pairs), more);
}

function folderCards(stats) {
  const { slots, slots_indexed: indexed, tombstones, measured } = stats;
  return [
    card("Sizes", [
      ["On disk", bytes(sizeOf(stats))],
      ["Vectors", bytes(stats.vectors_bytes)],
      ["Records", bytes(stats.records_bytes)],
      ["Index files", bytes(stats.index_bytes)],
      ["In memory", bytes(stats.memory_bytes)],
      ["Filters in memory", bytes(stats.filter_cache_bytes)],
    ]),
    card("Search", [
      ["Answered by", el("span", { class: "data" }, stats.index)],
      ["Segments", count(stats.segments)],
      [
        "Covered by the index",
        stats.segments
          ? el("span", {}, `${count(indexed)} of ${count(slots)} slots `, meter(indexed, slots, "covered"))
          : "nothing: every search is exact",
      ],
      ["Recall, at least", measured.recall_low === undefined ? null : real(measured.recall_low, 4)],
      [
        "Time for a query",
        measured.us_per_query === undefined ? null : `${real(measured.us_per_query, 3)} µs`,
      ],
      ["Effort", measured.effort === undefined ? null : real(measured.effort, 4)],
      ["Ranked again by true vectors", measured.rerank === undefined ? null : count(measured.rerank)],
      [
        "Processor time to build",
        measured.build_cpu_s === undefined ? null : `${real(measured.build_cpu_s, 3)} s`,
      ],
      ["Efforts raised for filters", listed(stats.raised_efforts)],
    ]),
    card(
      "Due",
      [
        [
          "Slots of deleted records",
          el(
            "span",
            {},
            `${count(tombstones)} (${share(tombstones, slots)}) `,
            meter(tombstones, slots, "dead"),
          ),
        ],
        ["Not yet in the index", count(slots - indexed)],
        ["Generation", count(stats.generation)],
        ["Damaged index files", listed(stats.damaged_segments)],
      ],
      el("p", { class: "muted" }, "Optimize frees dead slots and builds the index to its end."),
    ),
  ];
}

function shardedCards(stats) {
  const rows = stats.shards.map((each) => [
    el("span", { class: "data" }, each.name),
    count(each.rows),
    count(each.hidden),
    el("span", { class: "data" }, each.index),
    each.recall === null ? "–" : real(each.recall, 4),
    bytes(each.size_bytes),
  ]);
  const columns = [
    "Shard",
    ["Rows", "number"],
    ["Hidden", "number"],
    "Index",
    ["Recall", "number"],
    ["Size", "number"],
  ];
  return [
    card("Sizes", [
      ["In storage", bytes(stats.size_bytes)],
      ["In memory", bytes(stats.memory_bytes)],
      ["Version", count(stats.version)],
    ]),
    card("Search", [
      ["Answered by", el("span", { class: "data" }, stats.index)],
      ["Recall wanted", real(stats.target_recall, 4)],
      ["Recall measured", stats.measured_recall === null ? null : real(stats.measured_recall, 4)],
      ["Hidden rows", `${count(stats.tombstones)} of ${count(stats.slots)}`],
      ["Shards missing", listed(stats.shards_missing)],
    ]),
    el("section", { class: "card whole" }, el("h2", {}, "Shards"), table("Shards", columns, rows)),
  ];
}

function meter(part, whole, name) {
  return el("meter", {
    min: 0,
    max: Math.max(1, whole),
    value: part,
    "aria-label": `${name}: ${share(part, whole)}`,
  });
}

/** Names and values of an object on lines of their own; null where it has none. */
function listed(found) {
  const all = Object.entries(found ?? {});
  return all.length
    ? el(
        "span",
        { class: "data" },
        all.map(([name, value]) => el("div", {}, `${name}: ${value}`)),
      )
    : null;
}

/** How far work is; read aloud at its end alone. */
function progress(text, done, total) {
  const far = el("progress", { max: Math.max(1, total), value: done, "aria-label": text });
  return el("p", { class: "muted", "aria-live": "off" }, `${text}, ${count(done)} of ${count(total)} `, far);
}

function remover(index) {
  return button("Delete this index", () => askDelete(index, () => (location.hash = "#/")), {
    class: "bad quiet",
  });
}

function careOf(context, index, draw) {
  const place = el("div", { "aria-live": "polite" });
  const act = (text, route, tell) => {
    const run = async () => {
      place.replaceChildren(el("p", { class: "muted" }, `${text}: running, which may take long…`));
      const { data } = await call(route, {
        index: index.name,
        body: {},
        signal: context.signal,
        told: ({ phase, done, total }) => place.replaceChildren(progress(`${text}: ${phase}`, done, total)),
      });
      place.replaceChildren(tell(data));
      await draw();
    };
    const node = button(text, () => busy(node, place, run));
    return node;
  };
  const told = (data) => el("pre", { class: "card" }, JSON.stringify(data, null, 2));
  const mend = () => askRepair(index, async (data) => (place.replaceChildren(repaired(data)), await draw()));
  return el(
    "section",
    {},
    el(
      "div",
      { class: "actions" },
      act("Optimize", "optimize", told),
      act("Verify", "verify", (data) => checked(data, mend)),
      act("Measure recall", "recall", recalled),
      remover(index),
    ),
    place,
  );
}

function checked({ ok, rows_checked: rows, problems }, mend) {
  if (ok)
    return el(
      "p",
      { class: "notice good" },
      `Everything was read and is as it was written: ${count(rows)} rows.`,
    );
  const lines = problems.map((each) => [
    each.kind,
    el("span", { class: "data" }, each.where),
    el("span", { class: "data" }, each.message),
  ]);
  return el(
    "div",
    { class: "notice bad" },
    el("p", {}, "Damage was found."),
    table("Problems", ["Kind", "Where", "What"], lines),
    button("Repair", mend),
  );
}

/** What can be done about an index that is too damaged to tell its sizes; `error` says how that is. */
function damaged(context, index, error) {
  const outcome = el("div", { "aria-live": "polite" });
  const open = button("Open it", context.again, { class: "main" });
  const mend = () =>
    askRepair(index, (data) => outcome.replaceChildren(repaired(data), el("p", { class: "actions" }, open)));
  const read = async () => {
    const { data } = await call("verify", { index: index.name, body: {}, signal: context.signal });
    outcome.replaceChildren(checked(data, mend));
  };
  const verify = button("Verify", () => busy(verify, outcome, read));
  const actions = el("div", { class: "actions" }, verify, button("Repair", mend), remover(index));
  return [trouble(error), actions, outcome];
}

function askRepair({ name }, done) {
  const text =
    "What is derived is made anew, and records that are damaged are moved into a file beside the index. Meanwhile " +
    "it answers nobody. It takes a key with the scope admin.";
  dialog("Repair an index", (close) =>
    form([el("p", {}, text)], "Repair it", async () => {
      const { data } = await call("repair", { index: name });
      close();
      await done(data);
    }),
  );
}

function repaired({ actions, quarantined_ids: ids, quarantine_path: kept }) {
  const data = (text) => el("span", { class: "data" }, text);
  return el(
    "div",
    { class: "notice warn" },
    el("p", {}, actions.length ? "Repaired; verify it again." : "There was nothing to repair."),
    el("ul", {}, actions.map((each) => el("li", {}, data(each)))),
    ids.length
      ? el("p", {}, `Put aside, ${several(ids.length, "record")}: `, data(ids.join(", ")), ", in ", data(kept))
      : null,
  );
}

/** What came of recent questions that were asked again exactly: a line for each share that a filter left. */
function recalled({ bands, n_sampled: sampled, n_measured: measured, cpu_s: seconds }) {
  if (sampled === 0)
    return el(
      "p",
      { class: "notice" },
      "Nothing was asked of this index by vector since the server opened it: search first, then measure.",
    );
  const columns = [
    "Records that match",
    ["Questions", "number"],
    ["Recall", "number"],
    ["95 % interval", "number"],
    ["Wanted", "number"],
    ["Answered exactly", "number"],
    ["Effort", "number"],
    "",
  ];
  const summary = `${count(measured)} of ${several(sampled, "recent question")} asked again exactly, in ${real(seconds, 2)} s.`;
  return el("div", {}, el("p", { class: "summary" }, summary), table("Recall", columns, bands.map(lineOf)));
}

function lineOf(band) {
  const low = band.share_above ? `${real(100 * band.share_above, 3)} to ` : "up to ";
  const isMissed = band.recall_high < band.target;
  return [
    `${low}${real(100 * band.share_to, 3)} %`,
    count(band.n_queries),
    band.recall.toFixed(4),
    `${band.recall_low.toFixed(4)} to ${band.recall_high.toFixed(4)}`,
    real(band.target, 4),
    count(band.n_exact),
    `× ${real(band.effort_factor, 3)}`,
    el("strong", { class: isMissed ? "bad" : "good" }, isMissed ? "missed" : "met"),
  ];
}
