// Mock of `fathom serve` for tests of the page: the same HTTP interface, deterministic answers.
//
//   node mock_server.mjs [--port 8080] [--key KEY] [--speed 1]
//
// One word is one token. An answer quotes the sentences of the text that share words with the question. Words of the
// question that change the answer: hostile, long, think, table, fail (error inside the stream), busy (429), lost
// (connection closed), cut (limit of tokens). POST /mock sets options (key, speed, fail) and returns the requests.

import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';

const kPage = fileURLToPath(new URL('../../../src/serve/page/', import.meta.url));
const kTypes = { html: 'text/html; charset=utf-8', css: 'text/css; charset=utf-8', js: 'text/javascript; charset=utf-8' };
const kPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
  "form-action 'none'; base-uri 'none'; frame-ancestors 'none'";
const kUploadLimit = 16 << 20;

const kProps = {
  name: 'fathom', version: '0.9.0', cache: 'bf16',
  model: { name: 'mock-1b', architecture: 'llama', parameters: 1235814400, context_length: 131072 },
  methods: {
    attend: [
      { name: 'dense', summary: 'Exact attention to all tokens.', parameters: [] },
      { name: 'quest', summary: 'Selects pages by bounds of their keys.', parameters: [
        { name: 'share', default: '0.25', summary: 'share of the tokens to attend to' },
        { name: 'budget', default: '0', summary: 'tokens to attend to; replaces share' }] },
      { name: 'window', summary: 'Attends to the first and the latest tokens.', parameters: [
        { name: 'sink', default: '4', summary: 'first tokens' }, { name: 'window', default: '1024', summary: 'latest tokens' }] },
      { name: 'infllm', summary: 'Selects blocks by representative keys.', parameters: [
        { name: 'block', default: '128', summary: 'tokens of a block' }, { name: 'topk', default: '16', summary: 'blocks' }] }],
    draft: [
      { name: 'auto', summary: 'Drafts from the text where they save time.', parameters: [] },
      { name: 'none', summary: 'No drafts.', parameters: [] },
      { name: 'ngram', summary: 'Drafts from earlier occurrences of the last tokens.', parameters: [
        { name: 'max', default: '4', summary: 'longest sequence that is looked up' }] }],
  },
  limits: { max_upload_bytes: kUploadLimit },
};

class HttpError extends Error {
  constructor(status, message, type = 'invalid_request_error', headers = {}) {
    super(message);
    Object.assign(this, { status, type, headers });
  }
}

const words = (text) => text.match(/\S+/g)?.length ?? 0;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export function createMock({ key = '', speed = 1 } = {}) {
  const state = { key, speed, fail: null, requests: [], contexts: new Map(), cancelled: 0, chats: [] };
  const server = createServer((request, response) => {
    handle(state, request, response).catch((error) => fail(response, error));
  });
  server.mock = state;
  return server;
}

function fail(response, error) {
  if (response.headersSent || response.destroyed) return void response.destroy();
  const status = error.status ?? 500;
  json(response, { error: { message: error.message, type: error.type ?? 'server_error', code: status } }, status, error.headers);
}

function json(response, value, status = 200, headers = {}) {
  response.writeHead(status, { 'Content-Type': 'application/json', ...headers });
  response.end(JSON.stringify(value));
}

async function body(request, limit = kUploadLimit) {
  const parts = [];
  let size = 0;
  for await (const part of request) {
    size += part.length;
    if (size > limit) throw new HttpError(413, `The body is larger than ${limit} bytes.`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

async function jsonBody(request) {
  try {
    return JSON.parse((await body(request)).toString());
  } catch (error) {
    throw error.status ? error : new HttpError(400, 'The body is not JSON.');
  }
}

async function handle(state, request, response) {
  const url = new URL(request.url, 'http://mock');
  const { method } = request;
  if (url.pathname === '/mock') return control(state, request, response);
  state.requests.push(`${method} ${url.pathname}`);
  const page = /^\/([a-z_]+\.(html|css|js))?$/.exec(url.pathname);
  if (method === 'GET' && page) {
    const data = await readFile(kPage + (page[1] ?? 'index.html')).catch(() => { throw new HttpError(404, 'Not found.'); });
    response.writeHead(200, { 'Content-Type': kTypes[page[2] ?? 'html'], 'Content-Security-Policy': kPolicy,
      'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer', 'Cache-Control': 'no-cache' });
    return void response.end(data);
  }
  if (state.fail) {
    const { status, path, message = 'The mock is set to fail.', drop } = state.fail;
    if (!path || url.pathname.startsWith(path)) {
      state.fail.times = (state.fail.times ?? 1) - 1;
      if (state.fail.times <= 0) state.fail = null;
      if (drop) return void request.destroy();
      throw new HttpError(status, message, 'server_error', status === 429 ? { 'Retry-After': '3' } : {});
    }
  }
  if (state.key && request.headers.authorization !== `Bearer ${state.key}`) throw new HttpError(401, 'The API key is missing or wrong.', 'authentication_error');
  if (method === 'GET' && url.pathname === '/props') {
    const used = [...state.contexts.values()].reduce((sum, context) => sum + context.tokens * 32768, 0);
    return json(response, { ...kProps, memory: { used_bytes: used, budget_bytes: 8 * 2 ** 30 } });
  }
  if (method === 'GET' && url.pathname === '/v1/contexts') {
    return json(response, { object: 'list', data: [...state.contexts.values()].map(described) });
  }
  if (method === 'POST' && url.pathname === '/v1/chat/completions') return chat(state, request, response);
  const match = /^\/v1\/contexts\/([A-Za-z0-9._-]{1,64})(\/text|\/edits)?$/.exec(url.pathname);
  if (!match) throw new HttpError(404, `There is no ${url.pathname}.`);
  const [, name, rest] = match;
  if (method === 'PUT' && !rest) return put(state, name, request, response);
  const context = state.contexts.get(name);
  if (!context) throw new HttpError(404, `There is no context “${name}”.`, 'not_found_error');
  if (method === 'GET' && !rest) return json(response, described(context));
  if (method === 'GET' && rest === '/text') {
    response.writeHead(200, { 'Content-Type': 'text/plain; charset=utf-8', ETag: tagOf(context.text) });
    return void response.end(context.text);
  }
  if (method === 'DELETE' && !rest) {
    state.contexts.delete(name);
    return json(response, { deleted: true });
  }
  if (method === 'POST' && rest === '/edits') return edit(state, context, request, response);
  throw new HttpError(405, `${method} is not possible here.`);
}

async function control(state, request, response) {
  const { reset, ...options } = request.method === 'POST' ? await jsonBody(request) : {};
  if (reset) Object.assign(state, { key: '', speed: 1, fail: null, requests: [], contexts: new Map(), cancelled: 0, chats: [] });
  Object.assign(state, options);
  json(response, { requests: state.requests, cancelled: state.cancelled, chats: state.chats, edits: state.edits ?? null });
}

const described = ({ name, text, tokens, created }) => ({ object: 'context', name, tokens, bytes: text.length, created, status: 'ready',
  file_bytes: tokens * 32768, etag: tagOf(text) });

const tagOf = (text) => `"${createHash('sha256').update(text).digest('hex').slice(0, 16)}"`;

const wantsStream = (request) => (request.headers.accept ?? '').includes('text/event-stream');

function openStream(response) {
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
  return {
    send: (data, event) => response.write(`${event ? `event: ${event}\n` : ''}data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`),
    get closed() { return response.destroyed; },
    end: () => response.end(),
  };
}

// Reports the reading of `total` tokens; false if the client closed the connection.
async function readTokens(state, stream, total, cached = 0) {
  const steps = 20;
  const start = Date.now();
  for (let i = 0; i <= steps; i++) {
    const processed = Math.round(((total - cached) * i) / steps);
    const speed = (processed * 1000) / Math.max(1, Date.now() - start);
    stream?.send({ total, cached, processed, tokens_per_second: speed, seconds_left: speed > 0 ? (total - cached - processed) / speed : null }, 'progress');
    await sleep(60 / state.speed);
    if (stream?.closed) {
      state.cancelled++;
      return false;
    }
  }
  return true;
}

async function put(state, name, request, response) {
  const text = await body(request);
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(text);
  } catch {
    throw new HttpError(400, 'The text is not UTF-8.');
  }
  const context = { name, text, tokens: words(text.toString()), created: Math.floor(Date.now() / 1000) };
  const stream = wantsStream(request) ? openStream(response) : null;
  if (!(await readTokens(state, stream, context.tokens))) return;
  if (text.includes('MOCK-OUT-OF-MEMORY')) {
    stream.send({ error: { message: 'The budget of memory is used up.', type: 'server_error', code: 503 } }, 'error');
    return void stream.end();
  }
  state.contexts.set(name, context);
  if (!stream) return json(response, described(context), 201);
  stream.send(described(context), 'done');
  stream.end();
}

async function edit(state, context, request, response) {
  const { edits, exact = false } = await jsonBody(request);
  if ((request.headers['if-match'] ?? tagOf(context.text)) !== tagOf(context.text)) throw new HttpError(412, 'The text was changed by another client.');
  const parts = [];
  let at = 0;
  for (const { begin, end, text } of edits ?? []) {
    if (!(begin >= at && end >= begin && end <= context.text.length)) throw new HttpError(400, 'The ranges are not ascending, or outside of the text.');
    parts.push(context.text.subarray(at, begin), Buffer.from(text));
    at = end;
  }
  parts.push(context.text.subarray(at));
  state.edits = edits;
  const text = Buffer.concat(parts);
  const kept = words(context.text.subarray(0, edits[0].begin).toString());
  const inserted = edits.reduce((sum, { text: part }) => sum + words(part) + 1, 0);
  const total = words(text.toString());
  const read = exact ? total - kept : Math.min(total - kept, inserted + 16);
  const stream = wantsStream(request) ? openStream(response) : null;
  if (!(await readTokens(state, stream, read))) return;
  Object.assign(context, { text, tokens: total });
  const result = { tokens: total, read, moved: total - kept - read, kept, seconds: 0.21, context: described(context) };
  if (!stream) return json(response, result);
  stream.send(result, 'done');
  stream.end();
}

// Sentences of the text that share words with the question, as passages with shares, and the strip of 256 cells.
export function attention(text, question) {
  const asked = new Set(question.toLowerCase().match(/[\p{L}\p{N}]{4,}/gu) ?? []);
  const found = [];
  for (let begin = 0; begin < text.length;) {
    let end = begin;
    while (end < text.length && text[end] !== 10 && !(text[end] === 46 && (text[end + 1] ?? 32) <= 32)) end++;
    const sentence = text.subarray(begin, end).toString();
    const score = new Set((sentence.toLowerCase().match(/[\p{L}\p{N}]{4,}/gu) ?? []).filter((word) => asked.has(word))).size;
    if (score > 0) found.push({ begin: begin + sentence.search(/\S/), end: Math.min(text.length, end + 1), score: score ** 3 });
    begin = end + 1;
  }
  found.sort((a, b) => b.score - a.score || a.begin - b.begin);
  const passages = found.slice(0, 5);
  const sum = passages.reduce((total, { score }) => total + score, 0) / 0.8;
  const strip = Array.from({ length: 256 }, (_, i) => 0.02 + 0.02 * Math.abs(Math.sin(i)));
  for (const { begin, end, score } of passages) {
    for (let i = Math.floor((256 * begin) / text.length); i <= Math.min(255, Math.floor((256 * end) / text.length)); i++) strip[i] = Math.min(1, 0.2 + score / sum);
  }
  return { strip, passages: passages.map(({ begin, end, score }) => ({ begin, end, share: score / sum })) };
}

const kHostile = 'Plain <img src=x onerror="window.hostile=1"> and <script>window.hostile=1</script> text.\n\n' +
  '[a link](javascript:window.hostile=1) and [another](data:text/html,<script>window.hostile=1</script>) and [good](https://example.org/a?b=c).\n\n' +
  '| a | b |\n|---|---|\n| <b onmouseover="window.hostile=1">x</b> | `<i>` |\n\n```html\n<iframe src="javascript:window.hostile=1"></iframe>\n```\n';
const kTable = '## Two methods\n\nBoth **select pages**, but *quest* bounds the keys:\n\n| method | reads | exact |\n|---|---:|:---:|\n| dense | 100 % | yes |\n' +
  '| quest | 25 % | no |\n\n1. Read the text once.\n2. Ask:\n   - with `quest`\n   - with `dense`\n\n```sh\nfathom ask book.ctx -p "Who?"\n```\n';

function answerText(context, question, found) {
  if (/hostile/i.test(question)) return kHostile;
  if (/table/i.test(question)) return kTable;
  if (/long/i.test(question)) return Array.from({ length: 400 }, (_, i) => `Sentence ${i + 1} of a long answer.${i % 8 === 7 ? '\n\n' : ' '}`).join('');
  if (!context) return `This is a plain chat without a text. You asked: *${question.slice(0, 80)}*`;
  if (found.passages.length === 0) return 'The text does not say.';
  const quote = ({ begin, end }) => context.text.subarray(begin, end).toString().trim().slice(0, 160);
  return `The text says: “${quote(found.passages[0])}”\n\n` +
    (found.passages.length > 1 ? `See also:\n\n${found.passages.slice(1, 3).map((passage) => `- ${quote(passage)}`).join('\n')}\n` : '');
}

async function chat(state, request, response) {
  const { messages, context: name, stream_options: options, fathom = {}, stream: streamed, temperature, max_completion_tokens } = await jsonBody(request);
  state.chats.push({ messages, name, fathom, temperature, max_completion_tokens });
  const question = messages?.at(-1)?.content ?? '';
  const context = name ? state.contexts.get(name) : null;
  if (name && !context) throw new HttpError(404, `There is no context “${name}”.`, 'not_found_error');
  if (!streamed) throw new HttpError(400, 'The mock only streams.');
  const attend = (fathom.attend ?? 'dense').split(':')[0];
  if (!kProps.methods.attend.some((method) => method.name === attend)) throw new HttpError(400, `attend: there is no method “${attend}”.`);
  if (/busy/i.test(question)) throw new HttpError(429, 'All slots are in use.', 'rate_limit_error', { 'Retry-After': '2' });
  const stream = openStream(response);
  const send = (value) => stream.send({ id: 'chatcmpl-1', object: 'chat.completion.chunk', model: kProps.model.name, ...value });
  const delta = (value, finish_reason = null) => send({ choices: [{ index: 0, delta: value, finish_reason }] });
  const cached = context?.tokens ?? 0;
  const total = cached + messages.reduce((sum, message) => sum + words(message.content) + 4, 0);
  for (const processed of [cached, Math.round((cached + total) / 2), total]) {
    send({ choices: [], prompt_progress: { total, cached, processed, time_ms: 10 } });
    await sleep(40 / state.speed);
  }
  const found = context ? attention(context.text, question) : null;
  if (/think/i.test(question)) for (const word of 'First I look for the words of the question in the text.'.split(/(?<= )/)) delta({ reasoning_content: word });
  const tokens = answerText(context, question, found).split(/(?<=\s)/);
  let generated = 0;
  for (const token of tokens) {
    if (stream.closed) return void state.cancelled++;
    delta({ content: token });
    generated++;
    if (found && fathom.attention && generated === Math.min(6, tokens.length)) send({ choices: [], fathom: { attention: found } });
    if (/fail/i.test(question) && generated === 5) {
      stream.send({ error: { message: 'The engine stopped with an error.', type: 'server_error', code: 500 } });
      return void stream.end();
    }
    if (/lost/i.test(question) && generated === 5) return void response.destroy();
    await sleep(24 / state.speed);
  }
  delta({}, /cut/i.test(question) ? 'length' : 'stop');
  if (options?.include_usage) {
    send({ choices: [], usage: { prompt_tokens: total, completion_tokens: generated, total_tokens: total + generated, prompt_tokens_details: { cached_tokens: cached } } });
  }
  send({ choices: [], timings: { prompt_ms: 31, predicted_ms: generated * 24, predicted_per_second: 1000 / 24, memory_bytes: 37 * 2 ** 20 + total * 32768 } });
  stream.send('[DONE]');
  stream.end();
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const option = (name, fallback) => {
    const at = process.argv.indexOf(`--${name}`);
    return at < 0 ? fallback : process.argv[at + 1];
  };
  const server = createMock({ key: option('key', ''), speed: Number(option('speed', '1')) });
  server.listen(Number(option('port', '8080')), '127.0.0.1', () => {
    console.log(`mock of fathom serve: http://127.0.0.1:${server.address().port}/`);
  });
}
