// Requests to the server. Errors are ApiError with a text that a user can act on.

import { readEvents } from './sse.js';
import { bytes } from './format.js';

const kRetryDelays = [400, 1000, 2500];  // ms, for GET only

export class ApiError extends Error {
  constructor(message, { status = 0, type = 'error', code = '', retryAfter = 0, hint = '' } = {}) {
    super(message);
    Object.assign(this, { status, type, code, retryAfter, hint });
  }
}

export const isAbort = (error) => error instanceof DOMException && error.name === 'AbortError';

export class Api {
  /**
   * askKey(wrong): resolves to an API key, or null if the user cancels.
   * onConnection(connected): called when a request fails to reach the server, and when one succeeds again.
   */
  constructor({ askKey, onConnection, base = new URL('.', document.baseURI) }) {
    Object.assign(this, { askKey, onConnection, base });
    this.keyRequest = null;
    this.key = readKey();
  }

  props(signal) { return this.getJson('props', signal); }
  async contexts() { return (await this.getJson('v1/contexts')).data; }

  /** Text of a context and its entity tag, if the server sends one. A byte order mark is kept: offsets count it. */
  async text(name, signal) {
    const response = await this.#get(path(name, '/text'), signal);
    const buffer = await response.arrayBuffer();
    return { text: new TextDecoder('utf-8', { ignoreBOM: true }).decode(buffer), tag: response.headers.get('ETag') };
  }

  /** Reads a text into a context; returns the context. Aborting the signal cancels the reading. */
  readText(name, text, onProgress, signal) {
    return this.#job('PUT', path(name), text, { 'Content-Type': 'text/plain; charset=utf-8' }, onProgress, signal);
  }

  /** Applies edits with byte ranges; returns {tokens, read, moved, kept, seconds, context}. */
  edit(name, edits, { exact, tag }, onProgress, signal) {
    const headers = { 'Content-Type': 'application/json' };
    if (tag) headers['If-Match'] = tag;
    return this.#job('POST', path(name, '/edits'), JSON.stringify(exact ? { edits, exact } : { edits }), headers, onProgress, signal);
  }

  async remove(name) { await this.#send('DELETE', path(name)); }

  /** Yields the chunks of a chat completion. Throws ApiError for an error before or inside the stream. */
  async *chat(request, signal) {
    const response = await this.#send('POST', 'v1/chat/completions', {
      body: JSON.stringify(request), signal,
      headers: { 'Content-Type': 'application/json', Accept: 'text/event-stream' },
    });
    for await (const event of this.#events(response)) {
      if (event.data === '[DONE]') return;
      const chunk = parseJson(event.data);
      if (chunk.error) throw apiError(chunk.error);
      yield chunk;
    }
    throw this.#lost('The connection closed before the answer was complete.');
  }

  async getJson(where, signal) { return parseJson(await (await this.#get(where, signal)).text()); }

  async #job(method, where, body, headers, onProgress, signal) {
    const response = await this.#send(method, where, { body, signal, headers: { ...headers, Accept: 'text/event-stream' } });
    if (!(response.headers.get('Content-Type') ?? '').includes('event-stream')) return parseJson(await response.text());
    for await (const event of this.#events(response)) {
      const data = parseJson(event.data);
      if (event.event === 'progress') onProgress(data);
      if (event.event === 'error') throw apiError(data.error ?? {});
      if (event.event === 'done') return data;
    }
    throw this.#lost('The connection closed before the work was done.');
  }

  async *#events(response) {
    try {
      yield* readEvents(response.body);
    } catch (error) {
      if (isAbort(error)) throw error;
      throw this.#lost('The connection was lost.');
    }
  }

  async #get(where, signal) {
    for (const delay of kRetryDelays) {
      try {
        return await this.#send('GET', where, { signal });
      } catch (error) {
        if (!(error instanceof ApiError) || error.code !== 'connection') throw error;
        await new Promise((resolve) => setTimeout(resolve, delay));
      }
    }
    return this.#send('GET', where, { signal });
  }

  async #send(method, where, { body, headers = {}, signal } = {}) {
    for (let wrong = false;; wrong = true) {
      const sent = this.key;
      const all = sent ? { ...headers, Authorization: `Bearer ${sent}` } : headers;
      let response;
      try {
        response = await fetch(new URL(where, this.base), { method, body, headers: all, signal, cache: 'no-store' });
      } catch (error) {
        if (isAbort(error)) throw error;
        throw this.#lost('The server cannot be reached.');
      }
      this.onConnection(true);
      if (response.ok) return response;
      if (response.status !== 401) throw await errorOf(response);
      // Another request may have got a new key in the meantime.
      if (this.key !== sent) continue;
      if (!(await this.#newKey(wrong || Boolean(sent)))) throw await errorOf(response);
    }
  }

  // All requests that need a key wait for one dialog.
  async #newKey(wrong) {
    this.keyRequest ??= this.askKey(wrong).finally(() => { this.keyRequest = null; });
    const key = await this.keyRequest;
    if (key === null) return false;
    this.key = key;
    writeKey(key);
    return true;
  }

  #lost(message) {
    this.onConnection(false);
    return new ApiError(message, { type: 'connection', code: 'connection',
      hint: 'Check that the server runs. The page connects again by itself; then send the request again.' });
  }
}

const path = (name, rest = '') => `v1/contexts/${encodeURIComponent(name)}${rest}`;

function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError('The server sent an answer that is not JSON.', { hint: 'Check that this address belongs to Fathom.' });
  }
}

async function errorOf(response) {
  let error = {};
  try {
    error = JSON.parse(await response.text()).error ?? {};
  } catch {
    // Not from Fathom, for example from a proxy: only the status is known.
  }
  return apiError({ message: `The server answered with status ${response.status}.`, ...error }, response.status,
    Number(response.headers.get('Retry-After')) || 0);
}

function apiError({ message = 'The server reported an error.', type, code }, status = 0, retryAfter = 0) {
  if (status === 0 && code >= 400 && code < 600) status = Number(code);  // an error inside a stream
  const hint = {
    400: 'Correct the request and send it again.',
    401: 'Send again to enter the API key.',
    404: 'It may have been deleted. The list of texts shows what exists.',
    412: 'Copy what you changed, open the text again, and change it there.',
    413: 'Split the text, or start the server with a larger limit.',
    429: retryAfter ? `Send it again in ${retryAfter} s.` : 'Send it again later.',
    500: 'The log of the server says why.',
    503: 'The server has no memory left or is starting. Delete a text, or send it again later.',
  }[status] ?? '';
  return new ApiError(message, { status, type, code: String(code ?? ''), retryAfter, hint });
}

/** Error for a text above the limit of the server. */
export function tooLarge(size, limit) {
  return new ApiError(`The text has ${bytes(size)}; the server accepts at most ${bytes(limit)}.`, { status: 413,
    hint: 'Split the text, or start the server with a larger limit.' });
}

// sessionStorage may be switched off in the browser; the key is then lost at a reload.
function readKey() {
  try {
    return sessionStorage.getItem('fathom.key') ?? '';
  } catch {
    return '';
  }
}

function writeKey(key) {
  try {
    sessionStorage.setItem('fathom.key', key);
  } catch {
    // See readKey.
  }
}
