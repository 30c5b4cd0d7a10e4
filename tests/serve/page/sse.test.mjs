import test from 'node:test';
import assert from 'node:assert/strict';
import { SseParser, readEvents } from '../../../src/serve/page/sse.js';

const all = (pieces) => {
  const parser = new SseParser();
  return pieces.flatMap((piece) => parser.push(piece));
};

const kStream = '\ufeff: comment\r\nevent: progress\r\ndata: {"a":1}\r\n\r\ndata: one\ndata:two\n\nid: 7\nretry: 5\ndata\n\nevent: empty\n\ndata: last\r\r';
const kEvents = [{ event: 'progress', data: '{"a":1}' }, { event: 'message', data: 'one\ntwo' }, { event: 'message', data: '' }, { event: 'message', data: 'last' }];

test('events are parsed with all line ends, comments and several data lines', () => {
  assert.deepEqual(all([kStream]), kEvents);
});

test('events do not depend on how the stream is cut', () => {
  for (let size = 1; size < 12; size++) {
    const pieces = [];
    for (let i = 0; i < kStream.length; i += size) pieces.push(kStream.slice(i, i + size));
    assert.deepEqual(all(pieces), kEvents, `pieces of ${size}`);
  }
});

test('an unfinished event is not reported', () => {
  assert.deepEqual(all(['data: a\n\ndata: b\n']), [{ event: 'message', data: 'a' }]);
});

test('characters that are cut between two network packets are put together', async () => {
  const data = new TextEncoder().encode('data: Grüße 🌍\n\n');
  const body = new ReadableStream({
    start(controller) {
      for (const byte of data) controller.enqueue(Uint8Array.of(byte));
      controller.close();
    },
  });
  const events = [];
  for await (const event of readEvents(body)) events.push(event);
  assert.deepEqual(events, [{ event: 'message', data: 'Grüße 🌍' }]);
});

test('the source is cancelled when the reader of the events stops early', async () => {
  let cancelled = false;
  const body = new ReadableStream({
    pull(controller) { controller.enqueue(new TextEncoder().encode('data: x\n\n')); },
    cancel() { cancelled = true; },
  });
  for await (const _ of readEvents(body)) break;
  assert.ok(cancelled);
});
