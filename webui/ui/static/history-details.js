/* All that is known of a picture, beside it: prompt, actions, parameters, replay and its verdict, tags, notes, family,
   similar pictures, links. Drawn anew for each picture; what is typed in it is saved as it is left. */
"use strict";
latent.history.details = (() => {
  const { el, icon, button, iconButton, call, say, complain, copyText, bytes, duration, keepFocus, redraw, setText } = latent.tools;
  const { actions, replay } = latent.history;
  const fields = latentBoot.form.fields;
  const SIDE = { min: 16, max: 16384, step: 8 }; // pixels, as a job takes them (params.py: Side)
  const KNOWN_TAGS = "history-known-tags";

  const short = (hash) => (hash ? ` [${hash.slice(0, 10)}]` : "");
  const isDefault = (name, value) => JSON.stringify(value ?? null) === JSON.stringify(fields[name]?.default ?? null);

  /* The parameters as rows of a table: what everybody asks for first, then whatever is not at its default. */
  function parameterRows(picture) {
    const rows = [
      ["Size", `${picture.width} × ${picture.height}`],
      ["Seed", picture.seed === null ? null : actions.seedText(picture)],
      ["Sampling method", picture.sampler],
      ["Schedule type", picture.schedule],
      ["Sampling steps", picture.steps],
      ["CFG scale", picture.cfg_scale],
      ["Checkpoint", picture.checkpoint && picture.checkpoint.name + short(picture.checkpoint.sha256)],
      ["VAE", picture.vae && picture.vae.name + short(picture.vae.sha256)],
      ...picture.networks.map((network) => [network.kind === "lora" ? "LoRA" : network.kind, network.name + short(network.sha256)]),
    ];
    const told = new Set(["prompt", "negative_prompt", "seed", "sampler", "schedule", "steps", "cfg_scale", "checkpoint", "vae", "width", "height", "batch_count", "batch_size"]);
    const shown = (value) => (value === true ? "on" : value === false ? "off" : value);
    for (const [name, value] of Object.entries(latent.tools.widgetValues(picture.params ?? {}))) { // groups by their paths
      const field = fields[name];
      if (told.has(name) || !field || field.kind === "picture" || isDefault(name, value) || (name.startsWith("variation_seed") && !picture.params.variation_strength)) continue;
      rows.push([field.label, shown(value)]);
    }
    return rows.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [name, String(value)]);
  }

  function factRows(picture) {
    const made = new Date(picture.created * 1000);
    const words = { product: "Latent WebUI", torch: "PyTorch", diffusers: "diffusers", device: "Device", dtype: "Precision", vae_dtype: "VAE precision", attention: "Attention", threads: "Threads" };
    return [
      ["Made", made.toLocaleString()],
      ["By", picture.user],
      ["From", picture.source],
      ["File", picture.path ?? picture.name],
      ["Time", picture.seconds.total ? duration(picture.seconds.total) : ""],
      ["Peak memory", picture.peak_memory ? bytes(picture.peak_memory) : ""],
      ...Object.entries(picture.environment).map(([name, value]) => [words[name] ?? name, value]),
      ["SHA-256 of the pixels", picture.pixels_sha256],
    ].filter(([, value]) => value);
  }

  const table = (rows) => el("table", {}, el("tbody", {}, ...rows.map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value)))));
  const section = (title, ...children) => el("section", {}, el("h3", {}, title), ...children);

  // --- pieces ---

  function tagEditor(picture, changed) {
    const host = el("div", { class: "tags" });
    const known = el("datalist", { id: KNOWN_TAGS });
    call("history/tags").then((tags) => known.replaceChildren(...tags.slice(0, 200).map(({ tag }) => el("option", { value: tag }))), () => {});
    const input = el("input", { type: "text", list: KNOWN_TAGS, placeholder: "Add a tag", "aria-label": "Add a tag", maxlength: 100, autocomplete: "off" });
    const shown = new Map(); // a tag's node stays the same: its button may be the one that is being pressed
    const tagNode = (tag) => {
      if (!shown.has(tag)) shown.set(tag, el("span", { class: "tag" }, tag, iconButton(`Remove the tag ${tag}`, "close", () => change([], [tag]))));
      return shown.get(tag);
    };
    const draw = () => redraw(host, ...picture.tags.map(tagNode), input, known);
    const change = async (add, remove) => {
      const before = picture.tags, typed = input.value;
      picture.tags = [...before.filter((tag) => !remove.includes(tag) && !add.includes(tag)), ...add];
      input.value = "";
      draw();
      if (remove.length) input.focus();
      if (await actions.tag([picture.id], add, remove)) { changed(); return; }
      const [gone, back] = [add.filter((tag) => !before.includes(tag)), remove.filter((tag) => before.includes(tag))];
      picture.tags = [...picture.tags.filter((tag) => !gone.includes(tag) && !back.includes(tag)), ...back];
      input.value ||= typed;
      draw();
    };
    const take = () => {
      const added = input.value.split(",").map((tag) => tag.trim().replace(/\s+/g, " ")).filter(Boolean);
      if (added.length) change(added, []);
    };
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === ",") { event.preventDefault(); take(); }
      else if (event.key === "Backspace" && !input.value && picture.tags.length) change([], [picture.tags.at(-1)]);
    });
    input.addEventListener("change", take);
    draw();
    return host;
  }

  function notesEditor(picture) {
    const area = el("textarea", { rows: 2, maxlength: 20000, placeholder: "Notes; the search finds them", "aria-label": "Notes" });
    const state = el("p", { class: "muted saved", role: "status" });
    let timer = 0, saved = picture.notes, busy = false;
    area.value = picture.notes;
    const fit = () => { area.style.height = "auto"; area.style.height = `${Math.min(area.scrollHeight + 2, 320)}px`; };
    const save = async () => {
      clearTimeout(timer);
      if (busy || area.value === saved) return;
      busy = true; // one on its way at a time, so that none overtakes another
      try {
        while (area.value !== saved) {
          const text = area.value;
          await actions.saveNotes(picture.id, text);
          saved = picture.notes = text;
        }
        setText(state, "Saved.");
        setTimeout(() => setText(state, ""), 2000);
      } catch (error) { saved = null; setText(state, `Not saved. ${error.message}`); }
      busy = false;
    };
    area.addEventListener("input", () => { fit(); clearTimeout(timer); timer = setTimeout(save, 800); });
    area.addEventListener("blur", save);
    requestAnimationFrame(fit);
    return [area, state];
  }

  const thumb = (card, label, onclick, props = {}) => el("button", { type: "button", class: "relative", onclick, "aria-label": label, title: label, ...props },
    el("img", { src: card.thumbnail, alt: "", loading: "lazy", decoding: "async" }));

  /* What a child has that its parent has not, in a few words. */
  function changeWords(member, parent) {
    const changes = Object.entries(member.changes).map(([name, value]) => `${(fields[name]?.label ?? name).toLowerCase()} ${String(value).split("/").pop()}`);
    if (changes.length) return changes.join(", ");
    if (member.relation !== "replay") return member.relation;
    const pixels = (card) => card.thumbnail.split("v=")[1]; // the key of a thumbnail follows from the pixels
    return parent && pixels(parent.card) === pixels(member.card) ? "replay, identical" : "replay";
  }

  async function familyOf(picture, host, open) {
    if (picture.parent === null && !picture.children) { host.hidden = true; return; }
    try {
      const { members, complete } = await call(`history/${picture.id}/family`);
      if (members.length < 2) { host.hidden = true; return; }
      const byId = new Map(members.map((member) => [member.card.id, member]));
      const cards = members.map((member) => member.card);
      const item = (member, index) => {
        const words = member.parent === null ? "original" : changeWords(member, byId.get(member.parent));
        const here = member.card.id === picture.id;
        return el("li", { style: `--generation: ${Math.min(member.generation, 6)}`, role: "treeitem", "aria-level": member.generation + 1, "aria-selected": String(here) },
          thumb(member.card, here ? `This picture: ${words}` : `Open: ${words}`, () => { if (!here) open(cards, index); }, { "aria-current": here ? "true" : null }),
          el("span", {}, words), el("span", { class: "muted" }, here ? "this one" : member.card.seed === null || words.includes("seed ") ? "" : `seed ${member.card.seed}`));
      };
      host.hidden = false;
      redraw(host, el("h3", {}, "Family"), el("ul", { class: "family", role: "tree", "aria-label": "Family of the picture" }, ...members.map(item)),
        ...(complete ? [] : [el("p", { class: "muted" }, `The first ${members.length} are shown.`)]));
    } catch { host.hidden = true; }
  }

  function similarTo(picture, open) {
    const list = el("div", { class: "similar" });
    const box = el("details", { class: "more" }, el("summary", {}, "More like this"), list);
    box.addEventListener("toggle", async () => {
      if (!box.open || list.childElementCount) return;
      list.replaceChildren(el("p", { class: "muted" }, "Looking"));
      try {
        const cards = await call(`history/${picture.id}/similar?limit=24`);
        list.replaceChildren(...(cards.length ? cards.map((card, index) => thumb(card, card.prompt || "No prompt", () => open(cards, index))) : [el("p", { class: "muted" }, "No other prompt has words in common with this one.")]));
      } catch (error) { list.replaceChildren(el("p", { class: "bad" }, error.message)); }
    }, { passive: true });
    return box;
  }

  function sharing(picture) {
    const days = el("select", { "aria-label": "How long the link works" }, ...[["1", "for a day"], ["7", "for a week"], ["30", "for a month"], ["", "until ended"]].map(([value, text]) => el("option", { value }, text)));
    days.value = "7";
    const withText = el("input", { type: "checkbox", id: "share-parameters" });
    const list = el("ul", { class: "links" });
    const draw = async () => {
      const links = await call(`history/${picture.id}/shares`).catch(() => []);
      keepFocus(box, () => list.replaceChildren(...links.map((link) => el("li", {},
        el("span", {}, link.expires ? `Until ${new Date(link.expires * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })}` : "Until ended", link.with_parameters ? ", with parameters" : ""),
        button("End", "close", async () => { try { await call(`history/shares/${link.id}/revoke`, { method: "POST" }); say("The link has ended."); draw(); } catch (error) { complain(error); } })))));
    };
    const make = async () => {
      try {
        const made = await call(`history/${picture.id}/share`, { method: "POST", json: { days: days.value ? Number(days.value) : null, with_parameters: withText.checked } });
        const address = new URL(`${made.path}/picture`, document.baseURI).href;
        shown.value = address;
        shown.hidden = false;
        copyText(address, "Link");
        draw();
      } catch (error) { complain(error); }
    };
    const shown = el("input", { type: "text", readonly: true, hidden: true, "aria-label": "The link", onfocus: () => shown.select() });
    const box = el("details", { class: "more sharing" }, el("summary", {}, "Share by a link"),
      el("p", { class: "muted" }, "Whoever has the link sees this one picture, without an account."),
      el("div", { class: "row" }, days, el("label", { for: "share-parameters" }, withText, "with its parameters")),
      el("div", { class: "row" }, el("button", { type: "button", class: "quiet framed", onclick: make }, icon("link"), el("span", {}, "Make a link"))), shown, list);
    box.addEventListener("toggle", () => { if (box.open) draw(); });
    return box;
  }

  // --- replay ---

  function replayWith(picture, host) {
    const models = latent.models.list.checkpoints.filter((model) => model.runnable);
    const now = { seed: actions.seedText(picture), checkpoint: latent.models.checkpoint(picture.checkpoint?.name ?? picture.params.checkpoint)?.name ?? "", sampler: picture.params.sampler, width: picture.params.width, height: picture.params.height };
    const option = (value, label = value) => el("option", { value }, label);
    const inputs = {
      seed: el("input", { type: "text", inputmode: "numeric", id: "with-seed", autocomplete: "off" }),
      checkpoint: el("select", { id: "with-checkpoint" }, ...(now.checkpoint ? [] : [option("", picture.checkpoint?.name ?? "")]), ...models.map((model) => option(model.name, model.name.replace(/\.[^.]+$/, "")))),
      sampler: el("select", { id: "with-sampler" }, ...fields.sampler.choices.map((name) => option(name))),
      width: el("input", { type: "number", id: "with-width", ...SIDE }),
      height: el("input", { type: "number", id: "with-height", ...SIDE, "aria-label": "Height" }),
    };
    for (const [name, input] of Object.entries(inputs)) input.value = now[name];
    const problem = el("p", { class: "bad", role: "alert", hidden: true });
    const go = () => {
      const changes = {};
      const seed = inputs.seed.value.trim();
      if (!/^-?\d{1,19}$/.test(seed)) { setText(problem, "The seed is not a whole number."); problem.hidden = false; inputs.seed.focus(); return; }
      if (seed !== now.seed) changes.seed = seed;
      for (const name of ["checkpoint", "sampler"]) if (inputs[name].value && inputs[name].value !== now[name]) changes[name] = inputs[name].value;
      for (const name of ["width", "height"]) if (Number(inputs[name].value) !== now[name]) changes[name] = Number(inputs[name].value);
      if (!Object.keys(changes).length) { setText(problem, "Nothing is changed yet. Change a value, or use Replay."); problem.hidden = false; return; }
      host.open = false;
      host.firstElementChild.focus(); // the button that was pressed is folded away
      replay.start(picture.id, changes);
    };
    const random = iconButton("Random seed", "dice", () => { inputs.seed.value = String(Math.floor(Math.random() * 2 ** 32)); });
    return el("form", { onsubmit: (event) => { event.preventDefault(); go(); } },
      el("label", { for: "with-seed" }, "Seed"), el("div", { class: "row tight" }, inputs.seed, random),
      el("label", { for: "with-checkpoint" }, "Checkpoint"), inputs.checkpoint,
      el("label", { for: "with-sampler" }, "Sampler"), inputs.sampler,
      el("label", { for: "with-width" }, "Size"), el("div", { class: "row tight" }, inputs.width, el("span", { "aria-hidden": "true" }, "×"), inputs.height),
      problem, el("div", { class: "row" }, el("button", { type: "submit", class: "primary" }, "Make it")));
  }

  function verdictOf(picture, open, compare) {
    const run = replay.runs.get(picture.id);
    if (!run) return [];
    if (run.state === "queued" || run.state === "running") {
      return [el("div", { class: "verdict", role: "status" }, el("b", {}, run.variation ? "Making a variation" : "Replaying"), el("span", {}, run.text), el("div", { class: "line" }, el("i", { style: `transform: scaleX(${run.progress ?? 0})` })))];
    }
    if (run.state === "failed") {
      return [el("div", { class: "verdict bad-one", role: "alert" }, el("b", {}, "Not made"), el("span", {}, run.text), run.advice ? el("span", { class: "muted" }, run.advice) : "",
        run.missing ? el("div", { class: "row" }, button("Replay without it", "recycle", () => replay.start(picture.id, run.changes, true))) : "")];
    }
    const look = el("div", { class: "row" }, button("Open", "image", () => open([run.child], 0)), button("Compare", "compare", () => compare(picture.id, run.child.id)));
    if (run.variation) return [el("div", { class: "verdict", role: "status" }, el("b", {}, "Made"), el("span", {}, "The new picture is a child of this one."), look)];
    const words = replay.verdict(run.difference);
    const seen = run.difference.rows.filter((row) => row.name !== "picture");
    return [el("div", { class: `verdict ${words.good ? "good" : "other"}`, role: "status" }, words.good ? icon("check") : "", el("b", {}, words.title), el("span", {}, words.text),
      ...(run.notes ?? []).map((note) => el("span", { class: "muted" }, note)),
      words.good || !seen.length ? "" : el("div", {}, el("span", {}, "What was different between the two:"), table(seen.map((row) => [row.name, row.values.map((value) => value ?? "not known").join(" → ")]))), look)];
  }

  // --- the whole ---

  /* `env`: open(cards, index) shows pictures outside the grid, compare(a, b), changed(). */
  function draw(host, picture, env) {
    const trashed = picture.state === "trashed";
    const canReplay = Boolean(picture.params);
    const why = canReplay ? null : "The picture does not say how it was made in full, so it cannot be replayed";
    const withBox = el("details", { class: "more replay-with" }, el("summary", {}, "Replay with"));
    if (canReplay) withBox.append(replayWith(picture, withBox));
    const verdict = el("div", { class: "verdict-host" });
    const family = el("section", { hidden: true });
    const drawVerdict = () => {
      redraw(verdict, ...verdictOf(picture, env.open, env.compare));
      if (replay.runs.get(picture.id)?.state === "done") picture.children ||= 1; // the child was not there when the picture was read
      if (!verdict.querySelector(".line")) familyOf(picture, family, env.open);
    };
    drawVerdict();
    const state = { missing: "The file is not where it was.", unsaved: picture.error || "The file could not be written.", trashed: "This picture is in the trash." }[picture.state];
    host.replaceChildren(
      ...(state ? [el("p", { class: "state" }, state)] : []),
      el("div", { class: "prompt-text" }, el("p", {}, picture.prompt || "No prompt"), picture.prompt ? iconButton("Copy the prompt", "copy", () => copyText(picture.prompt, "Prompt")) : ""),
      ...(picture.negative_prompt ? [el("div", { class: "prompt-text negative" }, el("p", {}, el("span", { class: "muted" }, "Negative: "), picture.negative_prompt), iconButton("Copy the negative prompt", "copy", () => copyText(picture.negative_prompt, "Negative prompt")))] : []),
      ...(trashed ? [el("div", { class: "do" }, button("Restore", "reset", () => actions.restore([picture.id])), button("Delete for good", "trash", () => env.purge([picture.id])))] : [
        el("div", { class: "do" },
          el("button", { type: "button", class: "primary", "data-do": "use", onclick: () => env.use(picture) }, "Use in txt2img"),
          el("button", { type: "button", class: "quiet framed", "data-do": "replay", onclick: () => replay.start(picture.id), disabled: !canReplay, title: why ?? "Make the same picture again and compare the pixels (R)" }, icon("recycle"), el("span", {}, "Replay"))),
        el("div", { class: "send" }, ...latent.send.buttons(() => ({ ...picture, src: picture.file, file: picture.name ?? "picture.png" }), { withHires: Boolean(picture.params) })),
        verdict,
        ...(canReplay ? [withBox] : []),
      ]),
      section("Parameters", table(parameterRows(picture)),
        el("details", { class: "more" }, el("summary", {}, "As text"), el("pre", { tabindex: "0" }, picture.infotext || "The file carries no text."), picture.infotext ? button("Copy the text", "copy", () => copyText(picture.infotext, "Parameters")) : ""),
        el("details", { class: "more" }, el("summary", {}, "How it was made"), table(factRows(picture)))),
      ...(trashed ? [] : [section("Tags", tagEditor(picture, env.changed)), section("Notes", ...notesEditor(picture))]),
      family,
      ...(trashed ? [] : [similarTo(picture, env.open), sharing(picture)]),
    );
    return { drawVerdict };
  }

  return { draw, verdictOf, parameterRows, factRows, changeWords, table };
})();
