// Sends damaged and hostile requests to fathom serve: node hostile.mjs PROGRAM MODEL [--requests N] [--seed S]
// Every answer is a status of 2xx, or an error in the form of the API; at the end no request is stuck, and the memory has
// grown by no more than what the server keeps: stored responses, constraints, and the stacks of connection threads.
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { randomNumbers, startServer, waitFor } from './server.mjs'

const [program, model, ...rest] = process.argv.slice(2)
const option = (name, fallback) => (rest.includes(name) ? Number(rest[rest.indexOf(name) + 1]) : fallback)
const requests = option('--requests', 2000), seed = option('--seed', 1)
const random = randomNumbers(seed)
const below = (n) => Math.floor(random() * n)
const one = (list) => list[below(list.length)]
const server = await startServer({ program, model, options: ['--max-body', '200k'] })
const key = server.keys[0]

const tools = [{ type: 'function', function: { name: 'f', parameters: { type: 'object', properties: { a: { type: 'integer' } } } } }]
const valid = [
  ['/v1/chat/completions', { messages: [{ role: 'user', content: 'The sea' }], max_tokens: 4, n: 1, stream: false, temperature: 0.7, seed: 1, stop: ['x'], logprobs: true, top_logprobs: 2, logit_bias: { 5: 1 }, tools, tool_choice: 'auto', response_format: { type: 'json_schema', json_schema: { name: 'a', schema: { type: 'array', items: { enum: [1] }, maxItems: 2 } } }, fathom: { attend: 'dense', draft: 'auto', priority: 1 } }],
  ['/v1/chat/completions', { messages: [{ role: 'user', content: 'a' }, { role: 'assistant', content: null, tool_calls: [{ id: '1', type: 'function', function: { name: 'f', arguments: '{"a":1}' } }] }, { role: 'tool', tool_call_id: '1', content: 'x' }], max_tokens: 3, tools, stream: true }],
  ['/v1/completions', { prompt: ['The sea', [1, 5, 9]], max_tokens: 3, n: 2, echo: true, logprobs: 2, top_p: 0.9, top_k: 5, min_p: 0.1 }],
  ['/v1/messages', { max_tokens: 3, system: 'x', messages: [{ role: 'user', content: [{ type: 'text', text: 'a' }] }], tools: [{ name: 'f', input_schema: { type: 'object' } }], tool_choice: { type: 'auto' }, stop_sequences: ['z'], thinking: { type: 'disabled' } }],
  ['/v1/messages/count_tokens', { messages: [{ role: 'user', content: 'a' }] }],
  ['/v1/responses', { input: [{ role: 'user', content: [{ type: 'input_text', text: 'a' }] }, { type: 'function_call', call_id: '1', name: 'f', arguments: '{}' }, { type: 'function_call_output', call_id: '1', output: 'x' }], max_output_tokens: 3, store: false, text: { format: { type: 'json_object' } }, previous_response_id: null }],
  ['/v1/embeddings', { input: ['a', 'b'], encoding_format: 'base64', dimensions: 4 }],
  ['/v1/rerank', { query: 'a', documents: ['b', { text: 'c' }], top_n: 1 }],
  ['/tokenize', { content: 'a', add_special: true }],
  ['/detokenize', { tokens: [1, 2, 3] }],
  ['/apply-template', { messages: [{ role: 'user', content: 'a' }], tools }],
  ['/v1/contexts/a/edits', { edits: [{ begin: 0, end: 1, text: 'b' }], exact: true }],
]
const strange = () => one([null, true, -1, 0, 1e300, -1e-300, 9007199254740993, 2 ** 31, '', '\u0000', '\ud800', 'x'.repeat(3000), [], {}, [[[[]]]], { a: { b: [] } }, [null], '../../etc/passwd', 'quest:share=2', 'none', '#/'])

/** Replaces, removes or adds a random part of a value. */
function damage(value) {
  if (value === null || typeof value !== 'object' || random() < 0.15) return strange()
  const copy = Array.isArray(value) ? [...value] : { ...value }
  const keys = Object.keys(copy)
  if (keys.length === 0) return strange()
  const name = one(keys)
  if (random() < 0.15) {
    if (Array.isArray(copy)) copy.splice(Number(name), 1)
    else delete copy[name]
  } else if (random() < 0.1) {
    if (Array.isArray(copy)) copy.push(strange())
    else copy[one(['schema', '$ref', 'anyOf', 'pattern', 'context', 'model', 'x'])] = strange()
  } else {
    copy[name] = random() < 0.5 ? damage(copy[name]) : strange()
  }
  return copy
}

function body(text) {
  const changes = 1 + below(3)
  for (let i = 0; i < changes; ++i) {
    const at = below(text.length + 1)
    text = random() < 0.5 ? text.slice(0, at) + one(['{', '"', '\\', '\u0007', ']', ',', '1e999', '\\ud800', '[[['.repeat(300)]) + text.slice(at) : text.slice(0, at) + text.slice(at + 1 + below(9))
  }
  return text
}

async function send(method, path, content, headers) {
  const response = await fetch(server.url + path, { method, headers: { authorization: `Bearer ${key}`, ...headers }, body: content })
  const text = await response.text()
  const failed = `${method} ${path} ${String(content).slice(0, 500)}: ${response.status} ${text.slice(0, 300)} ${server.errors().slice(-1000)}`
  assert.ok(response.status < 500 || response.status === 503, failed)
  assert.ok(!text.includes(server.folder), `a path of the machine: ${failed}`)
  if (response.status >= 400) assert.ok(JSON.parse(text).error.message.length > 0, failed)
}

/** Writes bytes to the socket, and leaves after a moment. */
function raw(bytes) {
  return new Promise((resolve) => {
    const { port, hostname } = new URL(server.url)
    const socket = connect(Number(port), hostname, () => socket.write(bytes, () => setTimeout(() => socket.destroy(), below(30))))
    socket.on('error', () => {})
    socket.on('close', resolve)
  })
}

async function request() {
  const [path, fields] = one(valid)
  const kind = random()
  if (kind < 0.55) return send('POST', path, JSON.stringify(damage(fields)))
  if (kind < 0.7) return send('POST', path, body(JSON.stringify(fields)))
  if (kind < 0.75) return send('POST', path, JSON.stringify(fields))
  if (kind < 0.8) return send(one(['GET', 'DELETE', 'PUT', 'PATCH', 'OPTIONS']), one([path, '/v1/contexts/..%2f..', '/v1/contexts/a', '/v1/responses/x', '/%00', '/slots']), undefined).catch((error) => assert.ok(!(error instanceof assert.AssertionError), error.message))
  if (kind < 0.84) return send('PUT', `/v1/contexts/${one(['a', 'b', '.c', 'd%20', 'x'.repeat(80)])}`, one(['', 'a text', '\ud800', 'y'.repeat(300)]))
  if (kind < 0.86) return send('POST', path, 'x'.repeat(210_000)).catch((error) => assert.ok(!(error instanceof assert.AssertionError), error.message))
  const text = JSON.stringify(fields)
  return raw(one([
    `POST ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\nContent-Length: ${text.length}\r\n\r\n${text}`,
    `POST ${path} HTTP/1.1\r\nAuthorization: Bearer ${key}\r\nContent-Length: 99999\r\n\r\n${text.slice(0, below(text.length))}`,
    `POST ${path} HTTP/1.1\r\nAuthorization: Bearer ${key}\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n${text}`,
    `GET / HTTP/1.1\r\n${'X-Header: y\r\n'.repeat(below(400))}\r\n`,
    'GET /' + 'a'.repeat(9000) + ' HTTP/1.1\r\n\r\n',
    Buffer.from(Array.from({ length: below(400) }, () => below(256))),
  ]))
}

async function many(count) {
  let left = count
  await Promise.all(Array.from({ length: 8 }, async () => {
    while (left-- > 0) await request()
  }))
}

/** Returns the resident memory without the keys and values that are kept for later prompts, in bytes. */
const memory = async () => {
  const props = await (await fetch(`${server.url}/props`, { headers: { authorization: `Bearer ${key}` } })).json()
  return server.memory() - props.memory.used_bytes
}
const slots = async () => (await (await fetch(`${server.url}/slots`, { headers: { authorization: `Bearer ${key}` } })).json()).length
const warm = Math.min(requests, Math.max(1000, requests / 4))
await many(warm)  // caches have their size after these
await waitFor('no request is stuck', async () => (await slots()) === 0, 60)
const before = await memory()
const begin = Date.now()
await many(requests - warm)
await waitFor('no request is stuck', async () => (await slots()) === 0, 60)
const after = await memory()
assert.equal((await fetch(`${server.url}/health`)).status, 200)
await server.stop()
assert.ok(!/Sanitizer|runtime error/.test(server.errors()), server.errors())
console.log(`${requests} requests; memory ${(before / 2 ** 20).toFixed(1)} MiB, then ${(after / 2 ** 20).toFixed(1)} MiB (${(100 * (after / before - 1)).toFixed(2)} %); ${((Date.now() - begin) / 1000).toFixed(1)} s`)
const kMostGrowth = 128 * 2 ** 20
if (!process.env.FATHOM_SANITIZED) assert.ok(after - before < kMostGrowth, 'the memory has grown by more than the server keeps')
