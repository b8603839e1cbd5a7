/* The page's own script: no framework, no network but this server. Gradio draws the form and runs the Generate event;
   everything that lives (stage, queue, memory, pickers) is here and speaks to the native routes.
   Text from users and files only ever becomes text nodes and attributes, never markup. */
"use strict";
window.latent = (() => {
  const boot = window.latentBoot;

  // --- small tools --------------------------------------------------------------------------------------------------

  const el = (tag, props = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(props)) {
      if (value === undefined || value === null || value === false) continue;
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };

  const icon = (name) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("class", "icon");
    svg.setAttribute("aria-hidden", "true");
    const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
    use.setAttribute("href", `ui/icons.svg?v=${boot.version}#${name}`);
    svg.append(use);
    return svg;
  };

  const button = (label, iconName, onclick, props = {}) =>
    el("button", { type: "button", class: "quiet", onclick, ...props }, icon(iconName), el("span", {}, label));

  const iconButton = (label, iconName, onclick, props = {}) =>
    el("button", { type: "button", class: "quiet icon-only", "aria-label": label, title: label, onclick, ...props }, icon(iconName));

  const fill = (node, ...children) => node.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
  const find = (selector, root = document) => root.querySelector(selector);
  const setText = (node, text) => { if (node && node.textContent !== text) node.textContent = text; };
  const isShown = (node) => node.isConnected && node.offsetParent !== null;

  const bytes = (n) => {
    if (n >= 2 ** 30) return `${(n / 2 ** 30).toFixed(n >= 10 * 2 ** 30 ? 0 : 1)} GB`;
    return n >= 2 ** 20 ? `${Math.round(n / 2 ** 20)} MB` : `${Math.ceil(n / 1024)} kB`;
  };
  const duration = (s) => {
    if (s < 60) return `${s.toFixed(1)} s`;
    const minutes = Math.floor(s / 60);
    return minutes < 60 ? `${minutes} min ${Math.floor(s % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  };
  const plural = (n, one, many) => `${n} ${n === 1 ? one : many}`;
  const outputUrl = (path) => "outputs/" + path.split("/").map(encodeURIComponent).join("/");

  /* localStorage and sessionStorage may be full, or forbidden: then nothing is kept, and nothing breaks. */
  const keeper = (storage) => ({
    get(key, otherwise) {
      try { return JSON.parse(storage().getItem("latent." + key)) ?? otherwise; } catch { return otherwise; }
    },
    set(key, value) {
      try { storage().setItem("latent." + key, JSON.stringify(value)); } catch { return false; }
      return true;
    },
  });
  const store = keeper(() => localStorage);
  const tabStore = keeper(() => sessionStorage);

  // --- speaking to the server ---------------------------------------------------------------------------------------

  class Failure extends Error {
    constructor(message, advice = "", status = 0, kind = "") {
      super(message);
      Object.assign(this, { advice, status, kind });
    }
  }

  const connection = {
    lostAt: 0,
    lost() {
      this.lostAt ||= Date.now();
      this.show(true, "Connection lost. Trying again; your jobs go on.");
    },
    starting() {
      this.lostAt ||= Date.now();
      this.show(true, "The server is starting again.");
    },
    ok() {
      if (this.lostAt) this.show(false, "");
      this.lostAt = 0;
    },
    show(visible, text) {
      let banner = find("#banner");
      if (!banner) document.body.prepend((banner = el("div", { id: "banner", role: "alert", hidden: true })));
      setText(banner, text);
      banner.hidden = !visible;
    },
  };

  async function call(path, { method = "GET", json, body, type } = {}) {
    const options = { method, cache: "no-store" };
    if (json !== undefined) Object.assign(options, { body: JSON.stringify(json), headers: { "content-type": "application/json" } });
    if (body !== undefined) Object.assign(options, { body }, type ? { headers: { "content-type": type } } : {});
    let response;
    try {
      response = await fetch(path, options);
    } catch {
      connection.lost();
      throw new Failure("The server does not answer.", "Look at the terminal it was started in. The page tries again by itself.");
    }
    if (response.status === 401) { location.reload(); }
    const data = response.status === 204 ? null : await response.json().catch(() => ({}));
    if (response.status === 503 && data.error === "Starting") {
      connection.starting();
      throw new Failure(data.message, data.advice);
    }
    connection.ok();
    if (!response.ok) throw new Failure(data.message || `The server answered ${response.status}.`, data.advice || "", response.status, data.error || "");
    return data;
  }

  // --- messages that pass -------------------------------------------------------------------------------------------

  /* `action`: { label, run } makes a button of the message, and keeps it longer. */
  function say(text, kind = "", action = null) {
    let host = find("#toasts");
    if (!host) host = el("div", { id: "toasts", role: "status", "aria-live": "polite" });
    const act = () => { toast.remove(); action.run(); };
    const toast = el("div", { class: `toast ${kind}` }, text, action ? el("button", { type: "button", onclick: act }, action.label) : null);
    const top = [...document.querySelectorAll("dialog[open]")].at(-1); // a modal dialog covers everything outside it
    (top ?? document.body).append(host);
    host.replaceChildren(toast);
    setTimeout(() => toast.remove(), kind === "bad" || action ? 8000 : 3000);
  }
  const complain = (error) => say(`${error.message} ${error.advice || ""}`.trim(), "bad");

  async function copyText(text, what) {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // no clipboard on plain http across a network: the old way
      const area = el("textarea", { class: "off-screen", "aria-hidden": "true" });
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    say(`${what} copied.`);
  }

  // --- theme --------------------------------------------------------------------------------------------------------

  const theme = {
    order: ["system", "light", "dark"],
    dark: matchMedia("(prefers-color-scheme: dark)"),
    get choice() { return store.get("theme", boot.theme); },
    apply() {
      const dark = this.choice === "dark" || (this.choice === "system" && this.dark.matches);
      document.documentElement.dataset.theme = dark ? "dark" : "light";
      document.body?.classList.toggle("dark", dark);
    },
    next() {
      const choice = this.order[(this.order.indexOf(this.choice) + 1) % this.order.length];
      store.set("theme", choice);
      this.apply();
      return choice;
    },
  };
  theme.apply();
  theme.dark.addEventListener("change", () => theme.apply());

  // --- models -------------------------------------------------------------------------------------------------------

  const models = {
    list: boot.models,
    listeners: [],
    checkpoint(alias) {
      const wanted = (alias || "").toLowerCase();
      const names = (m) => [m.name, m.title, m.name.replace(/\.[^.]+$/, ""), m.name.split("/").pop(), m.name.split("/").pop().replace(/\.[^.]+$/, ""), m.short_hash];
      return this.list.checkpoints.find((m) => names(m).some((name) => name && name.toLowerCase() === wanted));
    },
    nativeSize(name) { return (this.checkpoint(name) || this.checkpoint(this.list.default_checkpoint))?.native_size || 512; },
    take(list) {
      this.list = list;
      this.listeners.forEach((listener) => listener());
    },
    /* Have the chosen model loaded ahead, so that the first picture does not wait for it. */
    select({ checkpoint, vae }) { call("models/select", { method: "POST", json: { checkpoint, vae } }).catch(() => {}); },
    async refresh() { this.take(await call("models/refresh", { method: "POST" })); },
  };

  // --- the form: Gradio holds the values, this keeps them over a reload and sets them from elsewhere ------------------

  const form = {
    spec: boot.form,
    values: {},
    pending: {},
    env: null,
    ready: false,
    listeners: [],

    defaults(name) {
      if (name === "checkpoint") return models.list.default_checkpoint;
      if (name === "vae") return this.fit("vae", models.list.default_vae)?.[0] ?? "Automatic";
      if (name === "width" || name === "height") return models.nativeSize(this.values.checkpoint ?? models.list.default_checkpoint);
      return this.spec.fields[name].default;
    },

    /* A value as this form can hold it: [value, a note when it had to be changed], or null when it cannot. */
    fit(name, value) {
      const field = this.spec.fields[name];
      if (!field) return null;
      if (field.kind === "choice" || field.kind === "mode") return field.choices.includes(value) ? [value] : null;
      if (field.kind === "bool" || field.kind === "switch") return typeof value === "boolean" ? [value] : null;
      if (field.kind === "seed") return /^-?\d{1,19}$/.test(String(value)) ? [String(value)] : null;
      if (name === "checkpoint") {
        const found = models.checkpoint(value);
        return found ? [found.name] : null;
      }
      if (name === "vae") {
        if (["Automatic", "None"].includes(value)) return [value];
        const found = models.list.vaes.find((v) => v.name === value || v.name.split("/").pop() === value);
        return found ? [found.name] : null;
      }
      if (["text", "sigmas", "styles", "panels", "picture", "model"].includes(field.kind)) return typeof value === "string" ? [value] : null;
      if (value === null || value === "") return field.optional ? [null] : null;
      if (typeof value !== "number" || !Number.isFinite(value)) return null;
      const within = Math.min(Math.max(value, field.low ?? value), field.high ?? value);
      return within === value ? [value] : [within, `${field.label} was limited to ${within}.`];
    },

    fitAll(values) {
      const fitted = {}, notes = [];
      for (const [name, value] of Object.entries(values)) {
        const result = this.fit(name, value);
        if (result) fitted[name] = result[0];
        if (result?.[1]) notes.push(result[1]);
        if (!result && this.spec.fields[name]) notes.push(`${this.spec.fields[name].label} "${String(value).slice(0, 60)}" is not here; left as it is.`);
      }
      return [fitted, notes];
    },

    list(values) { return this.spec.keys.map((name) => values[name]); },
    named(list) { return Object.fromEntries(this.spec.keys.map((name, index) => [name, list[index]])); },

    /* Gradio calls these three: at load, on every change of a widget, and when `set` asks for new values. */
    restore(list) {
      const values = this.named(list);
      values.checkpoint = models.list.default_checkpoint;
      values.vae = this.defaults("vae");
      if (!store.get("form", null)) values.prompt = examples(values.checkpoint)[0]; // a first visit: Generate works at once
      Object.assign(values, this.fitAll(store.get("form", {}))[0]);
      if (models.checkpoint(values.checkpoint)?.runnable === false) values.checkpoint = models.list.default_checkpoint;
      this.values = values;
      const kept = store.get("form", {});
      for (const side of ["width", "height"]) if (!(side in kept)) values[side] = this.defaults(side);
      this.ready = true;
      this.tell();
      if (values.checkpoint && values.checkpoint !== models.list.default_checkpoint) models.select(values);
      return this.list(values);
    },
    changed(list) {
      if (!this.ready) return;
      this.values = this.named(list);
      clearTimeout(this.saving);
      this.saving = setTimeout(() => this.save(), 150);
      this.tell();
    },
    take(list) {
      const values = { ...this.named(list), ...this.pending };
      this.pending = {};
      this.values = values;
      this.save();
      this.tell();
      return this.list(values);
    },

    save() { if (this.ready) store.set("form", Object.fromEntries(Object.entries(this.values).filter(([, value]) => value !== undefined))); },
    tell() { this.listeners.forEach((listener) => listener(this.values)); },
    nameOf(id) { return this.spec.keys.find((name) => this.spec.fields[name].id === id); },

    /* Put values into the form from anywhere; resolves when Gradio's widgets have them. Says what did not fit. */
    async set(values, quietly = false) {
      const [fitted, notes] = this.fitAll(values);
      Object.assign(this.pending, fitted);
      this.env.trigger("apply");
      if (notes.length && !quietly) say(notes.join(" "), "bad");
      for (let turn = 0; turn < 50 && Object.keys(this.pending).length; turn++) await sleep(10);
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    },
    /* Values that pieces of the page fill in as a job is submitted, such as a mask that is still on its way. */
    fillers: [() => ({ mode: tabs.making === "txt2img" ? "txt2img" : tabs.mode })],
    async complete(list) {
      const values = this.named(list);
      for (const filler of this.fillers) Object.assign(values, await filler(values));
      return this.list(values);
    },
    reset(names) { return this.set(Object.fromEntries(names.map((name) => [name, this.defaults(name)])), true); },

    chooseCheckpoint(name) {
      const before = models.nativeSize(this.values.checkpoint), after = models.nativeSize(name);
      const follows = this.values.width === before && this.values.height === before;
      return this.set(follows ? { checkpoint: name, width: after, height: after } : { checkpoint: name });
    },
  };
  window.addEventListener("pagehide", () => { if (form.ready) form.save(); });

  /* Prompts that suit the checkpoint. */
  const examples = (checkpoint) => boot.examples[models.nativeSize(checkpoint) < 256 ? "small" : "large"];

  const tabs = {
    current: tabStore.get("tab", "txt2img"),
    listeners: [],
    go(id) { find(`#tab-${id}-button`)?.click(); },
    making: "txt2img", // the making tab that was shown last
    mode: store.get("img2img-mode", "img2img"), // what img2img does with its picture
    /* What is behind the img2img tab is fetched when it is needed for the first time. */
    img2img() { return (this.loading ??= import("./img2img.js")); },
    async chooseMode(mode) { (await this.img2img()).setMode(mode); },
    /* The making tab that parameters are for. */
    goFor({ mode = "txt2img" }) {
      this.go(mode === "txt2img" ? "txt2img" : "img2img");
      if (mode !== "txt2img") this.chooseMode(mode);
    },
    /* The making tabs share one form, which stands below all tabs (ui/making.py). */
    show(id) {
      this.current = id;
      find(`#tab-${id}-button`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
      document.documentElement.dataset.tab = id;
      if (["txt2img", "img2img"].includes(id)) this.make(id);
      this.listeners.forEach((listener) => listener(id));
    },
    /* Each making tab has its own size: the one's follows the checkpoint, the other's the picture. */
    make(id) {
      const before = this.making;
      this.making = id;
      document.documentElement.dataset.mode = id === "img2img" ? this.mode : "txt2img";
      for (const [name, value] of [["role", "tabpanel"], ["aria-labelledby", `tab-${id}-button`]]) find("#making")?.setAttribute(name, value);
      if (id === "img2img") this.img2img();
      if (before === id || !form.ready) return;
      const sizes = store.get("sizes", {}), { width, height } = form.values;
      store.set("sizes", { ...sizes, [before]: { width, height } });
      form.set({ mode: document.documentElement.dataset.mode, ...sizes[id] }, true);
    },
    async restore() {
      const chosen = () => find(`#tab-${this.current}-button`)?.getAttribute("aria-selected") === "true";
      for (let look = 0; look < 50 && !chosen(); look++) { // Gradio draws the tabs' buttons when it has measured them
        this.go(this.current);
        await sleep(20);
      }
      this.show(this.current);
      document.addEventListener("click", (event) => {
        const chosen = event.target.closest?.("[role=tab]")?.id.match(/^tab-(.+)-button$/);
        if (!chosen || chosen[1] === this.current) return;
        tabStore.set("tab", chosen[1]);
        this.show(chosen[1]);
      });
    },
  };
  document.documentElement.dataset.tab = tabs.current;
  document.documentElement.dataset.mode = "txt2img";

  // --- token counters -----------------------------------------------------------------------------------------------

  function tokenCounter(element, name) {
    const output = find("output", element);
    let shown = null, timer = 0;
    const asked = (values) => ({
      text: values[name] || "", negative: name === "negative_prompt", styles: (values.styles || "").split("\n").filter(Boolean),
      steps: values.steps, emphasis: values.emphasis, comma_backtrack: values.comma_backtrack, prompt_compatibility: values.prompt_compatibility,
    });
    const count = async (json) => {
      try {
        const { count, limit } = await call("tokens", { method: "POST", json });
        setText(output, `${count}/${limit}`);
        output.title = `${plural(count, "token", "tokens")}; ${plural(Math.max(1, limit / 75), "chunk", "chunks")} of 75`;
      } catch { setText(output, ""); }
    };
    form.listeners.push((values) => {
      const json = asked(values), key = JSON.stringify(json);
      if (key === shown) return;
      shown = key;
      clearTimeout(timer);
      timer = setTimeout(() => count(json), 150);
    });
  }

  // --- pickers: a searchable list of model files ----------------------------------------------------------------------

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

  /* A list of model files in the form; what it chose is in a widget that is never seen. */
  const LATENT_PASSES = boot.form.passes;
  const fileNames = (list) => (list ?? []).filter((m) => m.runnable).map((m) => [m.name, m.name.replace(/\.[^.]+$/, "")]);
  const CHOICES = {
    checkpoints: () => [["", "Use same"], ...fileNames(models.list.checkpoints)],
    refiners: () => [["", "None"], ...fileNames(models.list.checkpoints)],
    upscalers: () => [...boot.form.upscalers.map((name) => [name, name]), ...fileNames(models.list.upscalers)],
    passes: () => [...LATENT_PASSES.map((name) => [name, name]), ...CHOICES.upscalers()],
  };
  function fillSelect(select, options, value) {
    const all = options.some(([name]) => name === value) || value === undefined ? options : [...options, [value, `${value} (not here)`]];
    select.replaceChildren(...all.map(([name, label]) => el("option", { value: name }, label)));
    if (value !== undefined) select.value = value;
  }
  function chooser(element) {
    const select = find("select", element), name = select.dataset.field, { source, tip } = form.spec.fields[name];
    find("label", element).firstChild.replaceWith(el("span", { "data-tip": tip }, find("label", element).firstChild.textContent));
    const show = () => fillSelect(select, CHOICES[source](), form.values[name] ?? form.spec.fields[name].default);
    select.addEventListener("change", () => form.set({ [name]: select.value }));
    select.setAttribute("aria-description", tip);
    form.listeners.push(() => { if (select.value !== form.values[name]) show(); });
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

  // --- status: the worker, its memory, what runs --------------------------------------------------------------------

  const status = {
    data: null,
    listeners: [],
    on(listener) {
      this.listeners.push(listener);
      if (this.data) listener(this.data);
    },
    async poll() {
      for (;;) {
        try {
          const before = this.data?.boot;
          this.data = await call("status");
          this.listeners.forEach((listener) => listener(this.data));
          if (before && before !== this.data.boot) models.take(await call("models")); // another server: other files
        } catch { /* the banner tells; the next round tries again */ }
        const busy = this.data?.running.length;
        await sleep(document.hidden ? 15000 : connection.lostAt ? 1000 : busy ? 1000 : 2000);
      }
    },
    hurry() { call("status").then((data) => { this.data = data; this.listeners.forEach((l) => l(data)); }, () => {}); },
  };

  const WORKER_WORDS = { starting: "starting", ready: "ready", busy: "working", restarting: "restarting", failed: "failed" };

  function header(element) {
    picker(find("#pick-checkpoint", element), "checkpoint", checkpointOptions);
    picker(find("#pick-vae", element), "vae", vaeOptions);
    const refresh = find("#refresh-models", element);
    refresh.addEventListener("click", async () => {
      refresh.disabled = true;
      try {
        await models.refresh();
        say(`${plural(models.list.checkpoints.length, "checkpoint", "checkpoints")}, ${plural(models.list.vaes.length, "VAE", "VAEs")} found.`);
      } catch (error) { complain(error); }
      refresh.disabled = false;
    });

    const switcher = find("#theme", element);
    const label = () => {
      const words = { system: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" }[theme.choice];
      switcher.replaceChildren(icon({ system: "contrast", light: "sun", dark: "moon" }[theme.choice]));
      switcher.setAttribute("aria-label", words);
      switcher.title = words;
    };
    switcher.addEventListener("click", () => { theme.next(); label(); });
    label();

    const meter = find("#meter", element), fill = find("#meter i", element), amount = find("#meter span", element);
    const dot = find("#worker", element), activity = find("#activity", element);
    const runs = el("button", { type: "button", class: "quiet", title: "Show the queue", onclick: () => tabs.go("queue") });
    const stop = iconButton("Interrupt", "stop", () => { if (status.data?.running[0]) steer(status.data.running[0].id, "interrupt"); });
    activity.append(runs, stop);

    status.on(({ worker, running, waiting }) => {
      const words = WORKER_WORDS[worker.state] ?? worker.state;
      dot.dataset.state = worker.state;
      dot.title = `Worker ${words}${worker.detail ? `: ${worker.detail}` : ""}`;
      setText(find("span", dot), `Worker ${words}`);
      const memory = worker.memory;
      meter.hidden = !memory;
      if (memory) {
        fill.style.width = `${Math.min(100, (100 * memory.used) / memory.total)}%`;
        setText(amount, `${bytes(memory.used)} of ${bytes(memory.total)}`);
        meter.title = `${memory.device === "cpu" ? "RAM of the worker" : "VRAM"}: ${bytes(memory.used)} of ${bytes(memory.total)}, peak ${bytes(memory.peak)}`;
      }
      activity.hidden = !running.length && !waiting;
      stop.hidden = !running.length;
      const first = running[0];
      const parts = [];
      if (first) parts.push(first.phase === "sampling" && first.steps ? `${Math.round(100 * first.progress)}%` : "running");
      if (waiting) parts.push(`${waiting} waiting`);
      setText(runs, parts.join(" · "));
    });
  }

  function footer(element) {
    const memoryLine = find("#memory-line", element), workerLine = find("#worker-line", element);
    find("#show-keys", element).addEventListener("click", () => keyHelp.showModal());
    const problem = find("#problem", element), restart = find("#restart-worker", element);
    restart.addEventListener("click", () => call("worker/restart", { method: "POST" }).then(() => status.hurry(), complain));
    status.on((data) => {
      const { worker } = data, m = worker.memory;
      restart.hidden = worker.state !== "failed";
      setText(problem, data.problem);
      const kind = !m ? "" : m.device === "cpu" ? "RAM" : "VRAM";
      setText(memoryLine, m ? `${kind} ${bytes(m.used)} used · ${m.reserved && m.device !== "cpu" ? `${bytes(m.reserved)} reserved · ` : ""}${bytes(m.total)} total · ${bytes(m.peak)} peak` : "Memory not known yet");
      setText(workerLine, [`Worker ${WORKER_WORDS[worker.state] ?? worker.state}`, worker.device, worker.detail].filter(Boolean).join(" · "));
    });
  }

  async function steer(id, action) {
    try {
      const { changed } = await call(`jobs/${id}/${action}`, { method: "POST" });
      if (!changed) say("The job had ended already.");
      status.hurry();
      return changed;
    } catch (error) { complain(error); }
    return false;
  }

  // --- the stage ----------------------------------------------------------------------------------------------------

  const OVER = new Set(["done", "interrupted", "failed", "cancelled", "lost"]);
  const EARLIER = 24;

  const stage = {
    mine: tabStore.get("jobs", []),  // ids that this browser tab submitted and has not seen end
    view: null,  // the job on the stage
    earlier: [],  // pictures of jobs before it
    selected: null,  // a picture that the user chose; null: follow the job
    watching: 0,
    shown: [],  // who hears which picture is on the stage, and
    added: [],  // [buttons, node below the actions] that they bring

    /* For other files: `listener` hears of the picture on the stage, undefined for none; `buttons` join its actions. */
    onPicture(listener, buttons = [], below = null) {
      this.shown.push(listener);
      this.added.push([buttons, below]);
      if (this.root) this.addParts(buttons, below);
      listener(this.root && this.picture());
    },
    addParts(buttons, below) {
      this.actions.append(...buttons);
      if (below) this.actions.after(below);
    },
    listeners: new Set(),  // of what came of a submission: { submitted(id), refused(error) }
    listen(listener) { this.listeners.add(listener); return () => this.listeners.delete(listener); },

    mount(element) {
      this.root = find("#stage", element);
      for (const name of ["frame", "image", "center", "bar", "facts", "warnings", "strip", "actions", "infotext", "live"]) {
        this[name] = find(`[data-part=${name}]`, this.root);
      }
      this.text = find("pre", this.infotext);
      this.unfold = find("button", this.infotext);
      this.image.addEventListener("click", (event) => {
        const cell = this.picture() && latent.grids.cellAt(event, this.image, this.picture(), this.pictures());
        if (cell) this.select(cell.src);
        else viewer.open();
      });
      this.unfold.addEventListener("click", () => {
        const folded = this.infotext.classList.toggle("folded");
        this.unfold.setAttribute("aria-expanded", String(!folded));
      });
      this.drawActions();
      this.added.forEach((parts) => this.addParts(...parts));
      this.showEmpty();
      form.listeners.push(() => { if (!this.view && !this.picture()) this.showEmpty(); });
      this.resume();
    },

    // Which job to show: one of this tab's, else the one this browser saw last, else one that runs.
    async resume() {
      const candidates = [...this.mine, store.get("last", null)].filter(Boolean);
      for (const id of candidates) {
        try {
          const view = await call(`jobs/${id}`);
          if (!OVER.has(view.state) || id === candidates.at(-1)) { this.follow(id, view); return; }
        } catch (error) { if (!error.status) { await sleep(1000); return this.resume(); } }
      }
      const running = (await call("jobs?state=running&limit=1").catch(() => ({ jobs: [] }))).jobs[0];
      if (running) this.follow(running.id, running);
    },

    submitting() {
      this.selected = null;
      if (this.view && !OVER.has(this.view.state)) { setText(this.live, "Queued."); return; }
      this.keepPictures();
      this.view = null;
      this.setState("submitting");
      this.setFrame(form.values.width, form.values.height);
      this.showImage(null);
      this.showText("");
      this.setBar(0);
      this.message("Sending the job");
      setText(this.facts, "");
      this.drawStrip();
    },
    refused({ message, advice }) {
      this.listeners.forEach((listener) => listener.refused({ message, advice }));
      if (this.view && !OVER.has(this.view.state)) { say(`${message} ${advice}`, "bad"); return; }
      this.setState("failed");
      this.problem("The job was not taken", message, advice);
    },
    submitted(id) {
      this.listeners.forEach((listener) => listener.submitted(id));
      this.mine = [...this.mine, id].slice(-50);
      tabStore.set("jobs", this.mine);
      store.set("last", id);
      status.hurry();
      if (!this.view || OVER.has(this.view.state)) this.follow(id);
      else this.drawFacts();
    },

    follow(id, view = null) {
      if (this.view && this.view.id !== id) this.keepPictures();
      this.selected = null;
      this.previewShown = 0;
      this.view = view ?? { id, rev: -1, state: "pending", params: {}, images: [], position: null, warnings: [] };
      if (view) this.show();
      this.watch(id);
    },

    async watch(id) {
      const turn = ++this.watching;
      let pause = 250;
      while (turn === this.watching && this.view?.id === id && !OVER.has(this.view.state)) {
        try {
          const view = await call(`jobs/${id}?rev=${this.view.rev}`);
          if (turn !== this.watching) return;
          pause = document.hidden ? 3000 : 250;
          if (view) { this.view = view; this.show(); }
          if (view && OVER.has(view.state)) break;
        } catch (error) {
          if (error.status === 404) {
            this.view.state = "lost";
            this.setState("failed");
            this.problem("The job is gone", "The server no longer knows it.", "It may have been started with another data folder. Make the picture again.");
            break;
          }
          pause = Math.min(pause * 2, 4000);
        }
        await sleep(pause);
      }
      if (turn === this.watching) this.ended(id);
    },

    ended(id) {
      this.mine = this.mine.filter((other) => other !== id);
      tabStore.set("jobs", this.mine);
      status.hurry();
      title.rest();
      if (this.mine.length) setTimeout(() => this.follow(this.mine[0]), 400);
    },

    // What the stage shows for the job's view.
    show() {
      const view = this.view, { state } = view;
      if (!OVER.has(state) || !view.images.length) this.setFrame(view.params.width, view.params.height);
      this.setState(state === "running" ? view.phase || "loading" : state);
      this.setBar(OVER.has(state) ? 0 : view.progress);
      this.drawFacts();
      this.drawStrip();
      this.drawWarnings();
      title.progress(view);
      if (this.selected) return;
      if (state === "pending") {
        this.showImage(null);
        this.message(view.position > 0 ? `Waiting: ${plural(view.position, "job", "jobs")} before this one` : "Waiting for its turn");
      } else if (state === "running") {
        if (view.preview) this.showPreview(view);
        else if (this.shownJob !== view.id) { this.showImage(null); this.message(view.line || { waiting: "Starting", loading: "Loading the model", saving: "Saving" }[view.phase] || "Starting"); }
      } else if (view.images.length) {
        this.showPicture(this.picture());
        const unsaved = view.images.find((image) => image.error);
        if (state === "failed") this.failure();
        else if (unsaved) this.problem("The picture could not be saved", unsaved.error, "It is kept in memory for now: use Download. Make room or give write access in the outputs folder.", false);
      } else if (state === "done" || state === "interrupted") {
        this.showImage(null);
        this.message(state === "interrupted" ? "Interrupted before a picture was finished" : "Nothing was made");
      } else {
        this.failure();
      }
      if (OVER.has(state)) this.announce();
    },
    failure() {
      const { state, error } = this.view;
      const words = { failed: "The job failed", lost: "The server was stopped while the job ran", cancelled: "The job was cancelled" };
      if (!this.view.images.length) this.showImage(null);
      this.problem(words[state] ?? "The job ended", error?.message ?? "", error?.advice ?? "", state !== "cancelled" || null);
    },
    announce() {
      const { state, images, seconds, error } = this.view;
      const made = plural(images.length, "picture", "pictures");
      setText(this.live, state === "failed" ? `Failed: ${error?.message ?? ""}` : `${state === "done" ? "Done" : state}: ${made}${seconds.total ? ` in ${duration(seconds.total)}` : ""}.`);
    },

    setState(state) {
      this.root.dataset.state = state;
      const view = this.view, running = view?.state === "running", over = !view || OVER.has(view.state);
      buttons.update({ waiting: view?.state === "pending", running: running && !over, several: (view?.params.batch_count ?? 1) > 1 });
    },
    setFrame(width, height) {
      if (!width || !height) return;
      this.root.style.setProperty("--w", width);
      this.root.style.setProperty("--h", height);
    },
    setBar(progress) {
      const percent = Math.round(100 * progress);
      this.bar.firstElementChild.style.transform = `scaleX(${progress})`;
      this.bar.setAttribute("aria-valuenow", String(percent));
    },
    message(text) { this.center.replaceChildren(el("p", {}, text)); this.center.hidden = false; },
    problem(what, why, next, retry = true) {
      const again = retry && this.view?.id ? button("Try again", "recycle", () => this.retry()) : null;
      this.center.replaceChildren(el("div", { class: "problem", role: "alert" }, el("h3", {}, what), why ? el("p", {}, why) : null, next ? el("p", { class: "next" }, next) : null, again));
      this.center.hidden = false;
      setText(this.facts, "");
    },
    async retry() {
      try { this.submitted((await call(`jobs/${this.view.id}/retry`, { method: "POST" })).id); } catch (error) { complain(error); }
    },
    showEmpty() {
      if (this.root.dataset.state && !["empty"].includes(this.root.dataset.state)) return;
      this.setFrame(form.values.width || models.nativeSize(), form.values.height || models.nativeSize());
      const prompts = examples(form.values.checkpoint);
      if (this.root.dataset.state === "empty" && this.examples === prompts) return;
      this.examples = prompts;
      this.setState("empty");
      const make = async (prompt) => { await form.set({ prompt }); find("#generate").click(); };
      this.center.replaceChildren(el("div", { class: "examples" }, el("p", {}, "Describe a picture, or start with one of these"),
        el("div", { class: "chips" }, ...prompts.map((prompt) => el("button", { type: "button", class: "chip", onclick: () => make(prompt) }, prompt)))));
      this.center.hidden = false;
    },

    // Pictures: of the job on the stage first, then of the jobs before it.
    pictures() {
      const { view } = this;
      const own = view ? view.images.map((image) => {
        const src = image.path ? outputUrl(image.path) : `jobs/${view.id}/pictures/${image.index}.png`;
        const params = latent.grids.paramsOf(view, image);
        return { ...image, src, job: view.id, file: image.path.split("/").pop() || `unsaved-${image.seed}.png`, params, seconds: view.seconds, peak: view.peak_memory };
      }) : [];
      return [...own, ...this.earlier];
    },
    keepPictures() {
      this.earlier = this.pictures().slice(0, EARLIER);
      if (this.view) this.view = { ...this.view, images: [] };
    },
    picture() {
      const pictures = this.pictures();
      if (this.selected) return pictures.find((p) => p.src === this.selected);
      if (!this.view || !OVER.has(this.view.state) || !this.view.images.length) return undefined;
      return pictures.slice(0, this.view.images.length).findLast((p) => latent.grids.isSheet(p)) ?? pictures[0];
    },
    select(src) {
      this.selected = src;
      const picture = this.picture();
      if (picture) this.showPicture(picture);
      this.drawStrip();
      this.drawFacts();
    },

    showImage(src, alt = "") {
      this.wanted = src;
      if (src === null) {
        this.image.hidden = true;
        this.image.removeAttribute("src");
        this.shownJob = null;
        this.drawActions();
        return;
      }
      const next = new Image();
      next.src = src;
      next.decode().then(() => {
        if (this.wanted !== src) return;
        this.image.src = src;
        this.image.alt = alt;
        this.image.hidden = false;
        this.center.hidden = !this.center.querySelector(".problem");
      }, () => {});  // a preview that was replaced before it was read
    },
    showPreview(view) {
      if (this.previewShown === view.preview) return;
      this.previewShown = view.preview;
      this.shownJob = view.id;
      this.image.dataset.kind = "preview";
      this.showImage(`jobs/${view.id}/preview.jpg?n=${view.preview}`, "The picture in the making");
    },
    showPicture(picture) {
      this.setFrame(picture.width, picture.height);
      this.image.dataset.kind = "result";
      this.showImage(picture.src, picture.params.prompt ? `Picture: ${picture.params.prompt.slice(0, 200)}` : "Picture");
      if (!this.center.querySelector(".problem") || this.selected) this.center.replaceChildren();
      this.showText(picture.infotext);
      this.drawActions();
      latent.grids.look(picture);
    },
    showText(text) {
      setText(this.text, text);
      this.infotext.hidden = !text;
      requestAnimationFrame(() => { this.unfold.hidden = !text || (this.infotext.classList.contains("folded") && this.text.scrollHeight <= this.text.clientHeight + 2); });
    },

    drawFacts() {
      const view = this.view;
      if (!view) return;
      const parts = [], others = this.mine.filter((id) => id !== view.id).length;
      const picture = this.picture();
      if (view.state === "running") {
        if (view.phase === "sampling" && view.steps) {
          if (view.batches > 1) parts.push(`batch ${view.batch}/${view.batches}`);
          parts.push(`step ${view.step}/${view.steps}`);
          if (view.rate) parts.push(view.rate >= 1 ? `${view.rate.toFixed(1)} it/s` : `${(1 / view.rate).toFixed(1)} s/it`);
          if (view.seconds_left !== null && view.rate) parts.push(`${duration(view.seconds_left)} left`);
        } else parts.push(view.phase === "saving" ? "saving" : view.phase === "loading" ? "loading" : "starting");
      } else if (picture) {
        parts.push(`${picture.width} × ${picture.height}`);
        if (picture.seconds?.total) parts.push(duration(picture.seconds.total));
        if (picture.peak) parts.push(`peak memory ${bytes(picture.peak)}`);
        if (view.state === "interrupted" && !this.selected) parts.unshift("interrupted");
      } else if (view.seconds?.total && OVER.has(view.state)) parts.push(duration(view.seconds.total));
      if (others) parts.push(`${others} more waiting`);
      setText(this.facts, parts.join(" · "));
      const stages = Object.entries(view.seconds ?? {}).map(([name, s]) => `${name} ${s.toFixed(2)} s`).join(", ");
      this.facts.title = OVER.has(view.state) ? stages : "";
    },
    drawWarnings() {
      const lines = this.view.warnings.map((w) => w.text);
      const key = JSON.stringify(lines);
      if (this.warned === key) return;
      this.warned = key;
      this.warnings.hidden = !lines.length;
      this.warnings.replaceChildren(...lines.map((line) => el("li", {}, icon("info"), el("span", {}, line))));
    },
    drawStrip() {
      const view = this.view, pictures = this.pictures();
      const expected = view && !OVER.has(view.state) ? (view.params.batch_count ?? 1) * (view.params.batch_size ?? 1) : 0;
      const slots = Math.min(Math.max(0, expected - (view?.images.length ?? 0)), 64);
      const shown = this.picture();
      const key = JSON.stringify([pictures.map((p) => p.src), slots, shown?.src]);
      if (this.stripKey === key) return;
      this.stripKey = key;
      this.strip.hidden = pictures.length + slots < 2;
      const thumbs = pictures.map((p, index) => el("button", {
        type: "button", class: "thumb", "aria-label": `Picture ${index + 1}, seed ${p.seed}`, "aria-pressed": String(p.src === shown?.src), onclick: () => this.select(p.src),
      }, el("img", { src: p.src, alt: "", loading: "lazy", decoding: "async" })));
      thumbs.splice(view?.images.length ?? 0, 0, ...Array.from({ length: slots }, () => el("span", { class: "slot" })));
      const focused = document.activeElement?.closest?.(".strip") === this.strip;
      this.strip.replaceChildren(...thumbs);
      if (focused) find("[aria-pressed=true]", this.strip)?.focus();
    },

    drawActions() {
      const picture = this.picture();
      if (!this.actionButtons) {
        const on = (run) => () => { const p = this.picture(); if (p) run(p); };
        this.download = el("a", { class: "quiet", role: "button" }, icon("download"), el("span", {}, "Download"));
        this.actionButtons = [
          button("Copy picture", "copy", on(copyPicture)),
          this.download,
          button("Copy parameters", "text", on((p) => copyText(p.infotext, "Parameters"))),
          button("Copy folder path", "folder", on(copyFolder)),
          button("PNG info", "info", on((p) => pngInfo.open(p.src, p.file))),
          button("Reuse parameters", "reuse", on((p) => { const values = widgetValues(p.params); tabs.goFor(values); form.set(values); say("Parameters taken."); })),
          button("Reuse seed", "recycle", on((p) => reuseSeed(p))),
          ...latent.send.buttons(() => this.picture()),
        ];
        this.actions.append(...this.actionButtons);
      }
      this.shown.forEach((listener) => listener(picture));
      for (const node of this.actionButtons) {
        if (node.tagName === "BUTTON") node.disabled = !picture;
      }
      if (picture) {
        this.download.href = picture.src;
        this.download.download = picture.file;
        this.download.removeAttribute("aria-disabled");
        this.download.tabIndex = 0;
      } else {
        this.download.removeAttribute("href");
        this.download.setAttribute("aria-disabled", "true");
        this.download.tabIndex = -1;
      }
    },
  };

  /* Params of a job as the form's widgets have them (ui/common.py: values_from_params). What is in a group of the params
     is named by its path; a switch says whether its group is there. */
  function widgetValues(params) {
    const values = "prompt" in params ? { styles: "" } : {}; // a picture's prompt holds its styles already
    const read = (group, path) => {
      for (const [name, value] of Object.entries(group)) {
        const field = form.spec.fields[path + name];
        if (field?.kind === "panels") values[name] = Object.keys(value ?? {}).length ? JSON.stringify(value) : "";
        else if (value !== null && typeof value === "object" && !Array.isArray(value)) read(value, `${path}${name}.`);
        else if (!field) continue;
        else if (field.kind === "seed") values[path + name] = String(value);
        else if (field.kind === "sigmas") values[path + name] = (value ?? []).join(", ");
        else if (value === null && field.kind === "choice") values[path + name] = field.default;
        else if (value === null && ["picture", "model"].includes(field.kind)) values[path + name] = "";
        else if (value !== null || field.optional) values[path + name] = value;
      }
    };
    read(params, "");
    for (const [name, { kind }] of Object.entries(form.spec.fields)) {
      const path = name.replace(/\.on$/, "").split(".");
      if (kind === "switch" && path[0] in params) values[name] = Boolean(path.reduce((group, key) => group?.[key], params));
    }
    if (values.checkpoint === "") delete values.checkpoint; // the selected one
    if ("init" in params) values.mode = !params.init ? "txt2img" : params.inpaint ? "inpaint" : "img2img";
    return values;
  }
  const seedOf = (picture) => picture.infotext.match(/(?:^|[,\n] ?)Seed: (\d+)/)?.[1] ?? String(picture.seed);
  function reuseSeed(picture) {
    form.set({ seed: seedOf(picture) });
    say(`Seed ${seedOf(picture)} taken.`);
  }

  async function copyPicture(picture) {
    if (!window.ClipboardItem || !window.isSecureContext) {
      say("Browsers copy pictures only on https or on this machine itself. Use Download.", "bad");
      return;
    }
    const asPng = async () => {
      const blob = await (await fetch(picture.src)).blob();
      if (blob.type === "image/png") return blob;
      const bitmap = await createImageBitmap(blob);
      const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
      canvas.getContext("2d").drawImage(bitmap, 0, 0);
      return canvas.convertToBlob({ type: "image/png" });
    };
    try {
      await navigator.clipboard.write([new ClipboardItem({ "image/png": asPng() })]);
      say("Picture copied.");
    } catch { say("The browser did not allow copying. Use Download.", "bad"); }
  }
  function copyFolder(picture) {
    const folder = picture.path.split("/").slice(0, -1).join("/");
    const root = status.data?.outputs;
    copyText(root ? `${root}/${folder}` : folder, "Folder path");
  }

  const title = {
    base: "Latent WebUI",
    progress(view) {
      if (view.state === "pending") document.title = `Waiting · ${this.base}`;
      else if (view.state === "running") document.title = view.phase === "sampling" && view.steps ? `${view.step}/${view.steps} · ${Math.round(100 * view.progress)}% · ${this.base}` : `Loading · ${this.base}`;
    },
    rest() { document.title = this.base; },
  };

  // --- Generate, Interrupt, Skip --------------------------------------------------------------------------------------

  const buttons = {
    mount(element) {
      this.interrupt = find("#interrupt", element);
      this.skip = find("#skip", element);
      this.interrupt.addEventListener("click", () => this.act("interrupt"));
      this.skip.addEventListener("click", () => this.act("skip"));
      this.update(this.state ?? {});
    },
    async act(action) {
      const view = stage.view;
      if (!view || OVER.has(view.state)) return;
      const pressed = this[action];
      pressed.dataset.pressed = "true";
      await steer(view.id, action);
      await sleep(action === "skip" ? 300 : 0);
      delete pressed.dataset.pressed;
    },
    update(state) {
      this.state = state;
      if (!this.interrupt) return;
      const active = Boolean(state.waiting || state.running);
      this.interrupt.disabled = !active;
      this.skip.disabled = !state.running;
      setText(find("span", this.interrupt), state.waiting ? "Cancel" : "Interrupt");
    },
  };

  /* The Generate event's way back from Python, and the way values get into the widgets. */
  function link(_, env) {
    form.env = env;
    env.watch("value", () => {
      const answer = env.props.value;
      if (answer?.job) stage.submitted(answer.job);
      else if (answer?.error) stage.refused(answer.error);
    });
    tabs.restore().then(() => { document.documentElement.dataset.ready = "true"; });
  }

  // --- viewer -------------------------------------------------------------------------------------------------------

  const dialog = (id, label, ...children) => {
    const node = el("dialog", { id, "aria-label": label }, ...children);
    node.addEventListener("click", (event) => { if (event.target === node) node.close(); });
    document.addEventListener("DOMContentLoaded", () => document.body.append(node));
    return node;
  };

  const viewer = {
    image: el("img", { alt: "" }),
    caption: el("p", { "aria-live": "polite" }),
    index: 0,
    init() {
      this.image.addEventListener("click", () => this.box.classList.toggle("actual"));
      this.box = dialog("viewer", "Picture viewer", this.image,
        iconButton("Previous picture", "left", () => this.move(-1), { class: "quiet icon-only previous" }),
        iconButton("Next picture", "right", () => this.move(1), { class: "quiet icon-only next" }),
        iconButton("Close", "close", () => this.box.close(), { class: "quiet icon-only close" }), this.caption);
      this.box.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
        if (step) { event.preventDefault(); this.move(step); }
      });
    },
    open() {
      const shown = stage.picture();
      if (!shown) return;
      this.index = stage.pictures().findIndex((p) => p.src === shown.src);
      this.draw();
      this.box.classList.remove("actual");
      this.box.showModal();
    },
    move(step) {
      const count = stage.pictures().length;
      this.index = (this.index + step + count) % count;
      this.draw();
    },
    draw() {
      const pictures = stage.pictures(), picture = pictures[this.index];
      this.image.src = picture.src;
      this.image.alt = picture.params.prompt ?? "";
      setText(this.caption, `${this.index + 1} of ${pictures.length} · ${picture.width} × ${picture.height} · seed ${seedOf(picture)}`);
      this.box.classList.toggle("single", pictures.length < 2);
      stage.select(picture.src);
    },
  };
  viewer.init();

  // --- keys ---------------------------------------------------------------------------------------------------------

  const KEYS = [
    ["Ctrl + Enter", "Generate"], ["Esc", "Interrupt the running job; close what is open"],
    ["Ctrl + ↑ ↓", "More or less weight for the word or selection"], ["Alt + ← →", "Move the phrase, in the prompt"],
    ["↑ ↓", "Earlier prompts, at the ends of an empty or recalled prompt"],
    ["← →", "Previous and next picture, in the viewer"], ["↑ ↓ Enter", "Choose in a list"], ["/", "Search, in the history"],
    ["F", "Favourite: of the stage, the viewer or the history"], ["R", "Replay the picture and compare the pixels"],
    ["Space", "Select the picture; with Shift and arrows, many"], ["Delete", "Move to the trash"],
    ["Ctrl + Z", "Undo, in the history"], ["?", "Show these keys"],
  ];
  const keyHelp = dialog("keys", "Keys", el("h2", {}, "Keys"),
    el("dl", {}, ...KEYS.flatMap(([key, what]) => [el("dt", {}, ...key.split(/( \+ | )/).map((part) => (part.trim() && part !== " + " ? el("kbd", {}, part) : part))), el("dd", {}, what)])),
    el("form", { method: "dialog" }, el("button", { class: "quiet" }, "Close")));

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      event.stopPropagation();
      if (!find("dialog[open]")) find("#generate")?.click();
    } else if (event.key === "Escape" && !find("dialog[open]") && !document.activeElement?.closest?.("[role=combobox], [data-own-escape]")) {
      if (stage.view && !OVER.has(stage.view.state)) buttons.act("interrupt");
    } else if (event.key === "?" && !event.target.closest?.("input, textarea, [contenteditable]")) {
      keyHelp.showModal();
    }
  }, true);
  document.addEventListener("click", (event) => {
    if (event.target.closest?.("#generate")) stage.submitting();
  }, true);

  // --- tooltips of the form's fields ----------------------------------------------------------------------------------

  const tips = {
    box: el("div", { id: "tip", role: "tooltip", hidden: true }),
    init() {
      document.addEventListener("DOMContentLoaded", () => document.body.append(this.box));
      const over = (event) => {
        const label = event.target.closest?.("[id^=f-] [data-testid=block-info], [id^=f-].checkbox-container, [id^=f-] .label-text, [data-tip]");
        const name = form.nameOf(label?.closest("[id^=f-]")?.id);
        const text = label?.dataset.tip ?? (name && form.spec.fields[name].tip);
        text ? this.show(label, text) : this.hide();
      };
      document.addEventListener("pointerover", over);
      document.addEventListener("pointerdown", () => this.hide());
      document.addEventListener("keydown", () => this.hide());
    },
    show(anchor, text) {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => {
        setText(this.box, text);
        this.box.hidden = false;
        const place = anchor.getBoundingClientRect(), size = this.box.getBoundingClientRect();
        const left = Math.max(8, Math.min(place.left, innerWidth - size.width - 8));
        const below = place.bottom + 6 + size.height < innerHeight;
        Object.assign(this.box.style, { left: `${left}px`, top: `${below ? place.bottom + 6 : place.top - size.height - 6}px` });
      }, 350);
    },
    hide() { clearTimeout(this.timer); this.box.hidden = true; },
    /* Screen readers hear the same words: each input is described by its tip. */
    describe() {
      for (const field of Object.values(form.spec.fields)) {
        const root = document.getElementById(field.id);
        if (!root || !field.tip) continue;
        root.querySelectorAll("input, textarea").forEach((input) => input.setAttribute("aria-description", field.tip));
      }
    },
  };
  tips.init();

  // --- small buttons of the form --------------------------------------------------------------------------------------

  const FORM_ACTIONS = {
    swap: () => form.set({ width: form.values.height, height: form.values.width }),
    dice: () => form.set({ seed: "-1" }),
    recycle: () => {
      const picture = stage.picture() ?? stage.pictures()[0];
      picture ? reuseSeed(picture) : say("There is no picture yet whose seed could be used.");
    },
    native: () => { const size = models.nativeSize(form.values.checkpoint); return form.set({ width: size, height: size }); },
    "reset-all": async () => {
      const before = { ...form.values };
      await form.reset(form.spec.keys);
      say("Every value is back at its default.");
      return before;
    },
  };
  document.addEventListener("click", (event) => {
    const node = event.target.closest?.("[data-form]");
    if (!node) return;
    const action = node.dataset.form;
    if (action.startsWith("reset:")) form.reset(form.spec.groups[action.slice(6)]);
    else FORM_ACTIONS[action]();
  });

  // --- PNG info -----------------------------------------------------------------------------------------------------

  const pngInfo = {
    mount(element) {
      this.root = element;
      for (const name of ["drop", "picture", "result"]) this[name] = find(`[data-part=${name}]`, element);
      const input = find("input[type=file]", element);
      input.addEventListener("change", () => { if (input.files[0]) this.read(input.files[0], input.files[0].name); input.value = ""; });
      element.addEventListener("dragover", (event) => { event.preventDefault(); this.drop.classList.add("over"); });
      element.addEventListener("dragleave", () => this.drop.classList.remove("over"));
      element.addEventListener("drop", async (event) => {
        event.preventDefault();
        this.drop.classList.remove("over");
        const file = event.dataTransfer.files[0], address = event.dataTransfer.getData("text/uri-list");
        if (file) this.read(file, file.name);
        else if (address && new URL(address, location).origin === location.origin) this.open(address, address.split("/").pop());
      });
      document.addEventListener("paste", (event) => {
        const file = [...(event.clipboardData?.files ?? [])][0];
        if (file && isShown(element)) this.read(file, file.name);
      });
      if (this.waiting) this.read(...this.waiting);
    },
    async open(src, name) {
      tabs.go("png-info");
      try {
        const blob = await (await fetch(src)).blob();
        this.root?.isConnected ? this.read(blob, name) : (this.waiting = [blob, name]);
      } catch { say("The picture could not be read.", "bad"); }
    },
    async read(blob, name) {
      this.waiting = null;
      this.blob = blob;
      if (this.url) URL.revokeObjectURL(this.url);
      this.url = URL.createObjectURL(blob);
      this.picture.src = this.url;
      this.picture.alt = name;
      this.picture.hidden = false;
      this.drop.classList.add("filled");
      try {
        this.draw(await call("png-info", { method: "POST", body: blob }), name);
      } catch (error) {
        this.picture.hidden = true;
        this.drop.classList.remove("filled");
        this.result.replaceChildren(el("div", { class: "problem", role: "alert" }, el("h3", {}, "The file could not be read"), el("p", {}, error.message), el("p", { class: "next" }, error.advice)));
      }
    },
    draw(found, name) {
      const { parameters } = latent;
      const head = el("p", { class: "muted" }, [name, found.format, `${found.width} × ${found.height}`, found.dialect !== "none" && parameters.isAnything(found) && found.dialect].filter(Boolean).join(" · "));
      const others = Object.keys(found.other).length ? el("details", {}, el("summary", {}, "Other texts in the file"), ...Object.entries(found.other).map(([key, value]) => el("pre", {}, `${key}: ${value}`))) : null;
      const raw = found.infotext ? el("details", {}, el("summary", {}, "Text as it is in the file"), el("pre", {}, found.infotext)) : null;
      if (!parameters.isAnything(found)) {
        const sends = latent.send.buttons(() => ({ src: this.url, blob: this.blob, file: name, width: found.width, height: found.height }), { withHires: false });
        fill(this.result, head, el("p", {}, "This picture carries no parameters."), el("div", { class: "actions" }, ...sends), el("p", { class: "muted" }, "Pictures from chats and social networks usually lose them."), raw, others);
        return;
      }
      const size = found.fields["Size-1"] && `${found.fields["Size-1"]} × ${found.fields["Size-2"]}`;
      const fields = Object.entries(found.fields).filter(([key]) => key !== "Size-2").map(([key, value]) => (key === "Size-1" ? ["Size", size] : [key, value]));
      const rows = [["Prompt", found.prompt], ["Negative prompt", found.negative_prompt], ["Styles", found.styles.join(", ")], ...fields].filter(([, value]) => value);
      fill(this.result, head,
        el("div", { class: "actions" }, el("button", { type: "button", class: "primary", id: "send-to-txt2img", onclick: () => parameters.take(found) }, "Send to txt2img"), found.infotext ? button("Copy text", "copy", () => copyText(found.infotext, "Text")) : null,
          ...latent.send.buttons(() => ({ src: this.url, blob: this.blob, file: name, width: found.width, height: found.height, params: found.params, infotext: found.infotext }), { withHires: parameters.isComplete(found) })),
        ...parameters.outlook(found),
        el("table", {}, el("tbody", {}, ...rows.map(([key, value]) => el("tr", {}, el("th", { scope: "row" }, key), el("td", {}, value))))),
        parameters.ignored(found), raw, others);
    },
  };

  // --- queue --------------------------------------------------------------------------------------------------------

  const queue = {
    rows: new Map(),
    mount(element) {
      this.root = element;
      for (const name of ["running", "pending", "finished"]) this[name] = find(`[data-part=${name}]`, element);
      this.empty = find("[data-part=empty]", element);
      this.poll();
    },
    async poll() {
      const element = this.root;
      while (element === this.root && element.isConnected) {
        if (isShown(element) && !document.hidden) await this.draw().catch(() => {});
        await sleep(isShown(element) ? 700 : 400);
      }
    },
    async draw() {
      const { jobs } = await call("jobs?limit=100");
      const parts = { running: [], pending: [], finished: [] };
      for (const job of jobs) (parts[job.state] ?? parts.finished).push(job);
      parts.pending.sort((a, b) => a.position - b.position);
      for (const [name, list] of Object.entries(parts)) {
        const nodes = list.map((job) => this.row(job));
        const host = find("ul", this[name]);
        if (nodes.length !== host.children.length || nodes.some((node, i) => host.children[i] !== node)) host.replaceChildren(...nodes);
        this[name].hidden = !list.length;
        setText(find("h2 span", this[name]), String(list.length));
      }
      this.empty.hidden = jobs.length > 0;
      const known = new Set(jobs.map((job) => job.id));
      for (const id of this.rows.keys()) if (!known.has(id)) this.rows.delete(id);
    },
    row(job) {
      const old = this.rows.get(job.id);
      if (old?.rev === job.rev) return old.node;
      const node = old?.state === job.state ? old.node : el("li", { class: "job", "data-id": job.id, "data-state": job.state }, el("div", { class: "thumbs" }), el("div", { class: "words" }, el("p", { class: "prompt" }), el("p", { class: "muted" }), el("div", { class: "line" }, el("i"))), this.actions(job));
      this.rows.set(job.id, { rev: job.rev, state: job.state, node });
      const p = job.params;
      setText(find(".prompt", node), p.prompt || "(no prompt)");
      const facts = [`${p.width} × ${p.height}`, `${p.sampler}, ${plural(p.steps, "step", "steps")}`];
      if (p.batch_count * p.batch_size > 1) facts.push(`${p.batch_count * p.batch_size} pictures`);
      if (job.state === "running") facts.push(job.phase === "sampling" ? `step ${job.step}/${job.steps}` : job.line || job.phase);
      if (job.state === "pending") facts.push(job.position === 0 ? "next" : `${job.position} before it`);
      if (job.finished && job.started) facts.push(duration(job.finished - job.started));
      if (OVER.has(job.state) && job.state !== "done") facts.push(job.state);
      if (job.error && job.state !== "cancelled") facts.push(job.error.message);
      setText(find(".muted", node), facts.join(" · "));
      const line = find(".line", node);
      line.hidden = job.state !== "running";
      line.firstElementChild.style.transform = `scaleX(${job.progress})`;
      const sources = job.images.filter((i) => i.path).map((i) => outputUrl(i.path));
      if (job.state === "running" && job.preview && !sources.length) sources.push(`jobs/${job.id}/preview.jpg?n=${job.preview}`);
      const thumbs = find(".thumbs", node), key = sources.join();
      if (thumbs.dataset.key !== key) {
        thumbs.dataset.key = key;
        thumbs.replaceChildren(...sources.slice(0, 1).map((src) => el("a", { href: src, target: "_blank", rel: "noopener", "aria-label": "Open the picture" }, el("img", { src, alt: "", loading: "lazy", decoding: "async" }))));
        if (sources.length > 1) thumbs.append(el("span", { title: `${sources.length} pictures` }, String(sources.length)));
      }
      return node;
    },
    actions(job) {
      const then = (action) => async () => { await steer(job.id, action); this.draw().catch(() => {}); };
      const retry = async () => {
        try { await call(`jobs/${job.id}/retry`, { method: "POST" }); say("Queued again."); this.draw(); } catch (error) { complain(error); }
      };
      const show = () => { tabs.go("txt2img"); stage.follow(job.id); };
      const made = {
        running: [button("Show", "image", show), button("Interrupt", "stop", then("interrupt"))],
        pending: [button("Move up", "up", then("move-up")), button("Cancel", "close", then("cancel"))],
      }[job.state] ?? [button("Show", "image", show), button("Make again", "recycle", retry)];
      return el("div", { class: "actions" }, ...made);
    },
  };

  // --- settings -----------------------------------------------------------------------------------------------------

  const settings = {
    mount(element, env) {
      this.server = env.server;
      const host = find("[data-part=groups]", element), search = find("input[type=search]", element);
      this.draw(host);
      search.addEventListener("input", () => {
        const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
        host.querySelectorAll(".setting").forEach((row) => { row.hidden = !words.every((w) => row.dataset.words.includes(w)); });
        host.querySelectorAll("section").forEach((section) => { section.hidden = !section.querySelector(".setting:not([hidden])"); });
        find("[data-part=none]", element).hidden = Boolean(host.querySelector("section:not([hidden])"));
      });
    },
    async draw(host) {
      try {
        const groups = await this.server.read_settings();
        host.replaceChildren(...groups.map((group) => el("section", {}, el("h2", {}, group.title), ...group.entries.map((entry) => this.row(entry)))));
      } catch { host.replaceChildren(el("p", { class: "bad" }, "The settings could not be read. Reload the page.")); }
    },
    row(entry) {
      const id = `s-${entry.key.replace(/\W/g, "-")}`;
      const error = el("p", { class: "bad", role: "alert", id: `${id}-error`, hidden: true });
      const note = el("p", { class: "saved", role: "status" });
      const control = this.control(entry, id);
      const read = () => (entry.kind === "bool" ? control.checked : entry.kind === "number" ? (control.value.trim() === "" ? null : Number(control.value)) : control.value);
      const write = (value) => { entry.kind === "bool" ? (control.checked = value) : (control.value = value); };
      const reset = iconButton(`Reset ${entry.label}`, "reset", () => { write(entry.default); save(); });
      const mark = () => { reset.hidden = read() === entry.default; };
      const save = async () => {
        let answer;
        try { answer = await this.server.save_setting({ key: entry.key, value: read() }); } catch { answer = { error: "The server does not answer. Nothing was saved." }; }
        error.hidden = !answer.error;
        setText(error, answer.error ?? "");
        control.setAttribute("aria-invalid", String(Boolean(answer.error)));
        setText(note, answer.error ? "" : { now: "Saved.", worker: "Saved. The engine starts anew when it is idle.", restart: "Saved. In force after a restart." }[entry.effect]);
        if (!answer.error) write(answer.value);
        mark();
        setTimeout(() => setText(note, ""), 6000);
      };
      control.addEventListener("change", save);
      mark();
      const words = `${entry.label} ${entry.tip} ${entry.key}`.toLowerCase();
      return el("div", { class: "setting", "data-words": words, "data-key": entry.key },
        el("div", { class: "about" }, el("label", { for: id }, entry.label), el("p", { class: "muted", id: `${id}-tip` }, entry.tip, { worker: " Starts the engine anew.", restart: " Needs a restart." }[entry.effect] ?? "")),
        el("div", { class: "control" }, control, reset, entry.suggestions.length ? el("datalist", { id: `${id}-list` }, ...entry.suggestions.map((value) => el("option", { value }))) : null), error, note);
    },
    control(entry, id) {
      const common = { id, "aria-describedby": `${id}-tip ${id}-error` };
      if (entry.kind === "bool") {
        const box = el("input", { type: "checkbox", ...common });
        box.checked = entry.value;
        return box;
      }
      if (entry.kind === "choice") {
        const select = el("select", common, ...entry.choices.map((choice) => el("option", { value: choice }, choice)));
        select.value = entry.value;
        return select;
      }
      const input = el("input", entry.kind === "number" ? { type: "number", min: entry.low, max: entry.high, step: entry.whole ? 1 : "any", ...common } : { type: "text", spellcheck: "false", list: entry.suggestions.length ? `${id}-list` : null, ...common });
      input.value = entry.value;
      return input;
    },
  };

  // --- where pieces of the page come alive ------------------------------------------------------------------------------

  const MOUNTS = {
    header, footer, link,
    "tokens-prompt": (element) => tokenCounter(element, "prompt"),
    "tokens-negative_prompt": (element) => tokenCounter(element, "negative_prompt"),
    buttons: (element) => buttons.mount(element), chooser,
    stage: (element) => stage.mount(element),
    "png-info": (element) => pngInfo.mount(element),
    queue: (element) => queue.mount(element),
    settings: (element, env) => settings.mount(element, env),
    tools: () => {},
  };
  const waiting = new Map();
  document.addEventListener("DOMContentLoaded", () => { theme.apply(); status.poll(); });

  return {
    mount(name, element, env) { MOUNTS[name] ? MOUNTS[name](element, env) : waiting.set(name, [element, env]); },
    /* A piece whose life is in another file: told now, or as soon as its markup stands. */
    piece(name, mount) {
      MOUNTS[name] = mount;
      if (waiting.has(name)) mount(...waiting.get(name));
      waiting.delete(name);
    },
    restore(...list) { const values = form.restore(list); setTimeout(() => { theme.apply(); tips.describe(); }, 0); return values; },
    changed(...list) { form.changed(list); },
    /* A group was opened for the first time: its widgets may be drawn. */
    drawn() { requestAnimationFrame(() => requestAnimationFrame(() => tips.describe())); return { __type__: "update", visible: true }; },
    take(...list) { return form.take(list); },
    ready(...list) { return form.complete(list); },
    submitFailed() { stage.refused({ message: "The server did not take the job.", advice: "Look at the terminal it runs in, then try again." }); },
    form, stage, models, status, tabs, pngInfo,
    formActions: FORM_ACTIONS,
    tools: {
      el, icon, button, iconButton, fillSelect, modelChoices: CHOICES, fill, sleep, find, setText, isShown, bytes, duration, plural, store, tabStore,
      call, say, complain, copyText, copyPicture, widgetValues, seedOf, outputUrl, dialog, steer, OVER,
    },
  };
})();
