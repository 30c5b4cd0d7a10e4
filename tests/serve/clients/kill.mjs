// Kills fathom serve while contexts are read, and starts it again: node kill.mjs PROGRAM MODEL [--rounds N]
// Every context that was acknowledged is there with its text, and no other file is left behind.
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { randomNumbers, sleep, startServer } from './server.mjs'

const [program, model, ...rest] = process.argv.slice(2)
const rounds = rest[0] === '--rounds' ? Number(rest[1]) : 5
const folder = mkdtempSync(join(tmpdir(), 'fathom-kill-'))
const random = randomNumbers(3)
const known = new Map()
const words = ['lamp', 'ship', 'fire', 'sea', 'rain', 'stone', 'bird']
const text = () => Array.from({ length: 200 + Math.floor(random() * 400) }, () => words[Math.floor(random() * words.length)]).join(' ')

async function checkAll(server, headers) {
  for (const [name, accepted] of known) {
    const found = await (await fetch(`${server.url}/v1/contexts/${name}/text`, { headers })).text()
    assert.ok(accepted.includes(found), `context ${name}`)
    known.set(name, [found])
    const body = JSON.stringify({ context: name, messages: [{ role: 'user', content: 'lamp' }], max_tokens: 2 })
    const answer = await fetch(`${server.url}/v1/chat/completions`, { method: 'POST', headers, body })
    assert.equal(answer.status, 200, await answer.text())
  }
}

for (let round = 0; round < rounds; ++round) {
  const server = await startServer({ program, model, folder })
  const headers = { authorization: `Bearer ${server.keys[0]}` }
  await checkAll(server, headers)
  let killed = false
  const writers = Array.from({ length: 3 }, async (_, writer) => {
    for (let i = 0; !killed; ++i) {
      const name = `c${writer}-${i % 4}`, content = text()
      const before = known.get(name) ?? []
      known.set(name, [...before, content])  // either is right until the answer comes
      const response = await fetch(`${server.url}/v1/contexts/${name}`, { method: 'PUT', headers, body: content }).catch(() => null)
      if (response?.status === 200) known.set(name, [content])
      else if (before.length === 0) known.delete(name)  // was not acknowledged: it may be there or not
    }
  })
  await sleep(150 + 400 * random())
  killed = true
  await server.stop('SIGKILL')
  await Promise.all(writers)
}
const server = await startServer({ program, model, folder })
await checkAll(server, { authorization: `Bearer ${server.keys[0]}` })
await server.stop()
const files = readdirSync(folder, { recursive: true }).filter((name) => name.startsWith('contexts') && name.includes('.') && !name.endsWith('.ctx'))
console.log(`${rounds} kills, ${known.size} contexts; unfinished files: ${files.length}`)
rmSync(folder, { recursive: true, force: true })
