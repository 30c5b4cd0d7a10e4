import test from 'node:test';
import assert from 'node:assert/strict';
import { TextIndex, utf8Length } from '../../../src/serve/page/offsets.js';
import { blockStarts } from '../../../src/serve/page/document_view.js';
import { sectionStarts } from '../../../src/serve/page/editor.js';

const kParts = ['a', 'é', '中', '🌍', '\n', ' ', '\r\n'];

// A small generator of random numbers: tests must repeat.
const randomText = (length, seed) => {
  let text = '';
  for (let x = seed; text.length < length;) {
    x = (Math.imul(x, 1103515245) + 12345) & 0x7fffffff;
    text += kParts[(x >> 16) % kParts.length];
  }
  return text;
};

test('offsets agree with TextEncoder at every character of mixed texts', () => {
  for (const seed of [1, 2, 3]) {
    const text = randomText(3000, seed);
    const index = new TextIndex(text);
    const encoder = new TextEncoder();
    assert.equal(index.bytes, encoder.encode(text).length);
    let byte = 0;
    let i = 0;
    for (const character of text) {
      assert.equal(index.toByte(i), byte);
      assert.equal(index.toIndex(byte), i);
      const size = encoder.encode(character).length;
      for (let k = 1; k < size; k++) assert.equal(index.toIndex(byte + k), i, 'inside a character');
      byte += size;
      i += character.length;
    }
  }
});

test('offsets outside of the text are clamped', () => {
  const index = new TextIndex('äb');
  assert.deepEqual([index.toIndex(-5), index.toIndex(99), index.toByte(-1), index.toByte(99), index.toIndex(NaN)], [0, 2, 0, 3, 0]);
  assert.deepEqual([new TextIndex('').bytes, new TextIndex('').toIndex(0)], [0, 0]);
});

test('a lone surrogate counts as the character that replaces it', () => {
  assert.equal(utf8Length('a\ud83c'), new TextEncoder().encode('a\ud83c').length);
});

test('blocks and sections cover a text, keep characters whole and are bounded', () => {
  for (const text of [randomText(30000, 7), 'x'.repeat(30000), 'word '.repeat(6000), '🌍'.repeat(9000), '\n'.repeat(9000), '', 'a']) {
    for (const [starts, limit] of [[blockStarts(text), 4001], [sectionStarts(text, 5000), 5001]]) {
      assert.equal(starts[0], 0);
      for (let i = 0; i < starts.length; i++) {
        const end = starts[i + 1] ?? text.length;
        assert.ok(end - starts[i] <= limit && (end > starts[i] || text === ''));
        assert.ok(!/[\udc00-\udfff]/.test(text[starts[i]] ?? ''), 'a pair is cut');
      }
    }
  }
});
