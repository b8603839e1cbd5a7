/* One card in full: what its file and its training say, what its user writes about it, and its picture. */
"use strict";
latent.cardDetails = (() => {
  const { able, el, icon, button, iconButton, call, say, find, setText } = latent.tools;
  const { cards } = latent;
  let card = null, kind = "", opener = null, turn = 0;

  const FIELDS = [
    ["activation text", "activation_text", "Activation text", "Added to the prompt behind the tag"],
    ["negative text", "negative_text", "Negative text", "Added to the negative prompt with the card"],
    ["preferred weight", "preferred_weight", "Preferred weight", "The weight that the tag is written with; 0 for 1"],
    ["sd version", "sd_version", "Made for", "Your own word for its family"],
    ["description", "description", "Description", "Shown on the card"],
    ["notes", "notes", "Notes", "For yourself"],
  ];
  const LONG = ["description", "notes"];

  const heading = el("h2", {});
  const picture = el("div", { class: "picture" });
  const facts = el("dl", {});
  const tags = el("p", { class: "tags" });
  const problems = el("ul", { class: "bad" });
  const fault = el("p", { class: "bad", role: "alert" });
  const inputs = {};
  const rows = FIELDS.map(([key, , label, tip]) => {
    const id = `card-${key.replace(/ /g, "-")}`;
    inputs[key] = LONG.includes(key) ? el("textarea", { id, rows: 3 })
      : el("input", { id, autocomplete: "off", ...(key === "preferred weight" ? { type: "number", step: "0.05", min: "-100", max: "100" } : {}) });
    return el("div", { class: `field ${LONG.includes(key) ? "long" : ""}` }, el("label", { for: id }, label), inputs[key], el("small", {}, tip));
  });
  const usePicture = button("Use the last picture as preview", "image", () => setPicture());
  const editing = el("div", { class: "actions" }, el("button", { type: "submit", class: "primary" }, "Save"), usePicture);
  const notes = el("form", {}, el("div", { class: "fields" }, ...rows), fault, editing);
  const view = el("div", { class: "details", hidden: true },
    el("div", { class: "top" }, iconButton("Back to the cards", "left", () => close()), heading, iconButton("Close", "close", () => cards.box.close())),
    el("div", { class: "body" }, el("div", { class: "about" }, picture, problems, facts, tags), notes));
  cards.box.append(view);
  if (!window.latentBoot.viewer.admin) { // only administrators write beside the models
    editing.hidden = true;
    for (const input of Object.values(inputs)) input.readOnly = true;
  }

  function draw(details) {
    setText(heading, card.label);
    picture.replaceChildren(card.preview
      ? el("img", { src: `cards/preview.webp?${new URLSearchParams({ kind, name: card.name, v: card.preview })}`, alt: `Preview of ${card.label}` })
      : el("span", { class: "no-picture" }, icon("image")));
    facts.replaceChildren(...details.facts.flatMap(({ name, value }) => [el("dt", {}, name), el("dd", {}, value)]));
    problems.replaceChildren(...details.problems.map((text) => el("li", {}, text)));
    tags.replaceChildren(...(details.tags.length ? [el("b", {}, "Words of the training captions"), ...details.tags.map(({ name, value }) =>
      el("button", { type: "button", title: `${value} times; a click adds it to the activation text`, onclick: () => addWord(name) }, name, el("small", {}, value)))] : []));
    able(usePicture, Boolean(lastPicture()));
  }
  function addWord(word) {
    const input = inputs["activation text"];
    input.value = cards.appended(input.value, word);
  }
  const lastPicture = () => latent.stage.view?.images?.filter((image) => image.path).at(-1)?.path;

  async function open(chosen, ofKind) {
    card = chosen;
    kind = ofKind;
    opener = document.activeElement;
    setText(fault, "");
    const now = ++turn;
    try {
      const details = await call(`cards/details?${new URLSearchParams({ kind, name: card.name })}`);
      if (now !== turn || !cards.box.open) return; // another card was opened, or the cards were closed
      draw(details);
      for (const [key, name] of FIELDS) inputs[key].value = name === "preferred_weight" ? details.notes[name] || 0 : details.notes[name];
    } catch (error) { latent.tools.complain(error); return; }
    cards.overview.hidden = true;
    view.hidden = false;
    find(".top button", view).focus();
  }
  function close() {
    view.hidden = true;
    cards.overview.hidden = false;
    const again = opener?.isConnected ? opener : find(`[aria-label="${CSS.escape(`Details of ${card.label}`)}"]`, cards.overview); // the card was drawn anew
    again?.focus();
  }
  /* What is written of the card has changed. The fields stay: something may be typed there that is not saved. */
  async function reopened(now, details) {
    if (now === turn) await cards.show(kind);
    if (now !== turn) return;
    card = cards.card(kind, card.name) ?? card;
    draw(details);
  }
  async function save(event) {
    event.preventDefault();
    const written = Object.fromEntries(FIELDS.map(([key]) => [key, key === "preferred weight" ? Number(inputs[key].value) || 0 : inputs[key].value]));
    try {
      await reopened(turn, await call("cards/notes", { method: "POST", json: { kind, name: card.name, notes: written } }));
      setText(fault, "");
      say("Notes saved.");
    } catch (error) { setText(fault, `${error.message} ${error.advice ?? ""}`); }
  }
  async function setPicture() {
    try {
      await reopened(turn, await call("cards/preview", { method: "POST", json: { kind, name: card.name, picture: lastPicture() } }));
      say(`This picture now shows ${card.label}.`);
    } catch (error) { setText(fault, `${error.message} ${error.advice ?? ""}`); }
  }
  notes.addEventListener("submit", save);
  cards.box.addEventListener("close", () => { if (!view.hidden) close(); });
  return { open };
})();
