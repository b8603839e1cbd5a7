/* The Extras tab: pictures that are made larger and repaired, one, many or a folder of them, as one job. */
"use strict";
latent.extras = (() => {
  const { able, el, icon, button, iconButton, fillSelect, modelChoices, call, find, keepFocus, redraw, say, complain, setText, steer, store, plural, outputUrl, isShown } = latent.tools;
  const { folders } = latent;
  const KEPT = "extras-job"; // the job that is followed, also after a reload
  const NUMBERS = ["upscaler_2_visibility", "scale", "width", "height", "visibility", "visibility_2", "codeformer_weight"];
  const NONE = "None";
  let inputs = [], parts = {}, size = "by", running = false, stopped = false, sent = null, job = null;

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
    return read.model === NONE ? { extras } : { extras, faces: restoration(read) };
  }

  function restoration({ model, visibility, codeformer_weight, model_2, visibility_2 }) {
    return { model, visibility, codeformer_weight, ...(model_2 === NONE ? {} : { model_2, visibility_2 }) };
  }

  // --- pictures ---

  function add(list) {
    if (running) return;
    inputs.push(...list.map((input) => ({ ...input, state: "" })));
    draw();
  }
  function addFiles(files, quietly = false) {
    const taken = folders.picturesOf(files), others = files.length - taken.length;
    if (others && !quietly) say(`${plural(others, "file is", "files are")} no PNG, JPEG, WEBP or AVIF picture.`, "bad");
    add(taken);
  }
  function remove(input) {
    inputs = inputs.filter((other) => other !== input);
    if (input.url) URL.revokeObjectURL(input.url);
    draw();
  }
  const source = (input) => (input.reference ? `inputs/${input.reference}` : (input.url ??= URL.createObjectURL(input.blob)));

  const draw = () => keepFocus(parts.left, drawParts);
  function drawParts() {
    parts.drop.classList.toggle("small", inputs.length > 0);
    redraw(parts.inputs, ...inputs.slice(0, 200).map((input) => el("li", { "data-state": input.state },
      el("img", { src: source(input), alt: input.name, loading: "lazy", decoding: "async" }), running ? null : iconButton(`Remove ${input.name}`, "close", () => remove(input)))));
    const done = inputs.filter(({ state }) => state).length;
    setText(parts.run, !running ? (inputs.length > 1 ? `Enlarge ${inputs.length} pictures` : "Enlarge") : !job ? `Sending ${sent ?? 0} of ${inputs.length}` : job.view?.state === "pending" ? "Waiting for its turn" : inputs.length > 1 ? `${done} of ${inputs.length}` : job.view?.line || `${Math.round(100 * (job.view?.progress ?? 0))}%`);
    able(parts.run, !running && inputs.length > 0);
    parts.stop.hidden = !running;
    parts.goOn.hidden = running || !["interrupted", "cancelled", "lost", "failed"].includes(job?.view?.state) || inputs.length < 2;
    parts.clear.hidden = running || !inputs.length;
  }
  function show() {
    const read = values();
    for (const node of parts.root.querySelectorAll("[data-needs]")) node.hidden = node.dataset.needs.split(" ").some((name) => !read[name] || read[name] === NONE);
    for (const node of parts.root.querySelectorAll("[data-size-part]")) node.hidden = node.dataset.sizePart !== size;
    for (const node of parts.root.querySelectorAll("[data-size]")) node.setAttribute("aria-checked", String(node.dataset.size === size));
    store.set("extras", { ...read, size });
  }

  // --- work ---

  /* One picture is a job of its own, several are a folder. Their files are as the settings say now. */
  async function submit(sources, read, by) {
    const { saving } = await call("status");
    const asked = sources.length === 1 ? request(sources[0].image, read, by) : { ...request(undefined, read, by), sources };
    return (await call("jobs", { method: "POST", json: { ...asked, ...saving } })).id;
  }

  /* The job to its end; each picture is shown as it comes. `list`: its inputs, in their order. */
  async function follow(id, list) {
    const shown = new Set();
    job = { id, view: null, list };
    store.set(KEPT, { id, inputs: list.map(({ reference, name }) => ({ reference, name })) });
    if (stopped) steer(id, "interrupt"); // while the job was on its way to the queue
    await folders.follow(id, (view) => {
      job.view = view;
      for (const image of view.images) {
        const input = list[image.index];
        if (shown.has(image.index) || !input) continue;
        shown.add(image.index);
        input.state = "done";
        parts.results.prepend(result(input, view, image));
      }
      for (const text of folders.problems(view)) {
        const input = list.find(({ name, state }) => !state && text.startsWith(`${name.slice(-255)}: `));
        if (input) fail(input, text);
      }
      parts.empty.hidden = parts.results.childElementCount > 0;
      draw();
    });
    const { view } = job;
    if (view.state === "failed" && list.length === 1) fail(list[0], [list[0].name, `${view.error.message} ${view.error.advice}`].join(": "));
    else if (view.state === "failed") complain(view.error);
    if (view.state === "done") store.set(KEPT, null);
  }
  function fail(input, text) {
    input.state = "failed";
    parts.results.prepend(el("p", { class: "bad extras-problem", role: "alert" }, text));
    parts.empty.hidden = true;
  }
  function result(input, view, image) {
    const src = image.path ? outputUrl(image.path) : `jobs/${view.id}/pictures/${image.index}.png`;
    const picture = { ...image, src, file: image.path.split("/").pop() };
    const download = el("a", { class: "quiet", href: src, download: picture.file }, icon("download"), el("span", {}, "Download"));
    return el("figure", { class: "extras-result", "data-state": "done" }, compare(source(input), src, image),
      el("figcaption", {}, el("span", { class: "muted" }, `${image.width} × ${image.height}`), el("div", { class: "actions" }, download, button("PNG info", "info", () => latent.pngInfo.open(src, picture.file)), ...latent.send.buttons(() => picture, { withHires: false }))));
  }
  /* Before and after, with an edge that is moved between them. */
  function compare(before, after, { width, height }) {
    const slider = el("input", { type: "range", min: 0, max: 100, value: 50, step: 0.5, "aria-label": "Before and after" });
    const over = el("div", { class: "over", style: `--w: ${width}; --h: ${height}` }, el("img", { src: after, alt: "The larger picture" }), el("img", { src: before, alt: "" }), el("div", { class: "edge" }), slider);
    slider.addEventListener("input", () => over.style.setProperty("--at", `${slider.value}%`));
    return el("div", { class: "pair", "data-mode": "slider", style: `--w: ${width}; --h: ${height}` }, over);
  }

  async function working(work) {
    running = true;
    stopped = false;
    sent = null;
    job = null;
    draw();
    try { await work(); } catch (error) { complain(error); }
    running = false;
    draw();
  }
  const run = () => working(async () => {
    const read = values(), by = size;
    for (const input of inputs) input.state = "";
    const list = await folders.store(inputs, { told: (done) => { sent = done; draw(); }, stopped: () => stopped, refused: (input, error) => fail(input, `${input.name}: ${error.message}`) });
    for (let first = 0; first < list.length && !stopped; first += folders.MAX) {
      const part = list.slice(first, first + folders.MAX);
      await follow(await submit(folders.sourcesOf(part), read, by), part);
    }
  });
  function goOn() {
    const { id, list } = job;
    working(async () => {
      parts.results.replaceChildren();
      for (const input of list) input.state = "";
      await follow(await folders.goOn(id), list);
    });
  }
  function stop() {
    stopped = true;
    if (job) steer(job.id, "interrupt");
  }
  /* A job that this browser left: it went on without the page. */
  async function restore() {
    const kept = store.get(KEPT, null), view = kept && (await call(`jobs/${kept.id}`).catch(() => null));
    if (!view || running || inputs.length) return;
    inputs = kept.inputs.map((input) => ({ ...input, state: "" }));
    working(() => follow(kept.id, inputs));
  }

  // --- the piece of page ---

  function mount(element) {
    parts = { root: element, left: find(".extras-left", element) };
    for (const name of ["drop", "acts", "inputs", "empty", "results"]) parts[name] = find(`[data-part=${name}]`, element);
    parts.run = find("#extras-run", element);
    parts.stop = find("#extras-stop", element);
    const kept = store.get("extras", {}), folder = el("input", { type: "file", webkitdirectory: true, multiple: true, hidden: true });
    const fill = () => {
      const upscalers = modelChoices.upscalers();
      const best = upscalers.find(([name]) => !latentBoot.form.upscalers.includes(name))?.[0] ?? "Lanczos";
      const restorers = modelChoices.second_faces();
      find("[data-part=faces-hint]", element).hidden = restorers.length > 1;
      for (const [name, choices, first] of [["upscaler", upscalers, best], ["upscaler_2", upscalers, NONE], ["model", restorers, NONE], ["model_2", restorers, NONE]]) {
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
    parts.goOn = button("Go on", "recycle", goOn, { title: "What was made is not made again" });
    parts.stop.after(parts.goOn);
    parts.acts.append(button("Choose a folder", "folder", () => folder.click()), parts.clear, folder);
    folder.addEventListener("change", () => { addFiles([...folder.files], true); folder.value = ""; });
    const input = find("input[type=file]", parts.drop);
    input.addEventListener("change", () => { addFiles([...input.files]); input.value = ""; });
    element.addEventListener("change", show);
    for (const choice of element.querySelectorAll("[data-size]")) choice.addEventListener("click", () => { size = choice.dataset.size; show(); });
    parts.run.addEventListener("click", run);
    parts.stop.addEventListener("click", stop);
    element.addEventListener("dragover", (event) => { event.preventDefault(); parts.drop.classList.add("over"); });
    element.addEventListener("dragleave", () => parts.drop.classList.remove("over"));
    element.addEventListener("drop", (event) => { event.preventDefault(); parts.drop.classList.remove("over"); folders.filesOf(event.dataTransfer).then((files) => addFiles(files)); });
    document.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length && isShown(element) && !event.defaultPrevented) addFiles(files);
    });
    show();
    draw();
    if (waiting.length) add(waiting.splice(0));
    else restore();
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
