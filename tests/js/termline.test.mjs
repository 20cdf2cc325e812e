import assert from "node:assert/strict";
import { test } from "node:test";

import { settled } from "../../static/js/termline.js";

test("a plain line, and one that only ends in a carriage return", () => {
  assert.equal(settled("hello"), "hello");
  assert.equal(settled("hello\r"), "hello");
});

test("a carriage return writes over what was there", () => {
  assert.equal(settled("10 %\r100 %"), "100 %");
  assert.equal(settled("abcdef\rxy"), "xycdef");
});

test("node's prompt: the line is cleared and written anew at each key", () => {
  assert.equal(settled("\x1b[1G\x1b[0J> \x1b[3G6*7\r"), "> 6*7");
  assert.equal(settled("> 6\x1b[1G\x1b[0J> 6*\x1b[5G7"), "> 6*7");
});

test("a backspace and an erasure to the end", () => {
  assert.equal(settled("lss\b\x1b[K"), "ls");
});

test("Hangul takes two columns", () => {
  assert.equal(settled("한글\x1b[1G\x1b[4Cx"), "한글x");
  assert.equal(settled("한\x1b[3G글"), "한글");
});

test("colours stay where they were written", () => {
  assert.equal(settled("\x1b[32mok\x1b[0m\r\x1b[2C!"), "\x1b[0m\x1b[32mok\x1b[0m!");
});

test("characters deleted and inserted", () => {
  assert.equal(settled("abcd\x1b[2G\x1b[2P"), "ad");
  assert.equal(settled("ad\x1b[2G\x1b[1@b"), "abd");
});

test("an absurd column costs no memory", () => {
  assert.ok(settled("\x1b[999999999Gx").length <= 4200);
});
