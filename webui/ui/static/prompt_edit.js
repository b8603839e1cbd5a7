/* Editing a prompt as text: brackets without a partner, weights, phrases. Pure functions, no page.
   Offsets are those of the text box (UTF-16), as is everything in a browser. */
"use strict";
latent.promptEdit = (() => {
  const STEP = 0.1, TAG_STEP = 0.05, LIMIT = 10;
  const DELIMITERS = /[\s.,\\/!?%^*;:{}=`~()[\]<>|]/;
  const CLOSE = /:\s*([+-]?[.\d]+)\s*\)/y;

  /* Comments are no part of the prompt; spaces in their place keep every position. */
  const withoutComments = (text) => text.replace(/(\\[\s\S])|#[^\n]*/g, (match, escaped) => escaped ?? " ".repeat(match.length));

  /* The same as webui.prompt.bracket_problems: [{ position, bracket, message }], in order. */
  function brackets(prompt) {
    const text = withoutComments(prompt), opened = { "(": [], "[": [] }, partner = { ")": "(", "]": "[" }, alone = [];
    const lastTagEnd = text.lastIndexOf(">");
    for (const { 0: token, index } of text.matchAll(/\\[\s\S]?|[()[\]<>]/g)) {
      if (opened[token]) opened[token].push(index);
      else if (partner[token]) { if (opened[partner[token]].pop() === undefined) alone.push(index); }
      else if (token === "<" && index > lastTagEnd && /^<\w+:/.test(text.slice(index, index + 40))) alone.push(index);
    }
    alone.push(...opened["("], ...opened["["]);
    return alone.sort((a, b) => a - b).map((position) => {
      const bracket = text[position];
      const around = text.slice(Math.max(0, position - 20), position + 21).replace(/\n/g, " ").trim();
      return { position, bracket, message: `"${bracket}" ${")]".includes(bracket) ? "closes nothing" : "is never closed"}: ${around}` };
    });
  }

  /* Every closed pair: { bracket, open, end, close, weight }. `end` is where its content ends; `weight` NaN: none. */
  function groups(text) {
    const found = [], stacks = { "(": [], "[": [], "{": [] }, partner = { ")": "(", "]": "[", "}": "{" };
    for (let at = 0; at < text.length; at++) {
      const sign = text[at];
      if (sign === "\\") at++;
      else if (stacks[sign]) stacks[sign].push(at);
      else if (sign === ":") {
        CLOSE.lastIndex = at;
        const match = CLOSE.exec(text), open = match && Number.isFinite(Number(match[1])) ? stacks["("].pop() : undefined;
        if (open === undefined) continue;
        found.push({ bracket: "(", open, end: at, close: at + match[0].length - 1, weight: Number(match[1]) });
        at += match[0].length - 1;
      } else if (partner[sign]) {
        const open = stacks[partner[sign]].pop();
        if (open !== undefined) found.push({ bracket: partner[sign], open, end: at, close: at, weight: { ")": 1.1, "]": 0.9 }[sign] ?? NaN });
      }
    }
    return found;
  }

  /* [a:b:3] and [a|b] change the prompt over the steps; they weigh nothing. */
  const weighs = (text, group) => group.bracket === "(" || (group.bracket === "[" && !/[:|]/.test(text.slice(group.open, group.end)));
  const innermost = (list) => list.reduce((best, group) => (!best || group.open > best.open ? group : best), null);
  const written = (weight) => String(Math.round(weight * 100) / 100);
  const clamped = (weight) => Math.round(100 * Math.max(-LIMIT, Math.min(LIMIT, weight))) / 100;

  /* One step more (direction 1) or less (-1) weight for the selection, or for the bracket or word around the caret.
     The answer { from, to, text, start, end }: put `text` in place of from..to, then select start..end; null: nothing. */
  function reweigh(text, start, end, direction) {
    for (const { 0: tag, index } of text.matchAll(/<(?:lora|lyco|hypernet):[^<>]+>/gi)) {
      if (start <= index || end >= index + tag.length) continue;
      const parts = tag.slice(1, -1).split(":");
      const now = parts.length > 2 ? Number(parts[2]) : 1;
      if (!Number.isFinite(now)) return null;
      parts[2] = written(clamped(now + direction * TAG_STEP));
      const changed = `<${parts.join(":")}>`, caret = Math.min(start, index + changed.length - 1);
      return { from: index, to: index + tag.length, text: changed, start: caret, end: caret };
    }
    const all = groups(text).filter((group) => weighs(text, group));
    if (start === end) {
      const around = innermost(all.filter((group) => group.open < start && start <= group.close));
      if (around) return weigh(text, around, direction, start, start);
      let from = start, to = start;
      while (from > 0 && !DELIMITERS.test(text[from - 1])) from--;
      while (to < text.length && !DELIMITERS.test(text[to])) to++;
      return from === to ? null : wrap(text, from, to, direction, start, start);
    }
    while (start < end && /\s/.test(text[start])) start++;
    while (end > start && /\s/.test(text[end - 1])) end--;
    const same = innermost(all.filter((g) => (g.open + 1 === start && g.end === end) || (g.open === start && g.close + 1 === end)));
    if (same) return weigh(text, same, direction, same.open + 1, same.end);
    const part = text.slice(start, end);
    return !part || brackets(part).length ? null : wrap(text, start, end, direction, start, end);
  }
  function wrap(text, from, to, direction, start, end) {
    const weight = written(1 + direction * STEP);
    return { from, to, text: `(${text.slice(from, to)}:${weight})`, start: start + 1, end: end + 1 };
  }
  function weigh(text, group, direction, start, end) {
    const content = text.slice(group.open + 1, group.end), weight = clamped(group.weight + direction * STEP);
    const bare = weight === 1, begin = group.open + (bare ? 0 : 1);
    const place = (at) => begin + Math.max(0, Math.min(at - group.open - 1, content.length));
    return { from: group.open, to: group.close + 1, text: bare ? content : `(${content}:${written(weight)})`, start: place(start), end: place(end) };
  }

  /* The phrase (between commas) under the caret, or the phrases of the selection, one place left (-1) or right (1).
     Phrases stay inside their brackets, and between AND, BREAK and bars. The same answer as `reweigh`. */
  function movePhrase(text, start, end, direction) {
    const all = groups(text);
    const around = innermost(all.filter((group) => group.open < start && end <= group.end));
    const low = around ? around.open + 1 : 0, high = around ? around.end : text.length;
    const inner = all.filter((group) => group.open >= low && group.close < high);
    const skip = new Map(inner.map((group) => [group.open, group.close]));
    const wall = around?.bracket === "[" ? /[:|]/ : around?.bracket === "{" ? /\|/ : null;
    let slots = [[low, high]];
    const cut = (at, next) => { slots.at(-1)[1] = at; return [next, high]; };
    for (let at = low; at < high; at++) {
      if (text[at] === "\\") { at++; continue; }
      if (skip.has(at)) { at = skip.get(at); continue; }
      const word = /^(?:AND|BREAK)\b/.exec(text.slice(at, at + 6))?.[0];
      const stop = word && !/\w/.test(text[at - 1] ?? " ") ? word.length : wall?.test(text[at]) ? 1 : 0;
      if (stop) {
        const next = cut(at, at + stop);
        if (start <= at) break;
        slots = [next];
        at += stop - 1;
      } else if (text[at] === ",") slots.push(cut(at, at + 1));
    }
    const first = slots.findIndex(([, to]) => start <= to);
    let last = slots.findIndex(([, to]) => end <= to);
    if (last < 0) last = slots.length - 1;
    const other = direction < 0 ? first - 1 : last + 1;
    if (first < 0 || other < 0 || other >= slots.length) return null;
    const from = Math.min(first, other), to = Math.max(last, other);
    const pieces = slots.slice(from, to + 1).map(([a, b]) => {
      const whole = text.slice(a, b), core = whole.trim();
      const before = core ? whole.slice(0, whole.indexOf(core)) : whole;
      return { before, core, after: core ? whole.slice(before.length + core.length) : "" };
    });
    const cores = pieces.map(({ core }) => core);
    if (!cores.at(direction < 0 ? 0 : -1) || cores.every((core) => !core)) return null;
    if (direction < 0) cores.push(cores.shift());
    else cores.unshift(cores.pop());
    const moved = direction < 0 ? 0 : 1; // where the first of the moved phrases now is
    const offset = (at) => Math.max(0, at - slots[first][0] - pieces[first - from].before.length);
    let result = "", begin = slots[from][0];
    cores.forEach((core, i) => {
      if (i) result += ",";
      if (i === moved) begin = slots[from][0] + result.length + pieces[i].before.length;
      result += pieces[i].before + core + pieces[i].after;
    });
    const place = (at) => Math.min(begin + offset(at), slots[from][0] + result.length);
    return { from: slots[from][0], to: slots[to][1], text: result, start: place(start), end: place(end) };
  }

  return { brackets, groups, reweigh, movePhrase };
})();
