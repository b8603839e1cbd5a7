/* Presets: named sets of fields, offered beside the styles. Those that are meant for the family of the chosen
   checkpoint come first; one's own are made of what differs from the defaults, and are kept on the server. */
"use strict";
latent.presets = (() => {
  const { el, button, iconButton, call, say, sayTaken, complain, dialog, find, redraw, setText, widgetValues, readJson, writeJson } = latent.tools;
  const { form, models } = latent;
  const NEVER = new Set(["prompt", "negative_prompt", "styles", "seed", "variation_seed", "checkpoint", "vae", "refiner", "hires.checkpoint", "hires.prompt", "hires.negative_prompt"]); // what a preset is not about
  const KINDS = new Set(["mode", "picture", "sources"]); // nor these
  const GROUPS = ["hires", "faces"]; // those that stand alone; the others need a picture
  let known = [], drawn = "";

  const family = () => models.checkpoint(form.values.checkpoint)?.family ?? "";
  const fits = (preset) => !preset.families.length || preset.families.includes(family());
  const post = (action, json) => call(`extensions/presets/${action}`, { method: "POST", json });

  async function take(preset) {
    const before = { ...form.values };
    box.close();
    const notes = await form.set(widgetValues(preset.fields), true);
    sayTaken(`Preset "${preset.name}" taken.`, notes, { label: "Undo", run: () => form.set(before, true) });
  }
  const list = el("ul", { "aria-label": "Presets" });
  const note = el("p", { class: "muted", role: "status" });
  const name = el("input", { id: "preset-name", maxlength: 100, autocomplete: "off", placeholder: "Name" });
  const keep = el("form", { class: "keep" }, el("label", { for: "preset-name" }, "Keep what differs from the defaults as"), el("div", { class: "line" }, name, el("button", { type: "submit", class: "quiet" }, "Save")));
  const picker = el("input", { type: "file", accept: "application/json,.json", class: "off-screen", tabindex: -1, "aria-hidden": "true" });
  const box = dialog("presets", "Presets",
    el("div", { class: "top" }, el("h2", {}, "Presets"), iconButton("Close", "close", () => box.close())), list, note, keep,
    el("div", { class: "actions" }, button("Export", "download", () => exported()), button("Import", "paste", () => picker.click()), picker));

  const shown = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value));
  function row(preset) {
    const facts = Object.entries(preset.fields).map(([key, value]) => `${form.spec.fields[key]?.label ?? key} ${shown(value)}`).join(" · ");
    return el("li", {},
      el("button", { type: "button", class: "choice", onclick: () => take(preset).catch(complain) }, el("span", {}, preset.name), el("small", {}, [preset.about, facts].filter(Boolean).join(" · "))),
      preset.own ? iconButton(`Delete ${preset.name}`, "trash", () => erase(preset)) : null);
  }
  function draw() {
    const rank = (preset) => (preset.own ? 0 : preset.families.length ? 1 : 2);
    const fitting = known.filter(fits).sort((a, b) => rank(a) - rank(b));
    const key = JSON.stringify(fitting);
    if (key !== drawn) redraw(list, ...fitting.map(row)); // mostly the list that comes is the one that is there
    drawn = key;
    setText(note, fitting.length ? "" : "There are no presets for this checkpoint yet.");
  }
  async function read() {
    known = (await call("presets")).presets;
    draw();
  }
  async function open() {
    if (!box.open) box.showModal();
    draw();
    try { await read(); } catch (error) { complain(error); }
  }
  /* The form's fields as a request has them, without what a preset is not about. */
  function fields() {
    const chosen = {};
    for (const key of form.spec.keys) {
      const field = form.spec.fields[key], value = form.values[key];
      if (NEVER.has(key) || KINDS.has(field.kind) || ["width", "height"].includes(key) || (value ?? "") === (form.defaults(key) ?? "")) continue;
      const [group, name] = key.split(/\.(.*)/);
      if (name !== undefined) {
        if (!GROUPS.includes(group) || !form.values[`${group}.on`]) continue;
        chosen[group] ??= {};
        if (field.kind !== "switch") chosen[group][name] = value;
      } else if (field.kind === "sigmas") chosen[key] = value.split(/[,;]/).map(Number);
      else if (field.kind === "panels") chosen[key] = JSON.parse(value);
      else chosen[key] = value;
    }
    return chosen;
  }
  async function save(event) {
    event.preventDefault();
    const typed = name.value.trim();
    if (!typed) { setText(note, "Type a name."); name.focus(); return; }
    try {
      await post("save", { name: typed, fields: fields() });
      name.value = "";
      await read();
      say(`Preset "${typed}" saved.`);
    } catch (error) { setText(note, `${error.message} ${error.advice ?? ""}`); }
  }
  async function erase(preset) {
    try {
      await post("delete", { name: preset.name });
      await read();
      say(`Preset "${preset.name}" deleted.`, "", { label: "Undo", run: () => post("import", { [preset.name]: preset.fields }).then(read).catch(complain) });
    } catch (error) { complain(error); }
  }
  async function exported() {
    try {
      const data = await call("extensions/presets/export");
      const link = el("a", { href: URL.createObjectURL(new Blob([writeJson(data, 1)], { type: "application/json" })), download: "presets.json" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    } catch (error) { complain(error); }
  }
  picker.addEventListener("change", async () => {
    try {
      await post("import", readJson(await picker.files[0].text()));
      await read();
      say("Presets taken in.");
    } catch (error) { setText(note, error.advice ? `${error.message} ${error.advice}` : "This is not a file of presets."); }
    picker.value = "";
  });
  keep.addEventListener("submit", save);

  latent.piece("presets", (element) => find("#show-presets", element).addEventListener("click", open));
  return { open, read };
})();
