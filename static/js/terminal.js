// A terminal in the page: xterm.js on one websocket, taken up again after a reload.
//
// <div data-module="terminal" data-session="UUID" data-kind="attach|exec">
// Binary frames are [u64 offset in the log after these bytes][bytes]. The offset received last is
// what a reconnect asks to go on from; what xterm has drawn is acknowledged, so that a program
// that floods waits instead of filling the page's memory. Dispatches "quayside:terminal-end"
// {code, reason} when it is over. data-start is an address that starts the container, given the
// size: then nothing of its first screen is drawn for another one. xterm needs style elements, so
// the page alone allows them (console.views.terminals).

import { FitAddon } from "../vendor/xterm-addon-fit.js";
import { SearchAddon } from "../vendor/xterm-addon-search.js";
import { Unicode11Addon } from "../vendor/xterm-addon-unicode11.js";
import { Terminal } from "../vendor/xterm.js";
import { explain, module, open } from "./socket.js";

const ACK_BYTES = 64 * 1024;
// What is typed while the connection is away; more than this is refused with a bell.
const TYPED_AHEAD = 64 * 1024;
const SCROLLBACK = 5000;
const RESIZE_MS = 60;

const encoder = new TextEncoder();

function mount(root) {
  const view = new TerminalView(root);
  view.start();
  return () => view.close();
}

class TerminalView {
  constructor(root) {
    this.root = root;
    this.seen = -1;
    this.acked = 0;
    this.ahead = [];
    this.over = false;
    this.lines = null;
    this.build();
  }

  async start() {
    // The size of a cell is measured once: with the font that will be drawn.
    await document.fonts.load('13px "JetBrains Mono"').catch(() => {});
    if (this.closed) return;
    this.terminal = new Terminal({
      allowProposedApi: true,
      cursorBlink: !matchMedia("(prefers-reduced-motion: reduce)").matches,
      fontFamily: getComputedStyle(this.root).getPropertyValue("--mono"),
      fontSize: 13,
      lineHeight: 1.2,
      macOptionIsMeta: true,
      minimumContrastRatio: 4.5,
      scrollback: SCROLLBACK,
      theme: this.theme(),
    });
    this.fit = new FitAddon();
    this.finder = new SearchAddon();
    this.terminal.loadAddon(this.fit);
    this.terminal.loadAddon(this.finder);
    this.terminal.loadAddon(new Unicode11Addon());
    this.terminal.unicode.activeVersion = "11";
    this.terminal.attachCustomKeyEventHandler((event) => this.key(event));
    this.terminal.onData((text) => this.typed(encoder.encode(text)));
    this.terminal.onBinary((text) => this.typed(Uint8Array.from(text, (c) => c.charCodeAt(0))));
    this.terminal.open(this.screen);
    this.fit.fit();
    this.observer = new ResizeObserver(() => {
      clearTimeout(this.resizing);
      this.resizing = setTimeout(() => this.measure(), RESIZE_MS);
    });
    this.observer.observe(this.screen);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.recolour = () => (this.terminal.options.theme = this.theme());
    this.scheme.addEventListener("change", this.recolour);
    this.themed = new MutationObserver(this.recolour);
    this.themed.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    if (this.root.dataset.start) await this.begin(this.root.dataset.start);
    if (this.closed) return;
    this.socket = open({
      path: () => `/ws/terminals/${this.root.dataset.session}/?seen=${this.seen}`,
      session: { kind: "terminal", id: this.root.dataset.session },
      onMessage: (message) => this.message(message),
      onBytes: (offset, bytes) => this.bytes(offset, bytes),
      onState: (state, detail) => this.state(state, detail),
    });
    this.terminal.focus();
  }

  /** Start the container now that the size of its terminal is known; once, not at a reload. */
  async begin(address) {
    const { cols, rows } = this.terminal;
    const answer = await fetch(address, {
      method: "POST",
      headers: { Accept: "application/json", "X-CSRFToken": document.body.dataset.csrf ?? "" },
      body: new URLSearchParams({ cols, rows }),
    });
    history.replaceState(null, "", location.pathname);
    if (!answer.ok) {
      const { error } = await answer.json().catch(() => ({}));
      this.note(interpolate(gettext("It did not start: %s"), [error?.text ?? error ?? answer.status]));
    }
  }

  close() {
    this.closed = true;
    this.socket?.close();
    this.observer?.disconnect();
    this.themed?.disconnect();
    this.scheme?.removeEventListener("change", this.recolour);
    this.terminal?.dispose();
  }

  // ---- the stream

  message(message) {
    switch (message.t) {
      case "hello":
        this.hello(message);
        break;
      case "size":
        // The smallest of all who look: with others here it may be less than our window.
        if (message.cols !== this.terminal.cols || message.rows !== this.terminal.rows) {
          this.terminal.resize(message.cols, message.rows);
        }
        break;
      case "who":
        this.viewers = message.viewers;
        this.hint();
        break;
      case "gap":
        this.terminal.reset();
        this.skipped(message.to - message.from);
        this.seen = this.acked = message.to;
        break;
      case "exit":
        this.code = message.code;
        break;
      case "waiting":
        this.say("warn", gettext("◐ waiting for the container to start…"));
        break;
    }
  }

  hello(message) {
    this.hands = message.mode !== "read";
    this.terminal.options.disableStdin = !this.hands;
    this.terminal.options.convertEol = !message.tty;
    this.lines = message.tty ? null : (this.lines ?? "");
    if (message.fresh) this.terminal.reset();
    if (message.skipped) this.skipped(message.skipped);
    this.seen = this.acked = message.from;
    // First of all: the program starts with this size, and only then.
    this.fit.fit();
    this.resized(true);
    for (const bytes of this.ahead.splice(0)) this.socket.sendBytes(bytes);
    this.hint();
  }

  bytes(offset, bytes) {
    this.seen = offset;
    this.terminal.write(bytes, () => {
      if (offset - this.acked < ACK_BYTES) return;
      this.acked = offset;
      this.socket.send({ t: "ack", offset });
    });
  }

  // ---- the keyboard

  key(event) {
    if (event.type !== "keydown" || !event.ctrlKey || !event.shiftKey) return true;
    if (event.code === "KeyC" && this.terminal.hasSelection()) {
      navigator.clipboard.writeText(this.terminal.getSelection());
      event.preventDefault();
      return false;
    }
    if (event.code === "KeyF") {
      this.search.focus();
      event.preventDefault();
      return false;
    }
    return true;
  }

  typed(bytes) {
    if (this.over || !this.hands) return;
    if (this.lines !== null) this.line(bytes);
    else this.write(bytes);
  }

  write(bytes) {
    if (this.socket?.ready) this.socket.sendBytes(bytes);
    else if (this.ahead.reduce((sum, piece) => sum + piece.length, bytes.length) <= TYPED_AHEAD) {
      this.ahead.push(bytes);
    } else this.terminal.write("\x07");
  }

  /** Without a tty nobody echoes or edits: a line is typed here and goes at Enter. */
  line(bytes) {
    for (const character of new TextDecoder().decode(bytes)) {
      if (character === "\r") {
        this.terminal.write("\r\n");
        this.write(encoder.encode(`${this.lines}\n`));
        this.lines = "";
      } else if (character === "\x7f") {
        const last = [...this.lines].at(-1);
        if (last === undefined) continue;
        this.lines = this.lines.slice(0, -last.length);
        this.terminal.write("\b \b".repeat(last.codePointAt(0) >= 0x1100 ? 2 : 1));
      } else if (character === "\x04") {
        if (this.lines) this.write(encoder.encode(this.lines));
        else this.socket.send({ t: "eof" });
        this.lines = "";
      } else if (character >= " ") {
        this.lines += character;
        this.terminal.write(character);
      }
    }
  }

  // ---- the size

  measure() {
    if (!this.screen.clientWidth || this.over) return;
    this.fit.fit();
    this.resized(false);
  }

  resized(always) {
    const { cols, rows } = this.terminal;
    if (!always && this.sent === `${cols}x${rows}`) return;
    if (!this.socket) return; // it says its size when it opens
    this.sent = `${cols}x${rows}`;
    this.socket.send({ t: "resize", cols, rows });
  }

  // ---- what is around the screen

  build() {
    this.screen = document.createElement("div");
    this.screen.className = "terminal-screen";
    this.foot = document.createElement("div");
    this.foot.className = "terminal-foot";
    this.line1 = this.foot.appendChild(document.createElement("span"));
    this.line1.setAttribute("role", "status");
    this.leave = this.foot.appendChild(document.createElement("span"));
    this.leave.className = "terminal-leave";
    this.search = this.foot.appendChild(document.createElement("input"));
    this.search.type = "search";
    this.search.className = "terminal-search";
    this.search.placeholder = gettext("Search");
    this.search.setAttribute("aria-label", gettext("Search in the terminal"));
    this.search.title = "Ctrl+Shift+F";
    this.search.addEventListener("input", () => this.find(true));
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) {
        event.preventDefault();
        this.find(!event.shiftKey);
      } else if (event.key === "Escape") {
        this.search.value = "";
        this.finder.clearDecorations();
        this.terminal.focus();
      }
    });
    this.root.replaceChildren(this.screen, this.foot);
    this.say("warn", gettext("◐ connecting…"));
  }

  find(forward) {
    if (!this.search.value) return;
    if (forward) this.finder.findNext(this.search.value);
    else this.finder.findPrevious(this.search.value);
  }

  hint() {
    const others = (this.viewers ?? 1) - 1;
    if (others > 0) {
      this.leave.textContent = interpolate(ngettext("%s other window looks on.", "%s other windows look on.", others), [others]);
    } else this.leave.textContent = "";
  }

  skipped(bytes) {
    this.note(interpolate(gettext("%(bytes)s bytes were skipped: they came faster than they could be shown."), { bytes: bytes.toLocaleString() }, true));
  }

  note(text) {
    this.terminal.write(`\x1b[0;2m[${text}]\x1b[0m\r\n`);
  }

  state(state, detail) {
    this.root.dataset.state = state;
    if (state === "open") this.say("run", this.told(detail));
    else if (state === "ended") this.ended(detail);
    else if (state === "waiting" || this.seen >= 0) this.say("warn", gettext("◐ the connection was lost, coming back…"));
    else this.say("warn", gettext("◐ connecting…"));
  }

  told(hello) {
    return hello.mode === "read" ? gettext("● attached, looking on") : gettext("● attached");
  }

  ended(end) {
    this.over = true;
    this.terminal.options.disableStdin = true;
    this.terminal.options.cursorBlink = false;
    const code = end.exit_code ?? this.code ?? null;
    const text = sentence(end, code);
    this.say(end.reason === "exited" && code === 0 ? "off" : "fail", text);
    this.leave.textContent = "";
    this.note(text);
    this.terminal.write("\x1b[?25l");
    this.root.dispatchEvent(
      new CustomEvent("quayside:terminal-end", { bubbles: true, detail: { code, reason: end.reason } }),
    );
  }

  say(tone, text) {
    this.line1.className = `terminal-state terminal-tone-${tone}`;
    if (this.line1.textContent !== text) this.line1.textContent = text;
  }

  theme() {
    const style = getComputedStyle(this.screen);
    const dark = isDark(style.backgroundColor);
    return {
      background: style.backgroundColor,
      foreground: style.color,
      cursor: style.caretColor,
      cursorAccent: style.backgroundColor,
      selectionBackground: dark ? "#3d5a6c" : "#b9d9df",
      ...(dark ? DARK : LIGHT),
    };
  }
}

function sentence(end, code) {
  switch (end.reason) {
    case "exited":
      return interpolate(gettext("The program has ended with code %s."), [code ?? "?"]);
    case "container-stopped":
      return gettext("The container has stopped, and this terminal with it.");
    case "container-removed":
      return gettext("The container was removed, and this terminal with it.");
    case "start-failed":
      if (end.text) return [end.text, end.hint].filter(Boolean).join(" ");
      return end.detail ? interpolate(gettext("It did not start: %s"), [end.detail]) : gettext("It did not start.");
    case "never-opened":
    case "left":
      return gettext("Nobody looked for ten minutes, so the shell was told to hang up.");
    case "lost":
      return gettext("The process that held this terminal was killed.");
    default: {
      const { text, hint } = explain(end);
      return `${text} ${hint}`;
    }
  }
}

/** By drawing: colours come as oklch, rgb or anything else a style sheet may say. */
function isDark(colour) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
  return red * 0.3 + green * 0.6 + blue * 0.1 < 128;
}

const DARK = {
  black: "#2a3038", red: "#f2777a", green: "#7fd18b", yellow: "#e3c26b", blue: "#79b0f2",
  magenta: "#d79be8", cyan: "#66cfd8", white: "#d5dae0", brightBlack: "#8b96a3", brightRed: "#ff9a9b",
  brightGreen: "#a3e5ac", brightYellow: "#f4dc97", brightBlue: "#a5cbfb", brightMagenta: "#e7bdf3",
  brightCyan: "#95e3ea", brightWhite: "#ffffff",
};
const LIGHT = {
  black: "#1f252c", red: "#b3261e", green: "#1f7a33", yellow: "#8a6100", blue: "#1f5fbf",
  magenta: "#8e3aa8", cyan: "#0b7480", white: "#5c6670", brightBlack: "#4d5761", brightRed: "#c9372e",
  brightGreen: "#23863a", brightYellow: "#966a00", brightBlue: "#2a6fd6", brightMagenta: "#9d45b8",
  brightCyan: "#0c808d", brightWhite: "#14181d",
};

module("terminal", mount);
