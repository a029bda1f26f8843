// The console: which page is shown, and who is signed in.

import { call, Fault, SERVER } from "./api.js";
import { forget } from "./asked.js";
import { button, el, trouble } from "./dom.js";
import { showIndex } from "./index.js";
import { showIndexes } from "./indexes.js";
import { showKeys } from "./keys.js";
import { showServer } from "./server.js";
import { keyOf, signOut } from "./session.js";
import { showSignIn } from "./signin.js";

const LOOK_MS = 20_000;
const main = document.getElementById("content");
const places = document.getElementById("places");
const who = document.getElementById("who");
const light = el("span", { class: "light", role: "status" });
let leaving = new AbortController();

/** The page of the address, after the one before has let go of what it waits for. */
async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  document.querySelectorAll("dialog").forEach((each) => each.close());
  const [place, name, tab] = location.hash.replace(/^#\/?/, "").split("/").map(decoded);
  const context = { main, signal, again: show, isCurrent: () => !signal.aborted };
  mark(place);
  try {
    if (place === "server") await showServer(context);
    else if (place === "keys") await showKeys(context);
    else if (place === "index" && name) await showIndex(context, name, tab);
    else await showIndexes(context);
    if (signal.aborted) return;
    main.querySelector("h1")?.focus();
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function fail(error) {
  if (error instanceof Fault && error.status === 401) return; // see below
  const again = button("Try again", show, { class: "main" });
  main.replaceChildren(el("h1", { tabindex: "-1" }, "This page cannot be shown"), trouble(error), again);
}

function mark(place) {
  const links = [
    ["Indexes", "#/", !["keys", "server"].includes(place)],
    ["Keys", "#/keys", place === "keys"],
    ["Server", "#/server", place === "server"],
  ];
  places.replaceChildren(
    ...links.map(([text, href, isHere]) => el("a", { href, "aria-current": isHere ? "page" : null }, text)),
  );
  const out = keyOf() === null ? null : button("Sign out", leave, { class: "quiet small" });
  who.replaceChildren(...[light, out].filter(Boolean));
}

function leave() {
  signOut();
  forget();
  ask(null);
}

/** Show the form for a key, and why; what was on the page before goes. */
function ask(reason) {
  leaving.abort();
  document.querySelectorAll("dialog").forEach((each) => each.close());
  places.replaceChildren();
  who.replaceChildren(light);
  showSignIn(main, reason, show);
}

/** Say in the corner whether the server takes requests. */
async function look() {
  const [state, text] = await call("ready").then(
    () => ["good", "ready"],
    (error) => ["bad", error.message],
  );
  light.className = `light ${state}`;
  light.textContent = state === "good" ? "ready" : "not ready";
  light.title = `${SERVER}: ${text}`;
}

// A request of any page may find that the key is good no more, or that one is needed now.
window.addEventListener("unhandledrejection", (event) => {
  if (event.reason?.name === "AbortError") event.preventDefault();
});
document.addEventListener("faissbase:unauthenticated", (event) => {
  const had = keyOf() !== null;
  signOut();
  const isFirst = !had && event.detail.message.startsWith("send your API key");
  ask(isFirst ? null : event.detail);
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the part after # says which page is shown
  main.focus();
});
window.addEventListener("hashchange", show);
setInterval(() => document.visibilityState === "visible" && look(), LOOK_MS);
look();
show();
