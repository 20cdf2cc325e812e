// A container's log as conmon writes it, bytes in, lines out: `TIME stdout|stderr F|P text`.
// P means the line goes on; a line may be cut anywhere, also inside a character.

const NEWLINE = 10;
const SPACE = 32;
const ascii = new TextDecoder("latin1");

export class LogParser {
  #rest = new Uint8Array(0);
  #open = [null, null];
  #decoders = [new TextDecoder(), new TextDecoder()];

  /** `onLine(line)` for every new line, `onMore(line)` when an open one has grown.
   *  line: { time, stream: 1 | 2, text, open } */
  constructor(onLine, onMore) {
    this.onLine = onLine;
    this.onMore = onMore;
  }

  push(bytes) {
    let data = bytes;
    if (this.#rest.length) {
      data = new Uint8Array(this.#rest.length + bytes.length);
      data.set(this.#rest);
      data.set(bytes, this.#rest.length);
    }
    let start = 0;
    for (;;) {
      const end = data.indexOf(NEWLINE, start);
      if (end < 0) break;
      this.#line(data.subarray(start, end));
      start = end + 1;
    }
    this.#rest = data.slice(start);
  }

  /** Bytes were skipped: what was begun cannot be finished. */
  reset() {
    this.#rest = new Uint8Array(0);
    this.#open = [null, null];
    this.#decoders = [new TextDecoder(), new TextDecoder()];
  }

  #line(entry) {
    const first = entry.indexOf(SPACE);
    const second = entry.indexOf(SPACE, first + 1);
    if (first < 0 || second < 0) return;
    const stream = entry[first + 4] === 101 /* std(e)rr */ ? 2 : 1;
    const whole = entry[second + 1] === 70; /* F */
    const text = this.#decoders[stream - 1].decode(entry.subarray(second + 3), { stream: !whole });
    const line = this.#open[stream - 1];
    if (line) {
      line.text += text;
      line.open = !whole;
      this.onMore(line);
    } else {
      const time = ascii.decode(entry.subarray(0, first));
      const made = { time, stream, text, open: !whole };
      this.onLine(made);
      if (!whole) this.#open[stream - 1] = made;
    }
    if (whole) this.#open[stream - 1] = null;
  }
}

/** What stands on the line at last, as a terminal shows it. */
export { settled as shown } from "./termline.js";
