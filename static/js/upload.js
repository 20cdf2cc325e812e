// The source of a build: a folder, a tar or a zip, dropped or chosen. Sending it begins at once;
// "Build" waits.

import { Refused, fromEntry, fromInput, send, sized } from "./send.js";
import { ignoreRules, pack, packedSize } from "./tar.js";

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
    const wanted = () => run === this.run;
    const sent = (bytes) => this.#progress(bytes, size, detail);
    const id = await send(this.box.dataset.uploadsUrl, filename, size, stream, sent, wanted);
    if (id === null) return false;
    this.find("upload-id").value = id;
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

for (const form of document.querySelectorAll("[data-build-form]")) new Source(form);
