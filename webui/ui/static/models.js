/* The model files that there are, as the server lists them. */
"use strict";
latent.models = (() => {
  const { call } = latent.tools;

  return {
    list: window.latentBoot.models,
    listeners: [],
    checkpoint(alias) {
      const wanted = (alias || "").toLowerCase();
      const names = (m) => [m.name, m.title, m.name.replace(/\.[^.]+$/, ""), m.name.split("/").pop(), m.name.split("/").pop().replace(/\.[^.]+$/, ""), m.short_hash];
      return this.list.checkpoints.find((m) => names(m).some((name) => name && name.toLowerCase() === wanted));
    },
    nativeSize(name) { return (this.checkpoint(name) || this.checkpoint(this.list.default_checkpoint))?.native_size || 512; },
    /* Prompts that suit the checkpoint. */
    examples(checkpoint) { return window.latentBoot.examples[this.nativeSize(checkpoint) < 256 ? "small" : "large"]; },
    take(list) {
      this.list = list;
      this.listeners.forEach((listener) => listener());
    },
    /* Have the chosen model loaded ahead, so that the first picture does not wait for it. */
    select({ checkpoint, vae }) { call("models/select", { method: "POST", json: { checkpoint, vae } }).catch(() => {}); },
    async refresh() { this.take(await call("models/refresh", { method: "POST" })); },
  };
})();
