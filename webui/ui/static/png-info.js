/* The tab PNG info: what is written in a picture. */
"use strict";
latent.pngInfo = (() => {
  const { button, call, copyText, el, fill, find, isShown, say } = latent.tools;
  const { tabs } = latent;

  const pngInfo = {
    turn: 0, // counts the pictures that were chosen: an answer to an earlier one is not shown
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
        const turn = (this.turn += 1), blob = await (await fetch(src)).blob();
        if (turn !== this.turn) return; // another one was chosen meanwhile
        this.root?.isConnected ? this.read(blob, name) : (this.waiting = [blob, name]);
      } catch { say("The picture could not be read.", "bad"); }
    },
    async read(blob, name) {
      const turn = (this.turn += 1);
      this.waiting = null;
      this.blob = blob;
      if (this.url) URL.revokeObjectURL(this.url);
      this.url = URL.createObjectURL(blob);
      this.picture.src = this.url;
      this.picture.alt = name;
      this.picture.hidden = false;
      this.drop.classList.add("filled");
      try {
        const found = await call("png-info", { method: "POST", body: blob });
        if (turn === this.turn) this.draw(found, name);
      } catch (error) {
        if (turn !== this.turn) return;
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

  latent.piece("png-info", (element) => pngInfo.mount(element));
  return pngInfo;
})();
