// The form for an API key.

import { call } from "./api.js";
import { el, field, form, trouble } from "./dom.js";
import { isKey, signIn } from "./session.js";

/** `reason` is the error for which a key is asked (again), or null; `done` shows what was asked for. */
export function showSignIn(main, reason, done) {
  const key = el("input", {
    type: "password",
    name: "key",
    required: true,
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "fb_…",
  });
  const remark = "Kept for this tab only, until you sign out or close it; sent to this server in a header.";
  const entry = form([field("API key", key, remark)], "Sign in", () => enter(key.value.trim(), done));
  main.replaceChildren(
    el(
      "section",
      { class: "card narrow" },
      el("h1", { tabindex: "-1" }, "Sign in"),
      reason === null ? null : trouble(reason),
      el("p", {}, "This server lets in who has a key."),
      entry,
      el(
        "p",
        { class: "muted" },
        "None yet? Whoever runs the server makes one: ",
        el("code", {}, "faissbase keys create --data ./data --tenant NAME --scopes read,write"),
      ),
    ),
  );
  key.focus();
}

async function enter(text, done) {
  if (!isKey(text)) throw new SyntaxError("a key has letters, digits and signs only, without spaces");
  signIn(text);
  await call("listIndexes"); // where the key is no good, the form comes again and says why
  done();
}
