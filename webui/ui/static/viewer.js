/* The viewer: the stage's pictures over the whole window. */
"use strict";
latent.viewer = (() => {
  const { dialog, el, iconButton, seedOf, setText } = latent.tools;
  const { stage } = latent;

  const viewer = {
    image: el("img", { alt: "" }),
    caption: el("p", { "aria-live": "polite" }),
    src: "", // of the picture that is shown: its place changes as others are made
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
      this.draw(shown);
      this.box.classList.remove("actual");
      this.box.showModal();
    },
    move(step) {
      const pictures = stage.pictures(), from = pictures.findIndex((p) => p.src === this.src);
      this.draw(pictures[(from + step + pictures.length) % pictures.length]);
    },
    draw(picture) {
      const pictures = stage.pictures(), index = pictures.findIndex((p) => p.src === picture.src);
      this.src = picture.src;
      this.image.src = picture.src;
      this.image.alt = picture.params.prompt ?? "";
      setText(this.caption, `${index + 1} of ${pictures.length} · ${picture.width} × ${picture.height} · seed ${seedOf(picture)}`);
      this.box.classList.toggle("single", pictures.length < 2);
      stage.select(picture.src);
    },
  };
  viewer.init();
  return viewer;
})();
