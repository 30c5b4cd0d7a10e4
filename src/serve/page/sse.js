// Server-sent events: a parser for text that arrives in pieces, and a reader for a fetch response.

/** Parses an event stream. `push` returns the events that the new piece completes. */
export class SseParser {
  #line = [];       // pieces of the unfinished line
  #skipLf = false;  // the last piece ended with CR; a LF that follows belongs to it
  #first = true;    // a byte order mark is allowed before the first line
  #event = '';
  #data = [];

  push(piece) {
    const events = [];
    let begin = 0;
    for (let i = 0; i < piece.length; i++) {
      const c = piece.charCodeAt(i);
      if (c !== 10 && c !== 13) {
        this.#skipLf = false;
        continue;
      }
      if (c === 10 && this.#skipLf) {
        this.#skipLf = false;
        begin = i + 1;
        continue;
      }
      this.#skipLf = c === 13;
      this.#line.push(piece.slice(begin, i));
      begin = i + 1;
      const line = this.#line.join('');
      this.#line = [];
      this.#finishLine(line, events);
    }
    if (begin < piece.length) this.#line.push(piece.slice(begin));
    return events;
  }

  #finishLine(line, events) {
    if (this.#first) {
      this.#first = false;
      if (line.startsWith('\ufeff')) line = line.slice(1);
    }
    if (line === '') {
      if (this.#data.length > 0) events.push({ event: this.#event || 'message', data: this.#data.join('\n') });
      this.#event = '';
      this.#data = [];
      return;
    }
    const colon = line.indexOf(':');
    if (colon === 0) return;  // comment
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? '' : line.slice(colon + 1);
    if (value.startsWith(' ')) value = value.slice(1);
    if (field === 'event') this.#event = value;
    if (field === 'data') this.#data.push(value);
  }
}

/** Yields the events of a fetch response body. An unfinished event at the end is ignored. */
export async function* readEvents(body) {
  const parser = new SseParser();
  const decoder = new TextDecoder();
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
