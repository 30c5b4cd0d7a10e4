// Measures how much the reading of a long prompt delays a text that is written beside it:
//   node bench/serve/stall.mjs --url URL [--key KEY] [--prompt-tokens N] [--max-tokens N] [--rounds N] [--json]
// Reports the time between the pieces of a stream, alone and while another request reads a prompt of N tokens (32,000).
import http from 'node:http'

const args = process.argv.slice(2)
const option = (name, fallback) => (args.includes(`--${name}`) ? args[args.indexOf(`--${name}`) + 1] : fallback)
const url = option('url', ''), key = option('key', '')
if (!url) {
  console.error('stall.mjs: --url is missing; the first lines of this file list the options')
  process.exit(2)
}
const promptTokens = Number(option('prompt-tokens', 32000)), maxTokens = Number(option('max-tokens', 200)), rounds = Number(option('rounds', 3))
const headers = { 'content-type': 'application/json', ...(key ? { authorization: `Bearer ${key}` } : {}) }
let count = 0
const words = ['lamp', 'ship', 'fire', 'sea', 'rain', 'stone', 'bird', 'hill']
const textOf = (tokens) => Array.from({ length: tokens }, (_, i) => words[(i * 7 + (i >> 3) + count) % 8]).join(' ')

/** Streams a completion and calls onPiece with the time of each piece. */
function stream(prompt, most, onPiece) {
  return new Promise((resolve, reject) => {
    const body = JSON.stringify({ prompt, max_tokens: most, stream: true, temperature: 0, ignore_eos: true, fathom: { draft: 'none' } })
    const request = http.request(`${url}/v1/completions`, { method: 'POST', headers }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (part) => {
        text = (text + part).slice(-2000)
        const pieces = part.split('\n\n').filter((line) => line.startsWith('data: {') && /"(text|content)": ?"[^"]/.test(line)).length
        const now = performance.now()
        for (let i = 0; i < pieces; ++i) onPiece?.(now)
      })
      response.on('end', () => (response.statusCode === 200 ? resolve() : reject(new Error(text))))
    })
    request.on('error', reject)
    request.end(body)
  })
}
async function gapsOf(whileRunning) {
  const times = [], gaps = []
  let other = null, during = null
  await stream(`Once ${++count}`, maxTokens, (now) => {
    if (times.length === 5 && whileRunning) {
      during = [now, Infinity]
      other = whileRunning().then(() => { during[1] = performance.now() })
    }
    times.push(now)
  })
  if (other) await other
  for (let i = 6; i < times.length; ++i)
    if (!during || times[i - 1] < during[1]) gaps.push(times[i] - times[i - 1])
  return gaps
}
const quantile = (list, q) => [...list].sort((a, b) => a - b)[Math.min(list.length - 1, Math.floor(q * list.length))]
const alone = [], beside = []
let reading = 0
for (let round = 0; round < rounds; ++round) {
  alone.push(...(await gapsOf(null)))
  const begin = performance.now()
  beside.push(...(await gapsOf(() => stream(`${++count} ${textOf(promptTokens)}`, 1).then(() => { reading += performance.now() - begin }))))
}
const result = {
  alone_ms: { p50: quantile(alone, 0.5), p99: quantile(alone, 0.99) }, beside_ms: { p50: quantile(beside, 0.5), p99: quantile(beside, 0.99) },
  ratio_p50: quantile(beside, 0.5) / quantile(alone, 0.5), ratio_p99: quantile(beside, 0.99) / quantile(alone, 0.99), pieces: beside.length, prompt_seconds: reading / 1000 / rounds,
}
if (args.includes('--json')) console.log(JSON.stringify(result))
else console.log(`between pieces: alone ${result.alone_ms.p50.toFixed(1)} ms (p99 ${result.alone_ms.p99.toFixed(1)}), beside a prompt ${result.beside_ms.p50.toFixed(1)} ms (p99 ${result.beside_ms.p99.toFixed(1)}, ${result.pieces} pieces): p50 x ${result.ratio_p50.toFixed(2)}, p99 x ${result.ratio_p99.toFixed(2)}; the prompt took ${result.prompt_seconds.toFixed(1)} s`)
process.exit(0)
