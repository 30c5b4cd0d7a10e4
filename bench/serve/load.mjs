// Loads a server with OpenAI's API and reports throughput and latencies: node bench/serve/load.mjs --url URL [OPTION]...
//   --url URL             such as http://127.0.0.1:8080
//   --key KEY             API key
//   --clients N           that send one request after the other [4]
//   --requests N          in all [4 x clients]; or --seconds S
//   --prompt-tokens N     of each prompt, about; "mixed": mostly 64, every eighth 8k [64]
//   --shared-prefix N     tokens at the beginning of all prompts [0]
//   --turns N             of a conversation of each client, whose requests repeat the earlier ones [1]
//   --max-tokens N        of each answer [64]
//   --greedy              temperature 0
//   --slow-readers SHARE  of clients that read slowly [0]
//   --disconnects SHARE   of requests whose client leaves early [0]
//   --seed N, --json
import http from 'node:http'

const args = process.argv.slice(2)
const option = (name, fallback) => (args.includes(`--${name}`) ? args[args.indexOf(`--${name}`) + 1] : fallback)
const number = (name, fallback) => Number(option(name, fallback))
const url = option('url', '')
if (!url) {
  console.error('load.mjs: --url is missing; the first lines of this file list the options')
  process.exit(2)
}
const clients = number('clients', 4), seconds = number('seconds', 0), most = seconds > 0 ? Infinity : number('requests', 4 * clients)
const maxTokens = number('max-tokens', 64), turns = number('turns', 1), shared = number('shared-prefix', 0)
const slow = number('slow-readers', 0), leaving = number('disconnects', 0), key = option('key', '')

let state = number('seed', 1) >>> 0
function random() {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return state / 4294967296
}
const vocabulary = ['the', 'old', 'sailor', 'went', 'down', 'to', 'sea', 'and', 'found', 'a', 'lamp', 'that', 'no', 'one', 'had', 'lit', 'for', 'years', 'of', 'rain']
const textOf = (tokens) => Array.from({ length: tokens }, () => vocabulary[Math.floor(random() * vocabulary.length)]).join(' ')
const prefix = shared > 0 ? textOf(shared) : ''
const promptTokens = (count) => (option('prompt-tokens', '64') === 'mixed' ? (count % 8 === 7 ? 8000 : 64) : number('prompt-tokens', 64))

const agent = new http.Agent({ keepAlive: false, maxSockets: clients })
const firsts = [], gaps = [], errors = new Map()
let finished = 0, left = 0, characters = 0, tokens = 0, cached = 0, prompts = 0

/** Sends a streamed chat and returns the text of the answer. */
function send(messages, { slowly, leaves }) {
  return new Promise((resolve) => {
    const begin = performance.now()
    let last = 0, text = '', buffer = '', ended = false
    const end = (error) => {
      if (ended) return
      ended = true
      if (error) errors.set(error, (errors.get(error) ?? 0) + 1)
      resolve(text)
    }
    const body = JSON.stringify({ model: 'any', messages, max_tokens: maxTokens, stream: true, stream_options: { include_usage: true }, ignore_eos: true, seed: 1, ...(args.includes('--greedy') ? { temperature: 0 } : {}) })
    const request = http.request(`${url}/v1/chat/completions`, { method: 'POST', agent, headers: { 'content-type': 'application/json', ...(key ? { authorization: `Bearer ${key}` } : {}) } }, (response) => {
      if (response.statusCode !== 200) {
        response.resume()
        return response.on('end', () => end(`status ${response.statusCode}`))
      }
      response.setEncoding('utf8')
      response.on('data', (part) => {
        buffer += part
        for (let at; (at = buffer.indexOf('\n\n')) >= 0; buffer = buffer.slice(at + 2)) {
          const line = buffer.slice(0, at)
          if (line === 'data: [DONE]') end()  // some servers then close the connection at once
          if (ended || !line.startsWith('data: ')) continue
          const event = JSON.parse(line.slice(6))
          if (event.error) return end(`error ${event.error.code ?? event.error.type}`)
          if (event.usage) {
            tokens += event.usage.completion_tokens
            prompts += event.usage.prompt_tokens
            cached += event.usage.prompt_tokens_details?.cached_tokens ?? 0
          }
          const delta = event.choices[0]?.delta?.content
          if (!delta) continue
          const now = performance.now()
          if (last === 0) firsts.push(now - begin)
          else gaps.push(now - last)
          last = now
          text += delta
          characters += delta.length
          if (leaves && text.length > 20) {
            ++left
            request.destroy()
            return end()
          }
        }
        if (slowly) {
          response.pause()
          setTimeout(() => response.resume(), 100)
        }
      })
      response.on('end', () => end())
      response.on('error', () => end('the connection broke'))
    })
    request.on('error', (error) => end(error.code))
    request.end(body)
  })
}

const begin = performance.now(), deadline = seconds > 0 ? begin + 1000 * seconds : Infinity
let started = 0
await Promise.all(Array.from({ length: clients }, async (_, client) => {
  const slowly = client < slow * clients
  let messages = []
  for (let turn = 0; started < most && performance.now() < deadline; ++turn) {
    const count = started++
    if (turn % turns === 0) messages = []
    const text = messages.length === 0 ? `${prefix} ${textOf(promptTokens(count))}` : textOf(16)
    messages = [...messages, { role: 'user', content: text }]
    const answer = await send(messages, { slowly, leaves: random() < leaving })
    messages.push({ role: 'assistant', content: answer })
    ++finished
  }
}))
const elapsed = (performance.now() - begin) / 1000
const quantile = (list, q) => (list.length === 0 ? null : [...list].sort((a, b) => a - b)[Math.min(list.length - 1, Math.floor(q * list.length))])
const result = {
  requests: finished, seconds: elapsed, requests_per_second: finished / elapsed, tokens_per_second: tokens / elapsed, characters_per_second: characters / elapsed, prompt_tokens: prompts, cached_tokens: cached,
  first_token_ms: { p50: quantile(firsts, 0.5), p99: quantile(firsts, 0.99) }, between_pieces_ms: { p50: quantile(gaps, 0.5), p99: quantile(gaps, 0.99), max: quantile(gaps, 1) }, left, errors: Object.fromEntries(errors),
}
if (args.includes('--json')) {
  console.log(JSON.stringify(result))
} else {
  const ms = (value) => (value === null ? '-' : `${value.toFixed(1)} ms`)
  console.log(`${finished} requests in ${elapsed.toFixed(1)} s: ${result.tokens_per_second.toFixed(1)} tokens/s, ${result.requests_per_second.toFixed(2)} requests/s; ${cached} of ${prompts} prompt tokens cached`)
  console.log(`first token ${ms(result.first_token_ms.p50)} (p99 ${ms(result.first_token_ms.p99)}); between pieces ${ms(result.between_pieces_ms.p50)} (p99 ${ms(result.between_pieces_ms.p99)})`)
  if (left > 0) console.log(`${left} clients left`)
  for (const [error, count] of errors) console.log(`${count} x ${error}`)
}
process.exit(0)
