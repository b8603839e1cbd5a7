/* The search box of the history: what may be typed next, and the help of the filters. The language itself is the
   server's (webui/history/query.py); here is only what helps to type it. */
"use strict";
latent.history = (() => {
  const { el, find } = latent.tools;
  const { fields, words } = latentBoot.history;
  const MOST = 8;

  /* The term that the caret stands in: where it begins and ends, its minus, its field ("" for a word), its value. */
  function termAt(text, caret) {
    let begin = 0;
    for (let i = 0, quoted = false; i < caret; i++) {
      if (text[i] === '"') quoted = !quoted;
      else if (!quoted && /\s/.test(text[i])) begin = i + 1;
    }
    const rest = text.slice(caret).match(/^\S*/)[0];
    const end = caret + rest.length;
    const [, minus, field, value] = text.slice(begin, end).match(/^(-?)(?:([a-z]+):)?([^]*)$/i);
    return { begin, end, minus, field: (field ?? "").toLowerCase(), value: value.replace(/^"|"$/g, "") };
  }

  const quoted = (value) => (/[\s"]/.test(value) ? `"${value.replaceAll('"', "")}"` : value);

  /* What the term could become: [{ text, label, about }]. `known` gives the values of a field that are known here. */
  function suggest(text, caret, known = () => []) {
    const term = termAt(text, caret);
    const typed = term.value.toLowerCase();
    if (!term.field) {
      if (!typed) return [];
      return fields.filter((f) => f.name.startsWith(typed)).slice(0, MOST)
        .map((f) => ({ text: `${term.minus}${f.name}:`, label: `${f.name}:`, about: f.about }));
    }
    const field = fields.find((f) => f.name === term.field);
    if (!field) return [];
    const values = field.values.length ? field.values : known(field.name);
    const matching = values.filter((value) => value.toLowerCase().includes(typed) && value.toLowerCase() !== typed);
    matching.sort((a, b) => b.toLowerCase().startsWith(typed) - a.toLowerCase().startsWith(typed));
    return matching.slice(0, MOST).map((value) => ({ text: `${term.minus}${field.name}:${quoted(value)} `, label: `${field.name}:${value}`, about: "" }));
  }

  /* The text with the term at the caret replaced, and where the caret goes. */
  function complete(text, caret, replacement) {
    const { begin, end } = termAt(text, caret);
    const after = text.slice(end).replace(/^\s+/, "");
    return { text: text.slice(0, begin) + replacement + after, caret: begin + replacement.length };
  }

  /* A flag such as fav:yes put into a search, or taken out of it. */
  function withTerm(text, term, on) {
    const rest = text.split(/\s+/).filter((part) => part && part.toLowerCase() !== term);
    return (on ? [term, ...rest] : rest).join(" ");
  }
  const hasTerm = (text, term) => text.toLowerCase().split(/\s+/).includes(term);

  /* Whose pictures a search asks for: undefined for everybody's, "" for those that nobody made by name. */
  const USER = /(?:^|\s)user:(?:"([^"]*)"?|(\S+))/i;
  const userOf = (text) => { const found = text.match(USER); return found ? found[1] ?? found[2] : undefined; };
  function withUser(text, name) {
    const rest = text.replace(USER, " ").trim().replace(/\s+/g, " ");
    return name === undefined ? rest : [`user:${name === "" ? '""' : quoted(name)}`, rest].filter(Boolean).join(" ");
  }

  /* The input with its list of suggestions. `changed(text)` is called as the text changes. */
  function searchBox(root, { known, changed }) {
    const input = find("#history-search", root), list = find("#history-suggestions", root), clear = find("[data-act=clear]", root);
    let items = [], active = -1;

    const draw = () => {
      items = document.activeElement === input ? suggest(input.value, input.selectionStart ?? 0, known) : [];
      active = -1;
      list.replaceChildren(...items.map((item, index) => el("li", {
        role: "option", id: `history-suggestion-${index}`, "aria-selected": "false", onpointerdown: (event) => { event.preventDefault(); take(index); },
      }, el("b", {}, item.label), el("span", {}, item.about))));
      show(items.length > 0);
    };
    const show = (open) => {
      list.hidden = !open;
      input.setAttribute("aria-expanded", String(open));
      if (!open) input.removeAttribute("aria-activedescendant");
    };
    const mark = (index) => {
      active = index;
      [...list.children].forEach((node, i) => node.setAttribute("aria-selected", String(i === index)));
      if (index >= 0) input.setAttribute("aria-activedescendant", list.children[index].id);
      else input.removeAttribute("aria-activedescendant");
    };
    const told = () => { clear.hidden = !input.value; changed(input.value.trim()); };
    const take = (index) => {
      const done = complete(input.value, input.selectionStart ?? 0, items[index].text);
      input.value = done.text;
      input.setSelectionRange(done.caret, done.caret);
      told();
      draw();
    };
    const set = (text, quietly = false) => {
      input.value = text;
      clear.hidden = !text;
      show(false);
      if (!quietly) changed(text.trim());
    };

    input.addEventListener("input", () => { told(); draw(); });
    input.addEventListener("focus", draw);
    input.addEventListener("blur", () => show(false));
    input.addEventListener("keydown", (event) => {
      if (list.hidden) {
        if (event.key === "Escape" && input.value) { event.preventDefault(); set(""); }
        return;
      }
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        event.stopPropagation();
        const last = items.length - 1;
        mark(event.key === "ArrowDown" ? (active < last ? active + 1 : 0) : active > 0 ? active - 1 : last);
      } else if ((event.key === "Enter" && active >= 0) || (event.key === "Tab" && !event.shiftKey && items.length)) {
        event.preventDefault();
        take(Math.max(active, 0));
      } else if (event.key === "Enter" || event.key === "Escape") {
        event.preventDefault();
        event.stopPropagation();
        show(false);
      }
    });
    clear.addEventListener("click", () => { set(""); input.focus(); });
    return { input, set, get value() { return input.value.trim(); } };
  }

  /* The filters, each with an example that is taken over by a click. */
  function searchHelp(host, take) {
    const row = ({ example, about }) => el("li", {}, el("button", { type: "button", class: "quiet", onclick: () => take(example) }, el("code", {}, example)), el("span", {}, about));
    host.replaceChildren(el("ul", {}, ...words.map(row), ...fields.map(row)));
  }

  return { termAt, suggest, complete, withTerm, hasTerm, userOf, withUser, searchBox, searchHelp };
})();
