import test from 'node:test';
import assert from 'node:assert/strict';
import { applyEdits, diffText, splitLines } from '../../../src/serve/page/diff.js';

const lines = (n, f = (i) => `line ${i}`) => Array.from({ length: n }, (_, i) => f(i)).join('\n');

function check(before, after) {
  const edits = diffText(before, after);
  assert.equal(applyEdits(before, edits), after);
  for (let i = 0; i < edits.length; i++) {
    assert.ok(edits[i].begin >= (edits[i - 1]?.end ?? 0) && edits[i].end >= edits[i].begin, 'ranges ascend');
  }
  return edits;
}

test('equal texts give no edits', () => assert.deepEqual(diffText('a\nb', 'a\nb'), []));

test('one changed word is one short edit', () => {
  assert.deepEqual(check('The ship left on Tuesday.\nEnd', 'The ship left on Wednesday.\nEnd'), [{ begin: 17, end: 18, text: 'Wedn' }]
    .map((edit) => ({ ...edit, end: 17 + 'Tu'.length })));
});

test('changes far apart stay separate edits', () => {
  const before = lines(1000);
  const edits = check(before, before.replace('line 10\n', 'row 10\n').replace('line 500\n', '').replace('line 900\n', 'line 900\nnew\n'));
  assert.equal(edits.length, 3);
  assert.ok(edits.every((edit) => edit.text.length < 10 && edit.end - edit.begin < 12));
});

test('insertions and deletions at the ends', () => {
  for (const [before, after] of [['', 'a'], ['a', ''], ['a\nb', 'x\na\nb'], ['a\nb', 'a\nb\nx'], ['a\nb\n', 'a\nb'], ['a', 'a\n'], ['\n\n', '\n'], ['a\na\na', 'a\na']]) {
    check(before, after);
  }
});

test('characters outside the basic plane are not cut', () => {
  for (const [before, after] of [['x🌍y', 'x🌎y'], ['🌍', '🌍🌎'], ['a🌍', 'a'], ['🌍🌎', '🌎']]) {
    for (const edit of check(before, after)) {
      assert.ok(!/^[\udc00-\udfff]|[\ud800-\udbff]$/.test(edit.text), JSON.stringify(edit));
      assert.ok(!/^[\udc00-\udfff]|[\ud800-\udbff]$/.test(before.slice(edit.begin, edit.end)), JSON.stringify(edit));
    }
  }
});

test('line ends that a text field changed to LF are kept as they were', () => {
  const before = 'one\r\ntwo\r\nthree\nfour\r\n';
  const edits = diffText(before, 'one\ntwo!\nthree\nmore\nfour\n');
  assert.equal(applyEdits(before, edits), 'one\r\ntwo!\r\nthree\nmore\r\nfour\r\n');
});

test('random edits are found again', () => {
  let x = 5;
  const random = (n) => {
    x = (Math.imul(x, 1103515245) + 12345) & 0x7fffffff;
    return (x >> 8) % n;
  };
  for (let round = 0; round < 200; round++) {
    const before = lines(random(40), () => 'abc'.slice(0, random(4)));
    const after = before.split('\n').flatMap((line) => (random(4) === 0 ? [] : random(4) === 0 ? [line, 'new'] : [line])).join('\n');
    check(before, after);
  }
});

test('a completely new text of many lines takes bounded work', () => {
  const edits = check(lines(20000), lines(20000, (i) => `other ${i}!`));
  assert.equal(edits.length, 1);
});

test('lines have ranges and keys without line ends', () => {
  assert.deepEqual(splitLines('a\r\nb').map(({ begin, end, key }) => [begin, end, key]), [[0, 3, 'a'], [3, 4, 'b']]);
});
