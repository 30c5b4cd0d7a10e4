// Edits a text in place. A large text is edited in sections, because a text field with millions of characters is slow;
// the changes of all sections are kept until they are saved.

import { h, byId } from './dom.js';
import { diffText } from './diff.js';
import { isPairAt, lastNotAbove } from './offsets.js';
import { count, percent } from './format.js';

const kSection = 100000;  // characters

export function sectionStarts(text, size = kSection) {
  const starts = [0];
  for (let begin = 0; begin + size < text.length;) {
    let end = text.lastIndexOf('\n', begin + size) + 1;
    if (end <= begin + size / 2) end = text.lastIndexOf(' ', begin + size) + 1;
    if (end <= begin + size / 2) end = begin + size;
    if (isPairAt(text, end - 1)) end++;
    if (end < text.length) starts.push(end);
    begin = end;
  }
  return starts;
}

export class Editor {
  /** onChange(): the text was changed. onView(begin, end): about which part of the opened text is visible. */
  constructor({ onChange, onView }) {
    this.field = byId('editor-text');
    this.pages = byId('editor-pages');
    this.onChange = onChange;
    this.field.addEventListener('input', () => {
      this.#keep();
      this.onChange();
    });
    this.field.addEventListener('scroll', () => {
      const { scrollTop, scrollHeight, clientHeight } = this.field;
      const begin = this.starts[this.section];
      const length = this.#original(this.section).length;
      onView(Math.floor(begin + (length * scrollTop) / scrollHeight), Math.floor(begin + (length * (scrollTop + clientHeight)) / scrollHeight));
    }, { passive: true });
  }

  open(text, index) {
    this.text = text;
    this.starts = sectionStarts(text);
    this.changed = new Map();  // section -> new text
    this.#show(lastNotAbove(this.starts, index), index);
  }

  /** Edits with string indices of the opened text. */
  edits() {
    const edits = [];
    for (const i of [...this.changed.keys()].sort((a, b) => a - b)) {
      const begin = this.starts[i];
      for (const edit of diffText(this.#original(i), this.changed.get(i))) {
        edits.push({ begin: begin + edit.begin, end: begin + edit.end, text: edit.text });
      }
    }
    return edits;
  }

  get dirty() { return this.changed.size > 0; }

  /** Moves the caret to an index of the opened text. */
  goTo(index) {
    const i = lastNotAbove(this.starts, index);
    if (i !== this.section) this.#show(i, index);
    else this.#place(index);
  }

  #original(i) { return this.text.slice(this.starts[i], this.starts[i + 1] ?? this.text.length); }

  #show(i, index) {
    this.section = i;
    this.field.value = this.changed.get(i) ?? this.#original(i);
    this.#place(index);
    const last = this.starts.length - 1;
    this.pages.hidden = last === 0;
    this.pages.replaceChildren(
      h('button', { type: 'button', disabled: i === 0, on: { click: () => this.#show(i - 1, this.starts[i - 1]) } }, 'Previous part'),
      h('span', {}, `Part ${count(i + 1)} of ${count(last + 1)} (from ${percent(this.starts[i] / this.text.length)})`),
      h('button', { type: 'button', disabled: i === last, on: { click: () => this.#show(i + 1, this.starts[i + 1]) } }, 'Next part'));
  }

  // Puts the caret at an index and scrolls to it; the browser scrolls to the caret when the field gets the focus.
  #place(index) {
    const at = Math.min(this.field.value.length, Math.max(0, index - this.starts[this.section]));
    this.field.focus({ preventScroll: true });
    this.field.setSelectionRange(at, at);
    const share = at / Math.max(1, this.field.value.length);
    this.field.scrollTop = share * this.field.scrollHeight;
  }

  #keep() {
    const value = this.field.value;
    // The field changes CR LF to LF, so it is compared with what it showed first.
    const original = this.#original(this.section).replace(/\r\n?/g, '\n');
    if (value === original) this.changed.delete(this.section);
    else this.changed.set(this.section, value);
  }
}

