// Shows the messages of a conversation.

import { h } from './dom.js';
import { MarkdownStream } from './markdown.js';
import { bytes, count, excerpt, rate } from './format.js';

const kPassagesShown = 6;
const kRedrawDelay = 50;  // ms between two updates of a growing answer

/** Builds the box of an error: what happened, what to do, and buttons. actions: [[label, handler]]. */
export function errorBox(error, actions = []) {
  return h('div', { class: 'error', role: 'group', 'aria-label': 'Error' },
    h('p', {}, h('strong', {}, error.message), error.hint ? ` ${error.hint}` : ''),
    actions.length > 0 && h('div', { class: 'row' }, actions.map(([label, handler]) =>
      h('button', { type: 'button', on: { click: handler } }, label))));
}

export class ChatView {
  /** handlers: onPassage(message, number), onAgain(message), onMethods(error). */
  constructor(root, handlers) {
    Object.assign(this, { root, handlers });
    this.follow = true;  // scroll to new text
    root.addEventListener('scroll', () => {
      this.follow = root.scrollHeight - root.scrollTop - root.clientHeight < 48;
    }, { passive: true });
  }

  show(messages, empty) {
    this.root.replaceChildren();
    this.empty = messages.length === 0 ? h('div', { class: 'empty' }, empty) : null;
    if (this.empty) this.root.append(this.empty);
    for (const message of messages) this.add(message);
    this.follow = true;
    this.scroll();
  }

  /** Adds a message and returns its view. */
  add(message) {
    this.empty?.remove();
    this.empty = null;
    const view = message.role === 'user' ? userView(message) : new AnswerView(message, this);
    this.root.append(view.element);
    this.scroll();
    return view;
  }

  scroll() {
    if (this.follow) this.root.scrollTop = this.root.scrollHeight;
  }
}

function userView(message) {
  return { element: h('article', { class: 'message user' }, h('h3', { class: 'hidden-text' }, 'Question'), h('p', { class: 'plain' }, message.content)) };
}

class AnswerView {
  #timer = 0;

  constructor(message, chat) {
    Object.assign(this, { message, chat });
    this.reasoning = h('div', { class: 'plain' });
    this.reasoningBox = h('details', { class: 'reasoning', hidden: true }, h('summary', {}, 'Reasoning'), this.reasoning);
    this.content = h('div', { class: 'markdown' });
    this.state = h('p', { class: 'note' });
    this.footer = h('div', { class: 'footer' });
    this.element = h('article', { class: 'message answer' }, h('h3', { class: 'hidden-text' }, 'Answer'),
      this.reasoningBox, this.content, this.state, this.footer);
    this.stream = new MarkdownStream(this.content);
    this.finish();
  }

  /** Shows what has arrived, at most every kRedrawDelay ms. */
  update(state = '') {
    this.element.setAttribute('aria-busy', 'true');
    this.state.textContent = state;
    if (this.#timer !== 0) return;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.#showReasoning();
      this.stream.update(this.message.content);
      this.chat.scroll();
    }, kRedrawDelay);
  }

  /** Shows the complete answer with its figures, passages, error and buttons. */
  finish() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const { message } = this;
    this.element.removeAttribute('aria-busy');
    this.#showReasoning();
    this.stream.finish(message.content);
    this.state.textContent = message.stopped ? 'Stopped.' : message.cut ? 'The limit of tokens was reached.' : '';
    this.showPassages();
    this.chat.scroll();
  }

  #showReasoning() {
    this.reasoningBox.hidden = !this.message.reasoning;
    if (this.message.reasoning) this.reasoning.textContent = this.message.reasoning;
  }

  /** Shows figures, passages, error and buttons. Called again when passages arrive or the text changes. */
  showPassages() {
    const { message, chat: { handlers } } = this;
    const passages = message.attention?.passages ?? [];
    const caption = passages.length > 0 && h('p', { class: 'note' }, 'Passages with the most attention');
    const list = passages.length > 0 && h('ol', { class: 'passages', 'aria-label': 'Passages of the text with the most attention' },
      passages.slice(0, kPassagesShown).map((passage, number) => h('li', {}, h('button', { type: 'button',
        on: { click: () => handlers.onPassage(message, number) } },
      h('span', { class: 'share' }, `${Math.round(100 * passage.share)} %`), h('span', { class: 'quote' }, excerpt(passage.excerpt, 110))))));
    const busy = this.element.hasAttribute('aria-busy');
    const stats = statsText(message.stats);
    const buttons = !busy && h('div', { class: 'row' },
      message.content !== '' && h('button', { type: 'button', class: 'quiet', on: { click: (event) => copy(message.content, event.target) } }, 'Copy'),
      !message.error && h('button', { type: 'button', class: 'quiet', on: { click: () => handlers.onAgain(message) } }, 'Ask again'));
    const error = message.error && errorBox(message.error, [
      ['Ask again', () => handlers.onAgain(message)],
      ...(message.error.status === 400 ? [['Change the methods', () => handlers.onMethods(message.error)]] : [])]);
    const earlier = message.earlier && h('details', { class: 'reasoning' }, h('summary', {}, 'Earlier answer'), h('div', { class: 'plain' }, message.earlier));
    this.footer.replaceChildren(...[error, caption, list, stats !== '' && h('p', { class: 'stats' }, stats), buttons, earlier].filter(Boolean));
  }
}

function statsText(stats) {
  if (!stats) return '';
  const parts = [];
  if (stats.rate > 0) parts.push(rate(stats.rate));
  if (stats.generated >= 0) parts.push(`${count(stats.generated)} generated`);
  if (stats.cached >= 0) parts.push(`${count(stats.cached)} cached`);
  if (stats.read >= 0) parts.push(`${count(stats.read)} read`);
  if (stats.memory > 0) parts.push(bytes(stats.memory));
  return parts.join(' · ');
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = 'Copied';
  } catch {
    button.textContent = 'Copying is not allowed here';
  }
  setTimeout(() => { button.textContent = 'Copy'; }, 2000);
}
