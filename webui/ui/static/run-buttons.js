/* Generate, Interrupt and Skip, and the way back from Python. */
"use strict";
latent.runButtons = (() => {
  const { OVER, able, find, setText, sleep, steer } = latent.tools;
  const { form, stage, tabs } = latent;

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
      able(this.interrupt, active);
      able(this.skip, Boolean(state.running));
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
    tabs.restore().then(() => {
      document.documentElement.dataset.ready = "true";
      latent.stopSpinner();
    });
  }

  document.addEventListener("click", (event) => {
    if (event.target.closest?.("#generate")) stage.submitting();
  }, true);
  latent.piece("buttons", (element) => buttons.mount(element));
  latent.piece("link", link);
  return buttons;
})();
