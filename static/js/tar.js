// A tar stream from a folder's files, made piece by piece in the browser: ustar headers, pax
// records where ustar is too narrow. Files are handed on unread: who sends them reads them.
//
// Browsers do not say which files may be executed, so all may, as docker does for folders that
// come from Windows.

const BLOCK = 512;
const encoder = new TextEncoder();

/** entries: [{ path, file | null for a folder }] in order. Yields Uint8Arrays and the files. */
export function* pack(entries) {
  for (const entry of entries) {
    yield header(entry);
    if (!entry.file) continue;
    if (entry.file.size) yield entry.file;
    const rest = entry.file.size % BLOCK;
    if (rest) yield new Uint8Array(BLOCK - rest);
  }
  yield new Uint8Array(2 * BLOCK);
}

/** Bytes that pack(entries) will yield. */
export function packedSize(entries) {
  let total = 2 * BLOCK;
  for (const entry of entries) total += header(entry).length + padded(entry.file?.size ?? 0);
  return total;
}

const padded = (size) => Math.ceil(size / BLOCK) * BLOCK;

function header({ path, file }) {
  const name = encoder.encode(file ? path : `${path}/`);
  const size = file?.size ?? 0;
  const records = [];
  if (name.length > 100 || name.some((byte) => byte > 127)) records.push(["path", name]);
  if (size >= 8 ** 11) records.push(["size", encoder.encode(String(size))]);
  const seconds = Math.floor((file?.lastModified ?? 0) / 1000);
  const main = ustar(name.subarray(0, 100), file ? "0" : "5", size >= 8 ** 11 ? 0 : size, seconds);
  if (!records.length) return main;
  const body = join(records.map(([key, value]) => paxRecord(key, value)));
  const filled = new Uint8Array(padded(body.length));
  filled.set(body);
  return join([ustar(encoder.encode("pax"), "x", body.length, seconds), filled, main]);
}

function ustar(name, type, size, seconds) {
  const block = new Uint8Array(BLOCK);
  const put = (text, at) => block.set(encoder.encode(text), at);
  const octal = (number, width) => number.toString(8).padStart(width - 1, "0");
  block.set(name, 0);
  put(octal(0o755, 8), 100);
  put(octal(0, 8), 108);
  put(octal(0, 8), 116);
  put(octal(size, 12), 124);
  put(octal(Math.max(seconds, 0), 12), 136);
  put("        ", 148);
  put(type, 156);
  put("ustar\u000000", 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(`${octal(sum, 7)}\u0000 `, 148);
  return block;
}

/** "LENGTH key=value\n", where LENGTH counts itself. */
function paxRecord(key, value) {
  const tail = join([encoder.encode(` ${key}=`), value, encoder.encode("\n")]);
  let length = tail.length + 1;
  while (String(length).length + tail.length !== length) length = String(length).length + tail.length;
  return join([encoder.encode(String(length)), tail]);
}

function join(parts) {
  const whole = new Uint8Array(parts.reduce((total, part) => total + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** .dockerignore as Docker reads it: the last pattern that fits a path or a folder above it
 * decides. Saves the upload only; the engine applies the file again. */
export function ignoreRules(text) {
  const rules = text
    .split("\n")
    .map((raw) => raw.trim())
    .filter((raw) => raw && !raw.startsWith("#"))
    .map((raw) => {
      const keeps = raw.startsWith("!");
      const pattern = (keeps ? raw.slice(1) : raw).trim().replace(/^\.?\/+/, "").replace(/\/+$/, "");
      return { keeps, regex: new RegExp(`^${glob(pattern)}(/|$)`) };
    });
  return (path) => {
    let ignored = false;
    for (const { keeps, regex } of rules) if (regex.test(path)) ignored = !keeps;
    return ignored;
  };
}

function glob(pattern) {
  let out = "";
  for (let at = 0; at < pattern.length; at += 1) {
    const char = pattern[at];
    if (pattern.startsWith("**/", at)) {
      out += "(.*/)?";
      at += 2;
    } else if (pattern.startsWith("**", at)) {
      out += ".*";
      at += 1;
    } else if (char === "*") out += "[^/]*";
    else if (char === "?") out += "[^/]";
    else if (char === "[" && pattern.indexOf("]", at) > at) {
      const end = pattern.indexOf("]", at);
      out += `[${pattern.slice(at + 1, end).replace(/^[!^]/, "^").replaceAll("\\", "\\\\")}]`;
      at = end;
    } else if (char === "\\" && at + 1 < pattern.length) {
      at += 1;
      out += escape(pattern[at]);
    } else out += escape(char);
  }
  return out;
}

const escape = (char) => char.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&");
