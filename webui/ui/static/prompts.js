/* Earlier prompts: Up and Down at the ends of the prompt as in a shell, and a searchable list with pictures. */
"use strict";
latent.prompts = (() => {
  const { el, iconButton, call, say, complain, dialog, find, setText } = latent.tools;
  const RECALLED = 100;

  // --- Up and Down ---

  /* Walks through the prompts, the newest first. `text`: what stands in the box. Pure but for its own place. */
  class Recall {
    constructor(prompts) {
      this.prompts = prompts.filter((prompt, i) => prompt !== prompts[i - 1]);
      this.at = -1;
      this.start = "";
    }
    /* Whether Up may take the text away: it is empty, or what was recalled, or the newest prompt as it was made. */
    takes(text) { return text === "" || text === (this.prompts[this.at] ?? this.prompts[0]); }
    older(text) {
      if (!this.takes(text)) return null;
      if (this.at < 0) {
        this.start = text;
        if (text !== "" && text === this.prompts[0]) this.at = 0;
      }
      if (this.at + 1 >= this.prompts.length) return null;
      return this.prompts[++this.at];
    }
    newer(text) {
      if (this.at < 0 || text !== this.prompts[this.at]) return null;
      this.at--;
      return this.at < 0 ? (this.start === this.prompts[0] ? "" : this.start) : this.prompts[this.at];
    }
  }

  /* Whether the caret stands on the first and on the last line as they are seen, wrapped lines counted. */
  function linesAtCaret(area) {
    const style = getComputedStyle(area), mirror = el("div", { "aria-hidden": "true" });
    for (const name of ["font", "letterSpacing", "padding", "borderWidth", "boxSizing", "wordSpacing", "tabSize"]) mirror.style[name] = style[name];
    Object.assign(mirror.style, { position: "absolute", visibility: "hidden", top: "0", whiteSpace: "pre-wrap", overflowWrap: "break-word", width: `${area.clientWidth}px` });
    const before = el("span", {}, "\u200b"), caret = el("span", {}, "\u200b"), after = el("span", {}, "\u200b");
    mirror.append(before, area.value.slice(0, area.selectionEnd), caret, area.value.slice(area.selectionEnd), after);
    document.body.append(mirror);
    const [top, here, bottom] = [before, caret, after].map((node) => node.getBoundingClientRect().top);
    mirror.remove();
    return { first: here - top < 4, last: bottom - here < 4 };
  }

  /* Type a text into one of Gradio's text boxes, so that it hears of it. */
  function put(area, text) {
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(area, text);
    area.dispatchEvent(new Event("input", { bubbles: true }));
    area.setSelectionRange(text.length, text.length);
  }

  let recall = null, fetched = 0, placed = -1;
  async function prepare() {
    if (recall && recall.at >= 0) return;
    if (Date.now() - fetched < 1500) return;
    fetched = Date.now();
    try {
      const { prompts } = await call(`history/prompts?limit=${RECALLED}`);
      if (recall && recall.at >= 0) return; // a walk began meanwhile: it goes on in its own list
      recall = new Recall(prompts.map(({ prompt }) => prompt));
    } catch { /* without a history there is nothing to recall */ }
  }

  function key(event) {
    const area = event.target.closest?.("#f-prompt textarea");
    if (!area || event.defaultPrevented || event.isComposing || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return;
    if (!recall || area.selectionStart !== area.selectionEnd) return;
    const untouched = recall.at >= 0 && area.value === recall.prompts[recall.at] && area.selectionEnd === placed;
    const lines = untouched ? { first: true, last: true } : linesAtCaret(area);
    const up = event.key === "ArrowUp";
    if (up ? !lines.first : !lines.last) return;
    const text = up ? recall.older(area.value) : recall.newer(area.value);
    if (text === null) return;
    event.preventDefault();
    put(area, text);
    placed = area.selectionEnd;
  }
  document.addEventListener("keydown", key);
  document.addEventListener("focusin", (event) => { if (event.target.closest?.("#f-prompt textarea")) prepare(); });
  document.addEventListener("input", (event) => { // typing by hand ends the walk; so does emptying the box
    if (event.isTrusted && event.target.closest?.("#f-prompt textarea") && recall) recall.at = -1;
  });
  document.addEventListener("click", (event) => { // the prompt that is made now is the newest from now on
    if (event.target.closest?.("#generate")) { recall = null; fetched = 0; setTimeout(prepare, 1500); }
  });

  // --- the list ---

  const input = el("input", { type: "search", role: "combobox", "aria-expanded": "true", "aria-controls": "prompt-list", "aria-autocomplete": "list", "aria-label": "Search earlier prompts", placeholder: "Search earlier prompts", autocomplete: "off", spellcheck: "false" });
  const list = el("ul", { id: "prompt-list", role: "listbox", "aria-label": "Earlier prompts" });
  const note = el("p", { class: "muted", role: "status" });
  const box = dialog("prompts", "Earlier prompts", el("div", { class: "top" }, input, iconButton("Close", "close", () => box.close())), note, list);
  let entries = [], older = "", active = 0, turn = 0, timer = 0, opener = null, listed = null; // `listed`: the words that the list is of

  async function read(more = false) {
    const now = ++turn, q = input.value.trim();
    try {
      const page = await call(`history/prompts?${new URLSearchParams({ q, limit: 40, after: more ? older : "" })}`);
      if (now !== turn) return;
      entries = more ? [...entries, ...page.prompts] : page.prompts;
      older = page.older;
      listed = q;
      if (!more) list.replaceChildren();
      list.append(...page.prompts.map((entry, i) => row(entry, entries.length - page.prompts.length + i)));
      setText(note, entries.length ? "" : input.value ? "No earlier prompt has these words." : "The prompts of the pictures you make will be listed here.");
      if (!more) setActive(0);
    } catch (error) { setText(note, `${error.message} ${error.advice ?? ""}`); }
  }
  function row(entry, index) {
    const image = entry.picture === null ? el("span", { class: "no-picture" }) : el("img", { src: `history/${entry.picture}/thumbnail.webp`, alt: "", loading: "lazy", decoding: "async" });
    return el("li", { role: "option", id: `prompt-entry-${index}`, "data-index": index, "aria-selected": "false" }, image,
      el("div", {}, el("p", {}, entry.prompt), entry.negative_prompt ? el("p", { class: "muted" }, `Negative: ${entry.negative_prompt}`) : ""),
      el("small", {}, entry.uses > 1 ? `${entry.uses} times` : ""),
      iconButton("Forget this prompt", "close", (event) => { event.stopPropagation(); forget(entry); }, { tabindex: "-1", title: "Forget this prompt (Delete)" }));
  }
  function setActive(index) {
    active = Math.max(0, Math.min(index, entries.length - 1));
    [...list.children].forEach((node, i) => node.setAttribute("aria-selected", String(i === active)));
    const node = list.children[active];
    if (node) input.setAttribute("aria-activedescendant", node.id);
    node?.scrollIntoView({ block: "nearest" });
    if (older && active > entries.length - 8) read(true);
  }
  /* Enter: what is chosen in the list of the words that are typed, which may be on its way. */
  async function takeActive() {
    clearTimeout(timer);
    if (listed !== input.value.trim()) await read();
    if (box.open && listed === input.value.trim()) take(active);
  }
  async function take(index) {
    const entry = entries[index];
    if (!entry) return;
    box.close();
    const before = { prompt: latent.form.values.prompt, negative_prompt: latent.form.values.negative_prompt };
    await latent.form.set({ prompt: entry.prompt, negative_prompt: entry.negative_prompt });
    find("#f-prompt textarea")?.focus();
    if (before.prompt && before.prompt !== entry.prompt) say("Prompt taken.", "", { label: "Undo", run: () => latent.form.set(before) });
  }
  async function forget(entry) {
    try {
      await call("history/prompts/forget", { method: "POST", json: { ids: [entry.id] } });
      const at = active;
      await read();
      setActive(at);
      input.focus();
      recall = null;
      fetched = 0;
    } catch (error) { complain(error); }
  }
  function open() {
    opener = document.activeElement;
    input.value = "";
    listed = null;
    list.replaceChildren();
    box.showModal();
    input.focus();
    read();
  }
  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(read, 120); });
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 6, PageUp: -6 }[event.key];
    if (step) { event.preventDefault(); setActive(active + step); }
    else if (event.key === "Enter") { event.preventDefault(); takeActive(); }
    else if (event.key === "Delete" && input.selectionStart === input.value.length && entries[active]) { event.preventDefault(); forget(entries[active]); }
  });
  list.addEventListener("click", (event) => { const node = event.target.closest("[data-index]"); if (node) take(Number(node.dataset.index)); });
  list.addEventListener("scroll", () => { if (older && list.scrollTop + list.clientHeight > list.scrollHeight - 200) read(true); }, { passive: true });
  box.addEventListener("close", () => opener?.focus?.());

  latent.piece("prompt-history", (element) => find("#show-prompts", element).addEventListener("click", open));
  return { Recall, open };
})();
