// Checks fathom serve with the official clients of its APIs: node conformance.mjs PROGRAM MODEL [--only SECTION]
import assert from 'node:assert/strict'
import Anthropic from '@anthropic-ai/sdk'
import Ajv2020 from 'ajv/dist/2020.js'
import OpenAI from 'openai'
import { randomSchema } from './schemas.mjs'
import { randomNumbers, sleep, startServer, waitFor } from './server.mjs'

const [program, model, ...rest] = process.argv.slice(2)
if (!model) {
  console.error('usage: node conformance.mjs PROGRAM MODEL [--only SECTION]')
  process.exit(2)
}
const only = rest[0] === '--only' ? rest[1] : ''
const server = await startServer({ program, model, options: ['--key-requests', '32'] })
const openai = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: server.keys[0], maxRetries: 0 })
const anthropic = new Anthropic({ baseURL: server.url, apiKey: server.keys[0], maxRetries: 0 })
const headers = { authorization: `Bearer ${server.keys[0]}` }

const messages = [{ role: 'user', content: 'The old captain sat by the fire, and' }]
const common = { model: 'any', messages, max_tokens: 12, seed: 5 }
const words = (n) => Array.from({ length: n }, (_, i) => ['lamp', 'ship', 'fire', 'sea', 'rain'][(i * 7 + (i >> 3)) % 5]).join(' ')
const weather = {
  type: 'function',
  function: {
    name: 'weather', description: 'Tells the weather of a city',
    parameters: { type: 'object', properties: { city: { type: 'string', maxLength: 8 }, days: { type: 'integer', minimum: 1, maximum: 9 } }, required: ['city', 'days'], additionalProperties: false },
  },
}
const running = async () => (await (await fetch(`${server.url}/slots`, { headers })).json()).length
const fails = async (status, call) => {
  try {
    await call()
  } catch (error) {
    assert.equal(error.status, status, error.message)
    return error
  }
  assert.fail(`expected status ${status}`)
}

const sections = {
  async chat() {
    const answer = await openai.chat.completions.create(common)
    assert.equal(answer.object, 'chat.completion')
    assert.equal(answer.choices[0].message.role, 'assistant')
    assert.equal(answer.usage.completion_tokens, 12)
    assert.equal(answer.choices[0].finish_reason, 'length')
    const again = await openai.chat.completions.create(common)
    assert.equal(again.choices[0].message.content, answer.choices[0].message.content)
    const two = await openai.chat.completions.create({ ...common, n: 2 })
    assert.equal(two.choices.length, 2)
    assert.equal(two.choices[0].message.content, answer.choices[0].message.content)
    const text = answer.choices[0].message.content
    const stop = text.slice(5, 8)
    const stopped = await openai.chat.completions.create({ ...common, stop })
    assert.equal(stopped.choices[0].message.content, text.slice(0, text.indexOf(stop)))
    assert.equal(stopped.choices[0].finish_reason, 'stop')
  },
  async streaming() {
    const whole = await openai.chat.completions.create(common)
    const stream = await openai.chat.completions.create({ ...common, stream: true, stream_options: { include_usage: true } })
    let text = '', usage
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? ''
      usage = chunk.usage ?? usage
    }
    assert.equal(text, whole.choices[0].message.content)
    assert.equal(usage.completion_tokens, 12)
    const helper = openai.chat.completions.stream({ ...common })
    assert.equal((await helper.finalChatCompletion()).choices[0].message.content, text)
  },
  async completions() {
    const options = { model: 'any', prompt: 'Once upon a time', max_tokens: 8, temperature: 0 }
    const answer = await openai.completions.create(options)
    assert.equal((await openai.completions.create({ ...options, echo: true })).choices[0].text, options.prompt + answer.choices[0].text)
    assert.equal((await openai.completions.create({ ...options, prompt: [options.prompt, 'The sea'] })).choices[0].text, answer.choices[0].text)
    let text = ''
    for await (const chunk of await openai.completions.create({ ...options, stream: true })) text += chunk.choices[0]?.text ?? ''
    assert.equal(text, answer.choices[0].text)
    const list = await openai.models.list()
    assert.equal(list.data.length, 1)
  },
  async prefixes() {
    const content = words(400)
    const first = await openai.chat.completions.create({ ...common, messages: [{ role: 'user', content }] })
    const second = await openai.chat.completions.create({ ...common, messages: [{ role: 'user', content }] })
    assert.ok(second.usage.prompt_tokens_details.cached_tokens > 200, 'a prompt is read once')
    assert.equal(second.choices[0].message.content, first.choices[0].message.content)
  },
  async logprobs() {
    const answer = await openai.chat.completions.create({ ...common, logprobs: true, top_logprobs: 3 })
    const content = answer.choices[0].logprobs.content
    assert.equal(content.length, 12)
    for (const token of content) assert.ok(token.logprob <= 0 && token.top_logprobs.length === 3)
    const { tokens } = await (await fetch(`${server.url}/tokenize`, { method: 'POST', headers, body: JSON.stringify({ content: 'a' }) })).json()
    const biased = await openai.chat.completions.create({ ...common, logit_bias: { [tokens.at(-1)]: 100 } })
    assert.match(biased.choices[0].message.content, /^(a ?)+$|^( ?a)+$/)
  },
  async structured() {
    const ajv = new Ajv2020({ strict: false, validateFormats: false })
    const random = randomNumbers(11)
    for (let begin = 0; begin < 100; begin += 10) {
      await Promise.all(Array.from({ length: 10 }, async (_, i) => {
        const schema = randomSchema(random)
        const options = { ...common, max_tokens: 3000, seed: begin + i, temperature: 1.3 }
        const answer = await openai.chat.completions.create({ ...options, response_format: { type: 'json_schema', json_schema: { name: 'answer', schema, strict: true } } })
        const text = answer.choices[0].message.content
        assert.equal(answer.choices[0].finish_reason, 'stop', JSON.stringify(schema))
        const valid = ajv.validate(schema, JSON.parse(text))
        assert.ok(valid, `${JSON.stringify(schema)}: ${text}: ${ajv.errorsText()}`)
      }))
    }
    const schema = { type: 'object', properties: { a: { type: 'boolean' } }, required: ['a'], additionalProperties: false }
    const parsed = await openai.chat.completions.parse({ ...common, max_tokens: 60, response_format: { type: 'json_schema', json_schema: { name: 'a', schema, strict: true } } })
    assert.equal(typeof parsed.choices[0].message.parsed.a, 'boolean')
    const any = await openai.chat.completions.create({ ...common, max_tokens: 60, response_format: { type: 'json_object' } })
    assert.ok(any.choices[0].message.content.startsWith('{'))
    const error = await fails(400, () => openai.chat.completions.create({ ...common, response_format: { type: 'json_schema', json_schema: { name: 'a', schema: { not: {} } } } }))
    assert.match(error.message, /'not' is not supported/)
  },
  async tools() {
    for (const tool_choice of ['required', { type: 'function', function: { name: 'weather' } }]) {
      const options = { ...common, max_tokens: 200, tools: [weather], tool_choice }
      const answer = await openai.chat.completions.create(options)
      const call = answer.choices[0].message.tool_calls[0]
      assert.equal(call.function.name, 'weather')
      const input = JSON.parse(call.function.arguments)
      assert.ok(typeof input.city === 'string' && Number.isInteger(input.days))
      assert.equal(answer.choices[0].finish_reason, 'tool_calls')
      const streamed = await openai.chat.completions.stream(options).finalChatCompletion()
      assert.deepEqual(streamed.choices[0].message.tool_calls[0].function.arguments, call.function.arguments)
      const next = await openai.chat.completions.create({ ...common, tools: [weather], messages: [...messages, answer.choices[0].message, { role: 'tool', tool_call_id: call.id, content: 'rain' }] })
      assert.equal(next.choices.length, 1)
    }
    const none = await openai.chat.completions.create({ ...common, tools: [weather], tool_choice: 'none' })
    assert.equal(none.choices[0].message.tool_calls, undefined)
    await openai.chat.completions.create({ ...common, tools: [weather], tool_choice: 'auto' })
    await fails(400, () => openai.chat.completions.create({ ...common, tools: [weather], tool_choice: { type: 'function', function: { name: 'other' } } }))
  },
  async messages() {
    const options = { model: 'any', max_tokens: 10, messages, temperature: 0.8, system: 'Be brief.' }
    const answer = await anthropic.messages.create(options)
    assert.equal(answer.type, 'message')
    assert.equal(answer.stop_reason, 'max_tokens')
    assert.equal(answer.content[0].type, 'text')
    const count = await anthropic.messages.countTokens({ model: 'any', messages, system: 'Be brief.' })
    assert.equal(count.input_tokens, answer.usage.input_tokens + answer.usage.cache_read_input_tokens)
    const streamed = await anthropic.messages.stream({ ...options, temperature: 0 }).finalMessage()
    const greedy = await anthropic.messages.create({ ...options, temperature: 0 })
    assert.deepEqual(streamed.content.map((block) => block.text), greedy.content.map((block) => block.text))
    const tool = { name: 'weather', description: 'Tells the weather', input_schema: weather.function.parameters }
    for (const tool_choice of [{ type: 'any' }, { type: 'tool', name: 'weather' }]) {
      const call = await anthropic.messages.stream({ ...options, max_tokens: 200, tools: [tool], tool_choice }).finalMessage()
      assert.equal(call.stop_reason, 'tool_use')
      const block = call.content.find((part) => part.type === 'tool_use')
      assert.ok(Number.isInteger(block.input.days))
      await anthropic.messages.create({ ...options, tools: [tool], messages: [...messages, { role: 'assistant', content: call.content }, { role: 'user', content: [{ type: 'tool_result', tool_use_id: block.id, content: 'rain' }] }] })
    }
    const error = await fails(400, () => anthropic.messages.create({ model: 'any', max_tokens: 10, messages: [{ role: 'user', content: words(9000) }] }))
    assert.equal(error.error.type, 'error')
  },
  async responses() {
    const options = { model: 'any', input: 'The sea was calm, and', max_output_tokens: 10, temperature: 0, instructions: 'Be brief.' }
    const answer = await openai.responses.create(options)
    assert.equal(answer.object, 'response')
    assert.ok(answer.output_text.length > 0)
    let text = '', last
    for await (const event of await openai.responses.create({ ...options, stream: true })) {
      if (event.type === 'response.output_text.delta') text += event.delta
      last = event
    }
    assert.equal(text, answer.output_text)
    assert.equal(last.type, 'response.incomplete')
    const next = await openai.responses.create({ ...options, input: 'And then?', previous_response_id: answer.id })
    assert.equal(next.previous_response_id, answer.id)
    assert.equal((await openai.responses.retrieve(answer.id)).id, answer.id)
    await openai.responses.delete(answer.id)
    await fails(404, () => openai.responses.retrieve(answer.id))
    const tool = { type: 'function', name: 'weather', parameters: weather.function.parameters, strict: true }
    const call = await openai.responses.create({ ...options, max_output_tokens: 200, temperature: 1, tools: [tool], tool_choice: 'required' })
    const item = call.output.find((part) => part.type === 'function_call')
    assert.ok(Number.isInteger(JSON.parse(item.arguments).days))
    await openai.responses.create({ ...options, tools: [tool], input: [{ role: 'user', content: 'Weather?' }, item, { type: 'function_call_output', call_id: item.call_id, output: 'rain' }] })
    const format = { type: 'json_schema', name: 'a', strict: true, schema: { type: 'object', properties: { a: { enum: ['x', 'y'] } }, required: ['a'], additionalProperties: false } }
    const json = await openai.responses.create({ ...options, max_output_tokens: 60, text: { format } })
    assert.match(JSON.parse(json.output_text).a, /^[xy]$/)
  },
  async embeddings() {
    const input = ['a lamp in the dark', 'a ship at sea']
    const base64 = await openai.embeddings.create({ model: 'any', input })
    const floats = await openai.embeddings.create({ model: 'any', input, encoding_format: 'float' })
    assert.equal(base64.data.length, 2)
    for (let i = 0; i < 2; ++i) {
      const length = Math.hypot(...floats.data[i].embedding)
      assert.ok(Math.abs(length - 1) < 1e-5)
      floats.data[i].embedding.forEach((x, k) => assert.ok(Math.abs(x - base64.data[i].embedding[k]) < 1e-6))
    }
    const ranked = await (await fetch(`${server.url}/v1/rerank`, { method: 'POST', headers, body: JSON.stringify({ query: 'Where is the red ship?', documents: ['Bread.', 'The red ship is at sea.'] }) })).json()
    assert.equal(ranked.results[0].index, 1)
  },
  async contexts() {
    const text = words(600)
    const put = await (await fetch(`${server.url}/v1/contexts/tale`, { method: 'PUT', headers, body: text })).json()
    assert.equal(put.bytes, text.length)
    const answer = await openai.chat.completions.create({ ...common, context: 'tale' })
    assert.ok(answer.usage.prompt_tokens_details.cached_tokens > 300)
    const edited = await (await fetch(`${server.url}/v1/contexts/tale/edits`, { method: 'POST', headers, body: JSON.stringify({ edits: [{ begin: 0, end: 4, text: 'boat' }] }) })).json()
    assert.ok(edited.read < 200)
    const other = await fetch(`${server.url}/v1/contexts/tale`, { headers: { 'x-api-key': server.keys[1] } })
    assert.equal(other.status, 404)
    assert.equal((await fetch(`${server.url}/v1/contexts/tale`, { method: 'DELETE', headers })).status, 200)
  },
  async errors() {
    const stranger = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'wrong', maxRetries: 0 })
    await fails(401, () => stranger.chat.completions.create(common))
    const long = await fails(400, () => openai.chat.completions.create({ ...common, messages: [{ role: 'user', content: words(9000) }] }))
    assert.match(long.message, /more than fit/)
    assert.equal(long.code, 'context_length_exceeded')
    await fails(400, () => openai.chat.completions.create({ ...common, temperature: -1 }))
    await fails(404, () => openai.chat.completions.create({ ...common, context: 'nothing' }))
    assert.equal((await fetch(`${server.url}/v1/nothing`, { headers })).status, 404)
    assert.equal((await fetch(`${server.url}/v1/chat/completions`, { method: 'POST', headers, body: '{' })).status, 400)
    const many = await Promise.allSettled(Array.from({ length: 60 }, () => openai.chat.completions.create({ ...common, max_tokens: 400 })))
    const refused = many.filter((result) => result.status === 'rejected')
    assert.ok(refused.length > 0 && refused.every((result) => result.reason.status === 429), 'more than --key-requests are refused')
    assert.ok(Number(refused[0].reason.headers.get('retry-after')) > 0)
  },
  async cancellation() {
    const controller = new AbortController()
    const stream = await openai.chat.completions.create({ ...common, max_tokens: 3000 }, { signal: controller.signal, stream: true }).catch(() => null)
    stream?.controller?.abort()
    const events = await openai.chat.completions.create({ ...common, max_tokens: 3000, stream: true })
    for await (const _ of events) break
    await waitFor('the slot of a stream is free', async () => (await running()) === 0)
    const waiting = openai.chat.completions.create({ ...common, max_tokens: 3000, n: 8, fathom: { draft: 'none' } }, { signal: controller.signal })
    await waitFor('the request runs', async () => (await running()) > 0)
    controller.abort()
    await assert.rejects(waiting)
    await waitFor('the slots of a request are free', async () => (await running()) === 0)
  },
}

let failed = 0
for (const [name, section] of Object.entries(sections)) {
  if (only && name !== only) continue
  const begin = Date.now()
  try {
    await section()
    console.log(`ok      ${name} (${Date.now() - begin} ms)`)
  } catch (error) {
    ++failed
    console.log(`FAILED  ${name}: ${error.stack}`)
  }
}
await sleep(50)
await server.stop()
console.log(failed === 0 ? 'all sections passed' : `${failed} sections failed`)
process.exit(failed === 0 ? 0 : 1)
