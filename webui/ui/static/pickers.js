/* Choosing model files: the searchable lists of the header, and the plain ones of the form. */
"use strict";
(() => {
  const { bytes, el, find, say, setText } = latent.tools;
  const { form, models } = latent;

  // --- a searchable list ---

  function picker(root, name, options) {
    const input = find("input", root), list = find("ul", root), meta = find("small", root);
    let items = [], active = -1, open = false;

    const current = () => options().find((option) => option.value === form.values[name]);
    const show = () => {
      if (!open) input.value = current()?.label ?? form.values[name] ?? "";
      setText(meta, current()?.short ?? current()?.note ?? "");
      input.title = input.value;
    };
    const setActive = (index) => {
      active = index;
      [...list.children].forEach((node, i) => node.classList.toggle("active", i === index));
      list.children[index]?.scrollIntoView({ block: "nearest" });
      input.setAttribute("aria-activedescendant", index >= 0 ? list.children[index]?.id ?? "" : "");
    };
    const draw = (filter) => {
      const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
      items = options().filter((o) => words.every((w) => `${o.label} ${o.note}`.toLowerCase().includes(w)));
      list.replaceChildren(...items.map((option, index) => el("li", {
        role: "option", id: `${list.id}-${index}`, "aria-selected": String(option.value === form.values[name]),
        "aria-disabled": option.disabled ? "true" : null, onmousedown: (event) => { event.preventDefault(); choose(index); },
      }, el("span", {}, option.label), el("small", {}, option.note))));
      if (!items.length) list.replaceChildren(el("li", { class: "none", "aria-disabled": "true", role: "option", "aria-selected": "false" }, "Nothing found"));
      setActive(items.findIndex((option) => option.value === form.values[name]));
    };
    const toggle = (value) => {
      open = value;
      list.hidden = !value;
      input.setAttribute("aria-expanded", String(value));
      if (!value) { input.removeAttribute("aria-activedescendant"); show(); }
    };
    const choose = (index) => {
      const option = items[index];
      if (!option) return;
      if (option.disabled) { say(option.note, "bad"); return; }
      toggle(false);
      if (option.value === form.values[name]) return;
      models.select({ ...form.values, [name]: option.value });
      if (name === "checkpoint") form.chooseCheckpoint(option.value);
      else form.set({ [name]: option.value });
    };
    input.addEventListener("focus", () => input.select());
    input.addEventListener("mousedown", () => { if (!open) { draw(""); toggle(true); } });
    input.addEventListener("input", () => { draw(input.value); toggle(true); if (items.length) setActive(items.findIndex((o) => !o.disabled)); });
    input.addEventListener("blur", () => toggle(false));
    input.addEventListener("keydown", (event) => {
      if (["ArrowDown", "ArrowUp"].includes(event.key)) {
        event.preventDefault();
        if (!open) { draw(""); toggle(true); return; }
        setActive((active + (event.key === "ArrowDown" ? 1 : items.length - 1) + items.length) % (items.length || 1));
      } else if (event.key === "Enter" && open && !event.ctrlKey) {
        event.preventDefault();
        choose(active);
      } else if (event.key === "Escape" && open) {
        event.stopPropagation();
        toggle(false);
      }
    });
    form.listeners.push(show);
    models.listeners.push(show);
    show();
  }

  const fileNote = (m) => [bytes(m.size), m.runnable ? m.family : m.reason || "cannot run"].filter(Boolean).join(" · ");
  const checkpointOptions = () => models.list.checkpoints.map((m) => ({ value: m.name, label: m.name.replace(/\.[^.]+$/, ""), note: fileNote(m), disabled: !m.runnable }));
  const vaeOptions = () => [
    { value: "Automatic", label: "Automatic", note: "the one that belongs to the checkpoint", short: "" },
    { value: "None", label: "None", note: "the one inside the checkpoint", short: "" },
    ...models.list.vaes.map((m) => ({ value: m.name, label: m.name.replace(/\.[^.]+$/, ""), note: fileNote(m), disabled: !m.runnable })),
  ];
  function pickers(header) {
    picker(find("#pick-checkpoint", header), "checkpoint", checkpointOptions);
    picker(find("#pick-vae", header), "vae", vaeOptions);
  }

  // --- a plain list ---

  const fileNames = (list) => (list ?? []).filter((m) => m.runnable).map((m) => [m.name, m.name.replace(/\.[^.]+$/, "")]);
  /* As a complete request has them, so that a picture's own parameters find them in the list. */
  const stems = (list) => fileNames(list).map(([, name]) => [name.split("/").pop(), name]);
  const CHOICES = {
    checkpoints: () => [["", "Use same"], ...fileNames(models.list.checkpoints)],
    refiners: () => [["", "None"], ...fileNames(models.list.checkpoints)],
    upscalers: () => [...form.spec.upscalers.map((name) => [name, name]), ...stems(models.list.upscalers)],
    faces: () => [["Automatic", "Automatic"], ...stems(models.list.face_restorers)],
    second_faces: () => [["None", "None"], ...stems(models.list.face_restorers)],
    passes: () => [...form.spec.passes.map((name) => [name, name]), ...CHOICES.upscalers()],
  };
  function fillSelect(select, options, value) {
    const all = options.some(([name]) => name === value) || value === undefined ? options : [...options, [value, `${value} (not here)`]];
    select.replaceChildren(...all.map(([name, label]) => el("option", { value: name }, label)));
    if (value !== undefined) select.value = value;
  }
  /* A list of model files in the form; what it chose is in a widget that is never seen. */
  function chooser(element) {
    const select = find("select", element), name = select.dataset.field, { source, tip } = form.spec.fields[name];
    find("label", element).firstChild.replaceWith(el("span", { "data-tip": tip }, find("label", element).firstChild.textContent));
    const show = () => fillSelect(select, CHOICES[source](), form.latest(name) ?? form.spec.fields[name].default);
    select.addEventListener("change", () => form.set({ [name]: select.value }));
    select.setAttribute("aria-description", tip);
    form.listeners.push(() => { if (select.value !== form.latest(name)) show(); }); // not the value before the one that was just chosen
    models.listeners.push(show);
    show();
  }
  latent.piece("chooser", chooser);

  Object.assign(latent.tools, { pickers, fillSelect, modelChoices: CHOICES });
})();
