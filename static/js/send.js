// Files from the browser to the server: chosen or dropped ones read, sent in pieces of at most 8 MiB
// that are taken up again where the connection broke.

const PIECE = 8 * 1024 * 1024;
const RETRY_MS = [500, 1000, 2000, 4000, 8000, 8000, 8000];

/** What the server will not have, in its own words. */
export class Refused extends Error {}

/** Send a stream of arrays and files as one upload; its id, or null as soon as it is not `wanted`
 * any more. `onProgress` hears how many bytes have gone. Throws Refused. */
export async function send(address, filename, size, stream, onProgress, wanted = () => true) {
  const form = new URLSearchParams({ filename, size: String(size) });
  const upload = await request("POST", address, form);
  let offset = 0;
  for (const piece of pieces(stream)) {
    if (!wanted()) return null;
    const at = offset;
    const sent = (bytes) => wanted() && onProgress(at + bytes);
    const answer = await request("PUT", upload.url, piece, { "Upload-Offset": String(at) }, sent);
    offset = at + piece.size;
    if (answer.offset < offset) throw new Refused(gettext("The upload broke off. Try again."));
  }
  await request("POST", `${upload.url}finish/`, new URLSearchParams());
  return wanted() ? upload.id : null;
}

// ---------------------------------------------------------------- folders

export function fromInput(list) {
  const files = [...list];
  const name = files[0].webkitRelativePath.split("/")[0];
  const entries = files.map((file) => ({
    path: file.webkitRelativePath.split("/").slice(1).join("/"),
    file,
  }));
  return { name, entries };
}

export async function fromEntry(root) {
  const entries = [];
  async function walk(folder, prefix) {
    const reader = folder.createReader();
    for (;;) {
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!some.length) return;
      for (const entry of some) {
        const path = `${prefix}${entry.name}`;
        if (entry.isDirectory) {
          entries.push({ path, file: null });
          await walk(entry, `${path}/`);
        } else {
          entries.push({ path, file: await new Promise((done, failed) => entry.file(done, failed)) });
        }
      }
    }
  }
  await walk(root, "");
  return entries;
}

// ---------------------------------------------------------------- sending

/** Regroup arrays and files into Blobs of PIECE bytes; no byte of a file is read for it. */
function* pieces(stream) {
  let parts = [];
  let filled = 0;
  for (const chunk of stream) {
    const length = chunk.size ?? chunk.length;
    for (let at = 0; at < length; ) {
      const take = Math.min(length - at, PIECE - filled);
      parts.push(chunk.slice(at, at + take));
      filled += take;
      at += take;
      if (filled === PIECE) {
        yield new Blob(parts);
        parts = [];
        filled = 0;
      }
    }
  }
  if (filled) yield new Blob(parts);
}

/** A request that outlives a broken connection: a piece sent again is harmless. */
export async function request(method, address, body, headers = {}, onProgress = undefined) {
  for (let attempt = 0; ; attempt += 1) {
    const { status, answer } = await once(method, address, body, headers, onProgress);
    if (status >= 200 && status < 300) return answer;
    // A file that changed since it was chosen breaks the request too: reading it says so.
    if (status === 0 && body instanceof Blob) await body.arrayBuffer();
    const again = status === 0 || status === 429 || (status >= 500 && status !== 507);
    if (again && attempt < RETRY_MS.length) {
      await new Promise((done) => setTimeout(done, RETRY_MS[attempt]));
      continue;
    }
    if (status === 401) throw new Refused(gettext("You are signed out. Sign in again, then choose the source once more."));
    const words = [answer.error, answer.hint].filter(Boolean).join(" ");
    throw new Refused(words || gettext("The server does not answer. Try again in a moment."));
  }
}

function once(method, address, body, headers, onProgress) {
  return new Promise((done) => {
    const xhr = new XMLHttpRequest(); // fetch reports no progress of what is sent
    xhr.open(method, address);
    xhr.setRequestHeader("Accept", "application/json");
    xhr.setRequestHeader("X-CSRFToken", document.body.dataset.csrf);
    if (body instanceof Blob) {
      xhr.setRequestHeader("Content-Type", "application/octet-stream");
    }
    for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
    if (onProgress) xhr.upload.onprogress = (event) => onProgress(event.loaded);
    xhr.onloadend = () => {
      let answer = {};
      try {
        answer = JSON.parse(xhr.responseText);
      } catch {
        // no JSON: an answer of something in between, its status says enough
      }
      done({ status: xhr.status, answer });
    };
    xhr.send(body);
  });
}

export function sized(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let number = bytes;
  let unit = 0;
  while (number >= 999.5 && unit < 4) {
    number /= 1000;
    unit += 1;
  }
  return `${number.toFixed(number < 9.95 && unit ? 1 : 0)} ${units[unit]}`;
}
