// One line of a terminal's output as it stands at last: programs that edit a line in place (a
// shell's prompt, node's, a progress bar) write it over and over with moves of the cursor.

// A cursor move, an erasure or a colour; any other sequence; or one character.
// eslint-disable-next-line no-control-regex
const TOKEN = /\x1b\[([0-9;:]*)([CDGJKPm@])|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?|\r|\x08|[^]/gu;
// eslint-disable-next-line no-control-regex
const MOVES = /\r(?!$)|\x08|\x1b\[[0-9;]*[CDGJKP@]/;
// Hangul, kana, CJK and full-width forms take two columns.
const WIDE = /^[\u1100-\u115f\u2e80-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|^[\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u;
const MOST = 4096; // columns: nobody edits a longer line in place

/** The line's text with its colours and without moves; a plain line comes back as it is. */
export function settled(text) {
  const line = text.endsWith("\r") ? text.slice(0, -1) : text;
  if (!MOVES.test(line)) return line;
  const cells = []; // { text, pen }; the second column of a wide one is null
  let at = 0;
  let pen = "";
  const erase = (from, to) => {
    for (let i = from; i < Math.min(to, cells.length); i += 1) cells[i] = { text: " ", pen: "" };
  };
  for (const [token, numbers, command] of line.matchAll(TOKEN)) {
    const count = Math.max(1, Number.parseInt(numbers, 10) || 0);
    if (token === "\r") at = 0;
    else if (token === "\b") at = Math.max(0, at - 1);
    else if (command === "m") pen = /^(0?|.*;0?)$/.test(numbers) ? "" : pen + token;
    else if (command === "G") at = Math.min(count - 1, MOST);
    else if (command === "C") at = Math.min(at + count, MOST);
    else if (command === "D") at = Math.max(0, at - count);
    else if (command === "P") cells.splice(at, count);
    else if (command === "@") cells.splice(at, 0, ...Array.from({ length: Math.min(count, MOST) }, () => ({ text: " ", pen: "" })));
    else if (command === "J" || command === "K") {
      const how = Number.parseInt(numbers, 10) || 0;
      if (how === 0) cells.length = Math.min(cells.length, at);
      else if (how === 1) erase(0, at + 1);
      else cells.length = 0;
    } else if (token[0] !== "\x1b") {
      while (cells.length < at) cells.push({ text: " ", pen: "" });
      cells[at] = { text: token, pen };
      at += 1;
      if (WIDE.test(token)) {
        cells[at] = null;
        at += 1;
      }
    }
  }
  let result = "";
  let last = "";
  for (const cell of cells) {
    if (!cell) continue;
    if (cell.pen !== last) {
      result += `\x1b[0m${cell.pen}`;
      last = cell.pen;
    }
    result += cell.text;
  }
  return last ? `${result}\x1b[0m` : result.trimEnd();
}
