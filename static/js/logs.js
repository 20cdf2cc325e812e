// A container's log: followed live, searched, copied; complete over every reconnect.
//
// <div data-module="logs" data-uid="…" data-follow="1" data-download="…/logs/download/">
// The socket's bytes are the log file's own by offset, so a reconnect goes on at the next byte,
// and earlier lines are fetched backwards by a second socket, in pieces.

import { plain } from "./ansi.js";
import { LogList } from "./loglist.js";
import { LogParser, shown } from "./loglines.js";
import { explain, module, open } from "./socket.js";

const FIRST_LINES = 5000;
const MOST_LINES = 300_000;
const ACK_BYTES = 64 * 1024;
const EARLIER_BYTES = 1024 * 1024;

function mount(root) {
  const view = new LogView(root);
  return () => view.close();
}

class LogView {
  constructor(root) {
    this.root = root;
    this.uid = root.dataset.uid;
    this.next = -FIRST_LINES; // the offset to go on at; negative: the last N lines
    this.acked = 0;
    this.first = null; // the offset of the first line held
    this.fresh = 0;
    this.needle = "";
    this.hits = [];
    this.at = -1;
    this.searched = 0;
    this.earlier = null;
    this.build();
    this.list = new LogList(this.viewport, {
      most: MOST_LINES,
      onScroll: (top) => this.scrolled(top),
    });
    this.list.following = root.dataset.follow !== "0";
    this.viewport.addEventListener("log-trimmed", () => (this.first = null));
    this.parser = new LogParser((line) => this.added(line), (line) => this.list.grown(line));
    this.socket = open({
      path: () => `/ws/logs/${this.uid}/?from=${this.next}`,
      session: { kind: "logs", id: this.uid },
      onMessage: (message) => this.message(message),
      onBytes: (offset, bytes) => this.bytes(offset, bytes),
      onState: (state, detail) => this.state(state, detail),
    });
  }

  close() {
    this.socket.close();
    this.earlier?.close();
  }

  // ---- the stream

  message(message) {
    if (message.t === "hello") {
      if (this.first === null && this.next < 0) this.first = message.from;
      if (this.next >= 0 && message.from > this.next) this.gap(message.from - this.next);
      this.next = message.from;
      this.acked = message.from;
      this.empty.hidden = this.list.lines.length > 0 || message.size > message.from;
      this.told = message;
      this.running = message.running;
      this.status();
    } else if (message.t === "gap") {
      this.gap(message.to - message.from);
      this.next = message.to;
    } else if (message.t === "exit") {
      this.running = false;
      this.code = message.code;
      this.asked = message.by_hand;
      this.status();
    } else if (message.t === "start") {
      this.running = true;
      this.status();
    }
  }

  bytes(offset, data) {
    let bytes = data;
    if (offset < this.next) bytes = bytes.subarray(this.next - offset);
    else if (offset > this.next) this.gap(offset - this.next);
    if (!bytes.length) return;
    this.next = offset + data.length;
    this.parser.push(bytes);
    if (this.next - this.acked >= ACK_BYTES) {
      this.acked = this.next;
      this.socket.send({ t: "ack", offset: this.next });
    }
  }

  gap(bytes) {
    this.parser.reset();
    const text = interpolate(gettext("%(bytes)s bytes are missing here: they are no longer kept."), { bytes: bytes.toLocaleString() }, true);
    this.added({ time: "", stream: 0, text, open: false });
  }

  added(line) {
    this.empty.hidden = true;
    this.list.append(line);
    if (!this.list.following) {
      this.fresh += 1;
      this.followButton();
    }
    if (this.needle) this.search(false);
  }

  // ---- earlier lines

  scrolled(top) {
    if (this.list.following) this.fresh = 0;
    this.followButton();
    if (top < 2000) this.fetchEarlier();
  }

  /** Put up to EARLIER_BYTES of lines in front; `done(more)` tells whether there are more. */
  fetchEarlier(done = () => {}) {
    const most = this.list.lines.length >= MOST_LINES;
    if (this.earlier || this.first === null || this.first <= 0 || most) {
      if (!this.earlier) done(false);
      return;
    }
    const until = this.first;
    const from = Math.max(0, until - EARLIER_BYTES);
    let next = from;
    let acked = from;
    let start = from;
    let whole = from === 0;
    const lines = [];
    const parser = new LogParser((line) => lines.push(line), () => {});
    const finish = (more) => {
      this.earlier?.close();
      this.earlier = null;
      done(more);
    };
    this.earlier = open({
      path: () => `/ws/logs/${this.uid}/?from=${next}`,
      session: { kind: "logs", id: this.uid },
      onMessage: (message) => {
        if (message.t !== "hello" || message.from <= next) return;
        // What was asked for is rotated away: this is where the log begins now.
        next = start = acked = message.from;
        whole = true;
        if (next >= until) {
          this.first = 0;
          finish(false);
        }
      },
      onBytes: (offset, data) => {
        let bytes = data.subarray(0, Math.max(0, until - offset));
        next = offset + data.length;
        if (!whole) {
          const newline = bytes.indexOf(10);
          if (newline < 0) return;
          start = offset + newline + 1;
          bytes = bytes.subarray(newline + 1);
          whole = true;
        }
        parser.push(bytes);
        if (next < until) {
          if (next - acked >= ACK_BYTES) {
            acked = next;
            this.earlier.send({ t: "ack", offset: next });
          }
          return;
        }
        this.first = start;
        this.list.prepend(lines);
        if (this.needle) this.search(true);
        finish(start > 0);
      },
      onState: (state) => {
        if (state === "ended") finish(false);
      },
    });
  }

  // ---- search

  /** Find anew, or only in lines that came since. Works in slices, so that typing stays quick. */
  search(anew) {
    if (anew) {
      this.hits = [];
      this.searched = this.list.base;
    }
    if (this.searching) return;
    const slice = () => {
      this.searching = 0;
      if (!this.needle) return;
      const until = performance.now() + 8;
      const end = this.list.base + this.list.lines.length;
      this.searched = Math.max(this.searched, this.list.base);
      while (this.searched < end && performance.now() < until) {
        for (let i = 0; i < 200 && this.searched < end; i += 1, this.searched += 1) {
          const line = this.list.line(this.searched);
          if (line.open) continue;
          if (searchable(line).includes(this.needle)) this.hits.push(this.searched);
        }
      }
      this.counted();
      if (this.searched < end) this.searching = setTimeout(slice);
    };
    this.searching = setTimeout(slice);
  }

  look(text) {
    this.needle = text.normalize("NFC").toLowerCase();
    this.at = -1;
    this.hits = [];
    this.list.mark(this.needle);
    this.counted();
    if (!this.needle) return;
    this.search(true);
    const deeper = (more) => more && this.needle && this.fetchEarlier(deeper);
    this.fetchEarlier(deeper);
  }

  step(by) {
    while (this.hits.length && this.hits[0] < this.list.base) this.hits.shift();
    if (!this.hits.length) return;
    if (this.at < 0) this.at = by > 0 ? 0 : this.hits.length - 1;
    else this.at = (this.at + by + this.hits.length) % this.hits.length;
    this.list.mark(this.needle, this.hits[this.at]);
    this.list.reveal(this.hits[this.at]);
    this.counted();
    this.followButton();
  }

  counted() {
    const many = this.hits.length;
    this.previous.disabled = this.following.disabled = !many;
    this.previous.hidden = this.following.hidden = !this.needle;
    if (!this.needle) this.count.textContent = "";
    else if (!many) this.count.textContent = gettext("no lines");
    else if (this.at < 0) {
      this.count.textContent = interpolate(ngettext("%s line", "%s lines", many), [many.toLocaleString()]);
    } else this.count.textContent = `${(this.at + 1).toLocaleString()} / ${many.toLocaleString()}`;
  }

  // ---- what is around the lines

  build() {
    const bar = make("div", "log-bar");
    this.input = make("input", "log-search");
    Object.assign(this.input, { type: "search", placeholder: gettext("Search this log"), spellcheck: false });
    this.input.setAttribute("aria-label", gettext("Search this log"));
    this.input.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.look(this.input.value), 150);
    });
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) {
        event.preventDefault();
        this.step(event.shiftKey ? -1 : 1);
      }
    });
    this.count = make("span", "log-count");
    this.count.setAttribute("role", "status");
    this.previous = button("↑", () => this.step(-1), gettext("Previous line found"));
    this.following = button("↓", () => this.step(1), gettext("Next line found"));
    this.previous.hidden = this.following.hidden = true;
    const times = toggle(gettext("Times"), stored("times", true), (on) => {
      keep("times", on);
      this.list.times = on;
    });
    const wrap = toggle(gettext("Wrap"), stored("wrap", false), (on) => {
      keep("wrap", on);
      this.list.wrap = on;
    });
    const copy = button(gettext("Copy"), () => this.copyAll(copy), gettext("Copy all lines shown"));
    bar.append(this.input, this.count, this.previous, this.following, make("span", "log-space"), times, wrap, copy);
    const link = make("a", "log-button");
    link.href = this.root.dataset.download ?? "download/";
    link.textContent = gettext("Download");
    bar.append(link);
    this.viewport = make("div", "log-view");
    this.viewport.tabIndex = 0;
    this.viewport.setAttribute("role", "region");
    this.viewport.setAttribute("aria-label", gettext("Log lines"));
    this.viewport.addEventListener("keydown", (event) => {
      if (event.key === "End") this.list.follow();
    });
    this.empty = make("p", "log-empty");
    this.empty.textContent = gettext("Nothing was written yet. Lines appear here as the container writes them.");
    this.empty.hidden = true;
    this.foot = make("div", "log-foot");
    this.line = make("span", "log-state");
    this.line.setAttribute("role", "status");
    this.pin = button("", () => {
      this.fresh = 0;
      this.list.follow();
      this.followButton();
    });
    this.pin.classList.add("log-follow");
    this.foot.append(this.line, this.pin);
    const frame = make("div", "log-frame");
    frame.append(this.viewport, this.empty);
    this.root.replaceChildren(bar, frame, this.foot);
    queueMicrotask(() => {
      this.list.times = stored("times", true);
      this.list.wrap = stored("wrap", false);
      this.followButton();
    });
  }

  followButton() {
    const on = this.list.following;
    this.pin.setAttribute("aria-pressed", String(on));
    if (on) this.pin.textContent = gettext("Following");
    else if (this.fresh) {
      this.pin.textContent = interpolate(ngettext("%s new line: follow", "%s new lines: follow", this.fresh), [this.fresh.toLocaleString()]);
    } else this.pin.textContent = gettext("Follow");
  }

  state(state, detail) {
    this.link = state;
    this.why = detail;
    this.status();
  }

  status() {
    let [tone, text] = ["run", gettext("● live")];
    if (this.link === "ended") {
      const { text: what, hint } = explain(this.why);
      [tone, text] = ["fail", `✕ ${what} ${hint}`];
    } else if (this.link !== "open") [tone, text] = ["warn", gettext("◐ connecting…")];
    else if (this.running === false) {
      const code = this.code ?? this.told?.exit_code;
      // An end that somebody asked for is no failure, whatever its code.
      tone = code && !(this.asked ?? this.told?.by_hand) ? "fail" : "off";
      text = code === null || code === undefined
        ? gettext("○ not running")
        : interpolate(gettext("○ exited with code %s"), [code]);
    }
    this.root.dataset.state = this.link;
    this.line.className = `log-state log-tone-${tone}`;
    if (this.line.textContent !== text) this.line.textContent = text;
  }

  async copyAll(control) {
    await navigator.clipboard.writeText(this.list.text());
    control.textContent = gettext("Copied");
    setTimeout(() => (control.textContent = gettext("Copy")), 1500);
  }
}

function searchable(line) {
  const text = plain(shown(line.text));
  // eslint-disable-next-line no-control-regex
  return (/[^\x00-\x7f]/.test(text) ? text.normalize("NFC") : text).toLowerCase();
}

function make(name, className) {
  const element = document.createElement(name);
  element.className = className;
  return element;
}

function button(text, act, label = "") {
  const element = make("button", "log-button");
  element.type = "button";
  element.textContent = text;
  if (label) {
    element.title = label;
    element.setAttribute("aria-label", label);
  }
  element.addEventListener("click", act);
  return element;
}

function toggle(text, on, act) {
  const element = button(text, () => {
    const now = element.getAttribute("aria-pressed") !== "true";
    element.setAttribute("aria-pressed", String(now));
    act(now);
  });
  element.setAttribute("aria-pressed", String(on));
  return element;
}

function stored(name, otherwise) {
  const value = localStorage.getItem(`quayside-log-${name}`);
  return value === null ? otherwise : value === "true";
}

function keep(name, on) {
  localStorage.setItem(`quayside-log-${name}`, String(on));
}

module("logs", mount);
