/* The grid: any number of pictures, with a bounded number of nodes.

   The server tells the grid's shape first (GET /history/outline: blocks of at most 240 pictures by day), so the height
   of everything is known before a picture is, and nothing ever jumps. Only the rows near the window exist; a block's
   cards are fetched when it comes near and dropped when it is far. The window itself scrolls. */
"use strict";
latent.history.grid = (() => {
  const { el, icon, call, isShown } = latent.tools;
  const SIZES = { small: [104, 84], medium: [160, 110], large: [240, 168] }; // least width of a card: wide, phone
  const HEADING = 44, GAP = 4; // pixels
  const MARGIN = 600; // pixels above and below the window whose rows exist
  const KEPT_BLOCKS = 40;
  const FIRST = 60; // cards that are asked for at once with the outline

  const dayName = (day) => {
    const date = new Date(`${day}T12:00:00`);
    if (Number.isNaN(date.getTime())) return day;
    const today = new Date(), ago = Math.round((new Date(today.toDateString()) - new Date(date.toDateString())) / 864e5);
    if (ago === 0) return "Today";
    if (ago === 1) return "Yesterday";
    return date.toLocaleDateString(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
  };
  const address = (query, trash, more) => {
    const search = new URLSearchParams({ q: query, ...(trash ? { trash: "true" } : {}), ...more });
    return search.toString();
  };

  class Grid {
    /* `host`: the element with role grid. `on`: changed(), open(index), select(index, event), focus(index). */
    constructor(host, on) {
      this.host = host;
      this.on = on;
      this.blocks = [];
      this.days = [];
      this.total = 0;
      this.cards = new Map(); // index -> card
      this.rows = new Map(); // row number -> node
      this.active = 0;
      this.turn = 0;
      this.size = latent.tools.store.get("history-size", "medium");
      this.selected = new Set();
      addEventListener("scroll", () => this.draw(), { passive: true });
      new ResizeObserver(() => this.resized()).observe(host);
      host.addEventListener("click", (event) => this.clicked(event));
      host.addEventListener("keydown", (event) => this.key(event));
      host.addEventListener("focusin", (event) => {
        const cell = event.target.closest?.("[data-index]");
        if (cell) this.setActive(Number(cell.dataset.index), false);
      });
    }

    // --- what is shown ---

    /* Show what a search finds. The first cards come with the shape, so the first screen is there after one answer. */
    async show(query, trash) {
      const turn = ++this.turn;
      Object.assign(this, { query, trash });
      const shape = call(`history/outline?${address(query, trash)}`);
      const first = call(`history?${address(query, trash, { limit: FIRST })}`);
      shape.catch(() => {}); // told by the await below
      const page = await first;
      if (turn !== this.turn) return null;
      scrollTo({ top: Math.min(scrollY, this.top()) });
      this.active = 0;
      this.take(this.sketch(page), page.cards);
      const { blocks } = await shape;
      if (turn !== this.turn) return null;
      this.take(blocks, page.cards, true);
      return page;
    }

    /* The shape as far as the first page tells it, until the whole one is here. */
    sketch(page) {
      const blocks = [];
      for (const card of page.cards) {
        if (blocks.at(-1)?.[0] === card.day) blocks.at(-1)[1]++;
        else blocks.push([card.day, 1, ""]);
      }
      return blocks;
    }

    /* `grown`: the same pictures as before, and more after them; whole lines stay as they are. */
    take(blocks, cards, grown = false) {
      this.setShape(blocks);
      this.cards = new Map(cards.map((card, index) => [index, card]));
      this.measure();
      const whole = (node) => node.childElementCount === this.columns && node.classList.contains("line");
      this.redraw({ but: grown ? whole : undefined });
      this.on.changed();
    }

    /* The same search once more, after pictures came or went. What is on the screen stays where it is. */
    async refresh() {
      if (this.query === undefined) return;
      const turn = ++this.turn;
      const { blocks } = await call(`history/outline?${address(this.query, this.trash)}`);
      if (turn !== this.turn) return;
      const anchor = this.anchor(), activeId = this.card(this.active)?.id;
      const before = new Map(this.blocks.map((block) => [`${block.cursor}/${block.count}`, block]));
      const old = this.cards;
      this.setShape(blocks);
      this.cards = new Map();
      for (const block of this.blocks) {
        const same = before.get(`${block.cursor}/${block.count}`);
        for (let i = 0; same && i < block.count; i++) if (old.has(same.start + i)) this.cards.set(block.start + i, old.get(same.start + i));
      }
      // The blocks that changed and are in sight are read before anything is drawn: no card turns grey in between.
      this.measure();
      // The newest block, too: from its first card it is known whether there are newer ones.
      const wanted = this.blocks.filter((block) => !this.complete(block) && (block.start === 0 || this.inSight(block)));
      await Promise.all(wanted.map((block) => this.fetch(block).catch(() => {})));
      if (turn !== this.turn) return;
      this.active = Math.max(0, Math.min(this.indexOf(activeId) ?? this.active, this.total - 1));
      this.redraw({ anchor });
      this.on.changed();
    }

    setShape(blocks) {
      let start = 0;
      this.blocks = blocks.map(([day, count, cursor]) => {
        const block = { day, count, cursor, start };
        start += count;
        return block;
      });
      this.total = start;
      this.days = [];
      for (const block of this.blocks) {
        const last = this.days.at(-1);
        if (last?.day === block.day) last.count += block.count;
        else this.days.push({ day: block.day, start: block.start, count: block.count });
      }
    }

    // --- geometry: every row's place follows from the shape and the width ---

    measure() {
      const width = this.host.clientWidth;
      if (!width) return;
      const least = SIZES[this.size][innerWidth < 700 ? 1 : 0];
      this.columns = Math.max(1, Math.floor((width + GAP) / (least + GAP)));
      this.side = (width - GAP * (this.columns - 1)) / this.columns;
      const step = this.side + GAP;
      let top = 0, row = 0;
      for (const day of this.days) {
        Object.assign(day, { top, row, lines: Math.ceil(day.count / this.columns) });
        top += HEADING + day.lines * step;
        row += 1 + day.lines;
      }
      this.rowCount = row;
      this.step = step;
      this.host.style.height = `${top}px`;
      this.host.style.setProperty("--columns", this.columns);
      this.host.style.setProperty("--side", `${this.side}px`);
      this.host.setAttribute("aria-rowcount", String(row));
      this.host.setAttribute("aria-colcount", String(this.columns));
    }

    resized() {
      if (!this.host.clientWidth) { this.away = this.last; return; } // another tab is in front
      const width = this.host.clientWidth;
      const anchor = this.away ?? (this.width && this.width !== width ? this.last : null);
      this.away = null;
      if (this.width !== width) {
        this.width = width;
        this.measure();
        this.redraw({ anchor });
        return;
      }
      this.hold(anchor);
      this.draw();
    }

    setSize(size) {
      this.size = size;
      latent.tools.store.set("history-size", size);
      const anchor = this.anchor();
      this.width = 0;
      this.measure();
      this.width = this.host.clientWidth;
      this.redraw({ anchor });
    }

    top() { return this.host.getBoundingClientRect().top + scrollY; }
    bar() { return this.host.previousElementSibling?.getBoundingClientRect().height ?? 0; }

    dayAt(index) {
      let low = 0, high = this.days.length - 1;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (this.days[middle].start <= index) low = middle;
        else high = middle - 1;
      }
      return this.days[low];
    }
    dayBelow(y) {
      let low = 0, high = this.days.length - 1;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (this.days[middle].top <= y) low = middle;
        else high = middle - 1;
      }
      return low;
    }
    yOf(index) {
      const day = this.dayAt(index);
      return day ? day.top + HEADING + Math.floor((index - day.start) / this.columns) * this.step : 0;
    }

    /* The first picture in sight and where it stands; `hold` puts it there again. */
    anchor() {
      const y = scrollY - this.top() + this.bar();
      if (y <= 0 || !this.days.length) return null;
      const day = this.days[this.dayBelow(y)];
      const line = Math.max(0, Math.floor((y - day.top - HEADING) / this.step));
      const index = Math.min(day.start + line * this.columns, day.start + day.count - 1);
      return { id: this.card(index)?.id, index, offset: this.yOf(index) - y };
    }
    hold(anchor) {
      if (!anchor || !this.total) return;
      const index = (anchor.id !== undefined ? this.indexOf(anchor.id) : null) ?? Math.min(anchor.index, this.total - 1);
      scrollTo({ top: this.yOf(index) - anchor.offset + this.top() - this.bar() });
    }

    // --- drawing: rows near the window ---

    draw() {
      if (!isShown(this.host) || !this.columns) return;
      const y = scrollY - this.top();
      const from = y - MARGIN, to = y + innerHeight + MARGIN;
      const wanted = new Set();
      for (let d = this.days.length ? this.dayBelow(from) : 0; d < this.days.length && this.days[d].top < to; d++) {
        const day = this.days[d];
        if (day.top + HEADING > from) this.want(wanted, day, -1);
        const first = Math.max(0, Math.floor((from - day.top - HEADING) / this.step));
        const last = Math.min(day.lines - 1, Math.floor((to - day.top - HEADING) / this.step));
        for (let line = first; line <= last; line++) this.want(wanted, day, line);
      }
      if (this.total) { // the row with the focus never goes
        const day = this.dayAt(this.active);
        this.want(wanted, day, Math.floor((this.active - day.start) / this.columns));
      }
      for (const [row, node] of this.rows) {
        if (wanted.has(row)) continue;
        node.remove();
        this.rows.delete(row);
      }
      this.last = this.anchor();
      const shown = this.days[this.dayBelow(y + this.bar())];
      this.on.day?.(shown && y > 0 ? dayName(shown.day) : "");
      this.read();
    }

    /* Draw the rows anew, `but` for some. A row takes the focus with it: it is given back, and nothing scrolls for it. */
    redraw({ but = () => false, anchor = null }) {
      const { focused } = this;
      for (const [row, node] of this.rows) {
        if (but(node)) continue;
        node.remove();
        this.rows.delete(row);
      }
      this.hold(anchor);
      this.draw();
      if (focused && !this.focused) this.cellOf(this.active)?.focus({ preventScroll: true });
    }

    want(wanted, day, line) {
      const row = day.row + 1 + line;
      wanted.add(row);
      if (this.rows.has(row)) return;
      const node = line < 0 ? this.heading(day, row) : this.line(day, line, row);
      this.rows.set(row, node);
      const after = [...this.rows.keys()].filter((other) => other > row);
      const next = after.length ? this.rows.get(Math.min(...after)) : null;
      this.host.insertBefore(node, next); // in reading order, for whoever hears the page
    }

    heading(day, row) {
      const name = dayName(day.day);
      const all = () => this.on.selectDay(day);
      return el("div", { role: "row", class: "day", "aria-rowindex": row + 1, style: `transform: translateY(${day.top}px)` },
        el("div", { role: "rowheader", "aria-colspan": this.columns }, el("h2", {}, name), el("span", { class: "muted" }, day.count.toLocaleString())),
        el("div", { role: "gridcell" }, el("button", { type: "button", class: "quiet", tabindex: "-1", onclick: all, "aria-label": `Select the pictures of ${name}` }, "Select")));
    }

    line(day, line, row) {
      const first = day.start + line * this.columns, last = Math.min(first + this.columns, day.start + day.count);
      const cells = [];
      for (let index = first; index < last; index++) cells.push(this.cell(index, index - first));
      const top = day.top + HEADING + line * this.step;
      return el("div", { role: "row", class: "line", "aria-rowindex": row + 1, style: `transform: translateY(${top}px)` }, ...cells);
    }

    cell(index, column) {
      const cell = el("div", { role: "gridcell", "aria-colindex": column + 1, class: "cell", "data-index": index, tabindex: index === this.active ? "0" : "-1" });
      this.paint(cell, this.cards.get(index));
      return cell;
    }

    /* A card's looks; again whenever something about it changes. */
    paint(cell, card) {
      if (!card) { cell.setAttribute("aria-busy", "true"); return; }
      cell.removeAttribute("aria-busy");
      const picked = this.selected.has(card.id);
      cell.setAttribute("aria-selected", String(picked));
      const by = card.user && card.user !== latentBoot.viewer.name ? `by ${card.user}` : "";
      const label = [card.prompt.slice(0, 160) || "No prompt", by, card.seed === null ? "" : `seed ${card.seed}`, card.favourite ? "favourite" : "", card.state === "missing" ? "file missing" : ""];
      cell.setAttribute("aria-label", label.filter(Boolean).join(", "));
      if (cell.dataset.id !== String(card.id)) {
        cell.dataset.id = card.id;
        const picture = el("img", { src: card.thumbnail, alt: "", loading: "lazy", decoding: "async", draggable: "false" });
        picture.addEventListener("error", () => { cell.dataset.state ||= "missing"; picture.remove(); }, { once: true });
        cell.replaceChildren(picture, el("span", { class: "tick", "data-tick": true, "aria-hidden": "true" }, icon("check")), el("span", { class: "marks", "aria-hidden": "true" }));
        cell.title = [card.prompt, by].filter(Boolean).join("\n");
      }
      cell.dataset.state = card.state === "present" || card.state === "trashed" ? "" : card.state;
      cell.lastElementChild.replaceChildren(...(card.favourite ? [icon("star-full")] : []), ...(card.parent ? [icon("recycle")] : []));
    }

    repaint(ids = null) {
      const wanted = ids && new Set(ids);
      this.host.querySelectorAll(".cell[data-id]").forEach((cell) => {
        const card = this.cards.get(Number(cell.dataset.index));
        if (card && (!wanted || wanted.has(card.id))) this.paint(cell, card);
      });
      this.host.classList.toggle("choosing", this.selected.size > 0);
    }

    // --- reading ---

    inSight(block, y = scrollY - this.top()) {
      return this.yOf(block.start + block.count - 1) + this.step >= y - MARGIN && this.yOf(block.start) <= y + innerHeight + MARGIN;
    }
    visibleBlocks() {
      const y = scrollY - this.top();
      return this.blocks.filter((block) => this.inSight(block, y) && !this.complete(block));
    }
    complete(block) { return this.cards.has(block.start) && this.cards.has(block.start + block.count - 1); }

    /* Fetch what is in sight; during a fast scroll only what is still there a moment later. */
    read() {
      if (this.reading) return;
      this.reading = setTimeout(async () => {
        this.reading = 0;
        const turn = this.turn;
        await Promise.all(this.visibleBlocks().map((block) => this.fetch(block).catch(latent.tools.complain)));
        if (turn === this.turn) this.forget();
      }, this.total > FIRST ? 40 : 0);
    }

    async fetch(block) {
      if (!block.cursor) return;
      block.request ??= (async () => {
        const turn = this.turn;
        try {
          const page = await call(`history?${address(this.query, this.trash, { after: block.cursor, limit: block.count })}`);
          if (this.blocks[this.blockAt(block.start)] !== block) return;
          page.cards.forEach((card, i) => this.cards.set(block.start + i, card));
          for (const node of this.rows.values()) {
            for (const cell of node.querySelectorAll(".cell")) {
              const index = Number(cell.dataset.index);
              if (index >= block.start && index < block.start + block.count) this.paint(cell, this.cards.get(index));
            }
          }
          const changed = page.cards.length !== block.count && turn === this.turn && Date.now() - (this.corrected ?? 0) > 3000;
          if (changed) { // pictures went since the shape was read
            this.corrected = Date.now();
            this.refresh().catch(() => {});
          }
        } finally { block.request = null; }
      })();
      return block.request;
    }

    blockAt(index) {
      let low = 0, high = this.blocks.length - 1;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (this.blocks[middle].start <= index) low = middle;
        else high = middle - 1;
      }
      return low;
    }

    /* Cards far from the window go; they come again with their block. */
    forget() {
      if (this.cards.size < KEPT_BLOCKS * 240 * 1.5 || !this.last) return;
      const here = this.blockAt(this.last.index);
      this.blocks.forEach((block, number) => {
        if (number === 0 || Math.abs(number - here) < KEPT_BLOCKS / 2) return;
        for (let i = block.start; i < block.start + block.count; i++) if (i !== this.active) this.cards.delete(i);
      });
    }

    card(index) { return this.cards.get(index); }
    indexOf(id) {
      for (const [index, card] of this.cards) if (card.id === id) return index;
      return undefined;
    }
    /* The card at an index, fetched if need be. */
    async cardAt(index) {
      if (index < 0 || index >= this.total) return null;
      if (!this.cards.has(index)) await this.fetch(this.blocks[this.blockAt(index)]);
      return this.cards.get(index) ?? null;
    }
    /* The ids of a run of pictures, both ends included. */
    async idsBetween(a, b) {
      const [low, high] = [Math.min(a, b), Math.max(a, b)];
      const missing = this.blocks.slice(this.blockAt(low), this.blockAt(high) + 1).filter((block) => !this.complete(block));
      for (const block of missing) await this.fetch(block);
      const ids = [];
      for (let i = low; i <= high; i++) if (this.cards.has(i)) ids.push(this.cards.get(i).id);
      return ids;
    }

    // --- pointer and keys ---

    cellOf(index) { return this.host.querySelector(`[data-index="${index}"]`); }
    get focused() { return this.host.contains(document.activeElement); }

    clicked(event) {
      const cell = event.target.closest("[data-index]");
      if (!cell || !cell.dataset.id) return;
      const index = Number(cell.dataset.index);
      this.setActive(index, true);
      const choosing = event.target.closest("[data-tick]") || event.shiftKey || event.ctrlKey || event.metaKey || this.selected.size;
      if (choosing) this.on.select(index, event.shiftKey);
      else this.on.open(index);
    }

    setActive(index, focus) {
      if (!this.total) return;
      const before = this.active;
      this.active = Math.max(0, Math.min(index, this.total - 1));
      if (before !== this.active) this.cellOf(before)?.setAttribute("tabindex", "-1");
      this.cellOf(this.active)?.setAttribute("tabindex", "0");
      if (focus) this.focus();
    }

    focus() {
      if (!this.total) return;
      this.reveal(this.active);
      this.draw();
      const cell = this.cellOf(this.active);
      cell?.setAttribute("tabindex", "0");
      cell?.focus({ preventScroll: true });
    }

    /* Scroll as little as needed to have a picture in sight, below the search bar that stays. */
    reveal(index) {
      const top = this.top() + this.yOf(index), bar = this.bar() + GAP;
      if (top < scrollY + bar) scrollTo({ top: top - bar - (this.yOf(index) === this.dayAt(index).top + HEADING ? HEADING : 0) });
      else if (top + this.side > scrollY + innerHeight) scrollTo({ top: top + this.side - innerHeight + GAP });
    }

    /* Where a key leads from the active picture; null for keys that lead nowhere. Rows end with their day. */
    target(key) {
      const { active, columns, total } = this, day = this.dayAt(active);
      const column = (active - day.start) % columns, number = this.days.indexOf(day);
      const page = Math.max(1, Math.floor((innerHeight - this.bar()) / this.step) - 1);
      const end = day.start + day.count - 1;
      const into = (other, line) => Math.min(other.start + line * columns + column, other.start + other.count - 1);
      switch (key) {
        case "ArrowLeft": return active - 1;
        case "ArrowRight": return active + 1;
        case "ArrowDown":
          if (active + columns <= end) return active + columns;
          if (Math.floor((active - day.start) / columns) < day.lines - 1) return end;
          return this.days[number + 1] ? into(this.days[number + 1], 0) : active;
        case "ArrowUp":
          if (active - columns >= day.start) return active - columns;
          return this.days[number - 1] ? into(this.days[number - 1], this.days[number - 1].lines - 1) : active;
        case "PageDown": return Math.min(active + page * columns, total - 1);
        case "PageUp": return Math.max(active - page * columns, 0);
        case "Home": return 0;
        case "End": return total - 1;
        default: return null;
      }
    }

    key(event) {
      if (!event.target.closest("[data-index]") || event.altKey || !this.total) return;
      const to = this.target(event.key);
      if (to !== null) {
        event.preventDefault();
        const from = this.active;
        this.setActive(Math.max(0, Math.min(to, this.total - 1)), true);
        if (event.shiftKey) this.on.extend(from, this.active);
      } else if (event.key === "Enter") {
        event.preventDefault();
        this.on.open(this.active);
      } else if (event.key === " ") {
        event.preventDefault();
        this.on.select(this.active, event.shiftKey);
      }
    }
  }

  return { Grid, dayName };
})();
