/* What every piece of the page is built with: nodes, words, and what this browser keeps. No framework.
   Text from users and files only ever becomes text nodes and attributes, never markup. */
"use strict";
window.latent = {};
latent.tools = (() => {
  // --- nodes ---

  const el = (tag, props = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(props)) {
      if (value === undefined || value === null || value === false) continue;
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };

  const icon = (name) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("class", "icon");
    svg.setAttribute("aria-hidden", "true");
    const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
    use.setAttribute("href", `ui/icons.svg?v=${window.latentBoot.version}#${name}`);
    svg.append(use);
    return svg;
  };

  const button = (label, iconName, onclick, props = {}) =>
    el("button", { type: "button", class: "quiet", onclick, ...props }, icon(iconName), el("span", {}, label));

  const iconButton = (label, iconName, onclick, props = {}) =>
    el("button", { type: "button", class: "quiet icon-only", "aria-label": label, title: label, onclick, ...props }, icon(iconName));

  const fill = (node, ...children) => node.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
  const find = (selector, root = document) => root.querySelector(selector);
  const setText = (node, text) => { if (node && node.textContent !== text) node.textContent = text; };
  const isShown = (node) => node.isConnected && node.offsetParent !== null;

  /* Say whether a button works now. The one that has the focus keeps it: `disabled` would drop it, and the next Tab
     would begin at the top of the page. So that one only says that it is disabled, and no click comes through to it:
     not of the mouse, not of a key, not the one that Enter in a field of its form stands for. */
  const able = (node, on) => {
    const keeps = !on && node === document.activeElement;
    node.disabled = !on && !keeps;
    keeps ? node.setAttribute("aria-disabled", "true") : node.removeAttribute("aria-disabled");
  };
  addEventListener("click", (event) => {
    if (!event.target.closest?.('button[aria-disabled="true"]')) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }, true);

  /* Draw something of `host` anew by `draw`, or hide it. What had the focus has it again: the same control, else one of
     the same name, else the first of its item, else what stands in its place, else what is next to the outermost host
     that is drawn. Nothing scrolls for it. */
  const CONTROLS = "a[href], button:not(:disabled), input:not(:disabled), select:not(:disabled), textarea, summary, [tabindex]";
  const stands = (node) => node.isConnected && !node.disabled && node.getClientRects().length > 0;
  const controls = (host) => [...host.querySelectorAll(CONTROLS)].filter(stands);
  const called = (node) => node.id || node.getAttribute("aria-label") || node.textContent;
  const nextTo = (host) => {
    const reached = controls(host.closest("dialog") ?? document).filter((node) => node.tabIndex >= 0);
    return reached.find((node) => host.compareDocumentPosition(node) & Node.DOCUMENT_POSITION_FOLLOWING) ?? reached.at(-1);
  };
  let drawing = 0; // hosts, one in another
  const keepFocus = (host, draw) => {
    const focused = host.contains(document.activeElement) ? document.activeElement : null;
    const place = focused ? controls(host).indexOf(focused) : -1, item = focused?.closest("li");
    drawing++;
    try { draw(); } finally { drawing--; }
    if (!focused || (host.contains(document.activeElement) && stands(document.activeElement))) return;
    const now = controls(host), own = item && host.contains(item) ? controls(item) : [];
    const again = host.contains(focused) && stands(focused) ? focused
      : (own.length ? own : now).find((node) => called(node) === called(focused)) ?? own[0] ?? now[Math.min(place, now.length - 1)] ?? (drawing ? null : nextTo(host));
    again?.focus({ preventScroll: true });
  };

  /* Make `nodes` what `host` holds. One that is in its place already is not touched: a node that is taken out loses the
     focus, and a press on it that has begun. */
  const redraw = (host, ...nodes) => keepFocus(host, () => {
    const wanted = new Set(nodes.filter((node) => node !== null && node !== undefined));
    for (const old of [...host.childNodes]) if (!wanted.has(old)) old.remove();
    let here = host.firstChild;
    for (const node of wanted) node === here ? (here = here.nextSibling) : host.insertBefore(node, here);
  });

  const dialog = (id, label, ...children) => {
    const node = el("dialog", { id, "aria-label": label }, ...children);
    // A press beside it closes it: one that begins and ends there, for a selection of text may well end outside. A dialog
    // that fills the window is closed by a press on its own ground.
    const beside = ({ target, clientX: x, clientY: y }) => {
      const { left, top, right, bottom } = node.getBoundingClientRect();
      return target === node && (x < left || x >= right || y < top || y >= bottom || right - left >= innerWidth);
    };
    let began = false;
    node.addEventListener("pointerdown", (event) => { began = beside(event); });
    node.addEventListener("click", (event) => { if (began && beside(event)) node.close(); });
    document.addEventListener("DOMContentLoaded", () => document.body.append(node));
    return node;
  };

  // --- words ---

  const bytes = (n) => {
    if (n >= 2 ** 30) return `${(n / 2 ** 30).toFixed(n >= 10 * 2 ** 30 ? 0 : 1)} GB`;
    return n >= 2 ** 20 ? `${Math.round(n / 2 ** 20)} MB` : `${Math.ceil(n / 1024)} kB`;
  };
  const duration = (s) => {
    if (s < 60) return `${s.toFixed(1)} s`;
    const minutes = Math.floor(s / 60);
    return minutes < 60 ? `${minutes} min ${Math.floor(s % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  };
  const plural = (n, one, many) => `${n} ${n === 1 ? one : many}`;
  const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"); // for a regular expression
  const outputUrl = (path) => "outputs/" + path.split("/").map(encodeURIComponent).join("/");

  // --- what is kept ---

  /* localStorage and sessionStorage may be full, or forbidden: then nothing is kept, and nothing breaks. */
  const keeper = (storage) => ({
    get(key, otherwise) {
      try { return JSON.parse(storage().getItem("latent." + key)) ?? otherwise; } catch { return otherwise; }
    },
    set(key, value) {
      try { storage().setItem("latent." + key, JSON.stringify(value)); } catch { return false; }
      return true;
    },
  });
  const store = keeper(() => localStorage);
  const tabStore = keeper(() => sessionStorage);

  return { el, icon, button, iconButton, fill, able, keepFocus, redraw, sleep, find, setText, isShown, dialog, bytes, duration, plural, escaped, outputUrl, store, tabStore };
})();
