/* Tooltips of the form's fields: what a parameter does. */
"use strict";
latent.tips = (() => {
  const { el, setText } = latent.tools;
  const { form } = latent;

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
  return tips;
})();
