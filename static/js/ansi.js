// Terminal colours in log lines: SGR sequences become classes, every other sequence vanishes.
// Nothing here makes HTML from text: callers put the runs into text nodes.

// CSI, OSC (ended by BEL or ST), two-byte escapes, and control characters but tab.
// eslint-disable-next-line no-control-regex
const SEQUENCE = /\x1b\[([0-9;:]*)m|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?|[\x00-\x08\x0b-\x1f\x7f]/g;

const NAMES = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
const FLAGS = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike" };
const OFF = { 22: ["bold", "dim"], 23: ["italic"], 24: ["underline"], 27: ["inverse"], 29: ["strike"] };

/** The text alone, as it is searched and copied. */
export function plain(text) {
  return text.replace(SEQUENCE, "");
}

/** [{ text, classes: "ansi-red ansi-bold", color, background }]; colours are CSS or "". */
export function runs(text) {
  if (!/[\x00-\x08\x0b-\x1f\x7f]/.test(text)) return text ? [{ text, classes: "", color: "", background: "" }] : [];
  const result = [];
  let style = fresh();
  let at = 0;
  for (const match of text.matchAll(SEQUENCE)) {
    if (match.index > at) result.push(run(text.slice(at, match.index), style));
    if (match[1] !== undefined) style = apply(style, match[1]);
    at = match.index + match[0].length;
  }
  if (at < text.length) result.push(run(text.slice(at), style));
  return result;
}

function fresh() {
  return { flags: new Set(), front: "", back: "", color: "", background: "" };
}

function run(text, style) {
  const classes = [...style.flags].map((flag) => `ansi-${flag}`);
  if (style.front) classes.push(`ansi-${style.front}`);
  if (style.back) classes.push(`ansi-on-${style.back}`);
  return { text, classes: classes.join(" "), color: style.color, background: style.background };
}

function apply(before, codes) {
  let style = { ...before, flags: new Set(before.flags) };
  const list = codes.split(/[;:]/).map((code) => Number(code || 0));
  for (let i = 0; i < list.length; i += 1) {
    const code = list[i];
    if (code === 0) style = fresh();
    else if (FLAGS[code]) style.flags.add(FLAGS[code]);
    else if (OFF[code]) OFF[code].forEach((flag) => style.flags.delete(flag));
    else if (code >= 30 && code <= 37) Object.assign(style, { front: NAMES[code - 30], color: "" });
    else if (code >= 90 && code <= 97) Object.assign(style, { front: `bright-${NAMES[code - 90]}`, color: "" });
    else if (code === 39) Object.assign(style, { front: "", color: "" });
    else if (code >= 40 && code <= 47) Object.assign(style, { back: NAMES[code - 40], background: "" });
    else if (code >= 100 && code <= 107) Object.assign(style, { back: `bright-${NAMES[code - 100]}`, background: "" });
    else if (code === 49) Object.assign(style, { back: "", background: "" });
    else if (code === 38 || code === 48) {
      const [name, color, used] = extended(list.slice(i + 1));
      if (code === 38) Object.assign(style, { front: name, color });
      else Object.assign(style, { back: name, background: color });
      i += used;
    }
  }
  return style;
}

/** 38;5;N and 38;2;R;G;B: [name of the 16, css colour, numbers used]. */
function extended(rest) {
  if (rest[0] === 2 && rest.length >= 4) {
    const [red, green, blue] = rest.slice(1, 4).map((value) => Math.min(255, value | 0));
    return ["", `rgb(${red} ${green} ${blue})`, 4];
  }
  if (rest[0] !== 5 || rest.length < 2) return ["", "", rest.length];
  const index = Math.min(255, rest[1] | 0);
  if (index < 8) return [NAMES[index], "", 2];
  if (index < 16) return [`bright-${NAMES[index - 8]}`, "", 2];
  if (index >= 232) {
    const grey = 8 + (index - 232) * 10;
    return ["", `rgb(${grey} ${grey} ${grey})`, 2];
  }
  const step = (value) => (value ? 55 + value * 40 : 0);
  const cube = index - 16;
  return ["", `rgb(${step(Math.floor(cube / 36))} ${step(Math.floor(cube / 6) % 6)} ${step(cube % 6)})`, 2];
}

/** Columns a character takes in a terminal: Hangul, Han, kana and wide symbols take two. */
export function wide(code) {
  if (code < 0x1100) return code >= 0x300 && code < 0x370 ? 0 : 1;
  const double =
    code <= 0x115f || (code >= 0x2e80 && code <= 0xa4cf) || (code >= 0xa960 && code <= 0xa97f) ||
    (code >= 0xac00 && code <= 0xd7a3) || (code >= 0xf900 && code <= 0xfaff) ||
    (code >= 0xfe30 && code <= 0xfe6f) || (code >= 0xff00 && code <= 0xff60) ||
    (code >= 0xffe0 && code <= 0xffe6) || (code >= 0x1f300 && code <= 0x1faff) ||
    (code >= 0x20000 && code <= 0x3fffd);
  return double ? 2 : 1;
}
