// Conversations and settings in localStorage. One record of metadata and one of messages per conversation, so
// that lists are cheap and two tabs do not overwrite each other's lists.

const kMeta = 'fathom.meta.';
const kMessages = 'fathom.messages.';

export class Store {
  constructor(storage = browserStorage()) {
    this.storage = storage;
  }

  get(name, fallback) {
    return readJson(this.storage, `fathom.${name}`) ?? fallback;
  }

  set(name, value) {
    this.#write(`fathom.${name}`, value, null);
  }

  /** Metadata {id, context, title, updated} of the conversations about a context (null: none), newest first. */
  list(context) {
    return this.#all().filter((meta) => meta.context === context).sort((a, b) => b.updated - a.updated);
  }

  load(id) {
    const meta = readJson(this.storage, kMeta + id);
    const messages = readJson(this.storage, kMessages + id);
    return meta && Array.isArray(messages) ? { ...meta, messages } : null;
  }

  /**
   * Saves a conversation. When the storage is full, the oldest other conversations are deleted.
   * Returns {saved, deleted}: whether it was saved, and how many others were deleted.
   */
  save({ id, context, title, updated, messages }) {
    let deleted = this.#write(kMessages + id, messages, id);
    if (deleted < 0) return { saved: false, deleted: 0 };
    const more = this.#write(kMeta + id, { id, context, title, updated }, id);
    if (more > 0) deleted += more;
    return { saved: more >= 0, deleted };
  }

  remove(id) {
    this.storage.removeItem(kMeta + id);
    this.storage.removeItem(kMessages + id);
  }

  #all() {
    const all = [];
    for (let i = 0; i < this.storage.length; i++) {
      const key = this.storage.key(i);
      if (key.startsWith(kMeta)) all.push(readJson(this.storage, key));
    }
    return all.filter((meta) => meta && typeof meta.id === 'string');
  }

  // Returns how many conversations were deleted to make room, or -1 if there is no room.
  #write(key, value, keep) {
    const text = JSON.stringify(value);
    for (let deleted = 0;; deleted++) {
      try {
        this.storage.setItem(key, text);
        return deleted;
      } catch {
        const oldest = this.#all().filter((meta) => meta.id !== keep).sort((a, b) => a.updated - b.updated)[0];
        if (!oldest) return -1;
        this.remove(oldest.id);
      }
    }
  }
}

/** Storage that is lost with the page: when the browser does not allow localStorage, and for tests. */
export class MemoryStorage {
  #items = new Map();
  constructor(quota = Infinity) { this.quota = quota; }
  get length() { return this.#items.size; }
  key(i) { return [...this.#items.keys()][i]; }
  getItem(key) { return this.#items.get(key) ?? null; }
  removeItem(key) { this.#items.delete(key); }
  setItem(key, value) {
    let size = value.length;
    for (const [other, text] of this.#items) if (other !== key) size += text.length;
    if (size > this.quota) throw new Error('quota exceeded');
    this.#items.set(key, value);
  }
}

function browserStorage() {
  try {
    localStorage.getItem('fathom.test');
    return localStorage;
  } catch {
    return new MemoryStorage();
  }
}

function readJson(storage, key) {
  try {
    return JSON.parse(storage.getItem(key));
  } catch {
    return null;
  }
}

/** A conversation as Markdown. */
export function toMarkdown(chat) {
  const lines = [`# ${chat.title}`, ''];
  if (chat.context) lines.push(`Text: ${chat.context}`, '');
  for (const message of chat.messages) {
    lines.push(message.role === 'user' ? '## Question' : '## Answer', '', message.content, '');
    for (const passage of message.attention?.passages ?? []) {
      lines.push(`- ${Math.round(100 * passage.share)} % of attention, bytes ${passage.begin}–${passage.end}: “${passage.excerpt}”`);
    }
    if (message.attention?.passages?.length) lines.push('');
  }
  return lines.join('\n');
}

/** Packs numbers 0..1 into a string, one character each (base 64 digits: 6 bits), and back. */
const kDigits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
export const packStrip = (strip) => strip.map((x) => kDigits[Math.round(63 * Math.min(1, Math.max(0, x || 0)))]).join('');
export const unpackStrip = (text) => [...text].map((c) => Math.max(0, kDigits.indexOf(c)) / 63);
