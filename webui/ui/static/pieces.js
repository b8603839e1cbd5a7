/* Where pieces of the page come alive: Gradio draws the markup and says so, and the file that a piece belongs to takes it
   over. Whichever of the two is there first waits for the other. */
"use strict";
(() => {
  const lives = new Map(), waiting = new Map();
  /* Called by Gradio, once a piece's markup stands (ui/common.py: `mounted`). */
  latent.mount = (name, element, env) => { lives.has(name) ? lives.get(name)(element, env) : waiting.set(name, [element, env]); };
  latent.piece = (name, mount) => {
    lives.set(name, mount);
    if (waiting.has(name)) mount(...waiting.get(name));
    waiting.delete(name);
  };
  latent.piece("tools", () => {}); // buttons whose clicks are heard by the document
})();
