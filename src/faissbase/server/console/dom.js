// Elements. Whatever is data becomes text: nothing here, or elsewhere in the console, makes markup of it.

/** An element; attributes that begin with "on" are listeners, children are elements or text. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return node;
}

export function button(text, onclick, attributes = {}) {
  return el("button", { type: "button", onclick, ...attributes }, text);
}

let lastId = 0;

/** A label over a control, with a remark below it; both are tied to it. */
export function field(label, control, remark = null) {
  control.id ||= `f${++lastId}`;
  const about = remark === null ? null : el("small", { id: `${control.id}-about`, class: "muted" }, remark);
  if (about !== null) control.setAttribute("aria-describedby", about.id);
  return el("div", { class: "field" }, el("label", { for: control.id }, label), control, about);
}

export function option(value, text = value, isChosen = false) {
  return el("option", { value, selected: isChosen }, text);
}

/**
 * A table that becomes a list of cards in a narrow window.
 *
 * `columns` are names, or [name, class]; `rows` are lists of children. The roles are told because the
 * narrow form takes them from the elements.
 */
export function table(caption, columns, rows) {
  const all = columns.map((each) => (Array.isArray(each) ? each : [each, ""]));
  const heads = all.map(([name, kind]) =>
    el("th", { scope: "col", role: "columnheader", class: kind }, name),
  );
  const lines = rows.map((cells) =>
    el(
      "tr",
      { role: "row" },
      cells.map((cell, i) => el("td", { role: "cell", class: all[i][1], "data-label": all[i][0] }, cell)),
    ),
  );
  return el(
    "table",
    { role: "table", "aria-label": caption },
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads)),
    el("tbody", { role: "rowgroup" }, lines),
  );
}

/** Names and values side by side; those without a value are left out. */
export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return el(
    "dl",
    { class: "facts" },
    shown.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );
}

/** Text to be read as it stands, with a button that copies it where the browser can. */
export function code(text, label) {
  const copy = navigator.clipboard === undefined ? null : copyButton(text, label);
  return el("div", { class: "code" }, copy, el("pre", { tabindex: "0", "aria-label": label }, text));
}

export function copyButton(text, label, shown = "Copy") {
  const node = button(shown, async () => {
    const isCopied = await navigator.clipboard.writeText(text).then(
      () => true,
      () => false,
    );
    node.textContent = isCopied ? "Copied" : "Not allowed";
  });
  node.className = "small quiet";
  node.setAttribute("aria-label", `${shown}: ${label}`);
  return node;
}

/** Hand a file to the person, as a download. */
export function save(name, blob) {
  const href = URL.createObjectURL(blob);
  el("a", { href, download: name }).click();
  URL.revokeObjectURL(href);
}

/** A window over the page, closed by Escape, "Cancel", or once `content` says so; focus goes back. */
export function dialog(title, content, { isWide = false } = {}) {
  const before = document.activeElement;
  const heading = el("h2", { id: `d${++lastId}` }, title);
  const close = button("Close", () => node.close(), { class: "quiet small" });
  const body = el("div", { class: "dialog-body" });
  const node = el(
    "dialog",
    { "aria-labelledby": heading.id, class: isWide ? "wide" : null },
    el("div", { class: "dialog-head" }, heading, close),
    body,
  );
  node.addEventListener("close", () => {
    node.remove();
    before?.focus?.();
  });
  body.append(...[content(() => node.close())].flat(Infinity));
  document.body.append(node);
  node.showModal();
  return node;
}

/**
 * A form that runs `submit` once at a time and shows what went wrong below it, keeping what was typed.
 *
 * `verb` is what its button says, or that button, where it stands among the parts.
 */
export function form(parts, verb, submit, { kind = "main", extra = [] } = {}) {
  const place = el("div", { class: "outcome" });
  const isThere = verb instanceof Element;
  const send = isThere ? verb : el("button", { type: "submit", class: kind }, verb);
  const node = el("form", {}, parts, isThere ? null : el("div", { class: "actions" }, send, extra), place);
  node.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (send.getAttribute("aria-busy") === "true") return;
    await busy(send, place, submit);
  });
  node.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) node.requestSubmit();
  });
  return node;
}

/** Run something that a button began; it says so meanwhile, and an error is shown at `place`. */
export async function busy(control, place, run) {
  control.setAttribute("aria-busy", "true");
  place.replaceChildren();
  try {
    await run();
  } catch (error) {
    if (error.name !== "AbortError") place.replaceChildren(trouble(error));
  } finally {
    control.removeAttribute("aria-busy");
  }
}

/** What went wrong, in the server's words, with what finds it in the log. */
export function trouble(error) {
  if (error.code === undefined) {
    const isOurs = error instanceof TypeError || error instanceof ReferenceError;
    return el(
      "div",
      { class: "notice bad", role: "alert" },
      isOurs ? `A fault of this page: ${error}` : error.message,
    );
  }
  return el(
    "div",
    { class: "notice bad", role: "alert" },
    el("p", { class: "data message" }, error.message),
    el(
      "p",
      { class: "fine" },
      `${error.status} `,
      el("code", {}, error.code),
      " · request ",
      el("code", { class: "data" }, error.requestId),
    ),
  );
}
