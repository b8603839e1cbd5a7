/* Parameters from elsewhere: a text of any program, or a picture, becomes the form's values; what changed, what is not
   here and what was not understood is listed, and one button takes it all back. */
"use strict";
latent.parameters = (() => {
  const { able, el, button, iconButton, call, say, complain, escaped, find, plural, widgetValues } = latent.tools;
  const { form } = latent;
  const MAX_SHOWN = 160; // characters of a value
  const LOOKS = /(?:^|[\n,]\s*)Steps: ?\d|^\s*\{[\s\S]*\}\s*$/; // what a parameters text has, and a prompt hardly ever

  /* The form's values that a reading asks for, as far as the form can hold them, and what had to be changed. */
  function wanted(found) {
    const values = widgetValues(found.params);
    if (found.settings ?? isComplete(found)) {
      values.styles = found.styles.join("\n");
      for (const [name, { kind }] of Object.entries(form.spec.fields)) if (kind === "switch") values[name] ??= false; // a whole text says all that was on
    }
    return form.fitAll(values);
  }
  const isComplete = (found) => Object.keys(found.params).some((name) => !["prompt", "negative_prompt"].includes(name));
  const isAnything = (found) => Object.keys(found.params).length > 0;

  const shown = (value) => {
    const text = value === null || value === undefined || value === "" ? "empty" : value === true ? "on" : value === false ? "off" : String(value).replace(/\n/g, ", ");
    return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text;
  };
  const equal = (a, b) => (a ?? "") === (b ?? "") || (typeof a === "number" && typeof b === "number" && Math.abs(a - b) < 1e-9);

  /* What would change: [{ label, before, after }], in the form's order. */
  function differences(values, before = form.values) {
    return form.spec.keys.filter((name) => name in values && !equal(values[name], before[name]))
      .map((name) => ({ label: form.spec.fields[name].label, before: shown(before[name]), after: shown(values[name]) }));
  }

  const table = (rows) => el("table", { class: "changes" },
    el("thead", { class: "off-screen" }, el("tr", {}, el("th", { scope: "col" }, "Field"), el("th", { scope: "col" }, "Before"), el("th", { scope: "col" }, "After"))),
    el("tbody", {}, ...rows.map(({ label, before, after }) => el("tr", {}, el("th", { scope: "row" }, label), el("td", {}, before), el("td", {}, after)))));

  /* Models that are missing or go by another name; a missing one offers the nearest. */
  function modelNotes(found, use) {
    const told = found.models.filter((model) => model.note);
    if (!told.length) return null;
    return el("ul", { class: "model-notes", "aria-label": "Models" }, ...told.map((model) => el("li", {}, el("span", {}, model.note),
      model.nearest && !model.here ? el("button", { type: "button", class: "quiet", onclick: (event) => use(model, event.currentTarget) }, `Use ${model.nearest.replace(/\.[^.]+$/, "")}`) : null)));
  }
  /* A prompt with another name in its LoRA tags. A `#` is written `\#` there (webui/prompt/networks.py). */
  const renameLora = (text, name, near) => text.replace(/(<(?:lora|lyco):)([^:>]+)/gi, (tag, head, written) => (
    written.trim().replaceAll("\\#", "#") === name ? head + near.replaceAll("#", "\\#") : tag));
  const word = (name) => new RegExp(`(?<![\\p{L}\\p{N}])${escaped(name)}(?![\\p{L}\\p{N}])`, "gu");
  const renameWord = (text, name, near) => text.replace(word(name), () => near);
  async function useNearest(model, pressed) {
    if (model.kind === "checkpoint" || model.kind === "vae") await form.set({ [model.kind]: model.nearest });
    else {
      const near = model.nearest.split("/").pop().replace(/\.[^.]+$/, "");
      const renamed = (name) => (model.kind === "lora" ? renameLora : renameWord)(form.latest(name) ?? "", model.name, near);
      await form.set({ prompt: renamed("prompt"), negative_prompt: renamed("negative_prompt") });
    }
    if (pressed) { able(pressed, false); pressed.textContent = "Taken"; }
  }
  const ignored = (found) => (found.not_understood.length ? el("details", {}, el("summary", {}, `${plural(found.not_understood.length, "entry", "entries")} without effect here`),
    ...found.not_understood.map((n) => el("p", { class: "muted" }, [n.key && `${n.key}: ${n.value}`, n.reason].filter(Boolean).join(" · ")))) : null);

  /* For the PNG info tab: what "Send to txt2img" would do, before it is done. */
  function outlook(found) {
    const [values, notes] = wanted(found), rows = differences(values);
    return [
      modelNotes(found, async (model, pressed) => { await take(found); await useNearest(model, pressed); }),
      rows.length ? el("details", { class: "outlook" }, el("summary", {}, `${plural(rows.length, "setting differs", "settings differ")} from the form`), table(rows)) : el("p", { class: "muted" }, "The form has these settings already."),
      ...notes.map((note) => el("p", { class: "muted" }, note)),
    ];
  }

  /* Fill the form, and say below the prompt what happened. */
  async function take(found) {
    const [values, notes] = wanted(found), before = { ...form.values }, rows = differences(values, before);
    latent.tabs.goFor(values);
    await form.set(values, true);
    report(found, rows, notes, before);
  }
  let panel = null;
  function report(found, rows, notes, before) {
    if (!panel) return;
    const close = () => {
      if (panel.contains(document.activeElement)) find("#paste-parameters").focus({ preventScroll: true }); // it stands where that was
      panel.hidden = true;
      panel.replaceChildren();
    };
    const undo = async () => { close(); await form.set(before, true); say("The form is as it was."); };
    const source = { A1111: "an A1111 text", text: "a prompt", "Latent WebUI": "a text of this program", last: "the last picture", none: "the text" }[found.dialect] ?? `a text of ${found.dialect}`;
    const head = rows.length ? `${plural(rows.length, "setting", "settings")} taken from ${source}` : `Nothing changed: the form has the settings of ${source} already`;
    const nodes = [
      el("div", { class: "top" }, el("p", { role: "status" }, head), rows.length ? button("Undo", "reset", undo) : null, iconButton("Close", "close", close)),
      modelNotes(found, useNearest), ...notes.map((note) => el("p", { class: "muted" }, note)),
      rows.length ? el("details", {}, el("summary", {}, "What changed"), table(rows)) : null, ignored(found),
    ];
    panel.replaceChildren(...nodes.filter(Boolean));
    panel.hidden = false;
  }

  const readText = (text) => call("infotext", { method: "POST", json: { text } });
  const readPicture = (blob) => call("png-info", { method: "POST", body: blob });

  async function clipboardText() {
    try { return await navigator.clipboard.readText(); } catch { return null; } // plain http, or the user said no
  }
  /* The parameters of the picture that was made last, as AUTOMATIC1111 gives them for an empty prompt. */
  async function lastMade() {
    const { cards } = await call("history?limit=1");
    if (!cards.length) return null;
    const found = await readText((await call(`history/${cards[0].id}`)).infotext);
    return isAnything(found) ? { ...found, dialect: "last" } : null;
  }
  async function paste() {
    try {
      const typed = find("#f-prompt textarea")?.value ?? "";
      if (LOOKS.test(typed)) {
        const found = await readText(typed);
        if (isComplete(found)) { await take(found); return; }
      }
      const text = await clipboardText();
      const copied = text?.trim() ? await readText(text) : null;
      if (copied && isComplete(copied)) { await take(copied); return; }
      const last = typed.trim() ? null : await lastMade();
      if (last) { await take(last); return; }
      if (copied && isAnything(copied)) { await take(copied); return; }
      say(text === null ? "The browser does not give the clipboard away here. Paste the text into the prompt, then press again."
        : "There is no parameters text in the prompt or the clipboard. Copy one first.", "bad");
    } catch (error) { complain(error); }
  }
  async function takePicture(file) {
    try {
      const found = await readPicture(file);
      if (isAnything(found)) await take(found);
      else say("This picture carries no parameters.", "bad");
    } catch (error) { complain(error); }
  }

  function mount(element) {
    panel = find(".taken", element);
    find("#paste-parameters", element).addEventListener("click", paste);
  }

  // A text pasted into the prompt that holds settings is offered; a picture dropped or pasted there is read.
  const inPrompt = (event) => event.target.closest?.("#f-prompt, #f-negative_prompt");
  document.addEventListener("paste", (event) => {
    if (!inPrompt(event)) return;
    const file = [...(event.clipboardData?.files ?? [])].find(({ type }) => type.startsWith("image/"));
    if (file) { event.preventDefault(); takePicture(file); return; }
    if (LOOKS.test(event.clipboardData?.getData("text/plain") ?? "")) say("This text holds parameters.", "", { label: "Fill all fields", run: paste });
  });
  const carriesFile = (event) => event.target.closest?.("#compose") && [...(event.dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragover", (event) => { if (carriesFile(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) takePicture(file);
  });

  latent.piece("prompt-tools", (element) => { mount(element); latent.styles.mount(element); latent.cards.mount(element); });
  return { take, outlook, ignored, isAnything, isComplete, paste, differences };
})();
