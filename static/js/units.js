// Sizes as the docker command line writes them (docker/go-units size.go), so that a figure here can
// be laid beside one of `docker stats`.

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const DECIMAL = ["B", "kB", "MB", "GB", "TB", "PB"];

/** Memory: `12.5MiB`, four digits. */
export const bytesSize = (bytes) => scaled(bytes, 1024, BINARY, 4);

/** Traffic: `1.45kB`, three digits. */
export const humanSize = (bytes) => scaled(bytes, 1000, DECIMAL, 3);

/** `12.34%` */
export const percent = (value) => `${value.toFixed(2)}%`;

function scaled(value, base, units, digits) {
  let unit = 0;
  let left = value;
  while (left >= base && unit < units.length - 1) {
    left /= base;
    unit += 1;
  }
  return `${general(left, digits)}${units[unit]}`;
}

/** C's %.Ng for what is under 1,024: that many digits in all, no zeros at the end. */
function general(value, digits) {
  const text = value.toPrecision(digits);
  return text.includes("e") ? String(Math.round(value)) : String(Number(text));
}

/** The next of 1, 2, 5, 10, 20, 50 … at or above `value`: the top of a scale. `base` 1024 counts
 * within each unit, so that memory's scales are round in MiB. */
export function niceTop(value, base = 1000) {
  let unit = 1;
  while (unit * base <= value) unit *= base;
  for (let step = 1; ; step *= 10) {
    for (const digit of [1, 2, 5]) if (digit * step * unit >= value) return digit * step * unit;
  }
}
