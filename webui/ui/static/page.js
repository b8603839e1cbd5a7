/* What Gradio's own events call: values of the form on their way out of its widgets and into them (ui/making.py). */
"use strict";
(() => {
  const { form, stage, theme, tips } = latent;

  Object.assign(latent, {
    restore(...list) { const values = form.restore(list); setTimeout(() => { theme.apply(); tips.describe(); }, 0); return values; },
    changed(name, value) { form.changed(name, value); },
    /* A group was opened for the first time: its widgets may be drawn. */
    drawn() { requestAnimationFrame(() => requestAnimationFrame(() => tips.describe())); return { __type__: "update", visible: true }; },
    take() { return form.take(); },
    async ready(...list) {
      try { return await form.complete(list); } catch (error) {
        stage.refused({ message: error.message, advice: error.advice ?? "" });
        throw error; // nothing is submitted
      }
    },
    submitFailed() { stage.refused({ message: "The server did not take the job.", advice: "Look at the terminal it runs in, then try again." }); },
  });
})();
