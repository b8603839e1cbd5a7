/* Dark or light: as the button in the header says, else the settings, else the system. */
"use strict";
latent.theme = (() => {
  const { store } = latent.tools;

  const theme = {
    order: ["system", "light", "dark"],
    listeners: [],
    dark: matchMedia("(prefers-color-scheme: dark)"),
    get choice() { return store.get("theme", window.latentBoot.theme); },
    /* The settings' theme, for a browser that has not chosen one. */
    offer(choice) {
      window.latentBoot.theme = choice;
      this.apply();
    },
    apply() {
      const dark = this.choice === "dark" || (this.choice === "system" && this.dark.matches);
      document.documentElement.dataset.theme = dark ? "dark" : "light";
      document.body?.classList.toggle("dark", dark);
      this.listeners.forEach((listener) => listener());
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
  addEventListener("storage", ({ key }) => { if (key === "latent.theme") theme.apply(); }); // another tab's button
  document.addEventListener("DOMContentLoaded", () => theme.apply());
  return theme;
})();
