// One record in a window: read, changed, deleted, made.

import { call } from "./api.js";
import { searchLike } from "./asked.js";
import { busy, button, copyButton, dialog, el, facts, field, form } from "./dom.js";
import { jsonText, real, start, vectorText } from "./text.js";

const GLANCE = 140;
const FIELDS = 5;
const VALUE = 32;
const NUMBERS = 12;

// ---- at a glance -----------------------------------------------------------------------------------

/** The first fields of metadata, which open to all of them. */
export function metadataOf(metadata) {
  const fields = Object.entries(metadata ?? {});
  if (fields.length === 0) return el("span", { class: "muted" }, "–");
  const shown = fields.slice(0, FIELDS).map(([name, value]) => {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    return el(
      "span",
      { class: "pair-of" },
      el("span", { class: "muted" }, start(name, VALUE)),
      " ",
      start(text, VALUE),
    );
  });
  const more =
    fields.length > FIELDS ? el("span", { class: "muted" }, `and ${fields.length - FIELDS} more`) : null;
  const whole = () => el("pre", {}, JSON.stringify(metadata, null, 2));
  return glance(el("summary", { class: "data" }, shown, more), whole);
}

export function documentOf(document) {
  if (document === undefined || document === null) return el("span", { class: "muted" }, "–");
  if (document.length <= GLANCE) return el("span", { class: "text" }, document);
  return glance(el("summary", { class: "text" }, start(document, GLANCE)), () =>
    el("pre", { class: "prose" }, document),
  );
}

function glance(summary, whole) {
  const node = el("details", { class: "glance" }, summary);
  node.addEventListener("toggle", () => node.open && node.children.length === 1 && node.append(whole()));
  return node;
}

export function openerOf(context, index, id) {
  return button(id, () => askRecord(context, index, id), { class: "link data", "aria-haspopup": "dialog" });
}

export function likeOf(index, id) {
  return button("Like this", () => searchLike(index, id), {
    class: "small quiet",
    "aria-label": `Search like ${id}`,
  });
}

// ---- in whole --------------------------------------------------------------------------------------

/** Read a record and show it. */
export async function askRecord(context, index, id) {
  const body = { ids: [id], include_vectors: true };
  let found;
  try {
    const { data } = await call("getRecords", { index: index.name, body });
    found = data.vectors[0] ?? null;
  } catch (error) {
    if (error.status === 401) return;
    dialog(id, () => troubleOf(error));
    return;
  }
  if (found === null)
    dialog("No such record", () =>
      el("p", {}, "There is no record ", el("strong", { class: "data" }, id), "."),
    );
  else showRecord(context, index, found);
}

function troubleOf(error) {
  const place = el("div");
  busy(place, place, () => Promise.reject(error));
  return place;
}

function showRecord(context, index, record) {
  dialog(
    record.id,
    (close) => {
      const place = el("div");
      const read = () => place.replaceChildren(reading(index, record, { close, edit, remove }));
      const edit = () =>
        place.replaceChildren(editing(index, record, { read, done: () => (close(), context.changed()) }));
      const remove = () =>
        place.replaceChildren(removing(index, record, { read, done: () => (close(), context.changed()) }));
      read();
      return place;
    },
    { isWide: true },
  );
}

function reading(index, { id, metadata, document, values }, { close, edit, remove }) {
  const like = button("Search like this", () => (close(), searchLike(index, id)), { class: "main" });
  const shown = values
    .slice(0, NUMBERS)
    .map((each) => real(each, 5))
    .join(", ");
  const vector = el(
    "div",
    {},
    el("code", { class: "data" }, `[${shown}${values.length > NUMBERS ? ", …" : ""}] `),
    navigator.clipboard === undefined ? null : copyButton(JSON.stringify(values), "the vector"),
  );
  return el(
    "div",
    {},
    facts([
      [
        "Document",
        document === undefined || document === null ? null : el("pre", { class: "prose" }, document),
      ],
      ["Metadata", el("pre", {}, JSON.stringify(metadata, null, 2))],
      [`Vector of ${values.length}`, vector],
    ]),
    el(
      "div",
      { class: "actions" },
      like,
      button("Edit", edit),
      button("Delete", remove, { class: "bad quiet" }),
    ),
  );
}

/** Whether a value has whole numbers that have lost their digits: see `parse` in api.js. */
function isRounded(value) {
  if (typeof value === "object" && value !== null) return Object.values(value).some(isRounded);
  return Number.isInteger(value) && !Number.isSafeInteger(value);
}

function editing(index, record, { read, done }) {
  const metadata = el("textarea", { class: "data", rows: "8", spellcheck: "false" });
  metadata.value = JSON.stringify(record.metadata, null, 2);
  const document = el("textarea", { rows: "5" });
  document.value = record.document ?? "";
  metadata.readOnly = isRounded(record.metadata);
  const remark = metadata.readOnly
    ? "Not changed here: it has whole numbers that this browser would round."
    : "A JSON object; it takes the place of the stored one.";
  const parts = [field("Metadata", metadata, remark), field("Document", document)];
  const before = [metadata.value, document.value];
  const save = async () => {
    // What was not touched is not sent: somebody else may have changed it meanwhile.
    const metadatas = metadata.value === before[0] ? "null" : jsonText(metadata.value, "the metadata");
    const documents = document.value === before[1] ? "null" : JSON.stringify(document.value);
    const changes = metadatas === "null" ? "" : `, "metadatas": [${metadatas}], "replace": true`;
    const body = `{"ids": ${JSON.stringify([record.id])}, "documents": [${documents}]${changes}}`;
    await call("updateRecords", { index: index.name, body });
    done();
  };
  return form(parts, "Save", save, { extra: [button("Cancel", read)] });
}

function removing(index, { id }, { read, done }) {
  const part = el("p", {}, "Delete ", el("strong", { class: "data" }, id), " for good?");
  const remove = async () => {
    await call("deleteRecords", { index: index.name, body: { ids: [id] } });
    done();
  };
  return form([part], "Delete it", remove, { kind: "danger", extra: [button("Cancel", read)] });
}

/** Ask for a new record and store it. */
export function askNewRecord(index, done) {
  const id = el("input", { class: "data", required: true, autocomplete: "off", spellcheck: "false" });
  const vector = el("textarea", {
    class: "data",
    rows: "3",
    required: true,
    spellcheck: "false",
    placeholder: "[0.12, -0.03, …]",
  });
  const metadata = el("textarea", {
    class: "data",
    rows: "3",
    spellcheck: "false",
    placeholder: '{"section": "guide"}',
  });
  const document = el("textarea", { rows: "3" });
  dialog("Add a record", (close) =>
    form(
      [
        field("Id", id, "One that exists is refused."),
        field("Vector", vector, `${index.dimension} numbers, as a JSON array.`),
        field("Metadata", metadata, "A JSON object, or empty."),
        field("Document", document, "What a text search reads, or empty."),
      ],
      "Store it",
      async () => {
        await call("putRecords", {
          index: index.name,
          query: { mode: "add" },
          body: bodyOf(id, vector, metadata, document),
        });
        close();
        done();
      },
    ),
  );
}

function bodyOf(id, vector, metadata, document) {
  const parts = [`"id": ${JSON.stringify(id.value)}`, `"values": ${vectorText(vector.value)}`];
  if (metadata.value.trim()) parts.push(`"metadata": ${jsonText(metadata.value, "the metadata")}`);
  if (document.value) parts.push(`"document": ${JSON.stringify(document.value)}`);
  return `{"vectors": [{${parts.join(", ")}}]}`;
}
