/* Panels of extensions: groups of fields below the form, drawn from their schema. Their values are kept in one field of
   the form as JSON, so they are remembered, sent, restored and reset like every other value. A "script" takes the job
   over, so one of them at most is chosen; the others each have a switch. */
"use strict";
latent.panels = (() => {
  const { el, button, iconButton, call, find, redraw, say } = latent.tools;
  const { form } = latent;
  let panels = window.latentBoot.panels, host = null, drawn = null;

  const parse = (text) => { try { return JSON.parse(text || "{}"); } catch { return {}; } };
  const values = () => parse(form.latest("extensions"));
  const write = (next) => {
    drawn = Object.keys(next).length ? JSON.stringify(next) : "";
    return form.set({ extensions: drawn }, true);
  };
  const defaults = (panel) => Object.fromEntries(panel.fields.map((field) => [field.key, field.default]));
  const isScript = (panel) => panel.kind === "script";

  function put(panel, key, value) {
    const all = values();
    return write({ ...all, [panel.name]: { ...defaults(panel), ...all[panel.name], [key]: value } });
  }
  function turn(panel, on) {
    const all = values();
    if (isScript(panel)) for (const other of panels.filter(isScript)) delete all[other.name];
    if (on) all[panel.name] = { ...defaults(panel), ...kept.get(panel.name) };
    else { if (all[panel.name]) kept.set(panel.name, all[panel.name]); delete all[panel.name]; }
    write(all);
    draw();
  }
  const kept = new Map(); // what a panel held when it was switched off

  // --- one field ---

  function control(panel, field, value) {
    const id = `panel-${panel.name}-${field.key}`, common = { id, title: field.tip, "aria-describedby": field.tip ? `${id}-tip` : null };
    const label = el("label", { for: id }, field.label);
    let input;
    if (field.kind === "bool") {
      input = el("input", { type: "checkbox", ...common });
      input.checked = value;
      input.addEventListener("change", () => put(panel, field.key, input.checked));
      return el("div", { class: "panel-field flag" }, input, label);
    }
    if (field.kind === "choice") {
      input = el("select", common, ...field.choices.map((choice) => el("option", { value: choice }, choice)));
      input.value = value;
      input.addEventListener("change", () => put(panel, field.key, input.value));
    } else if (field.kind === "int" || field.kind === "float") {
      const whole = field.kind === "int";
      input = el("input", { type: "number", min: field.low, max: field.high, step: field.step ?? (whole ? 1 : "any"), inputmode: whole ? "numeric" : "decimal", ...common });
      input.value = value;
      const inside = () => input.value.trim() !== "" && Number(input.value) >= field.low && Number(input.value) <= field.high && (!whole || Number.isInteger(Number(input.value)));
      input.addEventListener("input", () => { if (inside()) put(panel, field.key, Number(input.value)); }); // Ctrl+Enter takes what is typed
      input.addEventListener("change", () => {
        const typed = input.value.trim() === "" ? field.default : Number(input.value);
        const within = Math.min(Math.max(Number.isFinite(typed) ? typed : field.default, field.low), field.high);
        input.value = whole ? Math.round(within) : within;
        put(panel, field.key, Number(input.value));
      });
    } else {
      input = field.kind === "lines" ? el("textarea", { rows: 4, spellcheck: "false", ...common }) : el("input", { type: "text", autocomplete: "off", spellcheck: "false", ...common });
      input.value = value;
      input.addEventListener("input", () => put(panel, field.key, input.value));
    }
    const top = field.kind === "lines" ? el("div", { class: "label-row" }, label, fromFile(panel, field, input)) : label;
    return el("div", { class: `panel-field${field.kind === "lines" ? " wide" : ""}` }, top, input, field.tip ? el("small", { class: "muted", id: `${id}-tip` }, field.tip) : null);
  }

  /* Long texts are mostly kept in files: a button that reads one into the field. */
  function fromFile(panel, field, input) {
    const picker = el("input", { type: "file", accept: ".txt,text/plain", class: "off-screen", tabindex: -1, "aria-hidden": "true" });
    picker.addEventListener("change", async () => {
      const [file] = picker.files;
      if (file?.size > 90000) say("The file is longer than the field can hold.", "bad");
      else if (file) { input.value = await file.text(); await put(panel, field.key, input.value); }
      picker.value = "";
    });
    return el("span", { class: "from-file" }, button("From a file", "folder", () => picker.click()), picker);
  }

  const fieldsOf = (panel, now) => el("div", { class: "panel-fields" }, panel.note ? el("p", { class: "muted wide" }, panel.note) : null,
    ...panel.fields.filter((field) => !field.hidden).map((field) => control(panel, field, now[field.key] ?? field.default)));

  // --- all of them ---

  function alwaysPanel(panel, now) {
    const on = panel.name in now, id = `panel-on-${panel.name}`;
    const box = el("input", { type: "checkbox", role: "switch", id });
    box.checked = on;
    box.addEventListener("change", () => turn(panel, box.checked));
    const reset = on ? iconButton(`Reset ${panel.title}`, "reset", () => { write({ ...values(), [panel.name]: defaults(panel) }); draw(); }) : null;
    return el("section", { class: "panel", "data-panel": panel.name }, el("header", {}, el("label", { for: id }, box, el("span", {}, panel.title)), reset), on ? fieldsOf(panel, now[panel.name]) : null);
  }
  function scriptPanel(scripts, now) {
    const chosen = scripts.find((panel) => panel.name in now);
    const select = el("select", { id: "script", "aria-label": "Script" }, el("option", { value: "" }, "None"), ...scripts.map((panel) => el("option", { value: panel.name }, panel.title)));
    select.value = chosen?.name ?? "";
    select.addEventListener("change", () => {
      const panel = scripts.find((one) => one.name === select.value);
      panel ? turn(panel, true) : turn(chosen, false);
    });
    return el("section", { class: "panel", "data-panel": "script" }, el("header", {}, el("label", { for: "script" }, "Script"), select), chosen ? fieldsOf(chosen, now[chosen.name]) : null);
  }
  function draw() {
    if (!host) return;
    const now = values(), scripts = panels.filter(isScript);
    drawn = form.latest("extensions") ?? "";
    redraw(host, ...(scripts.length ? [scriptPanel(scripts, now)] : []), ...panels.filter((panel) => !isScript(panel)).map((panel) => alwaysPanel(panel, now)));
    host.closest("#panels")?.toggleAttribute("hidden", !panels.length);
  }
  /* Read the panels again: an extension was switched on or off. Values of panels that are gone are taken out. */
  async function refresh() {
    panels = (await call("panels")).panels;
    const known = new Set(panels.map((panel) => panel.name));
    const left = Object.fromEntries(Object.entries(values()).filter(([name]) => known.has(name)));
    await write(left);
    draw();
  }
  function mount(element) {
    host = find(".panels", element);
    draw();
    form.listeners.push(() => { if ((form.latest("extensions") ?? "") !== drawn) draw(); });
  }
  form.fillers.push(() => ({ extensions: form.latest("extensions") ?? "" })); // what was typed last may still be on its way
  latent.piece("panels", mount);
  return { refresh, values, defaults, isScript: (name) => panels.some((panel) => panel.name === name && isScript(panel)) };
})();
