/* Drafts: the form as typed is kept on the server, by user, so that a crash or another device loses nothing.

   The newest wins. This browser keeps a copy of its own (form.js) for the moments without a server, and knows the
   server's time of the last draft that it wrote or took. At the start a draft that is newer than that was typed
   elsewhere and is taken, unless something was typed here that never reached the server and is newer still. */
"use strict";
latent.drafts = (() => {
  const { call, store, say } = latent.tools;
  const FORM = "txt2img", AFTER = 700; // ms after the last change
  let timer = 0, sent = null, ready = false;

  /* Field by field: the server gives them in another order, and seeds, which are text here, as numbers. */
  const plain = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));
  const same = (a, b) => {
    if (!a || !b) return a === b;
    return [...new Set([...Object.keys(a), ...Object.keys(b)])].every((key) => plain(a[key]) === plain(b[key]));
  };
  const kept = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));

  /* Whether the server's draft replaces what this browser has. Times in unix seconds; `typed`: of what was not sent. */
  function wins(draft, { seen, typed }) {
    return Boolean(draft.data) && draft.updated > seen && draft.updated > typed;
  }

  async function save() {
    clearTimeout(timer);
    const data = kept(latent.form.values);
    if (same(data, sent)) { store.set("draft-typed", 0); return; }
    try {
      const { updated } = await call(`history/drafts/${FORM}`, { method: "POST", json: { data } });
      sent = data;
      store.set("draft-seen", updated);
      if (same(data, kept(latent.form.values))) store.set("draft-typed", 0);
    } catch { timer = setTimeout(save, 5000); } // the copy in the browser is safe meanwhile
  }

  const first = call(`history/drafts/${FORM}`).catch(() => null);
  let typing = false; // by hand, since the page was opened: newer than a draft that comes late
  document.addEventListener("input", (event) => { typing ||= event.isTrusted && Boolean(event.target.closest?.("#making")); }, true);
  async function begin() {
    const draft = await first;
    const known = { seen: store.get("draft-seen", 0), typed: store.get("draft-typed", 0) };
    if (typing) sent = null;
    else if (draft && wins(draft, known)) {
      sent = draft.data;
      store.set("draft-seen", draft.updated);
      if (!same(draft.data, kept(latent.form.values))) {
        latent.tabs.adopt(draft.data);
        await latent.form.set(draft.data, true);
        if (known.seen) say("The form is as you left it elsewhere.");
      }
    } else if (draft?.data && !known.typed) sent = kept(latent.form.values);
    ready = true;
    changed(latent.form.values);
  }
  function changed(values) {
    if (!ready || same(kept(values), sent)) return;
    store.set("draft-typed", Date.now() / 1000);
    clearTimeout(timer);
    timer = setTimeout(save, AFTER);
  }

  let begun = false;
  latent.form.listeners.push((values) => {
    if (!begun) { begun = true; setTimeout(begin, 0); }
    else changed(values);
  });
  addEventListener("pagehide", () => { // the last letters, as the page goes
    const data = kept(latent.form.values);
    if (!ready || same(data, sent)) return;
    fetch(`history/drafts/${FORM}`, { method: "POST", keepalive: true, headers: { "content-type": "application/json" }, body: JSON.stringify({ data }) }).catch(() => {});
  });
  return { wins };
})();
