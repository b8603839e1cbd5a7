/* The History tab: the bar above the grid, the selection, the keys, and what ties the parts together. */
"use strict";
(() => {
  const { el, button, call, say, complain, find, keepFocus, redraw, setText, isShown, plural, dialog } = latent.tools;
  const own = latent.history;
  const { actions, viewer, compare } = own;
  const SEARCH_AFTER = 120; // ms after the last key
  const SIZES = ["small", "medium", "large"];

  let root = null, grid = null, box = null, settling = Promise.resolve();
  let trash = false, mark = null, hunting = 0; // `mark`: { id, index } of the picture where a selection with Shift begins
  let tags = [], people = [];
  own.settled = () => settling;
  const part = (name) => find(`[data-part=${name}]`, root);
  const button_ = (act) => find(`[data-act=${act}]`, root);

  // --- a question before what cannot be undone ---

  const question = dialog("history-ask", "Please confirm");
  function ask(text, yes) {
    return new Promise((answer) => {
      const before = document.activeElement;
      const done = (value) => { question.close(); before?.focus?.(); answer(value); };
      const no = el("button", { type: "button", class: "quiet framed", onclick: () => done(false) }, "Cancel");
      question.replaceChildren(el("p", {}, text), el("div", { class: "row end" }, no, el("button", { type: "button", class: "primary danger", onclick: () => done(true) }, yes)));
      question.oncancel = () => answer(false);
      question.showModal();
      no.focus();
    });
  }

  // --- searching ---

  const VALUES = {
    model: () => latent.models.list.checkpoints.map((model) => model.name.split("/").pop().replace(/\.[^.]+$/, "")),
    vae: () => latent.models.list.vaes.map((vae) => vae.name.split("/").pop().replace(/\.[^.]+$/, "")),
    sampler: () => latentBoot.form.fields.sampler.choices,
    schedule: () => latentBoot.form.fields.schedule.choices,
    tag: () => tags,
    user: () => people.map(({ user }) => user).filter(Boolean),
  };

  function search() {
    clearTimeout(hunting);
    hunting = setTimeout(run, SEARCH_AFTER);
  }
  async function run() {
    clearTimeout(hunting);
    latent.tools.tabStore.set("history-search", box.value);
    mark = null;
    try {
      const page = await grid.show(box.value, trash);
      if (!page) return;
      const problems = find(".search-problems", root);
      problems.replaceChildren(...page.problems.map((problem) => el("li", {}, problem)));
      problems.hidden = !page.problems.length;
      keepSelection();
    } catch (error) { failed(error); }
  }
  /* Of a button that goes as pictures come. */
  async function runAgain() {
    await run();
    if (document.activeElement === document.body || !isShown(document.activeElement)) grid.focus();
  }
  function failed(error) {
    if (grid.total) { complain(error); return; }
    const empty = find(".history-empty", root);
    empty.hidden = false;
    redraw(empty, el("div", { class: "problem", role: "alert" }, el("h3", {}, "The history could not be read"), el("p", {}, error.message), el("p", {}, error.advice ?? ""), button("Try again", "refresh", runAgain)));
  }
  const refresh = () => (settling = grid ? grid.refresh().catch(() => {}) : Promise.resolve());

  // --- what the bar says ---

  function drawCount() {
    const n = grid.total, searching = box.value || trash;
    setText(part("count"), n ? plural(n, "picture", "pictures").replace(/^\d+/, n.toLocaleString()) + (trash ? " in the trash" : box.value ? " found" : "") : "");
    const empty = find(".history-empty", root);
    empty.hidden = n > 0;
    if (!n) {
      const words = trash ? ["The trash is empty", "What is deleted waits here until the trash is emptied."] : box.value ? ["Nothing found", "Fewer words find more. The filters are behind the button in the search field."] : ["No pictures yet", "Every picture that is made appears here, with all that is needed to make it again."];
      redraw(empty, el("h3", {}, words[0]), el("p", {}, words[1]), ...(searching ? [button("Show all pictures", "reset", () => { setTrash(false, true); box.set(""); runAgain(); })] : []));
    }
    drawWhose();
    const fav = own.hasTerm(box.value, "fav:yes");
    button_("favourites").setAttribute("aria-pressed", String(fav));
    drawSelection();
  }

  function drawSelection() {
    const host = find(".selection", root), n = grid.selected.size;
    grid.host.classList.toggle("choosing", n > 0);
    keepFocus(host, () => { host.hidden = n === 0 && !(trash && grid.total); });
    const key = `${n} ${trash} ${narrowed()}`; // what is drawn of the selection; the rest is read as a button is pressed
    if (host.dataset.key === key) return;
    host.dataset.key = key;
    const ids = () => [...grid.selected];
    const act = (name, label, icon, onclick, props = {}) => button(label, icon, onclick, { "data-act": name, ...props });
    if (!n) {
      redraw(host, ...(trash ? [act("empty", narrowed() ? "Delete what is found" : "Empty the trash", "trash", emptyTrash)] : []));
    } else {
      const head = el("b", {}, `${n.toLocaleString()} selected`);
      redraw(host, head, ...(trash ? [
        act("restore", "Restore", "reset", () => actions.restore(ids())),
        act("purge", "Delete for good", "trash", () => purge(ids())),
      ] : [
        act("favourite", "Favourite", "star", () => favourite(ids())),
        act("tag", "Tag", "tag", () => tagMany(ids())),
        act("download", "Download", "download", () => actions.download(ids())),
        act("compare", "Compare", "compare", () => compare.show(...ids().sort((a, b) => a - b)), { disabled: n !== 2, title: n === 2 ? "Compare the two" : "Select two pictures to compare them" }),
        act("delete", "Delete", "trash", () => actions.trash(ids())),
      ]), el("span", { class: "space" }), act("all", "Select all", "check", all), act("none", "Clear", "close", () => { clear(); grid.focus(); }));
    }
  }

  // --- selecting ---

  function selectionChanged(ids = null) {
    grid.repaint(ids);
    drawSelection();
    setText(part("live"), grid.selected.size ? `${grid.selected.size} selected` : "Nothing selected");
  }
  function clear() {
    if (!grid.selected.size) return;
    grid.selected.clear();
    mark = null;
    selectionChanged();
  }
  /* Where it stands by now: others may have come before it. */
  const marked = () => (mark === null ? null : grid.indexOf(mark.id) ?? mark.index);
  async function select(index, range) {
    const from = range ? marked() : null;
    if (from !== null) {
      for (const id of await grid.idsBetween(from, index)) grid.selected.add(id);
    } else {
      const card = await grid.cardAt(index);
      if (!card) return;
      if (!grid.selected.delete(card.id)) grid.selected.add(card.id);
      mark = { id: card.id, index };
    }
    selectionChanged();
  }
  /* Shift and an arrow: the run from where it began to here. */
  async function extend(from, to) {
    mark ??= { id: grid.card(from)?.id, index: from };
    const ids = await grid.idsBetween(marked(), to);
    grid.selected = new Set(ids);
    selectionChanged();
  }
  async function selectDay(day) {
    const ids = await grid.idsBetween(day.start, day.start + day.count - 1);
    const every = ids.every((id) => grid.selected.has(id));
    ids.forEach((id) => (every ? grid.selected.delete(id) : grid.selected.add(id)));
    selectionChanged();
  }
  /* The ids of all that is found, null where something else was searched for meanwhile. */
  async function found() {
    const q = box.value, bin = trash, { ids } = await call(`history/ids?${new URLSearchParams({ q, trash: String(trash) })}`);
    return q === box.value && bin === trash ? ids : null;
  }
  async function all() {
    try {
      const ids = await found();
      if (!ids) return;
      grid.selected = new Set(ids);
      selectionChanged();
      if (ids.length < grid.total) say(`The newest ${ids.length.toLocaleString()} are selected: so many can be changed at once.`);
    } catch (error) { complain(error); }
  }
  /* Pictures that a new search does not show are not acted upon unseen. */
  async function keepSelection() {
    if (!grid.selected.size) return;
    const ids = await found();
    if (!ids) return;
    const shown = new Set(ids);
    grid.selected = new Set([...grid.selected].filter((id) => shown.has(id)));
    selectionChanged();
  }

  // --- acting on many ---

  function favourite(ids) {
    const shown = [...grid.cards.values()].filter((card) => ids.includes(card.id));
    return actions.favourite(ids, !shown.length || shown.some((card) => !card.favourite));
  }
  /* All of the trash; under a search, which whose pictures they are is a part of, only what it finds. */
  const narrowed = () => Boolean(box.value.trim());
  async function emptyTrash() {
    try {
      const ids = narrowed() ? await found() : null, number = ids ? ids.length : grid.total;
      if (narrowed() && !ids) return; // something else is searched for now
      if (await ask(`Delete ${plural(number, "picture", "pictures")} for good? The files go as well.`, "Delete for good")) actions.purge(ids);
    } catch (error) { complain(error); }
  }
  async function purge(ids) {
    if (await ask(`Delete ${plural(ids.length, "picture", "pictures")} for good? The files go as well.`, "Delete for good")) actions.purge(ids);
  }
  const tagDialog = dialog("history-tag", "Tag pictures");
  function tagMany(ids) {
    const input = el("input", { type: "text", id: "tag-many", list: "tag-many-known", maxlength: 100, autocomplete: "off", placeholder: "cats, to print" });
    const take = (add) => {
      const named = input.value.split(",").map((tag) => tag.trim()).filter(Boolean);
      if (!named.length) { input.focus(); return; }
      tagDialog.close();
      actions.tag(ids, add ? named : [], add ? [] : named).then((done) => { if (done) say(`${actions.pictures(ids.length)} ${add ? "tagged" : "changed"}.`); });
    };
    tagDialog.replaceChildren(el("form", { onsubmit: (event) => { event.preventDefault(); take(true); } },
      el("label", { for: "tag-many" }, `Tags for ${actions.pictures(ids.length)}`), input,
      el("datalist", { id: "tag-many-known" }, ...tags.map((tag) => el("option", { value: tag }))),
      el("div", { class: "row end" }, button("Cancel", "close", () => tagDialog.close()), el("button", { type: "button", class: "quiet framed", onclick: () => take(false) }, "Remove"), el("button", { type: "submit", class: "primary" }, "Add"))));
    tagDialog.showModal();
    input.focus();
  }

  // --- what happens elsewhere ---

  actions.on("marked", (ids, what) => {
    if (what.tags) readTags();
    if (!grid) return;
    const wanted = new Set(ids);
    for (const card of grid.cards.values()) {
      if (wanted.has(card.id) && what.favourite !== undefined) card.favourite = what.favourite;
    }
    grid.repaint(ids);
    if (what.leaving) grid.host.querySelectorAll(".cell").forEach((cell) => { if (wanted.has(Number(cell.dataset.id))) cell.dataset.state = "leaving"; });
  });
  actions.on("moved", async (ids, what) => {
    if (!grid) return;
    if (what === "unsure") grid.repaint(ids); // they are there until the server says that they are not
    const hadFocus = grid.focused || !find("dialog[open]");
    ids.forEach((id) => grid.selected.delete(id));
    await refresh();
    drawSelection();
    if (hadFocus && isShown(root) && !find("dialog[open]") && (document.activeElement === document.body || grid.focused)) grid.focus();
  });

  /* Pictures that were made meanwhile, here or anywhere: looked for with every round of the page's status. */
  let looking = false;
  latent.status.on(async () => {
    if (looking || trash || !root?.isConnected || !isShown(root) || document.hidden || grid.query === undefined) return;
    looking = true;
    try {
      const newest = grid.card(0);
      const search = new URLSearchParams({ q: grid.query, limit: 1, ...(newest?.cursor ? { before: newest.cursor } : {}) });
      if ((await call(`history?${search}`)).cards.length) await refresh();
    } catch { /* the page tells of a lost connection */ } finally { looking = false; }
  });

  /* An administrator sees everybody's pictures, or one person's. Others, and one who is alone, have nothing to choose. */
  const { viewer: me } = window.latentBoot;
  const EVERYBODY = "*"; // no name has it
  async function readPeople() {
    if (me.admin) people = await call("history/users").catch(() => []);
    drawWhose();
  }
  function drawWhose() {
    const select = button_("whose"), now = own.userOf(box.value), known = people.some(({ user }) => user === now);
    select.hidden = people.length < 2 && now === undefined;
    if (select.hidden || document.activeElement === select) return;
    const label = (user) => (user === "" ? "Without a name" : user === me.name ? "My pictures" : user);
    const options = [[EVERYBODY, "Everybody's pictures"], ...people.map(({ user, count }) => [user, `${label(user)} (${count.toLocaleString()})`]), ...(known || now === undefined ? [] : [[now, label(now)]])];
    select.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
    select.value = now ?? EVERYBODY;
  }
  function chooseWhose(event) {
    const { value } = event.currentTarget;
    box.set(own.withUser(box.value, value === EVERYBODY ? undefined : value), true);
    run();
  }

  async function readTags() { tags = (await call("history/tags").catch(() => [])).map(({ tag }) => tag); }

  /* While the history cannot be written, the tab says so, and so does the foot of the page. */
  async function watchHealth() {
    for (;; await latent.tools.sleep(document.hidden ? 60_000 : 10_000)) {
      const { banner, busy } = await call("history/status").catch(() => ({ banner: "", busy: false }));
      if (banner && !find(".foot .history-banner")) find("#problem")?.after(el("span", { class: "history-banner" }));
      document.querySelectorAll(".history-banner").forEach((node) => {
        node.hidden = !banner && !busy;
        node.classList.toggle("calm", !banner);
        setText(node, banner ? `${banner} Pictures are still saved; they will be entered when it works again.` : busy ? "Looking through the outputs folder for pictures that are not listed yet." : "");
      });
      if (busy && root && isShown(root)) refresh();
    }
  }

  // --- view ---

  function setTrash(on, quietly = false) {
    trash = on;
    button_("trash").setAttribute("aria-pressed", String(on));
    root.classList.toggle("in-trash", on);
    grid.selected.clear();
    if (!quietly) run();
  }

  function open(index) {
    viewer.open(grid, index, {
      onclose: (last) => {
        if (!grid.host.isConnected) return;
        if (last !== null && isShown(root)) { grid.setActive(last, true); }
      },
    });
  }

  /* Open at a picture: where it stands in the grid if it is near, else alone. */
  async function openPicture(id) {
    const index = grid?.indexOf(id);
    if (index !== undefined && isShown(root)) { open(index); return; }
    try {
      const { cards } = { cards: [cardOf(await call(`history/${id}`))] };
      viewer.open(cards, 0, { onclose: () => { if (root && isShown(root)) grid.focus(); } });
    } catch (error) { complain(error); }
  }
  const cardOf = (picture) => ({ ...picture, cursor: "", day: "", model: picture.checkpoint?.name ?? "" });
  own.openPicture = openPicture;

  // --- keys ---

  function key(event) {
    if (event.defaultPrevented || !root || !isShown(root) || find("dialog[open]")) return;
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (typing) {
      if (event.target === box.input && event.key === "ArrowDown") { event.preventDefault(); grid.focus(); }
      return;
    }
    const ids = grid.selected.size ? [...grid.selected] : [grid.card(grid.active)?.id].filter(Boolean);
    const control = event.ctrlKey || event.metaKey;
    const run = {
      "/": () => box.input.select(),
      f: () => ids.length && !trash && favourite(ids),
      Delete: () => ids.length && (trash ? purge(ids) : actions.trash(ids)),
      r: () => ids.length === 1 && !trash && replayOne(ids[0]),
      Escape: () => (grid.selected.size ? clear() : box.value ? box.set("") : null),
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    const with_control = { a: all, z: () => actions.undo() }[event.key.toLowerCase()];
    if (control ? !with_control : !run) return;
    if (!control && event.key !== "/" && event.key !== "Escape" && !grid.focused && !grid.selected.size) return;
    event.preventDefault();
    (control ? with_control : run)();
  }
  async function replayOne(id) {
    say("Replay queued.");
    const result = await own.replay.start(id);
    if (result.state === "failed") { say(`${result.text} ${result.advice ?? ""}`.trim(), "bad"); return; }
    const told = own.replay.verdict(result.difference);
    say(`Replay: ${told.title.toLowerCase()}. ${told.text}`, told.good ? "" : "bad", { label: "Compare", run: () => compare.show(id, result.child.id) });
  }
  document.addEventListener("keydown", key);
  document.addEventListener("keydown", (event) => { // undo, from within the viewer as well
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && viewer.box.open && !event.target.closest?.("input, textarea")) { event.preventDefault(); actions.undo(); }
  });
  document.addEventListener("close", (event) => { // a message lives longer than the dialog it stood in
    const toasts = event.target.querySelector?.("#toasts");
    if (toasts) (document.querySelector("dialog[open]") ?? document.body).append(toasts);
  }, true);

  // --- the tab comes alive ---

  function mount(element) {
    root = find(".history", element);
    const host = find(".history-grid", root);
    grid = new own.grid.Grid(host, { changed: drawCount, open, select, extend, selectDay, day: (name) => setText(part("day"), name) });
    own.gridNow = grid;
    box = own.searchBox(root, { known: (field) => VALUES[field]?.() ?? [], changed: search });
    const help = find(".search-help", root);
    own.searchHelp(help, (example) => { box.set([box.value, example].filter(Boolean).join(" ")); box.input.focus(); });
    button_("help").addEventListener("click", (event) => {
      help.hidden = !help.hidden;
      event.currentTarget.setAttribute("aria-expanded", String(!help.hidden));
    });
    button_("favourites").addEventListener("click", () => { box.set(own.withTerm(box.value, "fav:yes", !own.hasTerm(box.value, "fav:yes")), true); run(); });
    button_("trash").addEventListener("click", () => setTrash(!trash));
    button_("whose").addEventListener("change", chooseWhose);
    button_("size").addEventListener("click", () => {
      grid.setSize(SIZES[(SIZES.indexOf(grid.size) + 1) % SIZES.length]);
      say(`Pictures: ${grid.size}.`);
    });
    longPress(host);
    box.set(latent.tools.tabStore.get("history-search", ""), true);
    run().then(() => { readTags(); readPeople(); }); // the pictures first
    let visible = isShown(root);
    new ResizeObserver(() => { // the tab came to the front
      const now = isShown(root);
      if (now && !visible) { refresh(); readPeople(); }
      visible = now;
    }).observe(root);
  }

  /* On a touch screen a long press begins a selection. */
  function longPress(host) {
    let timer = 0;
    host.addEventListener("touchstart", (event) => {
      const cell = event.target.closest("[data-index]");
      timer = 0;
      if (cell) timer = setTimeout(() => { select(Number(cell.dataset.index), false); navigator.vibrate?.(10); timer = -1; }, 450);
    }, { passive: true });
    for (const name of ["touchmove", "touchcancel"]) host.addEventListener(name, () => clearTimeout(timer), { passive: true });
    host.addEventListener("touchend", (event) => { if (timer === -1) event.preventDefault(); clearTimeout(timer); });
    host.addEventListener("contextmenu", (event) => { if (timer) event.preventDefault(); });
  }

  const linked = Number(new URLSearchParams(location.search).get("picture"));
  if (Number.isSafeInteger(linked) && linked > 0) {
    latent.tools.tabStore.set("tab", "history"); // before the tabs are drawn
    document.addEventListener("DOMContentLoaded", () => openPicture(linked));
  }
  latent.piece("history", mount);
  document.addEventListener("DOMContentLoaded", watchHealth);
})();
