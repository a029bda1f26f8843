// All indexes: listed, made, deleted.

import { call } from "./api.js";
import { button, code, dialog, el, field, form, option, table } from "./dom.js";
import { curlCreate, pythonCreate } from "./snippets.js";
import { bytes, count, several } from "./text.js";

const AT_ONCE = 50;
const SIZES_AT_ONCE = 12;
const ASKERS = 3;
const TYPES = [
  "auto",
  "Flat",
  "HNSW",
  "HNSW_SQ8",
  "IVF_FLAT",
  "IVF_SQ8",
  "IVF_PQ",
  "IVF_PQ_FASTSCAN",
  "RABITQ",
  "IVF_RABITQ",
];

export async function showIndexes(context) {
  const { data } = await call("listIndexes", { signal: context.signal });
  if (!context.isCurrent()) return;
  document.title = "Indexes – faissbase";
  const create = button("New index", () => askNew(), { class: "main" });
  const head = el("div", { class: "head" }, el("h1", { tabindex: "-1" }, "Indexes"), create);
  if (data.indexes.length === 0) context.main.replaceChildren(head, nothingYet());
  else context.main.replaceChildren(head, ...listing(context, data.indexes));
}

function listing(context, indexes) {
  const known = indexes.filter((each) => each.ntotal !== null);
  const total = known.reduce((sum, each) => sum + each.ntotal, 0);
  const tenant = el("span", { class: "data" }, indexes[0].tenant_id);
  const summary = el(
    "p",
    { class: "muted" },
    `${several(indexes.length, "index", "indexes")}, ${several(total, "record")}, of tenant `,
    tenant,
  );
  const search = el("input", { type: "search", placeholder: "Part of a name" });
  const place = el("div");
  let shown = AT_ONCE;
  const draw = () => {
    const fitting = indexes.filter((each) => each.name.toLowerCase().includes(search.value.toLowerCase()));
    const more = button(`Show more of ${count(fitting.length)}`, () => ((shown += AT_ONCE), draw()));
    const none = el("p", { class: "empty" }, "No index has that in its name.");
    const rows = fitting.slice(0, shown);
    place.replaceChildren(
      ...(rows.length ? [tableOf(context, rows)] : [none]),
      ...(fitting.length > shown ? [more] : []),
    );
  };
  search.addEventListener("input", draw);
  draw();
  return [summary, indexes.length > 8 ? field("Find", search) : null, place].filter(Boolean);
}

function tableOf(context, indexes) {
  const sizes = indexes.map(() => el("span", { class: "muted" }));
  const fill = () => fillSizes(context, indexes, sizes);
  if (indexes.length <= SIZES_AT_ONCE) fill();
  else
    sizes[0].replaceChildren(
      button("Show sizes", fill, { class: "small", title: "opens each of these indexes" }),
    );
  const columns = [
    "Name",
    ["Records", "number"],
    ["Dimension", "number"],
    "Metric",
    "Type",
    ["Size", "number"],
    ["", "acts"],
  ];
  const rows = indexes.map((each, i) => [
    el("span", {}, nameOf(each), ...badges(each)),
    each.kind === "faiss" ? "–" : count(each.ntotal),
    count(each.dimension),
    each.metric,
    el("span", { class: "data" }, each.index_type),
    sizes[i],
    button("Delete", () => askDelete(each, context.again), {
      class: "small quiet",
      "aria-label": `Delete ${each.name}`,
    }),
  ]);
  return table("Indexes", columns, rows);
}

function nameOf({ name }) {
  return el("a", { class: "data strong", href: `#/index/${encodeURIComponent(name)}` }, name);
}

export function badges({ kind, placement }) {
  const faiss = el("span", { class: "badge", title: "made and named by the drop-in client" }, "FAISS");
  const sharded = el("span", { class: "badge", title: "shards in object storage" }, "sharded");
  return [kind === "faiss" ? faiss : null, placement === "sharded" ? sharded : null].filter(Boolean);
}

/** Ask for the sizes, a few at once: each opens an index. */
function fillSizes(context, indexes, places) {
  const left = [...indexes.entries()];
  const ask = async () => {
    for (let next = left.shift(); next !== undefined && context.isCurrent(); next = left.shift()) {
      const [i, { name, kind }] = next;
      places[i].textContent = "…";
      if (kind === "faiss") places[i].textContent = "–";
      else await size(context, name, places[i]);
    }
  };
  for (let i = 0; i < ASKERS; i++) ask();
}

async function size(context, name, place) {
  try {
    const { data } = await call("stats", { index: name, signal: context.signal });
    place.textContent = bytes(sizeOf(data));
    place.className = "";
  } catch (error) {
    place.textContent = "unknown";
    place.title = error.message;
  }
}

/** All bytes at rest that the stats of an index name. */
export function sizeOf(stats) {
  return stats.size_bytes ?? stats.vectors_bytes + stats.records_bytes + stats.index_bytes;
}

function nothingYet() {
  return el(
    "section",
    { class: "card" },
    el("h2", {}, "No index yet"),
    el(
      "p",
      {},
      "An index holds vectors of one dimension, each with an id, metadata and a document. Make one here, or " +
        "from a program:",
    ),
    code(curlCreate(), "with curl"),
    code(pythonCreate(), "with Python"),
  );
}

// ---- made and deleted ------------------------------------------------------------------------------

function askNew() {
  const name = el("input", { required: true, autocomplete: "off", spellcheck: "false" });
  const dimension = el("input", {
    type: "number",
    min: "1",
    max: "65535",
    required: true,
    placeholder: "384",
  });
  const metric = el(
    "select",
    {},
    option("cosine", "cosine: the angle between vectors"),
    option("l2", "l2: squared distance"),
    option("ip", "ip: inner product"),
  );
  const types = el(
    "datalist",
    { id: "index-types" },
    TYPES.map((each) => option(each)),
  );
  const type = el("input", { value: "auto", list: types.id, autocomplete: "off", spellcheck: "false" });
  dialog("New index", (close) =>
    form(
      [
        field("Name", name, "Letters, digits, '.', '_' and '-'."),
        field("Dimension", dimension, "How many numbers a vector has, as your model gives them."),
        field("Metric", metric),
        field("Type", type, "auto tunes itself; or a name or factory string of FAISS."),
        types,
      ],
      "Create",
      async () => {
        const body = {
          name: name.value.trim(),
          dimension: Number(dimension.value),
          metric: metric.value,
          index_type: type.value.trim(),
        };
        const { data } = await call("createIndex", { body });
        close();
        location.hash = `#/index/${encodeURIComponent(data.name)}`;
      },
    ),
  );
}

/** Delete an index once its name was typed again; `done` is called after that. */
export function askDelete({ name, ntotal }, done) {
  const again = el("input", { autocomplete: "off", spellcheck: "false", required: true });
  const held = ntotal === null ? "all it holds" : several(ntotal, "record");
  dialog("Delete an index", (close) => {
    const node = form(
      [
        el("p", {}, "This deletes ", el("strong", { class: "data" }, name), ` with ${held}, for good.`),
        field("Type its name to delete it", again),
      ],
      "Delete it",
      async () => {
        if (again.value !== name) throw new SyntaxError("that is not its name");
        await call("deleteIndex", { index: name });
        close();
        done();
      },
      { kind: "danger" },
    );
    const send = node.querySelector("button[type=submit]");
    send.disabled = true;
    again.addEventListener("input", () => (send.disabled = again.value !== name));
    return node;
  });
}
