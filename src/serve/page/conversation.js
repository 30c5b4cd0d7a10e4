// Asks questions: sends a conversation, parses the answer as it arrives, and reports changes.

import { announce } from './dom.js';
import { excerpt } from './format.js';
import { isAbort } from './api.js';
import { packStrip, unpackStrip } from './store.js';

const kKept = 300;  // characters of a passage that are saved with the conversation

export const newChat = (context) => ({ id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`.replace('.', ''), context,
  title: 'New conversation', updated: 0, messages: [] });

export class Conversation {
  /**
   * view: ChatView. index(): TextIndex of the shown text, or null. handlers: onChange() after messages changed,
   * onAttention(message), onBusy(busy), request(messages): the body to send, onFinished().
   */
  constructor(api, view, index, handlers) {
    Object.assign(this, { api, view, index, handlers });
    this.chat = newChat(null);
    this.views = new Map();  // message -> its view
    this.controller = null;
  }

  get busy() { return this.controller !== null; }
  get lastAnswer() { return this.chat.messages.findLast((message) => message.role === 'assistant'); }

  open(chat, empty) {
    this.stop();
    this.chat = chat;
    this.views.clear();
    this.view.show([], empty);
    for (const message of chat.messages) this.#add(message);
    this.view.follow = true;
    this.view.scroll();
  }

  ask(question) {
    const { chat } = this;
    if (chat.messages.length === 0) chat.title = excerpt(question, 60);
    const message = { role: 'user', content: question };
    chat.messages.push(message);
    this.view.follow = true;
    this.#add(message);
    return this.#answer({ role: 'assistant', content: '' });
  }

  /** Asks the question of an answer again. Later messages are removed; the old answer stays readable. */
  askAgain(message) {
    const { chat } = this;
    const at = chat.messages.indexOf(message);
    if (this.busy || at < 0) return undefined;
    for (const removed of chat.messages.splice(at)) {
      this.views.get(removed)?.element.remove();
      this.views.delete(removed);
    }
    this.view.follow = true;
    return this.#answer({ role: 'assistant', content: '', ...(message.content && { earlier: message.content }) });
  }

  stop() { this.controller?.abort(); }

  async #answer(message) {
    const { chat } = this;
    const request = this.handlers.request(chat.messages.filter(({ content }) => content !== '').map(({ role, content }) => ({ role, content })));
    chat.messages.push(message);
    const controller = new AbortController();
    this.controller = controller;
    const view = this.#add(message);
    view.update('Waiting for the server …');
    view.showPassages();
    this.#changed(chat);
    this.handlers.onBusy(true);
    announce('The answer is being written.');
    try {
      for await (const chunk of this.api.chat(request, controller.signal)) this.#take(chunk, message, view);
    } catch (error) {
      if (isAbort(error)) message.stopped = true;
      else message.error = { message: error.message ?? String(error), hint: error.hint ?? '', status: error.status ?? 0 };
    }
    if (this.controller === controller) this.controller = null;
    view.finish();
    this.#changed(chat);
    this.handlers.onBusy(this.busy);
    if (message.error) announce(`Error: ${message.error.message} ${message.error.hint}`);
    else if (message.stopped) announce('The answer was stopped.');
    else announce(`Answer: ${message.content}`);
    this.handlers.onFinished();
  }

  #take(chunk, message, view) {
    const choice = chunk.choices?.[0];
    if (choice?.delta?.content) message.content += choice.delta.content;
    if (choice?.delta?.reasoning_content) message.reasoning = (message.reasoning ?? '') + choice.delta.reasoning_content;
    if (choice?.finish_reason === 'length') message.cut = true;
    const progress = chunk.prompt_progress;
    let state = message.content === '' && message.reasoning ? 'Thinking …' : '';
    if (progress && message.content === '') {
      state = `Reading the question: ${progress.processed} of ${progress.total} tokens (${progress.cached} cached)`;
    }
    if (chunk.usage) {
      const { prompt_tokens: prompt, completion_tokens: generated, prompt_tokens_details: details } = chunk.usage;
      const cached = details?.cached_tokens ?? 0;
      message.stats = { ...message.stats, generated, cached, read: prompt - cached };
    }
    if (chunk.timings) {
      message.stats = { ...message.stats, rate: chunk.timings.predicted_per_second, memory: chunk.timings.memory_bytes };
    }
    if (chunk.fathom?.attention) {
      this.#takeAttention(chunk.fathom.attention, message);
      view.showPassages();
      this.handlers.onAttention(message);
    }
    view.update(state);
  }

  // Keeps the beginning of each passage, to find it again after the text was edited.
  #takeAttention({ strip, passages }, message) {
    const index = this.index();
    if (!index) return;
    message.attention = { strip: packStrip(strip ?? []), passages: (passages ?? []).map(({ begin, end, share }) => {
      const from = index.toIndex(begin);
      const length = index.toIndex(end) - from;
      return { begin, end, share: Number(share) || 0, length, excerpt: index.text.slice(from, from + Math.min(length, kKept)) };
    }) };
  }

  #add(message) {
    const view = this.view.add(message);
    this.views.set(message, view);
    return view;
  }

  #changed(chat) {
    chat.updated = Date.now() / 1000;
    this.handlers.onChange(chat);
  }
}

/**
 * Where the passages of an answer are in a text now: [{begin, end, share, number}] with string indices, and the
 * strip as numbers. A passage that moved is searched; one that is gone is left out.
 */
export function locate(attention, index) {
  const passages = [];
  attention.passages.forEach(({ begin, share, length, excerpt: start }, number) => {
    let from = index.toIndex(begin);
    if (!index.text.startsWith(start, from)) from = nearest(index.text, start, from);
    if (from >= 0 && length > 0) passages.push({ begin: from, end: Math.min(index.text.length, from + length), share, number });
  });
  return { values: attention.strip === '' ? null : unpackStrip(attention.strip), passages };
}

function nearest(text, part, at) {
  const after = text.indexOf(part, at);
  const before = text.lastIndexOf(part, at);
  if (after < 0 || before < 0) return Math.max(after, before);
  return after - at < at - before ? after : before;
}
