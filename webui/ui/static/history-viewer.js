/* One picture, as large as the window allows, with all that is known of it beside. It walks through a source: the grid,
   or a list of cards (a family, similar pictures, a link). Sources stack: closing goes back to the one before. */
"use strict";
latent.history.viewer = (() => {
  const { el, icon, iconButton, call, complain, keepFocus, setText, dialog, store } = latent.tools;
  const { actions, details, replay, compare } = latent.history;

  const listOf = (list) => ({
    list, get total() { return this.list.length; }, card: (index) => list[index], cardAt: async (index) => list[index] ?? null,
    indexOf(id) { const index = list.findIndex((card) => card.id === id); return index < 0 ? undefined : index; },
  });
  const image = el("img", { alt: "", draggable: "false" });
  const trouble = el("p", { class: "trouble", hidden: true });
  const place = el("p", { class: "place", "aria-live": "polite" });
  const panel = el("aside", { class: "panel", "aria-label": "Details", tabindex: "-1" });
  const tool = (act, label, name, run) => iconButton(label, name, run, { "data-act": act });
  const star = tool("favourite", "Favourite (F)", "star", () => favourite());
  const stage = el("div", { class: "stage", tabindex: "-1", autofocus: true }, image, trouble,
    iconButton("Previous picture", "left", () => step(-1), { class: "quiet icon-only previous" }),
    iconButton("Next picture", "right", () => step(1), { class: "quiet icon-only next" }));
  const bar = el("div", { class: "top", role: "toolbar", "aria-label": "Picture" },
    tool("close", "Close (Esc)", "left", () => back()), place,
    star,
    tool("copy", "Copy the picture", "copy", () => actions.copyImage(picture)),
    tool("link", "Copy a link to this page", "link", () => actions.copyLink(card.id)),
    tool("download", "Download", "download", () => actions.download([card.id])),
    tool("delete", "Move to the trash (Delete)", "trash", () => remove()),
    tool("info", "Details (I)", "info", () => setPanel(!box.classList.contains("with-panel"))));
  const box = dialog("history-viewer", "Picture", bar, stage, panel);

  let stack = []; // [{ source, index }]
  let card = null, picture = null, drawn = null, turn = 0;
  let leave = () => {}; // called with the last grid index when the viewer closes
  const here = () => stack.at(-1);

  function open(source, index, { onclose } = {}) {
    if (onclose) leave = onclose;
    stack.push({ source: Array.isArray(source) ? listOf(source) : source, index });
    if (!box.open) {
      setPanel(store.get("history-panel", true));
      box.showModal();
    }
    return go(index);
  }

  /* Show the picture at `index` of the source in front. */
  async function go(index) {
    const now = ++turn, at = here();
    at.index = index;
    card = at.source.card(index) ?? null; // at once where it is known
    if (card) drawCard();
    try {
      card = await at.source.cardAt(index);
      if (now !== turn) return;
      if (!card) { back(); return; }
      drawCard();
      const found = await call(`history/${card.id}`);
      if (now !== turn) return;
      picture = found;
      drawPicture();
      for (const other of [index + 1, index - 1]) {
        const next = other >= 0 && other < at.source.total ? await at.source.cardAt(other) : null;
        if (next?.state === "present" && now === turn) new Image().src = `history/${next.id}/file`; // ready when it is asked for
      }
    } catch (error) {
      if (now !== turn) return;
      if (error.status === 404) { setText(trouble, "This picture does not exist any more."); trouble.hidden = false; panel.replaceChildren(); }
      else complain(error);
    }
  }

  function drawCard() {
    const { source, index } = here();
    const address = card.state === "present" ? `history/${card.id}/file` : card.thumbnail;
    if (image.getAttribute("src") !== address) {
      image.src = address;
      box.classList.remove("actual");
    }
    image.width = card.width;
    image.height = card.height;
    image.alt = card.prompt || "Picture";
    image.style.setProperty("--most", `${6 * card.width}px`); // a small picture is not blown up beyond all sense
    trouble.hidden = true;
    setText(place, source.total > 1 ? `${(index + 1).toLocaleString()} of ${source.total.toLocaleString()}` : "");
    box.classList.toggle("first", index <= 0);
    box.classList.toggle("last", index >= source.total - 1);
    if (document.activeElement?.matches("#history-viewer.first .previous, #history-viewer.last .next")) stage.focus(); // it is gone
    box.classList.toggle("trashed", card.state === "trashed");
    drawStar();
    history.replaceState(history.state, "", `?picture=${card.id}`);
    if (picture?.id !== card.id) picture = null;
  }
  function drawStar() {
    star.replaceChildren(icon(card.favourite ? "star-full" : "star"));
    star.setAttribute("aria-pressed", String(card.favourite));
  }
  function drawPicture() {
    keepFocus(panel, () => { drawn = details.draw(panel, picture, { open, compare: compare.show, changed: () => {}, use, purge }); }); // keys are heard within the viewer alone
    panel.scrollTop = 0;
  }
  replay.on((id) => { if (box.open && id === picture?.id) drawn?.drawVerdict(); });

  image.addEventListener("click", () => box.classList.toggle("actual"));
  image.addEventListener("error", () => { setText(trouble, "The file is not where it was."); trouble.hidden = false; });

  function step(by) {
    const { source, index } = here(), to = index + by;
    if (to >= 0 && to < source.total) go(to);
  }
  function back() {
    if (stack.length < 2) { box.close(); return; }
    stack.pop();
    go(here().index);
  }
  function use(what) { box.close(); return actions.use(what); }
  async function purge(ids) { await actions.purge(ids); }

  function favourite() { if (card) actions.favourite([card.id], !card.favourite); }
  function remove() {
    if (!card || card.state === "trashed") return;
    actions.trash([card.id]);
  }
  function setPanel(open) {
    box.classList.toggle("with-panel", open);
    bar.querySelector("[data-act=info]").setAttribute("aria-pressed", String(open));
    store.set("history-panel", open);
  }

  actions.on("marked", (ids, what) => {
    if (!box.open || !card || !ids.includes(card.id) || what.favourite === undefined) return;
    card.favourite = what.favourite;
    drawStar();
  });
  /* After pictures came or went: the one that is shown, if others went; else the one that now stands in the place, or the
     last one. */
  actions.on("moved", async (ids, what) => {
    if (!box.open) return;
    if (what !== "unsure") for (const { source: { list } } of stack) list?.splice(0, list.length, ...list.filter((other) => !ids.includes(other.id)));
    await null; // whoever hears of it after this one has begun, too
    await latent.history.settled(); // the grid has read its new shape
    while (stack.length && here().source.total === 0) stack.pop();
    if (!stack.length) { box.close(); return; }
    const place = what === "deleted" && card && !ids.includes(card.id) ? here().source.indexOf(card.id) : undefined;
    if (place !== undefined) { here().index = place; drawCard(); return; }
    await go(Math.min(here().index, here().source.total - 1));
  });

  const typing = (target) => target.closest?.("input, textarea, select");
  box.addEventListener("keydown", (event) => {
    if (typing(event.target)) {
      if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); panel.focus(); }
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const run = {
      ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => step(-1), ArrowDown: () => step(1), Home: () => go(0), End: () => go(here().source.total - 1),
      f: favourite, i: () => setPanel(!box.classList.contains("with-panel")), Delete: remove, r: () => picture?.params && replay.start(picture.id),
      Enter: () => { if (event.target.closest("button, a, summary")) return false; if (picture?.file) window.open(picture.file, "_blank", "noopener"); },
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!run || (event.target.closest(".panel") && /^(Arrow|Home|End)/.test(event.key) && event.key !== "ArrowLeft" && event.key !== "ArrowRight")) return;
    if (run() !== false) event.preventDefault();
  });
  box.addEventListener("cancel", (event) => { event.preventDefault(); back(); });
  box.addEventListener("close", () => {
    turn++;
    const bottom = stack[0];
    stack = [];
    image.removeAttribute("src");
    history.replaceState(history.state, "", location.pathname);
    leave(bottom?.source.list ? null : bottom?.index ?? null);
  });

  // a swipe to the side turns the page
  let touch = null;
  stage.addEventListener("touchstart", (event) => { touch = event.touches.length === 1 && !box.classList.contains("actual") ? event.touches[0] : null; }, { passive: true });
  stage.addEventListener("touchend", (event) => {
    if (!touch) return;
    const dx = event.changedTouches[0].clientX - touch.clientX, dy = event.changedTouches[0].clientY - touch.clientY;
    if (Math.abs(dx) > 60 && Math.abs(dx) > 2 * Math.abs(dy)) step(dx < 0 ? 1 : -1);
    touch = null;
  }, { passive: true });

  return { open, box, get card() { return card; } };
})();
