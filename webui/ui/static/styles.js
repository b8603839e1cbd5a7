/* Styles: named pieces of prompt. Chosen ones are chips below the prompt; the dialog chooses, writes and deletes them.
   The server merges them into the prompts when a job is submitted (webui/prompt/styles.py). They are everybody's, so
   only administrators write and delete them. */
"use strict";
latent.styles = (() => {
  const { el, icon, button, iconButton, call, say, complain, dialog, find, redraw, setText } = latent.tools;
  const { form } = latent;
  const { admin } = window.latentBoot.viewer;
  let known = null, chips = null, drawn = "";

  const names = () => (form.latest("styles") ?? "").split("\n").filter(Boolean);
  const choose = (list) => form.set({ styles: [...new Set(list)].join("\n") }, true);
  const add = (name) => choose([...names(), name]);
  const remove = (name) => choose(names().filter((other) => other !== name));

  async function read() {
    take(await call("styles"));
  }
  function take({ styles, problems }) {
    known = styles;
    setText(note, problems.join(" "));
    drawChips();
    if (box.open) drawList();
  }

  // --- chips ---

  function drawChips() {
    if (!chips) return;
    redraw(chips, ...names().map((name) => {
      const style = known?.find((other) => other.name === name);
      const text = style ? [style.prompt, style.negative_prompt && `Negative: ${style.negative_prompt}`].filter(Boolean).join("\n") : "This style is not here any more.";
      return el("span", { class: `style-chip${known && !style ? " gone" : ""}`, title: text },
        el("button", { type: "button", class: "name", onclick: () => (style && admin ? edit(style) : open()) }, name),
        el("button", { type: "button", class: "off", "aria-label": `Take off ${name}`, title: "Take off", onclick: () => remove(name) }, icon("close")));
    }));
  }

  // --- the dialog: a list, or one style ---

  const search = el("input", { type: "search", "aria-label": "Search styles", placeholder: "Search styles", autocomplete: "off", spellcheck: "false" });
  const note = el("p", { class: "bad", role: "status" });
  const empty = el("p", { class: "muted" });
  const list = el("ul", { "aria-label": "Styles" });
  const overview = el("div", {}, el("div", { class: "top" }, search, admin ? button("New from the prompt", "plus", () => edit(null)) : null, iconButton("Close", "close", () => box.close())), note, list, empty);

  const fields = {
    name: el("input", { id: "style-name", maxlength: 200, autocomplete: "off" }),
    prompt: el("textarea", { id: "style-prompt", rows: 4 }),
    negative_prompt: el("textarea", { id: "style-negative", rows: 2 }),
  };
  const heading = el("h2", {});
  const fault = el("p", { class: "bad", role: "alert" });
  const drop = button("Delete", "trash", () => erase());
  const editor = el("form", { hidden: true },
    el("div", { class: "top" }, heading, iconButton("Back to the list", "left", () => show(false))),
    el("label", { for: "style-name" }, "Name"), fields.name,
    el("label", { for: "style-prompt" }, "Added to the prompt"), fields.prompt,
    el("p", { class: "muted" }, "{prompt} stands for what you type; without it the style follows after a comma."),
    el("label", { for: "style-negative" }, "Added to the negative prompt"), fields.negative_prompt, fault,
    el("div", { class: "actions" }, el("button", { type: "submit", class: "primary" }, "Save"), drop));
  const box = dialog("styles", "Styles", overview, editor);
  let before = "";

  function show(editing) {
    overview.hidden = editing;
    editor.hidden = !editing;
    if (!editing) drawList();
    (editing ? fields.name : search).focus();
  }
  async function open() {
    search.value = "";
    if (!box.open) box.showModal();
    show(false);
    try { await read(); } catch (error) { setText(note, `${error.message} ${error.advice ?? ""}`); }
  }
  function drawList() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean), chosen = names();
    const fitting = (known ?? []).filter((style) => words.every((word) => `${style.name} ${style.prompt} ${style.negative_prompt}`.toLowerCase().includes(word)));
    const key = JSON.stringify([fitting, chosen]);
    if (key !== drawn) redraw(list, ...fitting.slice(0, 500).map((style) => {
      const on = chosen.includes(style.name);
      const toggle = () => { on ? remove(style.name) : add(style.name); drawList(); };
      return el("li", {},
        el("button", { type: "button", class: "choice", "aria-pressed": String(on), "data-name": style.name, onclick: toggle }, on ? icon("check") : el("i"),
          el("span", {}, style.name), el("small", {}, [style.prompt, style.negative_prompt && `Negative: ${style.negative_prompt}`].filter(Boolean).join(" · "))),
        admin ? iconButton(`Edit ${style.name}`, "edit", () => edit(style)) : null);
    }));
    drawn = key;
    setText(empty, fitting.length ? "" : known?.length ? "No style has these words." : admin ? "No styles yet. Write a prompt you like, then keep it as a style. A styles.csv of another program goes into the data folder." : "No styles yet. An administrator of this server can write some.");
  }
  function edit(style) {
    before = style?.name ?? "";
    setText(heading, style ? "Edit the style" : "New style");
    fields.name.value = before;
    fields.prompt.value = style ? style.prompt : form.values.prompt ?? "";
    fields.negative_prompt.value = style ? style.negative_prompt : form.values.negative_prompt ?? "";
    drop.hidden = !style;
    setText(fault, "");
    if (!box.open) box.showModal();
    show(true);
  }
  async function save(event) {
    event.preventDefault();
    const style = Object.fromEntries(Object.entries(fields).map(([key, input]) => [key, input.value]));
    try {
      take(await call("styles", { method: "POST", json: { ...style, before } }));
      const name = style.name.trim().replace(/\s+/g, " ");
      if (before && before !== name && names().includes(before)) await choose(names().map((other) => (other === before ? name : other)));
      say(`Style "${name}" saved.`);
      show(false);
    } catch (error) { setText(fault, `${error.message} ${error.advice ?? ""}`); }
  }
  async function erase() {
    const gone = known.find((style) => style.name === before);
    try {
      take(await call("styles/delete", { method: "POST", json: { name: before } }));
      await remove(before);
      show(false);
      const undo = async () => { try { take(await call("styles", { method: "POST", json: { ...gone, before: "" } })); } catch (error) { complain(error); } };
      say(`Style "${gone.name}" deleted.`, "", { label: "Undo", run: undo });
    } catch (error) { setText(fault, `${error.message} ${error.advice ?? ""}`); }
  }
  search.addEventListener("input", drawList);
  editor.addEventListener("submit", save);

  // --- where it stands on the page ---

  function mount(element) {
    chips = find(".chosen-styles", element);
    find("#show-styles", element).addEventListener("click", open);
    let drawn = null;
    form.listeners.push((values) => {
      if (values.styles === drawn) return;
      drawn = values.styles;
      drawChips();
      if (values.styles && !known) read().catch(() => {});
    });
  }
  return { mount, open, add, remove, names };
})();
