// The records of an index, page by page, by filter or by id.

import { call } from "./api.js";
import { busy, button, el, field, form, option, table } from "./dom.js";
import { askNewRecord, askRecord, documentOf, likeOf, metadataOf, openerOf } from "./record.js";
import { nothingYet } from "./snippets.js";
import { count, jsonText, several } from "./text.js";

const SIZES = [25, 50, 100, 250];

export async function showRecords(context, index, place) {
  const page = new Pages(context, index);
  const add = button("Add a record", () =>
    askNewRecord(index, index.ntotal === 0 ? context.again : context.changed),
  );
  if (index.ntotal === 0) {
    place.replaceChildren(el("p", { class: "actions" }, add), nothingYet(index));
    return;
  }
  const forms = el("div", { class: "sides uneven" }, finder(context, index), filterForm(page));
  place.replaceChildren(forms, el("div", { class: "head" }, page.summary, add), page.node);
  await page.first();
  return (fresh) => page.reload(fresh);
}

function finder(context, index) {
  const id = el("input", { class: "data", autocomplete: "off", spellcheck: "false", required: true });
  const node = form([field("Look up an id", id)], "Open", () => askRecord(context, index, id.value), {
    kind: "plain",
  });
  node.className = "inline card";
  return node;
}

function filterForm(page) {
  const filter = el("textarea", {
    rows: "2",
    class: "data",
    spellcheck: "false",
    placeholder: '{"section": "guide"}',
  });
  const size = el(
    "select",
    {},
    SIZES.map((each) => option(each, each, each === page.size)),
  );
  size.addEventListener("change", () => ((page.size = Number(size.value)), page.turn(() => page.first())));
  const node = form(
    [field("Filter", filter, "JSON; empty for all."), field("Records a page", size)],
    "Apply",
    () => {
      page.filter = filter.value.trim() ? jsonText(filter.value, "the filter") : null;
      return page.first();
    },
    { kind: "plain" },
  );
  node.className = "inline card";
  return node;
}

/** One page at a time; the cursors that led to it are kept for the way back. */
class Pages {
  constructor(context, index) {
    Object.assign(this, { context, index, filter: null, size: SIZES[0], total: null });
    this.cursors = [null];
    this.place = el("div");
    this.outcome = el("div");
    this.summary = el("p", { class: "summary", role: "status" });
    this.before = button("Previous", () => this.turn(() => this.load(this.cursors.slice(0, -1))));
    this.after = button("Next", () => this.turn(() => this.load([...this.cursors, this.cursor])));
    const turning = el("nav", { class: "actions", "aria-label": "Pages" }, this.before, this.after);
    this.node = el("section", { "aria-label": "Records" }, this.outcome, this.place, turning);
  }

  first() {
    return this.countAndLoad([null]);
  }

  /** The same page again, of an index that has changed. */
  reload(index) {
    this.index = index;
    return this.turn(() => this.countAndLoad(this.cursors));
  }

  async countAndLoad(cursors) {
    const found = this.filter === null ? null : await this.ask("countRecords", `{"filter": ${this.filter}}`);
    this.total = found === null ? this.index.ntotal : found.count;
    await this.load(cursors);
  }

  turn(run) {
    return busy(this.after, this.outcome, run);
  }

  async ask(route, body) {
    const { index, context } = this;
    return (await call(route, { index: index.name, body, signal: context.signal })).data;
  }

  /** Show the page that the last of some cursors leads to. */
  async load(cursors) {
    const cursor = cursors.at(-1);
    const page = this.filter === null ? await this.listed(cursor) : await this.filtered(cursor);
    this.cursors = cursors;
    this.cursor = page.cursor;
    this.draw(page.vectors);
  }

  async listed(cursor) {
    const query = { limit: this.size, cursor };
    return (await call("listRecords", { index: this.index.name, query, signal: this.context.signal })).data;
  }

  filtered(cursor) {
    const more = cursor === null ? "" : `, "cursor": ${JSON.stringify(cursor)}`;
    return this.ask("getRecords", `{"filter": ${this.filter}, "limit": ${this.size}${more}}`);
  }

  draw(records) {
    this.outcome.replaceChildren();
    const page = this.cursors.length;
    const all =
      this.filter === null
        ? several(this.total, "record")
        : `${several(this.total, "record")} of ${count(this.index.ntotal)} match`;
    this.summary.textContent = `${all} · page ${page}`;
    this.before.disabled = page === 1;
    this.after.disabled = this.cursor === null;
    this.place.replaceChildren(
      records.length ? this.tableOf(records) : el("p", { class: "empty" }, "No record here."),
    );
  }

  tableOf(records) {
    const rows = records.map((each) => [
      openerOf(this.context, this.index, each.id),
      metadataOf(each.metadata),
      documentOf(each.document),
      likeOf(this.index, each.id),
    ]);
    return table("Records", [["Id", "id"], "Metadata", "Document", ["", "acts"]], rows);
  }
}
