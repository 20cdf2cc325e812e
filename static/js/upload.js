// The source of a build: a folder, a tar or a zip, dropped or chosen, sent in pieces of at most
// 8 MiB that are taken up again where the connection broke. It begins at once; "Build" waits.

import { ignoreRules, pack, packedSize } from "./tar.js";

const PIECE = 8 * 1024 * 1024;
const RETRY_MS = [500, 1000, 2000, 4000, 8000, 8000, 8000];
const ARCHIVE = /\.(tar|tar\.\w+|tgz|txz|tbz2|tzst|zip)$/i;

class Source {
  constructor(form) {
    this.form = form;
    this.box = form.querySelector("[data-source]");
    this.run = 0; // rises with each choice, so that an older upload knows it is over
    this.done = Promise.resolve(true);
    this.area = form.querySelector("[data-editor] textarea");
    // The folder's Dockerfile, as it was put into the editor
    this.auto = form.querySelector("[data-editor][data-untouched]") ? this.area.value : null;
    this.#wire();
  }

  find(name) {
    return this.box.querySelector(`[data-${name}]`);
  }

  #wire() {
    for (const name of ["drop-word", "pick-folder", "pick-archive"]) this.find(name).hidden = false;
    const file = this.find("plain-file").querySelector("input");
    const folder = this.find("folder-input");
    this.find("plain-file").hidden = true;
    this.find("pick-folder").onclick = () => folder.click();
    this.find("pick-archive").onclick = () => file.click();
    folder.onchange = () => {
      if (!folder.files.length) return;
      const { name, entries } = fromInput(folder.files);
      this.folder(name, Promise.resolve(entries));
    };
    file.onchange = () => {
      const chosen = file.files[0];
      file.value = ""; // it goes in pieces, not with the form
      if (chosen) this.archive(chosen);
    };
    this.find("upload-clear").onclick = () => this.clear();
    const drop = this.find("drop");
    const over = (on) => (event) => {
      event.preventDefault();
      drop.classList.toggle("over", on);
    };
    drop.addEventListener("dragover", over(true));
    drop.addEventListener("dragleave", over(false));
    drop.addEventListener("drop", (event) => {
      over(false)(event);
      this.#dropped(event.dataTransfer);
    });
    this.form.addEventListener("submit", (event) => this.#submit(event));
    this.form.addEventListener("formdata", (event) => {
      // Untouched, the folder's own Dockerfile is the one that counts.
      if (this.auto === null || this.area.value !== this.auto) return;
      event.formData.set("dockerfile", "");
      event.formData.set("dockerfile_seen", this.auto);
    });
    if (this.find("upload-id").value) this.#show(true);
  }

  #dropped(transfer) {
    const entry = transfer.items[0]?.webkitGetAsEntry?.();
    if (entry?.isDirectory) this.folder(entry.name, fromEntry(entry));
    else if (transfer.files[0]) this.archive(transfer.files[0]);
  }

  clear() {
    this.run += 1;
    this.done = Promise.resolve(true);
    this.find("upload-id").value = "";
    this.find("folder-input").value = "";
    if (this.auto !== null && this.area.value === this.auto) this.#fill("");
    this.auto = null;
    this.#problem("");
    this.#show(false);
  }

  archive(file) {
    if (!ARCHIVE.test(file.name)) {
      this.#problem(gettext("Choose a folder, a .tar (also .tar.gz, .tar.xz, .tar.zst) or a .zip."));
      return;
    }
    this.#begin(file.name, (run) => this.#send(run, file.name, file.size, [file]));
  }

  /** `reading` gives the entries; a large folder takes a while, and "Build" waits for that too. */
  folder(name, reading) {
    this.#begin(name, async (run) => this.#folder(run, name, await reading));
  }

  async #folder(run, name, entries) {
    const read = async (path) => entries.find((entry) => entry.path === path)?.file?.text();
    const ignored = ignoreRules((await read(".dockerignore")) ?? "");
    const where = this.form.elements.dockerfile_path?.value.trim() || "Dockerfile";
    const kept = entries
      .filter(({ path }) => path === where || path === ".dockerignore" || !ignored(path))
      .sort((a, b) => (a.path < b.path ? -1 : 1));
    const dockerfile = await read(where);
    if (run !== this.run) return false;
    if (dockerfile !== undefined && (!this.area.value.trim() || this.area.value === this.auto || this.form.closest("details"))) {
      this.#fill(dockerfile);
      this.auto = this.area.value; // as the control keeps it: line ends are its own
    }
    const files = kept.filter((entry) => entry.file).length;
    const words = ngettext("%s file", "%s files", files);
    return this.#send(run, `${name}.tar`, packedSize(kept), pack(kept), interpolate(words, [files]));
  }

  #fill(text) {
    this.area.value = text;
    this.area.dispatchEvent(new Event("quayside:filled"));
  }

  #begin(shown, work) {
    this.run += 1;
    const run = this.run;
    this.#problem("");
    this.find("upload-id").value = "";
    this.find("upload-name").textContent = shown;
    this.find("upload-detail").textContent = "";
    this.find("upload-bar").removeAttribute("value");
    this.#show(true);
    this.done = work(run).catch((error) => {
      if (run !== this.run) return false;
      this.#show(false);
      this.#problem(
        error instanceof Refused
          ? error.message
          : gettext("A file could not be read, perhaps it changed meanwhile. Choose the source again."),
      );
      return false;
    });
  }

  async #send(run, filename, size, stream, detail = "") {
    this.#progress(0, size, detail);
    const form = new URLSearchParams({ filename, size: String(size) });
    const upload = await request("POST", this.box.dataset.uploadsUrl, form);
    let offset = 0;
    for (const piece of pieces(stream)) {
      if (run !== this.run) return false;
      const at = offset;
      const sent = (bytes) => run === this.run && this.#progress(at + bytes, size, detail);
      const answer = await request("PUT", upload.url, piece, { "Upload-Offset": String(at) }, sent);
      offset = at + piece.size;
      if (answer.offset < offset) throw new Refused(gettext("The upload broke off. Try again."));
    }
    await request("POST", `${upload.url}finish/`, new URLSearchParams());
    if (run !== this.run) return false;
    this.find("upload-id").value = upload.id;
    this.#progress(size, size, detail);
    return true;
  }

  #progress(now, size, detail) {
    const bar = this.find("upload-bar");
    bar.max = Math.max(size, 1);
    bar.value = now;
    const done = now >= size && this.find("upload-id").value;
    bar.classList.toggle("done", Boolean(done));
    const bytes = done ? sized(size) : `${sized(now)} / ${sized(size)}`;
    const state = done ? gettext("uploaded") : "";
    this.find("upload-detail").textContent = [detail, bytes, state].filter(Boolean).join(" · ");
  }

  #show(chosen) {
    this.find("drop-idle").hidden = chosen;
    this.find("drop-busy").hidden = !chosen;
  }

  #problem(text) {
    const place = this.find("upload-error");
    place.hidden = !text;
    place.textContent = text;
  }

  async #submit(event) {
    if (this.find("upload-id").value || this.find("drop-busy").hidden) return;
    event.preventDefault();
    event.stopPropagation();
    const button = this.form.querySelector("[data-build-submit]");
    button.setAttribute("aria-busy", "true");
    const done = await this.done;
    button.removeAttribute("aria-busy");
    if (done) this.form.requestSubmit(button);
  }
}

// ---------------------------------------------------------------- folders

function fromInput(list) {
  const files = [...list];
  const name = files[0].webkitRelativePath.split("/")[0];
  const entries = files.map((file) => ({
    path: file.webkitRelativePath.split("/").slice(1).join("/"),
    file,
  }));
  return { name, entries };
}

async function fromEntry(root) {
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

class Refused extends Error {}

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
async function request(method, address, body, headers = {}, onProgress = undefined) {
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

function sized(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let number = bytes;
  let unit = 0;
  while (number >= 999.5 && unit < 4) {
    number /= 1000;
    unit += 1;
  }
  return `${number.toFixed(number < 9.95 && unit ? 1 : 0)} ${units[unit]}`;
}

for (const form of document.querySelectorAll("[data-build-form]")) new Source(form);
