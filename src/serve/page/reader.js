// Reads texts into contexts: decodes files, sends them one after the other, and keeps the progress of each.

import { ApiError, isAbort, tooLarge } from './api.js';
import { utf8Length } from './offsets.js';
import { contextName } from './format.js';

/** Text of a file in UTF-8, UTF-16 with a byte order mark, or otherwise Windows-1252. Throws for binary data. */
export function decodeText(buffer) {
  const data = new Uint8Array(buffer);
  if (data[0] === 0xff && data[1] === 0xfe) return { text: new TextDecoder('utf-16le').decode(data), encoding: 'UTF-16' };
  if (data[0] === 0xfe && data[1] === 0xff) return { text: new TextDecoder('utf-16be').decode(data), encoding: 'UTF-16' };
  if (data.subarray(0, 65536).includes(0)) {
    throw new ApiError('The file is not a text.', { hint: 'Convert it to plain text first; PDF and word processor files cannot be read.' });
  }
  try {
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(data), encoding: 'UTF-8' };
  } catch {
    return { text: new TextDecoder('windows-1252').decode(data), encoding: 'Windows-1252' };
  }
}

export class Reader {
  /** handlers: onStart(job), onProgress(job), onDone(job), onEnd(job) after an error or a cancellation. */
  constructor(api, handlers) {
    Object.assign(this, { api, handlers });
    this.jobs = new Map();  // name -> {name, text, bytes, status, progress, context, error}
    this.queue = Promise.resolve();
    this.limit = Infinity;  // bytes
  }

  /** Decodes a file and reads it under a name made from the file's name. */
  async readFile(file, taken) {
    if (file.size > this.limit) throw tooLarge(file.size, this.limit);
    let buffer;
    try {
      buffer = await file.arrayBuffer();
    } catch {
      throw new ApiError(`The file “${file.name}” cannot be opened.`, { hint: 'A folder cannot be read; choose its files.' });
    }
    const { text, encoding } = decodeText(buffer);
    if (text === '') throw new ApiError(`The file “${file.name}” is empty.`);
    this.start(contextName(file.name, [...taken, ...this.jobs.keys()]), text);
    return encoding;
  }

  /** Queues a text. */
  start(name, text) {
    const size = utf8Length(text);
    if (size > this.limit) throw tooLarge(size, this.limit);
    const job = { name, text: text.toWellFormed?.() ?? text, bytes: size, status: 'reading', progress: null, controller: new AbortController() };
    this.jobs.set(name, job);
    this.handlers.onStart(job);
    this.queue = this.queue.then(() => this.#run(job));
  }

  cancel(name) { this.jobs.get(name)?.controller.abort(); }

  async #run(job) {
    try {
      job.controller.signal.throwIfAborted();
      job.context = await this.api.readText(job.name, job.text, (progress) => {
        job.progress = progress;
        this.handlers.onProgress(job);
      }, job.controller.signal);
      this.jobs.delete(job.name);
      this.handlers.onDone(job);
    } catch (error) {
      job.status = isAbort(error) ? 'cancelled' : 'failed';
      job.error = error;
      this.handlers.onEnd(job);
    }
  }
}
