// A websocket that comes back: state, back-off with jitter, ping and pong, why it ended.
//
// open({ path, onHello, onMessage, onBytes, onState, session }) -> Socket
//   path()            the address, asked anew at each attempt (so that it can carry an offset)
//   onMessage(m)      JSON messages other than ping, pong and end
//   onBytes(offset, bytes)   binary frames: [u64 offset][bytes]
//   onState(state, detail)   "connecting" | "open" | "waiting" {seconds} | "ended" {code, reason, …}
//   session           { kind, id } for /session/, which says why a refused socket was refused
// Offsets are plain numbers: a log of 2^53 bytes does not exist.

const FIRST_MS = 500;
const LAST_MS = 8000;
const PING_MS = 20_000;
const SILENT_MS = 50_000;

/** Text frames are cut by the server at 4 KiB, stdin at 64 KiB. */
export const MAX_STDIN = 64 * 1024;

export function open(options) {
  return new Socket(options);
}

class Socket {
  #options;
  #ws = null;
  #attempt = 0;
  #timer = 0;
  #ping = 0;
  #heard = 0;
  #greeted = false;
  #end = null;
  #closed = false;

  constructor(options) {
    this.#options = options;
    addEventListener("online", this.#wake);
    addEventListener("pageshow", this.#wake);
    addEventListener("pagehide", this.#hide);
    document.addEventListener("visibilitychange", this.#wake);
    this.#ping = setInterval(() => this.#tick(), PING_MS);
    this.#connect();
  }

  get ready() {
    return this.#ws?.readyState === WebSocket.OPEN && this.#greeted;
  }

  send(message) {
    if (this.#ws?.readyState === WebSocket.OPEN) this.#ws.send(JSON.stringify(message));
  }

  sendBytes(bytes) {
    if (this.#ws?.readyState !== WebSocket.OPEN) return;
    for (let at = 0; at < bytes.length; at += MAX_STDIN) {
      this.#ws.send(bytes.subarray(at, at + MAX_STDIN));
    }
  }

  /** For good: nothing is heard afterwards. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearInterval(this.#ping);
    removeEventListener("online", this.#wake);
    removeEventListener("pageshow", this.#wake);
    removeEventListener("pagehide", this.#hide);
    document.removeEventListener("visibilitychange", this.#wake);
    this.#ws?.close(1000);
  }

  /** Now, rather than after the back-off: somebody pressed "connect". */
  retry() {
    this.#end = null;
    this.#attempt = 0;
    this.#again(0);
  }

  #connect() {
    if (this.#closed) return;
    this.#state("connecting");
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const ws = new WebSocket(`${scheme}//${location.host}${this.#options.path()}`);
    ws.binaryType = "arraybuffer";
    this.#ws = ws;
    this.#greeted = false;
    this.#end = null;
    let opened = false;
    ws.onopen = () => {
      opened = true;
      this.#heard = performance.now();
    };
    ws.onmessage = (event) => {
      if (ws !== this.#ws) return;
      this.#heard = performance.now();
      if (typeof event.data === "string") this.#text(JSON.parse(event.data));
      else {
        const view = new DataView(event.data);
        const bytes = new Uint8Array(event.data, 8);
        this.#options.onBytes?.(Number(view.getBigUint64(0)), bytes);
      }
    };
    ws.onclose = (event) => {
      if (ws === this.#ws) this.#lost(event, opened);
    };
  }

  #text(message) {
    switch (message.t) {
      case "ping":
        this.send({ t: "pong" });
        break;
      case "pong":
        break;
      case "end":
        this.#end = message;
        break;
      case "hello":
        this.#greeted = true;
        this.#attempt = 0;
        this.#state("open", message);
        this.#options.onMessage?.(message);
        break;
      default:
        this.#options.onMessage?.(message);
    }
  }

  async #lost(event, opened) {
    this.#ws = null;
    if (this.#closed) return;
    const end = this.#end;
    if (end && !end.again) {
      this.#state("ended", end);
      return;
    }
    if (!opened) {
      const reason = await this.#why();
      if (this.#closed || this.#ws) return;
      if (reason) {
        this.#state("ended", { code: event.code, reason });
        return;
      }
    }
    this.#again();
  }

  /** Why the door was shut: a reason to give up, or "" when it is worth another try. */
  async #why() {
    const query = this.#options.session ? `?${new URLSearchParams(this.#options.session)}` : "";
    try {
      const answer = await fetch(`/session/${query}`, { headers: { Accept: "application/json" } });
      const { reason } = await answer.json();
      return reason === "ok" ? "" : reason;
    } catch {
      return ""; // the server is away as a whole
    }
  }

  #again(after) {
    clearTimeout(this.#timer);
    const most = Math.min(LAST_MS, FIRST_MS * 2 ** this.#attempt);
    const wait = after ?? most * (0.5 + Math.random() / 2);
    this.#attempt += 1;
    this.#state("waiting", { seconds: wait / 1000 });
    this.#timer = setTimeout(() => this.#connect(), wait);
  }

  #wake = () => {
    const waiting = !this.#closed && !this.#ws && !(this.#end && !this.#end.again);
    if (waiting && document.visibilityState === "visible") this.#again(0);
  };

  #hide = () => this.#ws?.close(1000);

  #tick() {
    if (this.#ws?.readyState !== WebSocket.OPEN) return;
    if (performance.now() - this.#heard > SILENT_MS) {
      // A dead network never closes by itself.
      const ws = this.#ws;
      this.#ws = null;
      ws.close();
      this.#again();
    } else this.send({ t: "ping" });
  }

  #state(state, detail = {}) {
    this.#options.onState?.(state, detail);
  }
}

/** What a person is told when a stream ended; `hint` says what to do about it. */
export function explain(end) {
  switch (end.reason) {
    case "signed-out":
      return { text: gettext("You are signed out."), hint: gettext("Sign in again to go on.") };
    case "access-changed":
    case "no-access":
      return {
        text: gettext("You may no longer see this."),
        hint: gettext("Ask somebody who maintains the team."),
      };
    case "gone":
      return { text: gettext("This no longer exists."), hint: gettext("It was removed.") };
    case "too-many":
      return {
        text: gettext("You have too many of these open."),
        hint: gettext("Close some of your other tabs, then try again."),
      };
    case "too-much":
    case "too-fast":
      return {
        text: gettext("That was too much at once."),
        hint: gettext("Paste large texts in smaller pieces, or upload a file."),
      };
    default:
      if (end.text) return { text: end.text, hint: end.hint };
      return {
        text: gettext("The connection ended."),
        hint: gettext("Try again; nothing that was shown is lost."),
      };
  }
}

/** Run `mount(element)` once for every `[data-module=name]`, now and after htmx swaps. */
export function module(name, mount) {
  const mounted = new WeakMap();
  const scan = (root) => {
    for (const element of root.querySelectorAll(`[data-module="${name}"]`)) {
      if (!mounted.has(element)) mounted.set(element, mount(element) ?? (() => {}));
    }
  };
  scan(document);
  document.addEventListener("htmx:load", (event) => scan(event.target.parentElement ?? document));
  document.addEventListener("htmx:beforeCleanupElement", (event) => {
    const unmount = mounted.get(event.target);
    if (unmount) {
      mounted.delete(event.target);
      unmount();
    }
  });
}
