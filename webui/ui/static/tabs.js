/* The tabs, and what the two making tabs share. */
"use strict";
latent.tabs = (() => {
  const { find, sleep, store, tabStore } = latent.tools;
  const { form } = latent;

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
    /* A form that was typed elsewhere: what img2img did there, and at which size, is what it does here. */
    adopt({ mode, width, height }) {
      if (mode === "txt2img" || !form.spec.fields.mode.choices.includes(mode)) return;
      this.mode = mode;
      store.set("img2img-mode", mode);
      store.set("sizes", { ...store.get("sizes", {}), img2img: { width, height } });
      if (this.loading) this.chooseMode(mode);
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
      const own = () => find(`#tab-${this.current}-button`), last = () => find("#tab-settings-button");
      const chosen = () => own()?.getAttribute("aria-selected") === "true";
      for (let look = 0; look < 50 && !chosen(); look++) { // Gradio draws the tabs' buttons when it has measured them
        if (last() && !own()) break; // of an extension that is gone
        this.go(this.current);
        await sleep(20);
      }
      if (!own()) {
        this.current = "txt2img";
        this.go(this.current);
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
  form.fillers.push(() => ({ mode: tabs.making === "txt2img" ? "txt2img" : tabs.mode }));
  return tabs;
})();
