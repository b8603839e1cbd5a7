/* "Share on this network" and signing out: the two buttons at the end of the header. */
"use strict";
(() => {
  const { el, button, iconButton, find, redraw, call, complain, copyText, dialog } = latent.tools;
  const viewer = window.latentBoot.viewer;
  document.documentElement.dataset.role = viewer.admin ? "admin" : "user";

  const body = el("div", { class: "share-body" });
  const box = dialog("share-dialog", "Share on this network",
    el("div", { class: "top" }, el("h2", {}, "Share on this network"), iconButton("Close", "close", () => box.close())), body);

  const address = (text, what) => el("p", { class: "share-address" }, el("code", {}, text), button("Copy", "copy", () => copyText(text, what)));

  function unreachable() {
    return [
      el("p", {}, "Only this machine can reach the page now. To let phones, tablets and other computers of your network in, start the server like this:"),
      address("python3 app.py --listen", "Command"),
      el("p", { class: "muted" }, "It then prints a link and a QR code that sign another device in, and this dialog shows them too."),
    ];
  }

  async function reachable(about) {
    const made = await call("network/link", { method: "POST" });
    const who = viewer.name ? `as ${viewer.name}` : "with all your rights";
    const words = about.open_to_all
      ? "Whoever opens this address may do everything here: the server was started with --no-auth."
      : `Scan this with another device. It signs that device in ${who}: once, within 15 minutes.`;
    return [
      el("img", { class: "qr", src: `data:image/svg+xml;base64,${btoa(made.qr)}`, alt: "QR code of the link" }),
      el("div", {},
        el("p", {}, words),
        address(made.link, "Link"),
        about.open_to_all ? null : el("p", { class: "muted" }, about.by_name ? "Everybody else signs in with their own name here:" : "The address alone asks for the link first:"),
        about.open_to_all ? null : address(about.address, "Address"),
        about.open_to_all ? null : el("p", {}, button("Another link", "refresh", draw))),
    ];
  }

  async function draw() {
    try {
      const about = await call("network");
      body.dataset.reachable = String(Boolean(about.address));
      redraw(body, ...(about.address ? await reachable(about) : unreachable()));
    } catch (error) { complain(error); }
  }

  function forget() { // what was typed belongs to whoever typed it
    for (const storage of [localStorage, sessionStorage]) {
      for (const key of Object.keys(storage)) if (key.startsWith("latent.")) storage.removeItem(key);
    }
  }
  async function signOut() {
    forget();
    addEventListener("pagehide", forget); // a draft that was on its way notes its arrival
    latent.form.ready = false;
    const form = el("form", { method: "post", action: "sign-out" });
    document.body.append(form);
    form.submit();
  }

  document.addEventListener("click", (event) => {
    if (event.target.closest?.("#share")) {
      redraw(body, el("p", { class: "muted" }, "Making a link"));
      box.showModal();
      draw();
    }
    if (event.target.closest?.("#sign-out")) signOut();
  });

  const waiting = new MutationObserver(() => { // the header is drawn by Gradio, some time after this
    const out = find("#sign-out");
    if (!out) return;
    waiting.disconnect();
    if (!viewer.name) return;
    out.hidden = false;
    out.title = `Signed in as ${viewer.name}${viewer.admin ? ", administrator" : ""}: sign out`;
    out.setAttribute("aria-label", `Sign out ${viewer.name}`);
    find("span", out).textContent = viewer.name;
  });
  waiting.observe(document, { childList: true, subtree: true });
})();
