/* The form: Gradio holds the values; this keeps them over a reload and sets them from elsewhere. */
"use strict";
latent.form = (() => {
  const { say, sleep, store } = latent.tools;
  const { models } = latent;

  const form = {
    spec: window.latentBoot.form,
    values: {},
    pending: {},
    saving: 0, // the timer of a change that is not kept yet
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
      if (["text", "sigmas", "styles", "panels", "picture", "model", "sources"].includes(field.kind)) return typeof value === "string" ? [value] : null;
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

    /* Gradio calls these three: at load, on every change of a widget with its value, and when `set` asks for new values. */
    restore(list) {
      const values = this.named(list);
      values.checkpoint = models.list.default_checkpoint;
      values.vae = this.defaults("vae");
      if (!store.get("form", null)) values.prompt = models.examples(values.checkpoint)[0]; // a first visit: Generate works at once
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
    changed(name, value) {
      if (!this.ready) return;
      this.values = { ...this.values, [name]: value };
      clearTimeout(this.saving);
      this.saving = setTimeout(() => this.save(), 150);
      this.tell();
    },
    take() {
      const asked = this.pending, kept = { __type__: "update" }; // a field that nobody set stays: something may be typed there
      this.pending = {};
      this.values = { ...this.values, ...asked };
      this.save();
      this.tell();
      return this.spec.keys.map((name) => (name in asked ? asked[name] : kept));
    },

    /* The newest value of a field, also one that is on its way into its widget. */
    latest(name) { return name in this.pending ? this.pending[name] : this.values[name]; },

    save() {
      clearTimeout(this.saving);
      this.saving = 0;
      if (this.ready) store.set("form", Object.fromEntries(Object.entries(this.values).filter(([, value]) => value !== undefined)));
    },
    tell() { this.listeners.forEach((listener) => listener(this.values)); },
    nameOf(id) { return this.spec.keys.find((name) => this.spec.fields[name].id === id); },

    /* Put values into the form from anywhere; resolves when Gradio's widgets have them, to the notes of what did not fit.
       Says them, unless `quietly`. */
    async set(values, quietly = false) {
      const [fitted, notes] = this.fitAll(values);
      Object.assign(this.pending, fitted);
      this.env.trigger("apply");
      if (notes.length && !quietly) say(notes.join(" "), "bad");
      for (let turn = 0; turn < 50 && Object.keys(this.pending).length; turn++) await sleep(10);
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      return notes;
    },
    /* Values that pieces of the page fill in as a job is submitted, such as a mask that is still on its way. */
    fillers: [],
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
  /* The last change, as the page goes. Without one, what another tab has kept since is newer. */
  window.addEventListener("pagehide", () => { if (form.saving) form.save(); });

  /* Params of a job as the form's widgets have them (ui/common.py: values_from_params). What is in a group of the params
     is named by its path; a switch says whether its group is there. */
  function widgetValues(params) {
    const values = "prompt" in params ? { styles: "" } : {}; // a picture's prompt holds its styles already
    const read = (group, path) => {
      for (const [name, value] of Object.entries(group)) {
        const field = form.spec.fields[path + name];
        if (field?.kind === "sources") continue; // what is done with one picture of a folder is said by the rest
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
  latent.tools.widgetValues = widgetValues;
  return form;
})();
