/* The small buttons of the form. */
"use strict";
latent.formActions = (() => {
  const { reuseSeed, say } = latent.tools;
  const { form, models, stage } = latent;

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
      say("Every value is back at its default.", "", { label: "Undo", run: () => form.set(before, true) });
    },
  };
  document.addEventListener("click", (event) => {
    const node = event.target.closest?.("[data-form]");
    if (!node) return;
    const action = node.dataset.form;
    if (action.startsWith("reset:")) form.reset(form.spec.groups[action.slice(6)]);
    else FORM_ACTIONS[action]();
  });
  return FORM_ACTIONS;
})();
