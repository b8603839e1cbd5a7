/* The stage and the history: the picture on the stage is marked as a favourite and replayed where it stands. */
"use strict";
latent.stageHistory = (() => {
  const { able, el, button, call, redraw, sleep, find, icon, isShown, complain, say } = latent.tools;
  const { stage } = latent;
  const { actions, replay, details, compare } = latent.history;
  const LOOKS = 12; // for a row that is written a moment after its picture is shown
  const cards = new Map(); // address of a picture on the stage -> its row, as far as it is known
  let shown = null;

  /* The row of a picture that this stage shows, or null where the history has none. */
  async function cardOf(picture) {
    for (let look = 0; look < LOOKS; look++) {
      if (cards.has(picture.src)) return cards.get(picture.src);
      for (let after = ""; after !== null;) {
        const page = await call(`history?${new URLSearchParams({ q: `job:${picture.job}`, limit: 100, after })}`);
        const card = page.cards.find((one) => one.picture_index === picture.index);
        if (card) { cards.set(picture.src, card); return card; }
        after = page.older || null;
      }
      await sleep(150);
    }
    return null;
  }

  // --- favourite ---

  const star = button("Favourite", "star", () => favourite(), { "aria-pressed": "false", disabled: true, title: "Mark as a favourite (F)" });
  function drawStar() {
    const favourite = Boolean(shown && cards.get(shown.src)?.favourite);
    star.setAttribute("aria-pressed", String(favourite));
    star.firstElementChild.replaceWith(icon(favourite ? "star-full" : "star"));
  }
  async function withCard(run) {
    const picture = stage.picture();
    if (!picture) return;
    try {
      const card = await cardOf(picture);
      if (card) await run(card);
      else say("This picture is not in the history.", "bad");
    } catch (error) { complain(error); }
  }
  const favourite = () => withCard((card) => actions.favourite([card.id], !card.favourite));
  actions.on("marked", (ids, what) => {
    if (what.favourite === undefined) return;
    for (const card of cards.values()) if (ids.includes(card.id)) card.favourite = what.favourite;
    drawStar();
  });

  // --- replay ---

  const again = button("Replay", "recycle", () => start(), { disabled: true, title: "Make the same picture again and compare the pixels (R)" });
  const start = () => withCard((card) => replay.start(card.id));
  const told = el("div", { class: "stage-verdict" });
  function drawVerdict() {
    const card = shown && cards.get(shown.src);
    const open = ([child]) => latent.history.openPicture(child.id);
    redraw(told, ...(card ? details.verdictOf(card, open, compare.show) : []));
  }
  replay.on((id) => { if (shown && cards.get(shown.src)?.id === id) drawVerdict(); });

  // --- what is shown ---

  stage.onPicture((picture) => {
    if (picture?.src === shown?.src) return;
    shown = picture ?? null;
    for (const node of [star, again]) able(node, Boolean(shown));
    drawStar();
    drawVerdict();
    if (shown) cardOf(shown).then((card) => { if (card && shown?.src === picture.src) { drawStar(); drawVerdict(); } }, () => {}); // the banner tells
  }, [star, again], told);

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const run = { f: favourite, r: start }[event.key.toLowerCase()];
    if (!run || event.target.closest?.("input, textarea, select, [contenteditable]")) return;
    const dialog = find("dialog[open]");
    if (dialog ? dialog.id !== "viewer" : !isShown(stage.root)) return;
    event.preventDefault();
    run();
  });

  return { cardOf };
})();
