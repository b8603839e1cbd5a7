/* Messages that pass, at the lower edge of the page. */
"use strict";
(() => {
  const { el, find } = latent.tools;

  /* `action`: { label, run } makes a button of the message, and keeps it longer. One whose button is being pressed, or has
     the focus, stays until it is left. */
  const inUse = (toast) => toast.matches(":has(button:hover), :focus-within");
  function say(text, kind = "", action = null) {
    let host = find("#toasts");
    if (!host) host = el("div", { id: "toasts", role: "status", "aria-live": "polite" });
    const act = () => { toast.remove(); action.run(); };
    const toast = el("div", { class: `toast ${kind}` }, text, action ? el("button", { type: "button", onclick: act }, action.label) : null);
    const top = [...document.querySelectorAll("dialog[open]")].at(-1); // a modal dialog covers everything outside it
    if (host.parentElement !== (top ?? document.body)) (top ?? document.body).append(host);
    for (const other of [...host.children]) if (!inUse(other)) other.remove();
    host.prepend(toast); // above one that stays, which does not move
    const leave = () => { inUse(toast) ? setTimeout(leave, 1000) : toast.remove(); };
    setTimeout(leave, kind === "bad" || action ? 8000 : 3000);
  }
  const complain = (error) => say(`${error.message} ${error.advice || ""}`.trim(), "bad");

  async function copyText(text, what) {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // no clipboard on plain http across a network: the old way
      const area = el("textarea", { class: "off-screen", "aria-hidden": "true" });
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    say(`${what} copied.`);
  }

  Object.assign(latent.tools, { say, complain, copyText });
})();
