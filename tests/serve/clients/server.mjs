// Starts `fathom serve` for tests, and stops it.
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Starts a server on a free port. options: further options of the program; folder: of its contexts and cache. */
export async function startServer({ program, model, options = [], folder, keys = ['first-key', 'second-key'] }) {
  const own = folder ?? mkdtempSync(join(tmpdir(), 'fathom-clients-'))
  const child = spawn(program, ['serve', '-m', model, '--port', '0', '--contexts', join(own, 'contexts'), ...keys.flatMap((key) => ['--api-key', key]), ...options],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, XDG_CACHE_HOME: own } })
  let output = '', errors = ''
  child.stderr.on('data', (part) => { errors += part })
  const exited = new Promise((resolve) => child.on('exit', resolve))
  const url = await new Promise((resolve, reject) => {
    child.stdout.on('data', (part) => {
      output += part
      const found = output.match(/listening on (\S+)/)
      if (found) resolve(found[1])
    })
    exited.then((code) => reject(new Error(`the server ended with ${code}: ${errors}`)))
  })
  return {
    url, keys, folder: own, child,
    errors: () => errors,
    /** Returns the resident memory in bytes. */
    memory: () => 1024 * Number(readFileSync(`/proc/${child.pid}/status`, 'utf8').match(/VmRSS:\s+(\d+)/)[1]),
    async stop(signal = 'SIGTERM') {
      child.kill(signal)
      await exited
      if (!folder && signal === 'SIGTERM') rmSync(own, { recursive: true, force: true })
    },
  }
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** Calls `check` until it returns true; throws after `seconds`. */
export async function waitFor(what, check, seconds = 10) {
  const end = Date.now() + 1000 * seconds
  while (!(await check())) {
    if (Date.now() > end) throw new Error(`${what}: not within ${seconds} s`)
    await sleep(20)
  }
}

/** A repeatable stream of numbers in [0, 1). */
export function randomNumbers(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}
