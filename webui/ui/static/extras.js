/* The Extras tab: pictures that are enlarged or repaired, one, many or a folder of them. Each is a job of its own. */
"use strict";
latent.extras = (() => {
  const { el, icon, button, iconButton, fillSelect, modelChoices, call, find, say, complain, setText, sleep, store, plural, outputUrl, isShown, OVER } = latent.tools;
  const TYPES = /^image\/(png|jpeg|webp|avif)$/;
  const AHEAD = 3; // jobs in the queue at a time
  const NUMBERS = ["upscaler_2_visibility", "scale", "width", "height"];
  const NONE = "None";
  let inputs = [], parts = {}, size = "by", running = false, stopped = false;

  // --- the request ---

  const field = (name) => find(`[data-name="${name}"]`, parts.root);
  function values() {
    const read = {};
    for (const control of parts.root.querySelectorAll("[data-name]")) {
      const { name } = control.dataset;
      read[name] = control.type === "checkbox" ? control.checked : NUMBERS.includes(name) ? Number(control.value) : control.value;
    }
    return read;
  }
  /* Params of a job: what is switched off has its default, so that equal requests are equal. */
  function request(reference, read, by = size) {
    const extras = { image: reference, upscaler: read.upscaler, scale: read.scale };
    if (by === "to") Object.assign(extras, { width: read.width, height: read.height, crop: read.crop });
    if (read.upscaler_2 !== NONE) Object.assign(extras, { upscaler_2: read.upscaler_2, upscaler_2_visibility: read.upscaler_2_visibility });
    if (by === "to") delete extras.scale;
    return { extras };
  }

  // --- pictures ---

  function add(list) {
    const taken = list.filter(({ blob, reference }) => reference || TYPES.test(blob?.type ?? ""));
    if (taken.length < list.length) say(`${plural(list.length - taken.length, "file is", "files are")} no PNG, JPEG, WEBP or AVIF picture.`, "bad");
    inputs.push(...taken.map((input) => ({ ...input, state: "" })));
    draw();
  }
  const addFiles = (files) => add([...files].map((file) => ({ blob: file, name: file.name })));
  function remove(input) {
    inputs = inputs.filter((other) => other !== input);
    if (input.url) URL.revokeObjectURL(input.url);
    draw();
  }
  const source = (input) => (input.reference ? `inputs/${input.reference}` : (input.url ??= URL.createObjectURL(input.blob)));

  function draw() {
    parts.drop.classList.toggle("small", inputs.length > 0);
    parts.inputs.replaceChildren(...inputs.slice(0, 200).map((input) => el("li", { "data-state": input.state },
      el("img", { src: source(input), alt: input.name, loading: "lazy", decoding: "async" }), running ? null : iconButton(`Remove ${input.name}`, "close", () => remove(input)))));
    setText(parts.run, running ? `${inputs.filter(({ state }) => state === "done" || state === "failed").length} of ${inputs.length}` : inputs.length > 1 ? `Enlarge ${inputs.length} pictures` : "Enlarge");
    parts.run.disabled = running || !inputs.length;
    parts.stop.hidden = !running;
    parts.clear.hidden = running || !inputs.length;
  }
  function show() {
    const read = values();
    for (const node of parts.root.querySelectorAll("[data-needs]")) node.hidden = !read[node.dataset.needs] || read[node.dataset.needs] === NONE;
    for (const node of parts.root.querySelectorAll("[data-size-part]")) node.hidden = node.dataset.sizePart !== size;
    for (const node of parts.root.querySelectorAll("[data-size]")) node.setAttribute("aria-checked", String(node.dataset.size === size));
    store.set("extras", { ...read, size });
  }

  // --- work ---

  async function ended(id, progress) {
    for (let view = null; ; await sleep(document.hidden ? 3000 : 300)) {
      try { view = (await call(`jobs/${id}?rev=${view?.rev ?? -1}`)) ?? view; } catch (error) {
        if (error.status) throw error;
        continue; // the connection comes back
      }
      progress(view);
      if (OVER.has(view.state)) return view;
    }
  }
  async function one(input, read, by) {
    const card = el("figure", { class: "extras-result", "data-state": "running" }, el("div", { class: "picture" }, el("img", { src: source(input), alt: "" })), el("figcaption", { class: "muted" }, "Waiting"));
    parts.results.prepend(card);
    parts.empty.hidden = true;
    const caption = find("figcaption", card);
    try {
      input.reference ??= (await call("inputs", { method: "POST", body: input.blob })).reference;
      const { id } = await call("jobs", { method: "POST", json: request(input.reference, read, by) });
      input.job = id;
      const view = await ended(id, ({ state, progress, line }) => setText(caption, state === "running" ? line || `${Math.round(100 * progress)}%` : "Waiting"));
      if (view.state !== "done" || !view.images.length) throw Object.assign(new Error(view.error?.message ?? `The job was ${view.state}.`), { advice: view.error?.advice ?? "" });
      input.state = "done";
      result(card, input, view);
    } catch (error) {
      input.state = "failed";
      card.dataset.state = "failed";
      caption.replaceChildren(el("span", { class: "bad", role: "alert" }, `${input.name}: ${error.message} ${error.advice ?? ""}`));
    }
    draw();
  }
  function result(card, input, view) {
    const [image] = view.images, src = image.path ? outputUrl(image.path) : `jobs/${view.id}/pictures/${image.index}.png`;
    const picture = { ...image, src, file: image.path.split("/").pop() };
    const download = el("a", { class: "quiet", href: src, download: picture.file }, icon("download"), el("span", {}, "Download"));
    card.dataset.state = "done";
    card.replaceChildren(compare(source(input), src, image),
      el("figcaption", {}, el("span", { class: "muted" }, `${image.width} × ${image.height}`), el("div", { class: "actions" }, download, button("PNG info", "info", () => latent.pngInfo.open(src, picture.file)), ...latent.send.buttons(() => picture, { withHires: false }))));
  }
  /* Before and after, with an edge that is moved between them. */
  function compare(before, after, { width, height }) {
    const slider = el("input", { type: "range", min: 0, max: 100, value: 50, step: 0.5, "aria-label": "Before and after" });
    const over = el("div", { class: "over", style: `--w: ${width}; --h: ${height}` }, el("img", { src: after, alt: "The larger picture" }), el("img", { src: before, alt: "" }), el("div", { class: "edge" }), slider);
    slider.addEventListener("input", () => over.style.setProperty("--at", `${slider.value}%`));
    return el("div", { class: "pair", "data-mode": "slider", style: `--w: ${width}; --h: ${height}` }, over);
  }

  async function run() {
    const read = values(), by = size, open = new Set();
    running = true;
    stopped = false;
    for (const input of inputs) input.state = "";
    draw();
    for (const input of inputs) {
      while (open.size >= AHEAD) await Promise.race(open);
      if (stopped) break;
      const work = one(input, read, by).finally(() => open.delete(work));
      open.add(work);
    }
    await Promise.allSettled(open);
    running = false;
    draw();
  }
  function stop() {
    stopped = true;
    for (const input of inputs) if (input.job && !input.state) call(`jobs/${input.job}/interrupt`, { method: "POST" }).catch(complain);
  }

  // --- the piece of page ---

  function mount(element) {
    parts = { root: element };
    for (const name of ["drop", "acts", "inputs", "empty", "results"]) parts[name] = find(`[data-part=${name}]`, element);
    parts.run = find("#extras-run", element);
    parts.stop = find("#extras-stop", element);
    const kept = store.get("extras", {}), folder = el("input", { type: "file", webkitdirectory: true, multiple: true, hidden: true });
    const fill = () => {
      const upscalers = modelChoices.upscalers();
      const best = upscalers.find(([name]) => !latentBoot.form.upscalers.includes(name))?.[0] ?? "Lanczos";
      for (const [name, choices, first] of [["upscaler", upscalers, best], ["upscaler_2", upscalers, NONE]]) {
        const wanted = field(name).value || kept[name];
        fillSelect(field(name), choices, choices.some(([value]) => value === wanted) ? wanted : first);
      }
    };
    fill();
    for (const [name, value] of Object.entries(kept)) {
      const control = NUMBERS.includes(name) || name === "crop" ? field(name) : null;
      if (control) control.type === "checkbox" ? (control.checked = value) : (control.value = value);
    }
    size = kept.size === "to" ? "to" : "by";
    latent.models.listeners.push(() => { fill(); show(); });
    parts.clear = button("Remove all", "close", () => { inputs.splice(0).forEach(({ url }) => url && URL.revokeObjectURL(url)); draw(); });
    parts.acts.append(button("Choose a folder", "folder", () => folder.click()), parts.clear, folder);
    folder.addEventListener("change", () => { addFiles([...folder.files].filter(({ type }) => TYPES.test(type))); folder.value = ""; });
    const input = find("input[type=file]", parts.drop);
    input.addEventListener("change", () => { addFiles(input.files); input.value = ""; });
    element.addEventListener("change", show);
    for (const choice of element.querySelectorAll("[data-size]")) choice.addEventListener("click", () => { size = choice.dataset.size; show(); });
    parts.run.addEventListener("click", run);
    parts.stop.addEventListener("click", stop);
    element.addEventListener("dragover", (event) => { event.preventDefault(); parts.drop.classList.add("over"); });
    element.addEventListener("dragleave", () => parts.drop.classList.remove("over"));
    element.addEventListener("drop", (event) => { event.preventDefault(); parts.drop.classList.remove("over"); addFiles(event.dataTransfer.files); });
    document.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length && isShown(element) && !event.defaultPrevented) addFiles(files);
    });
    show();
    draw();
    if (waiting.length) add(waiting.splice(0));
  }

  const waiting = []; // sent here before the tab was drawn
  latent.send.taker("extras", async (found, picture) => {
    const input = { reference: found.reference, name: picture.file ?? "The picture" };
    latent.tabs.go("extras");
    parts.root?.isConnected ? add([input]) : waiting.push(input);
  });
  latent.piece("extras", mount);
  return { request };
})();
