/* Messages that pass, at the lower edge of the page. */
"use strict";
(() => {
  const { el, find } = latent.tools;

  /* `action`: { label, run } makes a button of the message, and keeps it longer. One whose button is being pressed, or has
     the focus, stays until it is left. */
  const topDialog = () => [...document.querySelectorAll("dialog[open]")].at(-1); // a modal one covers everything outside it
  const inUse = (toast) => toast.matches(":has(button:hover), :focus-within");
  function say(text, kind = "", action = null) {
    let host = find("#toasts");
    if (!host) host = el("div", { id: "toasts", role: "status", "aria-live": "polite" });
    let from = null; // what had the focus before the button
    const act = (event) => {
      toast.remove();
      if (!event.detail) from?.focus({ preventScroll: true }); // pressed by a key, which goes on from there
      action.run();
    };
    const toast = el("div", { class: `toast ${kind}` }, text, action ? el("button", { type: "button", onclick: act, onfocus: (event) => { from = event.relatedTarget; } }, action.label) : null);
    const top = topDialog();
    if (host.parentElement !== (top ?? document.body)) (top ?? document.body).append(host);
    for (const other of [...host.children]) if (!inUse(other)) other.remove();
    host.prepend(toast); // above one that stays, which does not move
    const leave = () => { inUse(toast) ? setTimeout(leave, 1000) : toast.remove(); };
    setTimeout(leave, kind === "bad" || action ? 8000 : 3000);
  }
  /* Values were taken into the form; `notes` say what of them did not fit. */
  const sayTaken = (text, notes, action = null) => say([text, ...notes].join(" "), notes.length ? "bad" : "", action);
  const complain = (error) => say(`${error.message} ${error.advice || ""}`.trim(), "bad");

  async function copyText(text, what) {
    let copied = true;
    try { await navigator.clipboard.writeText(text); } catch { copied = copySelected(text); }
    copied ? say(`${what} copied.`) : say(`${what} not copied: the browser does not allow it here. Select it and copy it by the keyboard.`, "bad");
  }
  /* The old way, for plain http across a network, where there is no clipboard. Outside of a modal dialog nothing can be
     selected while one is open. */
  function copySelected(text) {
    const area = el("textarea", { class: "off-screen", "aria-hidden": "true" }), before = document.activeElement;
    area.value = text;
    (topDialog() ?? document.body).append(area);
    area.focus({ preventScroll: true });
    area.select();
    const copied = document.activeElement === area && document.execCommand("copy");
    area.remove();
    before?.focus?.({ preventScroll: true });
    return copied;
  }

  Object.assign(latent.tools, { say, sayTaken, complain, copyText });
})();
