// What a container uses, live: five small pictures of the last minutes, and its processes.
//
// <div data-module="stats" data-uid="…" data-cpus="0.5" data-uncounted>
//   [data-when=stopped|restarting|paused|lost|ended]   one sentence, shown while it is so
//   [data-chart=cpu|memory|network|disk|pids]          [data-now] [data-sub] [data-top] svg
//   [data-processes]                                   the table
// engine/streams/stats.py says what comes: a reading a second, while somebody looks.

import { explain, module, open } from "./socket.js";
import { bytesSize, humanSize, niceTop, percent } from "./units.js";

const WIDTH = 300; // of the pictures' own space: a unit a second
const HEIGHT = 60;
const GAP_MS = 2500; // further apart, readings are not joined by a line
const rate = (value) => `${humanSize(value)}/s`;

// least: the smallest top of the scale, so that noise looks like noise.
const CHARTS = {
  cpu: { lines: ["cpu"], say: percent, least: 5 },
  memory: { lines: ["memory"], say: bytesSize, least: 1024 * 1024, base: 1024 },
  network: { lines: ["received_rate", "sent_rate"], say: rate, least: 1000 },
  disk: { lines: ["read_rate", "written_rate"], say: rate, least: 1000 },
  pids: { lines: ["pids"], say: String, least: 5 },
};

class StatsView {
  constructor(root) {
    this.root = root;
    this.samples = [];
    this.keeps = 300;
    this.charts = Object.entries(CHARTS).map(([name, chart]) => {
      const element = root.querySelector(`[data-chart=${name}]`);
      const part = (key) => element.querySelector(`[data-${key}]`);
      const svg = element.querySelector("svg");
      const paths = [...svg.querySelectorAll("path")];
      return { name, ...chart, svg, paths, now: part("now"), sub: part("sub"), top: part("top") };
    });
    this.socket = open({
      path: () => `/ws/stats/${root.dataset.uid}/`,
      session: { kind: "stats", id: root.dataset.uid },
      onMessage: (message) => this.message(message),
      onState: (state, detail) => this.state(state, detail),
    });
    document.addEventListener("visibilitychange", this.look);
  }

  close() {
    document.removeEventListener("visibilitychange", this.look);
    this.socket.close();
  }

  /** What nobody sees is not read. */
  look = () => this.socket.send({ t: "look", on: document.visibilityState === "visible" });

  message(message) {
    if (message.t === "hello") {
      this.keeps = message.keeps;
      this.samples = [];
      this.tell(message);
      if (document.visibilityState === "hidden") this.look();
    } else if (message.t === "state") this.tell(message);
    else if (message.t === "usage") this.add(message.samples);
    else if (message.t === "processes") this.processes(message);
  }

  state(state, detail) {
    if (state === "waiting") this.say("lost");
    else if (state === "ended") {
      const { text, hint } = explain(detail);
      this.root.querySelector("[data-when=ended] span").textContent = `${text} ${hint}`;
      this.say("ended");
    }
  }

  tell({ running, state }) {
    if (state === "restarting" || state === "paused") this.say(state);
    else this.say(running ? "" : "stopped");
    this.root.toggleAttribute("data-off", !running);
    if (running) return;
    for (const chart of this.charts) chart.now.textContent = "–";
    this.root.querySelector("[data-processes]").hidden = true;
  }

  /** One sentence about how it stands, or none. */
  say(which) {
    for (const line of this.root.querySelectorAll("[data-when]")) {
      line.hidden = line.dataset.when !== which;
    }
  }

  add(samples) {
    this.samples.push(...samples);
    const latest = this.samples.at(-1);
    const from = latest.at - this.keeps * 1000;
    this.samples = this.samples.filter((sample) => sample.at >= from);
    for (const chart of this.charts) this.draw(chart, latest);
    this.words(latest);
  }

  draw(chart, latest) {
    const all = chart.lines.flatMap((key) => this.samples.map((sample) => sample[key] ?? 0));
    const most = Math.max(...all);
    const top = niceTop(Math.max(most, chart.least), chart.base);
    chart.top.textContent = chart.say(top).replace(/\.00%$/, "%");
    chart.lines.forEach((key, at) => {
      const lines = this.lines(key, latest.at, top);
      const line = lines.map((points) => `M${points.join("L")}`).join("");
      chart.paths.at(-1 - at).setAttribute("d", line);
      if (at > 0 || chart.lines.length > 1) return;
      // The ground under a single line.
      const ground = lines.map(
        (points) =>
          `M${points.join("L")}L${points.at(-1).split(",")[0]},${HEIGHT}L${points[0].split(",")[0]},${HEIGHT}Z`,
      );
      chart.paths[0].setAttribute("d", ground.join(""));
    });
    const words = gettext("%(now)s now, at most %(most)s in these minutes");
    const now = chart.lines.map((key) => chart.say(latest[key] ?? 0)).join(" / ");
    chart.svg.setAttribute(
      "aria-label",
      interpolate(words, { now, most: chart.say(most) }, true),
    );
  }

  /** Runs of points, as "x,y"; a reading that is missing begins a new one. */
  lines(key, now, top) {
    const lines = [];
    let last = null;
    for (const sample of this.samples) {
      if (sample[key] === null) {
        last = null;
        continue;
      }
      const x = WIDTH - ((now - sample.at) / 1000) * (WIDTH / this.keeps);
      const y = HEIGHT - (sample[key] / top) * (HEIGHT - 2);
      if (last === null || sample.at - last > GAP_MS) lines.push([]);
      lines.at(-1).push(`${x.toFixed(1)},${y.toFixed(1)}`);
      last = sample.at;
    }
    return lines;
  }

  words(latest) {
    const { dataset } = this.root;
    const say = (text, values) => interpolate(text, values, true);
    const write = (name, now, sub) => {
      const chart = this.charts.find((one) => one.name === name);
      chart.now.textContent = now;
      if (sub !== undefined) chart.sub.textContent = sub;
    };
    const known = (value, text) => (value === null ? "–" : text(value));
    const cpus = Number(dataset.cpus);
    write(
      "cpu",
      known(latest.cpu, percent),
      cpus
        ? say(gettext("of at most %(most)s; 100% is one processor"), { most: `${Math.round(cpus * 100)}%` })
        : gettext("100% is one processor"),
    );
    const share = percent((latest.memory / latest.limit) * 100);
    write(
      "memory",
      `${bytesSize(latest.memory)} / ${bytesSize(latest.limit)}`,
      latest.limited
        ? say(gettext("%(share)s of its limit"), { share })
        : say(gettext("%(share)s of the machine's; it has no limit"), { share }),
    );
    const since = gettext("%(one)s / %(other)s since its start");
    const both = (one, other) => `${known(latest[one], rate)} / ${known(latest[other], rate)}`;
    if (!("uncounted" in dataset)) {
      write(
        "network",
        both("received_rate", "sent_rate"),
        say(since, { one: humanSize(latest.received), other: humanSize(latest.sent) }),
      );
    }
    write(
      "disk",
      both("read_rate", "written_rate"),
      say(since, { one: humanSize(latest.read), other: humanSize(latest.written) }),
    );
    write(
      "pids",
      String(latest.pids),
      latest.pids_limit === null
        ? gettext("without a limit")
        : say(gettext("of at most %(most)s"), { most: latest.pids_limit }),
    );
  }

  processes({ titles, rows, more }) {
    const place = this.root.querySelector("[data-processes]");
    place.hidden = rows.length === 0;
    const [head, body] = [place.querySelector("thead tr"), place.querySelector("tbody")];
    if (head.children.length !== titles.length) {
      head.replaceChildren(...titles.map((title) => cell("th", title)));
      for (const title of head.children) title.scope = "col";
    }
    const same = new Map([...body.rows].map((row) => [row.dataset.text, row]));
    body.replaceChildren(
      ...rows.map((texts) => {
        const text = texts.join("\t");
        const known = same.get(text); // what stays keeps its selection
        if (known) return known;
        const row = document.createElement("tr");
        row.dataset.text = text;
        row.append(...texts.map((one) => cell("td", one)));
        return row;
      }),
    );
    const rest = place.querySelector("[data-more]");
    rest.hidden = !more;
    rest.textContent = interpolate(gettext("and %s more"), [more]);
  }
}

function cell(tag, text) {
  const found = document.createElement(tag);
  found.textContent = text;
  return found;
}

module("stats", (root) => {
  const view = new StatsView(root);
  return () => view.close();
});
