/* The Extensions tab: what is here, what each hooks and how long that took, and switches. */
"use strict";
(() => {
  const { el, call, complain, find, redraw, setText, isShown, plural, say } = latent.tools;
  let list = null, none = null, turn = 0;

  const took = (seconds) => (seconds < 1 ? `${(seconds * 1000).toFixed(seconds < 0.01 ? 2 : 0)} ms` : `${seconds.toFixed(1)} s`);
  function uses(one) {
    if (!one.uses.length) return null;
    const row = (use) => el("tr", {}, el("th", { scope: "row" }, use.hook), el("td", {}, plural(use.calls, "call", "calls")), el("td", {}, took(use.seconds)), el("td", {}, use.failures ? plural(use.failures, "failure", "failures") : ""));
    return el("table", {}, el("caption", {}, "Since the start"), el("tbody", {}, ...one.uses.map(row)));
  }
  function item(one) {
    const id = `extension-${one.name}`, box = el("input", { type: "checkbox", role: "switch", id });
    box.checked = one.enabled;
    box.addEventListener("change", () => flip(one, box));
    const facts = [one.version, one.author, one.licence, one.source === "package" ? "installed package" : "", one.hash].filter(Boolean).join(" · ");
    return el("li", { "data-extension": one.name, class: one.problem ? "broken" : one.enabled ? "" : "off" },
      el("div", { class: "top" }, el("label", { for: id }, box, el("strong", {}, one.title)), el("code", {}, one.name)),
      el("p", {}, one.summary), el("p", { class: "muted" }, facts),
      one.asks.length ? el("p", { class: "muted" }, `Uses: ${one.asks.join(", ")}`) : null,
      one.problem ? el("p", { class: "bad", role: "status" }, one.problem) : null, uses(one));
  }
  /* The extensions as an answer has them, unless a later one is on its way. */
  async function show(path, options) {
    const now = ++turn, { extensions } = await call(path, options);
    if (now !== turn) return;
    redraw(list, ...extensions.map(item));
    none.hidden = extensions.length > 0;
  }
  async function flip(one, box) {
    try {
      const on = box.checked;
      await show(`extensions/${one.name}/${on ? "enable" : "disable"}`, { method: "POST" });
      await latent.panels.refresh();
      say(`${one.title} is ${on ? "on" : "off"}.`);
    } catch (error) { box.checked = one.enabled; complain(error); }
  }
  async function read() {
    try { await show("extensions"); } catch (error) { setText(none, error.message); none.hidden = false; }
  }
  latent.piece("extensions", (element) => {
    list = find("[data-part=list]", element);
    none = find("[data-part=none]", element);
    new IntersectionObserver(([entry]) => { if (entry.isIntersecting && isShown(element)) read(); }).observe(element);
  });
})();
