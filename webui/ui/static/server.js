/* Speaking to the server: one function for every request, and the banner for when there is no answer. */
"use strict";
latent.connection = (() => {
  const { el, find, setText } = latent.tools;

  class Failure extends Error {
    constructor(message, advice = "", status = 0, kind = "") {
      super(message);
      Object.assign(this, { advice, status, kind });
    }
  }

  const connection = {
    lostAt: 0,
    lost() {
      this.lostAt ||= Date.now();
      this.show(true, "Connection lost. Trying again; your jobs go on.");
    },
    starting() {
      this.lostAt ||= Date.now();
      this.show(true, "The server is starting again.");
    },
    ok() {
      if (this.lostAt) this.show(false, "");
      this.lostAt = 0;
    },
    show(visible, text) {
      let banner = find("#banner");
      if (!banner) document.body.prepend((banner = el("div", { id: "banner", role: "alert", hidden: true })));
      setText(banner, text);
      banner.hidden = !visible;
    },
  };

  /* JSON with whole numbers that JavaScript cannot hold kept as text: seeds go up to 2**63, numbers here to 2**53. */
  const LONG = /[:[,]\s*-?\d{16}/;
  const long = (_, value, context) => (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) ? context?.source ?? value : value);
  const readJson = (text) => JSON.parse(text, LONG.test(text) ? long : undefined);
  /* And back: a seed that is text becomes a number again. Inside of a text its quotes have backslashes. */
  const writeJson = (value, indent) => JSON.stringify(value, null, indent).replace(/("(?:variation_)?seed": ?)"(-?\d{1,19})"/g, "$1$2");

  const AWAY = new Set([502, 504]);
  async function call(path, { method = "GET", json, body, type } = {}) {
    const options = { method, cache: "no-store" };
    if (json !== undefined) Object.assign(options, { body: writeJson(json), headers: { "content-type": "application/json" } });
    if (body !== undefined) Object.assign(options, { body }, type ? { headers: { "content-type": type } } : {});
    let response;
    try {
      response = await fetch(path, options);
    } catch {
      connection.lost();
      throw new Failure("The server does not answer.", "Look at the terminal it was started in. The page tries again by itself.");
    }
    if (response.status === 401) { location.reload(); }
    let data = null, cut = false;
    if (response.status !== 204) {
      try { data = readJson(await response.text()); } catch { data = {}; cut = response.ok || AWAY.has(response.status); }
    }
    if (cut) { // half an answer, or a proxy's word that the server behind it is away
      connection.lost();
      throw new Failure("The server's answer did not arrive.", "The page tries again by itself.");
    }
    if (response.status === 503 && data.error === "Starting") {
      connection.starting();
      throw new Failure(data.message, data.advice);
    }
    connection.ok();
    if (!response.ok) throw new Failure(data.message || `The server answered ${response.status}.`, data.advice || "", response.status, data.error || "");
    return data;
  }

  /* A job as it stands; the same `view` again while nothing changed. The pictures in it are not sent once more. */
  async function look(id, view = null) {
    const known = view?.images.length ?? 0, now = await call(`jobs/${id}?known=${known}&rev=${view?.rev ?? -1}`);
    if (!now) return view;
    const before = now.image_count - now.images.length; // none where the job was begun anew
    return before ? { ...now, images: [...view.images.slice(0, before), ...now.images] } : now;
  }

  Object.assign(latent.tools, { call, look, readJson, writeJson });
  return connection;
})();
