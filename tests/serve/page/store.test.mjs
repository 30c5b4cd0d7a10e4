import test from 'node:test';
import assert from 'node:assert/strict';
import { MemoryStorage, Store, packStrip, toMarkdown, unpackStrip } from '../../../src/serve/page/store.js';
import { contextName, duration, excerpt, bytes } from '../../../src/serve/page/format.js';
import { decodeText } from '../../../src/serve/page/reader.js';
import { locate } from '../../../src/serve/page/conversation.js';
import { TextIndex } from '../../../src/serve/page/offsets.js';

const chat = (id, updated, size = 10, context = 'book') => ({ id, context, title: id, updated, messages: [{ role: 'user', content: 'x'.repeat(size) }] });

test('conversations are listed by context, newest first, and loaded again', () => {
  const storage = new MemoryStorage();
  new Store(storage).save(chat('a', 1));
  new Store(storage).save(chat('b', 2));
  new Store(storage).save(chat('c', 3, 10, null));
  const store = new Store(storage);
  assert.deepEqual(store.list('book').map((meta) => meta.id), ['b', 'a']);
  assert.deepEqual(store.list(null).map((meta) => meta.id), ['c']);
  assert.deepEqual(store.load('a'), chat('a', 1));
  store.remove('a');
  assert.equal(store.load('a'), null);
});

test('a full storage deletes the oldest other conversations', () => {
  const store = new Store(new MemoryStorage(3000));
  for (let i = 0; i < 5; i++) assert.equal(store.save(chat(`c${i}`, i, 400)).saved, true);
  const result = store.save(chat('c1', 9, 1500));
  assert.equal(result.saved, true);
  assert.ok(result.deleted > 0);
  assert.ok(store.load('c1') !== null && store.load('c0') === null);
  assert.equal(store.save(chat('big', 10, 5000)).saved, false);
});

test('damaged records are ignored', () => {
  const storage = new MemoryStorage();
  storage.setItem('fathom.meta.x', '{');
  storage.setItem('fathom.messages.x', '[]');
  assert.deepEqual(new Store(storage).list(null), []);
  assert.equal(new Store(storage).load('x'), null);
  assert.equal(new Store(storage).get('theme', 'system'), 'system');
});

test('strips keep their values within 1 % when packed', () => {
  const strip = Array.from({ length: 256 }, (_, i) => i / 255);
  unpackStrip(packStrip(strip)).forEach((value, i) => assert.ok(Math.abs(value - strip[i]) < 0.01));
  assert.deepEqual(unpackStrip(packStrip([NaN, -1, 2])), [0, 0, 1]);
});

test('export as Markdown names the passages', () => {
  const text = toMarkdown({ title: 'T', context: 'book', messages: [{ role: 'user', content: 'Q' }, { role: 'assistant', content: 'A',
    attention: { passages: [{ begin: 1, end: 9, share: 0.5, excerpt: 'quoted' }] } }] });
  assert.match(text, /# T[\s\S]*Q[\s\S]*A[\s\S]*50 % of attention, bytes 1–9: “quoted”/);
});

test('context names keep to the allowed characters and are not taken', () => {
  assert.equal(contextName('Moby Dick (1851).txt'), 'Moby-Dick-1851');
  assert.equal(contextName('Größe.md'), 'Gro-e');
  assert.equal(contextName('中.txt'), 'text');
  assert.equal(contextName('a.txt', ['a', 'a-2']), 'a-3');
  assert.match(contextName('x'.repeat(200), ['x'.repeat(60)]), /^[A-Za-z0-9._-]{1,64}$/);
});

test('figures', () => {
  assert.deepEqual([duration(2.25), duration(59), duration(125), duration(7300)], ['2.3 s', '59 s', '2 min 5 s', '2 h 1 min']);
  assert.deepEqual([bytes(10), bytes(2048), bytes(300 * 2 ** 20)], ['10 B', '2.0 KiB', '300 MiB']);
  assert.equal(excerpt('a  b\n c', 10), 'a b c');
  assert.equal(excerpt('abcdefghij', 5), 'abcd…');
});

test('files in several encodings become text; binary files are refused', () => {
  const encode = (...bytes) => Uint8Array.from(bytes).buffer;
  assert.deepEqual(decodeText(new TextEncoder().encode('\ufeffé').buffer), { text: 'é', encoding: 'UTF-8' });
  assert.deepEqual(decodeText(encode(0xff, 0xfe, 0xe9, 0)), { text: 'é', encoding: 'UTF-16' });
  assert.deepEqual(decodeText(encode(0x61, 0xe9)), { text: 'aé', encoding: 'Windows-1252' });
  assert.throws(() => decodeText(encode(1, 0, 2)), /not a text/);
});

test('passages are found again after an edit, and left out when they are gone', () => {
  const attention = { strip: '', passages: [{ begin: 3, end: 9, share: 0.5, length: 6, excerpt: 'second' }, { begin: 0, end: 2, share: 0.1, length: 2, excerpt: 'zz' }] };
  assert.deepEqual(locate(attention, new TextIndex('é, new second')).passages, [{ begin: 7, end: 13, share: 0.5, number: 0 }]);
});
