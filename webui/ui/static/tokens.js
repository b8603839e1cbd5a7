/* The token counters of the prompts. */
"use strict";
(() => {
  const { call, find, plural, setText } = latent.tools;
  const { form, models } = latent;
  const AGAIN = 2000; // ms

  const tagged = (prompt) => (prompt || "").split("\n").filter((line) => line.includes("<")).join("\n"); // a LoRA may bring embeddings

  function tokenCounter(element, name) {
    const output = find("output", element);
    let shown = null, timer = 0;
    const asked = (values) => ({
      text: values[name] || "", negative: name === "negative_prompt", prompt: name === "negative_prompt" ? tagged(values.prompt) : "", styles: (values.styles || "").split("\n").filter(Boolean),
      checkpoint: values.checkpoint || models.list.default_checkpoint || "", steps: values.steps, emphasis: values.emphasis, comma_backtrack: values.comma_backtrack, prompt_compatibility: values.prompt_compatibility, read_as_words: values.read_as_words || "",
    });
    const count = async (json, key) => {
      try {
        const { count, limit } = await call("tokens", { method: "POST", json });
        if (key !== shown) return; // of an earlier text
        setText(output, `${count}/${limit}`);
        output.title = `${plural(count, "token", "tokens")}; ${plural(Math.max(1, limit / 75), "chunk", "chunks")} of 75`;
      } catch (error) {
        if (key !== shown) return;
        setText(output, "");
        if (!error.status) timer = setTimeout(() => count(json, key), AGAIN); // a hiccup: nobody may type for a while
      }
    };
    const show = (values) => {
      const json = asked(values), key = JSON.stringify(json);
      if (key === shown) return;
      shown = key;
      clearTimeout(timer);
      timer = setTimeout(() => count(json, key), 150);
    };
    form.listeners.push(show);
    models.listeners.push(() => { shown = null; show(form.values); }); // an embedding may have come or gone
  }
  latent.piece("tokens-prompt", (element) => tokenCounter(element, "prompt"));
  latent.piece("tokens-negative_prompt", (element) => tokenCounter(element, "negative_prompt"));
})();
