/* Networks and checkpoints as cards: a click puts a LoRA, an embedding or a hypernetwork into the prompt, or takes it out
   again; a checkpoint is chosen. The list of a kind is read once and searched here, so typing answers at once; cards are
   drawn as they come into view, and their pictures are read then, too. */
"use strict";
latent.cards = (() => {
  const { el, icon, iconButton, call, complain, dialog, escaped, find, redraw, setText } = latent.tools;
  const { form } = latent;
  const KINDS = [["lora", "LoRA"], ["embedding", "Embeddings"], ["hypernetwork", "Hypernetworks"], ["checkpoint", "Checkpoints"]];
  const FOLDERS = { lora: "models/Lora", embedding: "models/embeddings", hypernetwork: "models/hypernetworks", checkpoint: "models/Stable-diffusion" };
  const ORDERS = {
    name: ["Name", null],
    newest: ["Newest first", (a, b) => b.modified - a.modified],
    oldest: ["Oldest first", (a, b) => a.modified - b.modified],
    largest: ["Largest first", (a, b) => b.size - a.size],
  };
  const BATCH = 80; // cards drawn at a time
  const lists = {}, nodes = new Map(); // a card's node, as long as the card says the same
  let kind = "lora", bases = {}, fitting = [], drawn = 0, turn = 0;

  // --- what stands in the prompt ---

  const tagOf = (card) => (card.insert.match(/^<[^>]*>/) || [""])[0];
  /* Finds the card in a prompt: its tag with whatever weight, or the embedding's word. */
  function pattern(card) {
    const tag = tagOf(card);
    if (!tag) return new RegExp(`(?<![\\p{L}\\p{N}])${escaped(card.insert)}(?![\\p{L}\\p{N}])`, "iu");
    const [name, label] = tag.slice(1, -1).split(":");
    return new RegExp(`<${name}:${escaped(label)}(?::[^>]*)?>`, "i");
  }
  const target = () => (kind === "embedding" && negative.checked ? "negative_prompt" : "prompt");
  const inPrompt = (card) => kind !== "checkpoint" && pattern(card).test(form.latest(target()) ?? "");

  function appended(text, piece) {
    const start = text.replace(/[\s,]+$/, "");
    return start ? `${start}, ${piece}` : piece;
  }
  /* The text without the piece and without the commas that it leaves behind. Pure. */
  function without(text, expression, words) {
    let rest = text.replace(expression, "\u0000");
    if (words) rest = rest.replace(`\u0000 ${words}`, "\u0000").replace(`\u0000, ${words}`, "\u0000");
    return rest.replace(/\s*,?\s*\u0000\s*,?\s*/g, (found, at) => (at === 0 || at + found.length === rest.length ? "" : ", ")).trim();
  }

  async function choose(card) {
    if (card.reason) { complain({ message: card.reason }); return; }
    if (kind === "checkpoint") {
      if (card.name === form.values.checkpoint) return;
      latent.models.select({ ...form.values, checkpoint: card.name });
      await form.chooseCheckpoint(card.name);
    } else {
      const place = target(), text = form.latest(place) ?? "", on = inPrompt(card);
      const words = card.insert.slice(tagOf(card).length).trim();
      const values = { [place]: on ? without(text, pattern(card), tagOf(card) ? words : "") : appended(text, card.insert) };
      if (card.negative) {
        const before = form.latest("negative_prompt") ?? "", expression = new RegExp(escaped(card.negative), "i");
        values.negative_prompt = on ? without(before, expression, "") : expression.test(before) ? before : appended(before, card.negative);
      }
      await form.set(values);
    }
    mark();
  }
  const isOn = (card) => (kind === "checkpoint" ? card.name === form.values.checkpoint : inPrompt(card));
  function mark() {
    for (const node of grid.children) if (node.card) find(".choose", node).setAttribute("aria-pressed", String(isOn(node.card)));
    setText(shown, kind === "checkpoint" ? "" : form.values[target()] ?? "");
  }

  // --- the list ---

  const search = el("input", { type: "search", "aria-label": "Search networks", placeholder: "Search by name, folder, alias or hash", autocomplete: "off", spellcheck: "false" });
  const folder = el("select", { "aria-label": "Folder" });
  const order = el("select", { "aria-label": "Order" }, ...Object.entries(ORDERS).map(([value, [label]]) => el("option", { value }, label)));
  const family = el("select", { "aria-label": "Family" });
  const negative = el("input", { type: "checkbox" });
  const negativeLabel = el("label", { class: "into-negative" }, negative, "into the negative prompt");
  const tabs = el("div", { role: "tablist", "aria-label": "Kinds of networks" }, ...KINDS.map(([value, label]) =>
    el("button", { type: "button", role: "tab", id: `cards-tab-${value}`, "aria-controls": "cards-grid", "data-kind": value, onclick: () => show(value) }, label)));
  const note = el("p", { class: "muted", role: "status" });
  const grid = el("ul", { id: "cards-grid", "aria-label": "Cards" });
  const more = el("li", { class: "more", "aria-hidden": "true" });
  const shown = el("p", { class: "prompt-now", "aria-label": "The prompt now" });
  const refresh = iconButton("Look for new files", "refresh", () => reread());
  const overview = el("div", { class: "overview" },
    el("div", { class: "top" }, tabs, refresh, iconButton("Close", "close", () => box.close())),
    el("div", { class: "filters" }, search, folder, family, order, negativeLabel), note, grid, shown);
  const box = dialog("cards", "Networks", overview);
  let opener = null;

  function node(card) {
    const name = `${kind}/${card.name}`, text = JSON.stringify(card), before = nodes.get(name);
    if (before?.text === text) return before.item;
    const picture = card.preview
      ? el("img", { src: previewUrl(card), alt: "", loading: "lazy", decoding: "async" })
      : el("span", { class: "no-picture" }, icon("image"));
    const about = [card.variant, card.family !== "unknown" && card.family].filter(Boolean).join(" · ");
    const item = el("li", { class: card.reason ? "useless" : "" },
      el("button", { type: "button", class: "choose", "aria-pressed": String(isOn(card)), title: card.reason || card.description || card.name, onclick: () => choose(card) },
        picture, el("span", { class: "name" }, card.label), el("small", {}, card.reason || about)),
      iconButton(`Details of ${card.label}`, "info", () => latent.cardDetails.open(card, kind)));
    item.card = card;
    nodes.set(name, { text, item });
    return item;
  }
  const previewUrl = (card) => `cards/preview.webp?${new URLSearchParams({ kind, name: card.name, v: card.preview })}`;

  /* The cards that every word of the search, the folder and the family leave, in the chosen order. Pure. */
  function filtered(cards, { words, inFolder, base, compare }) {
    const rest = cards.filter((card) => {
      if (inFolder && card.folder !== inFolder && !card.folder.startsWith(inFolder + "/")) return false;
      if (base && card.base !== "unknown" && card.base !== base) return false;
      const text = `${card.name} ${card.label} ${card.words} ${card.description}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    return compare ? rest.sort(compare) : rest;
  }
  /* `stay`: the same cards as far as they are the same, and the place in them. */
  function draw(stay = false) {
    const list = lists[kind] ?? [];
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    fitting = filtered(list, { words, inFolder: folder.value, base: family.value, compare: ORDERS[order.value][1] });
    drawn = stay ? Math.max(drawn, BATCH) : BATCH;
    redraw(grid, ...fitting.slice(0, drawn).map(node), more);
    more.hidden = drawn >= fitting.length;
    if (!stay) grid.scrollTop = 0;
    const none = list.length ? "Nothing fits." : `There is nothing here yet. Files go into ${FOLDERS[kind]}.`;
    setText(note, fitting.length ? (fitting.length === list.length ? `${list.length.toLocaleString("en")} in all` : `${fitting.length.toLocaleString("en")} of ${list.length.toLocaleString("en")}`) : none);
    mark();
  }
  function extend() {
    const next = fitting.slice(drawn, drawn + BATCH);
    drawn += next.length;
    more.before(...next.map(node));
    more.hidden = drawn >= fitting.length;
  }
  new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting) && drawn < fitting.length) extend(); }, { root: grid, rootMargin: "600px" }).observe(more);

  function fillSelect(select, options) {
    const before = select.value;
    select.replaceChildren(...options.map(([value, label]) => el("option", { value }, label)));
    if (options.some(([value]) => value === before)) select.value = before;
  }
  function drawFilters() {
    const list = lists[kind] ?? [];
    const folders = new Set();
    for (const card of list) for (let at = card.folder; at; at = at.slice(0, Math.max(0, at.lastIndexOf("/")))) folders.add(at);
    fillSelect(folder, [["", "All folders"], ...[...folders].sort().map((name) => [name, name])]);
    folder.hidden = !folders.size;
    const model = latent.models.checkpoint(form.values.checkpoint), own = model && bases[model.family];
    const found = [...new Set(list.map((card) => card.base))].filter((base) => base !== "unknown").sort();
    const fits = own && kind !== "checkpoint" ? [[own, `For this model (${own})`]] : [];
    fillSelect(family, [["", "All families"], ...fits, ...found.filter((base) => !fits.length || base !== own).map((base) => [base, base])]);
    negativeLabel.hidden = kind !== "embedding";
  }

  async function show(which) {
    const now = ++turn;
    kind = which;
    for (const tab of tabs.children) tab.setAttribute("aria-selected", String(tab.dataset.kind === kind));
    grid.setAttribute("aria-labelledby", `cards-tab-${kind}`);
    if (!lists[kind]) { grid.replaceChildren(more); setText(note, ""); }
    else { drawFilters(); draw(); }
    try {
      const answer = await call(`cards?kind=${which}`);
      if (now !== turn) return; // asked once more, or for other cards
      lists[which] = answer.cards;
      bases = answer.bases;
      drawFilters();
      draw(true);
    } catch (error) { if (now === turn) setText(note, `${error.message} ${error.advice ?? ""}`); }
  }
  async function reread() {
    try {
      if (window.latentBoot.viewer.admin) await latent.models.refresh();
      await show(kind);
    } catch (error) { complain(error); }
  }
  function open() {
    opener = document.activeElement;
    box.showModal();
    search.focus();
    show(kind);
  }
  tabs.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = KINDS.findIndex(([value]) => value === kind), next = KINDS[(at + step + KINDS.length) % KINDS.length][0];
    find(`[data-kind=${next}]`, tabs).focus();
    show(next);
  });
  search.addEventListener("input", () => draw());
  for (const select of [folder, order, family]) select.addEventListener("change", () => draw());
  negative.addEventListener("change", mark);
  box.addEventListener("close", () => opener?.focus?.());
  form.listeners.push(() => { if (box.open) mark(); });

  function mount(element) { find("#show-cards", element).addEventListener("click", open); }
  const card = (which, name) => lists[which]?.find((other) => other.name === name);
  return { mount, open, show, box, overview, card, filtered, without, appended };
})();
