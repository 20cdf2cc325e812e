// A build's page, live: the cache rail. A line runs through the steps; hollow is from the cache,
// filled was built, and where the cache was lost the line breaks and says why and what it cost.
//
// <div data-module="build" data-build="PK" data-state="…">
// Everything shown comes from one stream of events (engine.build's log, JSON lines, by offset).
// Dispatches "quayside:build-failed" {line, end} and "quayside:build-end" {state}.

import { plain, runs } from "./ansi.js";
import { shown } from "./loglines.js";
import { explain, module, open } from "./socket.js";

const ACK_BYTES = 64 * 1024;
const MOST_LINES = 2000; // of one step in the page; the log has them all
const decoder = () => new TextDecoder();

function mount(root) {
  const view = new BuildView(root);
  return () => view.close();
}

class BuildView {
  constructor(root) {
    this.root = root;
    this.next = 0;
    this.acked = 0;
    this.rest = "";
    this.text = decoder();
    this.build();
    this.clear();
    this.timer = setInterval(() => this.tick(), 100);
    this.socket = open({
      path: () => `/ws/builds/${root.dataset.build}/?from=${this.next}`,
      session: { kind: "build", id: root.dataset.build },
      onMessage: () => {},
      onBytes: (offset, bytes) => this.bytes(offset, bytes),
      onState: (state, detail) => this.state(state, detail),
    });
  }

  close() {
    this.socket.close();
    clearInterval(this.timer);
  }

  // ---- events

  bytes(offset, data) {
    const bytes = offset < this.next ? data.subarray(this.next - offset) : data;
    this.next = Math.max(this.next, offset + data.length);
    const lines = (this.rest + this.text.decode(bytes, { stream: true })).split("\n");
    this.rest = lines.pop();
    for (const line of lines) if (line) this.event(JSON.parse(line));
    if (this.next - this.acked >= ACK_BYTES) {
      this.acked = this.next;
      this.socket.send({ t: "ack", offset: this.next });
    }
  }

  event(event) {
    switch (event.t) {
      case "plan":
        // A second plan has a base's ONBUILD triggers in it: what waits is numbered anew.
        for (const [n, step] of this.steps) {
          if (step.state !== "waiting") continue;
          step.element.remove();
          this.steps.delete(n);
        }
        for (const step of event.steps) this.plan(step);
        this.line.classList.add("unseen");
        break;
      case "step":
        this.step(event);
        break;
      case "out":
        this.steps.get(event.n)?.write(event.d, event.s === 2);
        break;
      case "pull":
        this.steps.get(event.n)?.pull(event.layers);
        break;
      case "warn":
        this.warn(event);
        break;
      case "failed":
        this.failed(event.error);
        break;
      case "again":
        this.clear();
        this.say("warn", gettext("The worker was lost; the build began anew."));
        break;
      case "done":
      case "cancelled":
        this.over(event.t, event);
        break;
    }
  }

  plan(planned) {
    if (this.steps.has(planned.n)) return;
    if (planned.stage !== undefined && planned.stage !== this.stage) {
      this.stage = planned.stage;
      this.stages += 1;
      const head = make("li", "build-stage", stageName(planned.stage));
      head.hidden = this.stages === 1;
      if (this.stages === 2) this.rail.querySelector(".build-stage").hidden = false;
      this.rail.append(head);
    }
    const step = new Step(planned);
    this.steps.set(planned.n, step);
    this.rail.append(step.element);
  }

  step(event) {
    const step = this.steps.get(event.n);
    if (!step) return;
    step.set(event);
    this.breaks(event, step);
  }

  /** The rail breaks above the step that was the first to miss the cache. */
  breaks(event, step) {
    const why = step.reason?.why;
    if (event.state !== "cached" && why && why !== "parent" && why !== "first" && !step.broken) {
      step.broken = make("li", "build-break");
      step.broken.append(make("span", "build-break-text", sentence(step.reason)), make("span", "build-break-cost"));
      step.element.before(step.broken);
      step.why.hidden = true; // said above it
      this.broken.push({ step, from: event.n });
    }
    this.costs();
  }

  /** What a break costs: the seconds of everything built from it to the next one. */
  costs() {
    this.broken.forEach(({ step, from }, index) => {
      const until = this.broken[index + 1]?.from ?? Infinity;
      let ms = 0;
      for (const [n, other] of this.steps) {
        if (n >= from && n < until && other.state === "built") ms += other.ms;
      }
      step.broken.lastChild.textContent = ms ? `+${took(ms)}` : "";
    });
  }

  warn({ text, line }) {
    const where = line ? `${interpolate(gettext("Line %s"), [line])}: ` : "";
    this.notices.append(make("p", "build-warning", `▲ ${where}${text}`));
  }

  failed(error) {
    const context = error.context ?? {};
    const failed = [...this.steps.values()].find((step) => step.state === "failed") ??
      [...this.steps.values()].find((step) => context.line >= step.line && context.line <= step.end);
    const notice = make("div", "build-error");
    notice.setAttribute("role", "alert");
    const said = notice.appendChild(make("strong", "", `✕ ${explained(error, failed)}`));
    const hint = notice.appendChild(make("p", "", hinted(error)));
    if (error.id !== "step-failed") inWords(said, hint);
    if (context.line) {
      const source = make("p", "build-source");
      source.append(
        make("span", "muted", `${context.file ?? "Dockerfile"}:${context.line}`),
        make("code", "", context.source || failed?.text || ""),
      );
      notice.append(source);
    }
    if (failed) {
      if (failed.state === "running") failed.set({ state: "failed" });
      failed.body.append(notice);
      failed.fold(true);
    } else this.notices.append(notice);
    if (context.line) {
      const detail = { line: context.line, end: context.end_line ?? context.line };
      this.root.dispatchEvent(new CustomEvent("quayside:build-failed", { bubbles: true, detail }));
    }
    this.over("failed", {});
  }

  over(state, event) {
    for (const step of this.steps.values()) {
      if (step.state === "running") step.set({ state: state === "failed" ? "failed" : "cancelled" });
    }
    this.root.dataset.state = state;
    this.ended = true;
    if (state === "done") {
      const cached = [...this.steps.values()].filter((step) => step.state === "cached").length;
      this.say("run", interpolate(gettext("● built in %(time)s, %(cached)s of %(all)s steps from the cache"), { time: took(event.ms ?? 0), cached, all: this.steps.size }, true));
    } else if (state === "cancelled") this.say("off", gettext("○ cancelled: nothing of it is left behind"));
    else this.say("fail", gettext("✕ failed"));
    this.root.dispatchEvent(new CustomEvent("quayside:build-end", { bubbles: true, detail: { state } }));
  }

  // ---- the page

  build() {
    this.notices = make("div", "build-notices");
    this.rail = make("ol", "build-rail");
    this.line = make("p", "build-state");
    this.line.setAttribute("role", "status");
    this.root.replaceChildren(this.line, this.notices, this.rail);
  }

  clear() {
    this.steps = new Map();
    this.broken = [];
    this.stage = undefined;
    this.stages = 0;
    this.ended = false;
    this.rail.replaceChildren();
    this.notices.replaceChildren();
    this.say("build", gettext("◐ waiting for its turn…"));
  }

  state(state, detail) {
    if (this.ended) return;
    if (state === "waiting") this.say("warn", gettext("◐ the connection was lost, coming back…"));
    else if (state === "open" && this.steps.size) this.line.classList.add("unseen");
    else if (state === "ended" && !["done", "failed", "cancelled"].includes(detail.reason)) {
      const { text, hint } = explain(detail);
      this.say("fail", `✕ ${text} ${hint}`);
    } else if (state === "ended") this.over(detail.reason, {});
  }

  say(tone, text) {
    this.line.className = `build-state build-tone-${tone}`;
    this.line.textContent = text;
  }

  tick() {
    for (const step of this.steps.values()) step.tick();
  }
}

class Step {
  constructor({ n, text, line, end }) {
    Object.assign(this, { n, text, line, end: end ?? line, state: "waiting", ms: 0, lines: [], first: 0, open: false });
    this.element = make("li", "build-step");
    this.mark = make("span", "build-mark");
    this.mark.setAttribute("aria-hidden", "true");
    this.button = make("button", "build-head");
    this.button.type = "button";
    this.button.setAttribute("aria-expanded", "false");
    this.name = make("code", "build-text", firstLine(text));
    this.name.title = text;
    this.word = make("span", "build-word");
    this.time = make("span", "build-time");
    this.button.append(this.name, this.word, this.time);
    this.button.addEventListener("click", () => {
      this.touched = true;
      this.fold(!this.open);
    });
    this.body = make("div", "build-body");
    this.body.hidden = true;
    this.output = make("pre", "build-output");
    this.output.tabIndex = 0;
    this.output.hidden = true;
    this.why = make("p", "build-why");
    this.why.hidden = true;
    this.layers = make("ul", "build-layers");
    this.body.append(this.why, this.layers, this.output);
    this.element.append(this.mark, this.button, this.body);
    this.show();
  }

  set({ state, ms, reason }) {
    this.state = state;
    if (ms !== undefined) this.ms = ms;
    if (state === "running") this.since = performance.now();
    else this.layers.querySelector('[data-layer=""]')?.remove();
    if (reason) {
      this.reason = reason;
      this.why.textContent = sentence(reason);
      this.why.hidden = Boolean(this.broken);
    }
    if (!this.touched) this.fold(state === "running" || state === "failed");
    this.show();
  }

  show() {
    this.element.dataset.state = this.state;
    this.word.textContent = WORDS[this.state]();
    // That a cached step took no time is what "cached" says.
    const told = ["built", "failed"].includes(this.state) || (this.state === "cached" && this.ms > 500);
    this.time.textContent = told ? took(this.ms ?? 0) : "";
  }

  tick() {
    if (this.state === "running") this.time.textContent = seconds(performance.now() - this.since);
  }

  fold(open) {
    this.open = open;
    this.body.hidden = !open;
    this.button.setAttribute("aria-expanded", String(open));
    if (open) this.paint();
  }

  /** Output comes in any pieces; a line is whole at its newline. */
  write(text, err) {
    const parts = text.split("\n");
    const last = this.lines.at(-1);
    if (last && !last.whole) last.text += parts[0];
    else this.lines.push({ text: parts[0], err });
    for (const part of parts.slice(1)) {
      this.lines.at(-1).whole = true;
      this.lines.push({ text: part, err });
    }
    if (this.lines.length > MOST_LINES * 1.2) {
      const many = this.lines.length - MOST_LINES;
      this.lines.splice(0, many);
      this.first += many;
    }
    if (!this.frame) this.frame = requestAnimationFrame(() => this.paint());
  }

  paint() {
    this.frame = 0;
    if (!this.open || !this.lines.length) return;
    this.output.hidden = false;
    const bottom = this.output.scrollTop + this.output.clientHeight >= this.output.scrollHeight - 8;
    // Lines that are whole and drawn stay as they are; the rest is drawn anew.
    while (this.drawn > this.first && Number(this.output.firstChild?.dataset.line) < this.first) {
      this.output.firstChild.remove();
    }
    for (let i = Math.max(this.drawn ?? 0, this.first); i < this.first + this.lines.length; i += 1) {
      const line = this.lines[i - this.first];
      if (!line.text && i === this.first + this.lines.length - 1) break; // begun, nothing in it
      const row = make("div", line.err ? "build-line build-err" : "build-line");
      row.dataset.line = i;
      for (const { text, classes, color } of runs(shown(line.text))) {
        const span = make("span", classes, text);
        if (color) span.style.color = color;
        row.append(span);
      }
      const old = this.output.lastChild;
      if (old && Number(old.dataset.line) === i) old.replaceWith(row);
      else this.output.append(row);
    }
    this.drawn = Math.max(0, this.first + this.lines.length - 1);
    if (bottom) this.output.scrollTop = this.output.scrollHeight;
  }

  pull(layers) {
    // The look-up is a row of its own only until layers are known.
    if (layers.length > 1) this.layers.querySelector('[data-layer=""]')?.remove();
    for (const { digest, current, total, kind } of layers) {
      if (!digest && layers.length > 1) continue;
      let row = this.layers.querySelector(`[data-layer="${CSS.escape(digest)}"]`);
      if (!row) {
        row = make("li", "build-layer");
        row.dataset.layer = digest;
        const bar = make("progress", "");
        bar.setAttribute("aria-label", short(digest));
        row.append(make("code", "", short(digest)), bar, make("span", "build-bytes"));
        this.layers.append(row);
      }
      const bar = row.querySelector("progress");
      if (total) bar.max = total;
      if (total) bar.value = kind === "done" ? total : current;
      row.lastChild.textContent = `${layerWord(kind)} ${total ? `${size(current)} / ${size(total)}` : ""}`;
    }
  }
}

const WORDS = {
  waiting: () => "",
  running: () => gettext("building"),
  cached: () => gettext("cached"),
  built: () => gettext("built"),
  failed: () => gettext("failed"),
  cancelled: () => gettext("cancelled"),
};

function layerWord(kind) {
  switch (kind) {
    case "downloading":
      return gettext("downloading");
    case "extracting":
      return gettext("unpacking");
    case "done":
      return gettext("here");
    default:
      return gettext("looking up");
  }
}

/** Why a step was built and not taken from the cache. */
function sentence(reason) {
  const files = reason.files ?? [];
  switch (reason.why) {
    case "first":
      return gettext("Built for the first time: nothing was in the cache yet.");
    case "instruction":
      return gettext("The instruction changed: this and all below are built anew.");
    case "args":
      return interpolate(gettext("A build argument changed (%s): this and all below are built anew."), [reason.detail]);
    case "base":
      return gettext("The base image changed: this and all below are built anew.");
    case "no-cache":
      return gettext("Built without the cache, as asked.");
    case "parent":
      return gettext("A step above was built anew.");
    case "files": {
      const names = files.slice(0, 3).map((file) => file.path).join(", ");
      const more = files.length - 3;
      if (!names) return gettext("The files changed: this and all below are built anew.");
      if (more > 0) {
        return interpolate(gettext("%(names)s and %(more)s more changed: this and all below are built anew."), { names, more }, true);
      }
      return interpolate(gettext("%(names)s changed: this and all below are built anew."), { names }, true);
    }
    default:
      return reason.detail ?? "";
  }
}

function explained(error, step) {
  if (error.id === "step-failed" && error.context?.code !== undefined) {
    return interpolate(gettext("%(text)s ended with code %(code)s."), { text: firstLine(step?.text ?? "RUN"), code: error.context.code }, true);
  }
  return error.message;
}

function hinted(error) {
  return error.id === "step-failed" ? gettext("Its output above says why.") : (error.hint ?? "");
}

/** The page has the error in the reader's language, now or as soon as it hears of it. */
function inWords(said, hint) {
  const place = document.getElementById("build-problem");
  const copy = () => {
    const text = place?.querySelector(".notice strong")?.textContent;
    if (!text) return false;
    said.textContent = `✕ ${text}`;
    hint.textContent = place.querySelector(".notice p")?.textContent ?? "";
    return true;
  };
  if (!place || copy()) return;
  const observer = new MutationObserver(() => copy() && observer.disconnect());
  observer.observe(place, { childList: true, subtree: true });
}

function stageName(stage) {
  return interpolate(gettext("Stage %s"), [typeof stage === "number" ? stage + 1 : stage]);
}

function firstLine(text) {
  const [line, ...more] = text.split("\n");
  return more.length ? `${line} …` : line;
}

/** How long something that is over took, as the page's head says it. */
function took(ms) {
  return ms < 999.5 ? interpolate(gettext("%(n)s ms"), { n: Math.round(ms) }, true) : seconds(ms);
}

function seconds(ms) {
  if (ms < 60_000) return interpolate(gettext("%s s"), [(ms / 1000).toFixed(1)]);
  return interpolate(gettext("%(m)s min %(s)s s"), { m: Math.floor(ms / 60_000), s: Math.round((ms % 60_000) / 1000) }, true);
}

function size(bytes) {
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(0)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

function short(digest) {
  return digest.replace("sha256:", "").slice(0, 12);
}

function make(name, className, text = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text) element.textContent = plain(text);
  return element;
}

module("build", mount);
