import assert from "node:assert/strict";
import { test } from "node:test";

import { bytesSize, humanSize, niceTop, percent } from "../../static/js/units.js";

test("memory, as docker/go-units' own examples have it", () => {
  assert.equal(bytesSize(0), "0B");
  assert.equal(bytesSize(1024), "1KiB");
  assert.equal(bytesSize(1024 * 1024), "1MiB");
  assert.equal(bytesSize(2 * 1024 * 1024), "2MiB");
  assert.equal(bytesSize(3.42 * 1024 ** 3), "3.42GiB");
  assert.equal(bytesSize(5.372 * 1024 ** 4), "5.372TiB");
  assert.equal(bytesSize(2.22 * 1024 ** 5), "2.22PiB");
  assert.equal(bytesSize(1023 * 1024 + 512), "1024KiB"); // %.4g of 1023.5
});

test("traffic: powers of ten, three digits", () => {
  assert.equal(humanSize(0), "0B");
  assert.equal(humanSize(1000), "1kB");
  assert.equal(humanSize(1450), "1.45kB");
  assert.equal(humanSize(12_345_678), "12.3MB");
  assert.equal(humanSize(999), "999B");
  assert.equal(humanSize(710.4), "710B");
});

test("percent has two places", () => {
  assert.equal(percent(0), "0.00%");
  assert.equal(percent(198.777), "198.78%");
});

test("scales end at round figures", () => {
  assert.equal(niceTop(5), 5);
  assert.equal(niceTop(49.3), 50);
  assert.equal(niceTop(101), 200);
  assert.equal(niceTop(1000), 1000);
  assert.equal(niceTop(1_230_000), 2_000_000);
  assert.equal(niceTop(1.2 * 1024 * 1024, 1024), 2 * 1024 * 1024);
  assert.equal(niceTop(70 * 1024 * 1024, 1024), 100 * 1024 * 1024);
});
