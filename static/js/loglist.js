// The rows of a log as a virtual list: hundreds of thousands of lines, at most a few hundred in
// the page. Every row has one height, so a position is arithmetic; a wrapped line is several rows.

import { plain, runs, wide } from "./ansi.js";
import { shown } from "./loglines.js";

const ROW = 20;
const OVERSCAN = 30;
// Chromium stops growing an element at about 33 million pixels.
const MOST_ROWS = 1_500_000;
// An unwrapped line is cut here: nobody reads 90,000 characters sideways, and copying has them all.
const MOST_COLUMNS = 2000;

export class LogList {
  lines = [];
  /** The number of lines[0]; numbers never change, whatever is dropped or put in front. */
  base = 0;
  rows = 0;
  following = true;
  #starts = []; // the first row of each line
  #top; #spacer; #window; #viewport;
  #wrap = false;
  #times = true;
  #width = 80;
  #frame = 0;
  #pinned = 0;
  #needle = "";
  #current = -1;
  #most;
  #onScroll;

  constructor(viewport, { most, onScroll, onResize }) {
    this.#viewport = viewport;
    this.#most = most;
    this.#onScroll = onScroll;
    this.#spacer = viewport.appendChild(document.createElement("div"));
    this.#spacer.className = "log-spacer";
    this.#window = this.#spacer.appendChild(document.createElement("div"));
    this.#window.className = "log-window";
    viewport.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    viewport.addEventListener("copy", (event) => this.#copy(event));
    new ResizeObserver(() => {
      this.#measure();
      if (this.#wrap) this.#layout();
      this.paint();
      onResize?.();
    }).observe(viewport);
    this.#measure();
    // The width of a character is another one once the font is here.
    document.fonts.ready.then(() => this.#keep(() => {
      this.#measure();
      this.#layout();
    }));
  }

  set wrap(on) {
    this.#wrap = on;
    this.#measure();
    this.#viewport.classList.toggle("log-wraps", on);
    this.#keep(() => this.#layout());
  }

  set times(on) {
    this.#times = on;
    this.#viewport.classList.toggle("log-no-times", !on);
    this.#measure();
    this.#keep(() => this.#layout());
  }

  append(line) {
    this.lines.push(line);
    this.#starts.push(this.rows);
    this.rows += this.#height(line);
    if (this.lines.length > this.#most * 1.1 || this.rows > MOST_ROWS) this.#trim();
    this.paint();
  }

  /** A line that was still open has grown; only the last few can. */
  grown(line) {
    const index = this.lines.lastIndexOf(line);
    if (index < 0) return;
    this.rows = this.#starts[index];
    for (let i = index; i < this.lines.length; i += 1) {
      this.#starts[i] = this.rows;
      this.rows += this.#height(this.lines[i]);
    }
    this.paint();
  }

  prepend(lines) {
    this.#keep(() => {
      this.lines = lines.concat(this.lines);
      this.base -= lines.length;
      this.#layout();
    });
  }

  clear() {
    this.base += this.lines.length;
    this.lines = [];
    this.#starts = [];
    this.rows = 0;
    this.paint();
  }

  line(number) {
    return this.lines[number - this.base];
  }

  /** Mark `needle` wherever it is shown, and line `current` as the one looked at. */
  mark(needle, current = -1) {
    this.#needle = needle;
    this.#current = current;
    this.paint();
  }

  reveal(number) {
    const top = this.#starts[number - this.base] * ROW;
    const height = this.#viewport.clientHeight;
    if (top < this.#viewport.scrollTop || top + ROW > this.#viewport.scrollTop + height) {
      this.#viewport.scrollTop = top - height / 3;
    }
    this.following = false;
    this.paint();
  }

  follow() {
    this.following = true;
    this.paint();
    this.#viewport.scrollTop = this.#viewport.scrollHeight;
  }

  paint() {
    if (!this.#frame) this.#frame = requestAnimationFrame(() => this.#paint());
  }

  text({ times = this.#times } = {}) {
    return this.#text(0, this.lines.length - 1, times);
  }

  #paint() {
    this.#frame = 0;
    this.#spacer.style.height = `${this.rows * ROW}px`;
    if (this.following) {
      this.#viewport.scrollTop = this.rows * ROW;
      this.#pinned = this.#viewport.scrollTop;
    }
    const first = Math.max(0, Math.floor(this.#viewport.scrollTop / ROW) - OVERSCAN);
    const last = Math.ceil((this.#viewport.scrollTop + this.#viewport.clientHeight) / ROW) + OVERSCAN;
    const rows = document.createDocumentFragment();
    let index = this.#find(first);
    const top = this.#starts[index] ?? 0;
    for (; index < this.lines.length && this.#starts[index] < last; index += 1) {
      this.#render(rows, index, first, last);
    }
    // The rows above `first` of a line that began before it are not made: shift by what is left.
    this.#top = Math.max(top, Math.min(first, this.rows));
    this.#window.style.transform = `translateY(${this.#top * ROW}px)`;
    this.#keepSelection(() => this.#window.replaceChildren(rows));
  }

  /** A selection inside the window is put back on the same characters after the rows are new. */
  #keepSelection(change) {
    const selection = getSelection();
    const inside = !selection.isCollapsed && this.#window.contains(selection.anchorNode) &&
      this.#window.contains(selection.focusNode);
    if (!inside) {
      change();
      return;
    }
    const anchor = this.#place(selection.anchorNode, selection.anchorOffset);
    const focus = this.#place(selection.focusNode, selection.focusOffset);
    change();
    const from = this.#node(anchor);
    const to = this.#node(focus);
    if (from && to) selection.setBaseAndExtent(...from, ...to);
  }

  /** { row key, characters into it } of a DOM position. */
  #place(node, offset) {
    const row = (node.nodeType === 1 ? node : node.parentElement).closest(".log-row");
    if (!row) return null;
    const range = document.createRange();
    range.setStart(row.querySelector(".log-text"), 0);
    try {
      range.setEnd(node, offset);
    } catch {
      return { key: row.dataset.key, at: 0 };
    }
    return { key: row.dataset.key, at: range.toString().length };
  }

  #node(place) {
    const row = place && this.#window.querySelector(`[data-key="${place.key}"] .log-text`);
    if (!row) return null;
    const walker = document.createTreeWalker(row, NodeFilter.SHOW_TEXT);
    let left = place.at;
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      if (left <= node.length) return [node, left];
      left -= node.length;
    }
    return [row, row.childNodes.length];
  }

  #render(into, index, first, last) {
    const line = this.lines[index];
    const number = this.base + index;
    let text = untabbed(shown(line.text));
    if (this.#needle && /[^\x00-\x7f]/.test(text)) text = text.normalize("NFC");
    const pieces = marked(runs(text), plain(text), this.#needle);
    const parts = this.#wrap ? split(pieces, this.#width) : [cut(pieces, MOST_COLUMNS)];
    const start = this.#starts[index];
    for (let part = 0; part < parts.length; part += 1) {
      const at = start + part;
      if (at >= last) return;
      if (at < first) continue;
      const row = document.createElement("div");
      row.className = "log-row";
      row.dataset.key = `${number}.${part}`;
      row.classList.toggle("log-err", line.stream === 2);
      row.classList.toggle("log-note", line.stream === 0);
      row.classList.toggle("log-current", number === this.#current);
      const time = row.appendChild(document.createElement("span"));
      time.className = "log-time";
      if (part === 0 && line.time) {
        time.textContent = clock(line.time);
        time.title = line.time;
      }
      const tag = row.appendChild(document.createElement("span"));
      tag.className = "log-tag";
      if (part === 0 && line.stream === 2) tag.textContent = "err";
      const body = row.appendChild(document.createElement("span"));
      body.className = "log-text";
      for (const piece of parts[part]) body.append(element(piece));
      into.append(row);
    }
  }

  #height(line) {
    if (!this.#wrap) return 1;
    const text = untabbed(shown(line.text));
    return text.length * 2 <= this.#width ? 1 : Math.max(1, rowsOf(plain(text), this.#width));
  }

  #layout() {
    this.rows = 0;
    this.#starts = new Array(this.lines.length);
    for (let i = 0; i < this.lines.length; i += 1) {
      this.#starts[i] = this.rows;
      this.rows += this.#height(this.lines[i]);
    }
    this.paint();
  }

  /** Change the layout while the line on top stays where it is. */
  #keep(change) {
    const index = this.#find(Math.floor(this.#viewport.scrollTop / ROW));
    const number = this.base + index;
    const inside = this.#viewport.scrollTop - (this.#starts[index] ?? 0) * ROW;
    change();
    this.#spacer.style.height = `${this.rows * ROW}px`;
    if (!this.following) {
      this.#viewport.scrollTop = (this.#starts[number - this.base] ?? 0) * ROW + Math.min(inside, ROW);
    }
  }

  #trim() {
    const many = Math.max(
      this.lines.length - this.#most,
      this.rows > MOST_ROWS ? this.#find(this.rows - MOST_ROWS * 0.9) : 0,
    );
    if (many <= 0) return;
    this.#keep(() => {
      this.lines = this.lines.slice(many);
      this.base += many;
      this.#layout();
    });
    this.#viewport.dispatchEvent(new CustomEvent("log-trimmed"));
  }

  /** The index of the line that row `row` belongs to. */
  #find(row) {
    let low = 0;
    let high = this.#starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#starts[middle] <= row) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #measure() {
    const probe = this.#window.appendChild(document.createElement("div"));
    probe.className = "log-row";
    const text = probe.appendChild(document.createElement("span"));
    text.className = "log-text";
    text.textContent = "0".repeat(100);
    const character = text.getBoundingClientRect().width / 100;
    probe.remove();
    const gutter = this.#times ? 20 : 5;
    if (character > 0) {
      this.#width = Math.max(20, Math.floor(this.#viewport.clientWidth / character) - gutter - 2);
    }
  }

  #scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.#viewport;
    // Lines may have come since we scrolled ourselves: only going up stops following.
    if (scrollTop + clientHeight >= scrollHeight - ROW) this.following = true;
    else if (scrollTop < this.#pinned - ROW / 2) this.following = false;
    this.#pinned = scrollTop;
    this.paint();
    this.#onScroll?.(this.#viewport.scrollTop);
  }

  #copy(event) {
    const selection = getSelection();
    if (selection.isCollapsed || !this.#window.contains(selection.anchorNode)) return;
    const ends = [selection.anchorNode, selection.focusNode].map((node) =>
      (node.nodeType === 1 ? node : node.parentElement).closest(".log-row")?.dataset.key);
    if (!ends[0] || !ends[1] || ends[0] === ends[1]) return;
    const [from, to] = ends.map((key) => Number(key.split(".")[0]) - this.base).sort((a, b) => a - b);
    event.clipboardData.setData("text/plain", this.#text(from, to, this.#times));
    event.preventDefault();
  }

  #text(from, to, times) {
    const result = [];
    for (let i = from; i <= to; i += 1) {
      const line = this.lines[i];
      const text = plain(shown(line.text));
      result.push(times && line.time ? `${line.time} ${text}` : text);
    }
    return result.join("\n");
  }
}

/** Local clock time of a line: 14:03:07.123, with the date when it is not today's. */
export function clock(time) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return "";
  const two = (value, digits = 2) => String(value).padStart(digits, "0");
  const clockTime = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${two(date.getMilliseconds(), 3)}`;
  const today = new Date().toDateString() === date.toDateString();
  return today ? clockTime : `${two(date.getMonth() + 1)}-${two(date.getDate())} ${clockTime.slice(0, 8)}`;
}

function element({ text, classes, color, background, hit }) {
  if (!classes && !color && !background && !hit) return document.createTextNode(text);
  const node = document.createElement(hit ? "mark" : "span");
  node.textContent = text;
  if (classes) node.className = classes;
  if (color) node.style.color = color;
  if (background) node.style.backgroundColor = background;
  return node;
}

/** Runs cut at the hits of `needle` (lower case, NFC) in `whole`, the runs' text together. */
function marked(list, whole, needle) {
  if (!needle) return list;
  const low = whole.toLowerCase();
  if (low.length !== whole.length) return list; // a few letters change length: not worth it
  const result = [];
  let hit = low.indexOf(needle);
  let at = 0;
  for (const piece of list) {
    let from = 0;
    while (from < piece.text.length) {
      while (hit >= 0 && hit + needle.length <= at + from) hit = low.indexOf(needle, hit + needle.length);
      const inHit = hit >= 0 && hit <= at + from;
      const stop = hit < 0 ? piece.text.length : (inHit ? hit + needle.length : hit) - at;
      const to = Math.min(piece.text.length, stop);
      result.push({ ...piece, text: piece.text.slice(from, to), hit: inHit });
      from = to;
    }
    at += piece.text.length;
  }
  return result;
}

function cut(list, most) {
  const result = [];
  let left = most;
  for (const piece of list) {
    if (left <= 0) break;
    result.push(piece.text.length > left ? { ...piece, text: piece.text.slice(0, left) } : piece);
    left -= piece.text.length;
  }
  if (left < 0) result.push({ text: " …", classes: "log-more", color: "", background: "" });
  return result;
}

/** Tabs as four spaces, so that every character's width is known. */
function untabbed(text) {
  return text.includes("\t") ? text.replaceAll("\t", "    ") : text;
}

function rowsOf(text, width) {
  if (/^[\x20-\x7e]*$/.test(text)) return Math.ceil(text.length / width);
  let rows = 1;
  let used = 0;
  for (const character of text) {
    const needed = wide(character.codePointAt(0));
    if (used + needed > width) {
      rows += 1;
      used = 0;
    }
    used += needed;
  }
  return rows;
}

/** The same cuts as `rowsOf` counts, over runs. */
function split(list, width) {
  const rows = [[]];
  let used = 0;
  for (const piece of list) {
    let from = 0;
    let at = 0;
    for (const character of piece.text) {
      const needed = wide(character.codePointAt(0));
      if (used + needed > width) {
        if (at > from) rows.at(-1).push({ ...piece, text: piece.text.slice(from, at) });
        rows.push([]);
        from = at;
        used = 0;
      }
      used += needed;
      at += character.length;
    }
    if (at > from) rows.at(-1).push({ ...piece, text: piece.text.slice(from) });
  }
  return rows;
}
