/* The prompt boxes while they are typed into: marks, keys, completion. What is done to the text stays in the browser's
   own undo (Ctrl+Z), because it is typed, not set. */
"use strict";
latent.promptBox = (() => {
  const { el, call, find, setText } = latent.tools;
  const BOXES = "#f-prompt textarea, #f-negative_prompt textarea";
  const boxOf = (target) => target?.closest?.(BOXES);

  /* Put `text` in place of from..to as if it was typed, then select start..end. */
  function type(area, { from, to, text, start, end }) {
    area.focus();
    area.setSelectionRange(from, to);
    const done = text ? document.execCommand("insertText", false, text) : from === to || document.execCommand("delete");
    if (!done) {
      area.setRangeText(text, from, to, "end");
      area.dispatchEvent(new Event("input", { bubbles: true }));
    }
    area.setSelectionRange(start, end);
  }

  // --- keys: Ctrl+Up and Ctrl+Down weigh, Alt+Left and Alt+Right move a phrase ---

  function key(event) {
    const area = boxOf(event.target);
    if (!area || event.defaultPrevented || event.isComposing || event.shiftKey) return;
    const weight = (event.ctrlKey || event.metaKey) && !event.altKey && { ArrowUp: 1, ArrowDown: -1 }[event.key];
    const move = event.altKey && !event.ctrlKey && !event.metaKey && { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!weight && !move) return;
    event.preventDefault(); // Alt+Left would leave the page
    const act = weight ? latent.promptEdit.reweigh : latent.promptEdit.movePhrase;
    const change = act(area.value, area.selectionStart, area.selectionEnd, weight || move);
    if (change) type(area, change);
  }
  document.addEventListener("keydown", key);

  // --- brackets without a partner ---

  const TYPING = 400; // ms of rest before a new mark appears: every bracket is open while it is being typed
  const COPIED = ["font", "letterSpacing", "padding", "borderWidth", "boxSizing", "wordSpacing", "tabSize", "lineHeight", "textAlign"];

  function copyOf(area) {
    const style = getComputedStyle(area), layer = el("div", { "aria-hidden": "true" });
    for (const name of COPIED) layer.style[name] = style[name];
    layer.style.borderColor = "transparent";
    layer.style.borderStyle = "solid";
    return layer;
  }

  function marks(element, name) {
    const line = find(".marks", element);
    let layer = null, shown = "", timer = 0, watched = null;
    const area = () => find(`#f-${name} textarea`);
    const place = () => {
      const box = area();
      if (!layer || !box) return;
      const host = layer.parentElement.getBoundingClientRect(), at = box.getBoundingClientRect();
      Object.assign(layer.style, { left: `${at.left - host.left}px`, top: `${at.top - host.top}px`, width: `${box.clientWidth + 2}px`, height: `${at.height}px` });
      layer.scrollTop = box.scrollTop;
    };
    const resized = new ResizeObserver(place);
    const draw = () => {
      const box = area();
      if (!box) return;
      const problems = latent.form.values.emphasis === "None" ? [] : latent.promptEdit.brackets(box.value).slice(0, 50);
      const words = problems.slice(0, 2).map((p) => p.message).join(" · ") + (problems.length > 2 ? ` · and ${problems.length - 2} more` : "");
      setText(line, words);
      layer?.remove();
      layer = null;
      shown = words;
      if (!problems.length) return;
      layer = copyOf(box);
      layer.className = "marks-layer";
      let from = 0;
      for (const { position, bracket } of problems) {
        layer.append(box.value.slice(from, position), el("mark", {}, bracket));
        from = position + 1;
      }
      layer.append(`${box.value.slice(from)}\u200b`);
      box.closest(".prompt-field").append(layer);
      if (watched !== box) { resized.disconnect(); resized.observe(box); watched = box; }
      place();
    };
    latent.form.listeners.push((values) => {
      clearTimeout(timer);
      const text = values[name] ?? "";
      if (shown || !text) draw(); // what is marked follows at once
      else timer = setTimeout(draw, TYPING);
    });
    document.addEventListener("scroll", (event) => { if (event.target === area()) place(); }, true);
  }
  latent.piece("marks-prompt", (element) => marks(element, "prompt"));
  latent.piece("marks-negative_prompt", (element) => marks(element, "negative_prompt"));

  // --- completion ---

  const WAIT = { sure: 40, guess: 140 }; // ms; a guess is a word that may be the name of something
  const KIND_WORDS = { lora: "LoRA", hypernet: "hypernetwork", embedding: "embedding", wildcard: "wildcard", style: "style" };
  const list = el("ul", { id: "completions", role: "listbox", "aria-label": "Suggestions", hidden: true });
  const told = el("p", { class: "off-screen", "aria-live": "polite" });
  document.addEventListener("DOMContentLoaded", () => document.body.append(list, told));
  let open = null, entries = [], active = -1, turn = 0, timer = 0, nothing = "", walked = false;

  /* What is being typed before the caret: { kinds, query, from, to, sure }, or null. */
  function context(text, caret) {
    const before = text.slice(Math.max(0, caret - 200), caret), after = text.slice(caret, caret + 200);
    let match = /<hypernet:([^<>:,\n]{0,80})$/i.exec(before);
    const kinds = match ? "hypernet" : "lora";
    match ??= /<(?:(?:lora|lyco):)?([^<>:,\n]{0,80})$/i.exec(before);
    if (match) {
      const query = /^(?:l(?:o(?:ra?)?)?|l(?:yc?o?)?)$/i.test(match[1]) ? "" : match[1];
      return { kinds, query, from: caret - match[0].length, to: caret + (/^[^<>\n,(]*>/.exec(after)?.[0].length ?? 0), sure: true };
    }
    match = /__([\w][\w\-./]*)?$/.exec(before.replace(/__\w[\w \-./]*?__/g, (whole) => " ".repeat(whole.length)));
    if (match) return { kinds: "wildcard", query: match[1] ?? "", from: caret - match[0].length, to: caret + (/^[\w\-./]*__/.exec(after)?.[0].length ?? 0), sure: true };
    match = /(?:^|[\s,([{|:])(\p{L}[\p{L}\p{N}_-]{1,40})$/u.exec(before);
    if (match && !/^[\p{L}\p{N}_-]/u.test(after)) return { kinds: "embedding,style", query: match[1], from: caret - match[1].length, to: caret, sure: false };
    return null;
  }

  function close() {
    turn++;
    clearTimeout(timer);
    if (!open) return;
    list.hidden = true;
    for (const name of ["role", "aria-expanded", "aria-controls", "aria-autocomplete", "aria-activedescendant"]) open.area.removeAttribute(name);
    open = null;
    setText(told, "");
  }

  async function suggest(area) {
    const where = area.selectionStart === area.selectionEnd ? context(area.value, area.selectionStart) : null;
    if (open && open.area === area && open.kinds === where?.kinds && open.from === where.from) open.to = where.to; // what is chosen before the next list comes replaces this letter, too
    else close();
    const now = ++turn;
    clearTimeout(timer);
    walked = false;
    if (!where || (nothing && `${where.kinds} ${where.query}`.startsWith(nothing))) { close(); return; }
    timer = setTimeout(async () => {
      let found = [];
      try { found = await call(`completions?${new URLSearchParams({ kind: where.kinds, q: where.query })}`); } catch { return; } // the banner tells
      if (now !== turn || document.activeElement !== area) return;
      if (!where.sure) found = found.filter(({ label }) => ` ${label.toLowerCase()}`.replace(/[^\p{L}\p{N}]/gu, " ").includes(` ${where.query.toLowerCase().replace(/[^\p{L}\p{N}]/gu, " ")}`));
      nothing = found.length || !where.query ? "" : `${where.kinds} ${where.query}`;
      setTimeout(() => { nothing = ""; }, 5000);
      if (!found.length || (found.length === 1 && found[0].insert === area.value.slice(where.from, where.to))) { close(); return; }
      show(area, where, found);
    }, where.sure ? WAIT.sure : WAIT.guess);
  }

  function show(area, where, found) {
    const chosen = walked ? found.findIndex(({ insert }) => insert === entries[active]?.insert) : -1;
    open = { area, ...where };
    entries = found;
    list.replaceChildren(...entries.map((entry, i) => el("li", { role: "option", id: `completion-${i}`, "aria-selected": "false", onmousedown: (event) => { event.preventDefault(); accept(i); } },
      el("span", {}, entry.label), el("small", {}, [KIND_WORDS[entry.kind], entry.note].filter(Boolean).join(" · ")))));
    list.hidden = false;
    const attributes = { role: "combobox", "aria-expanded": "true", "aria-controls": "completions", "aria-autocomplete": "list" };
    for (const [name, value] of Object.entries(attributes)) area.setAttribute(name, value);
    setActive(chosen >= 0 ? chosen : where.sure ? 0 : -1); // what was only guessed is not chosen by Enter
    setText(told, `${entries.length} suggestions`);
    const place = caretPlace(area, where.from), size = list.getBoundingClientRect();
    const below = place.bottom + 4 + size.height < innerHeight || place.top < size.height + 8;
    Object.assign(list.style, { left: `${Math.max(8, Math.min(place.left, innerWidth - size.width - 8))}px`, top: `${below ? place.bottom + 4 : place.top - size.height - 4}px` });
  }
  function setActive(index) {
    active = index;
    [...list.children].forEach((node, i) => node.setAttribute("aria-selected", String(i === index)));
    if (index < 0) { open.area.removeAttribute("aria-activedescendant"); return; }
    open.area.setAttribute("aria-activedescendant", `completion-${index}`);
    list.children[index].scrollIntoView({ block: "nearest" });
  }

  /* Where a character of the box is on the screen. */
  function caretPlace(area, at) {
    const layer = copyOf(area), spot = el("span", {}, area.value.slice(at, at + 1) || ".");
    Object.assign(layer.style, { position: "absolute", visibility: "hidden", left: "0", top: "0", whiteSpace: "pre-wrap", overflowWrap: "break-word", width: `${area.clientWidth + 2}px` });
    layer.append(area.value.slice(0, at), spot);
    document.body.append(layer);
    const frame = layer.getBoundingClientRect(), mark = spot.getBoundingClientRect(), box = area.getBoundingClientRect();
    layer.remove();
    const top = box.top + mark.top - frame.top - area.scrollTop;
    return { left: box.left + mark.left - frame.left, top, bottom: top + mark.height };
  }

  function accept(index) {
    const entry = entries[index], { area, from, to } = open;
    close();
    if (entry.kind === "style") {
      type(area, { from, to, text: "", start: from, end: from });
      latent.styles.add(entry.label);
      return;
    }
    const caret = from + entry.insert.length;
    type(area, { from, to, text: entry.insert, start: caret, end: caret });
    close(); // typing it asked for suggestions again
  }

  document.addEventListener("input", (event) => { const area = boxOf(event.target); if (area && event.isTrusted) suggest(area); });
  document.addEventListener("keydown", (event) => {
    if (!open || event.target !== open.area || event.isComposing) return;
    const plain = !event.ctrlKey && !event.altKey && !event.metaKey && !event.shiftKey;
    const step = plain && { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      if (active < 0 && step < 0) { close(); return; }
      event.preventDefault();
      walked = true;
      setActive((active + step + entries.length) % entries.length);
    } else if (plain && ["Enter", "Tab"].includes(event.key) && active >= 0) {
      event.preventDefault();
      event.stopPropagation();
      accept(active);
    } else if (event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      close();
    } else if (["ArrowLeft", "ArrowRight", "Home", "End", "Enter", "Tab"].includes(event.key)) close();
  }, true);
  document.addEventListener("focusout", (event) => { if (open && event.target === open.area) close(); });
  document.addEventListener("pointerdown", (event) => { if (open && !list.contains(event.target)) close(); });
  addEventListener("resize", close);
  addEventListener("scroll", (event) => { if (open && event.target !== list) close(); }, true);

  return { type, context };
})();
