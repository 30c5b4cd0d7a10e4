// Shows a text of any size: blocks of lines that the browser lays out only when they are near the visible part.

import { h } from './dom.js';
import { TextIndex, isPairAt, lastNotAbove } from './offsets.js';
import { percent } from './format.js';

const kBlockLines = 48;
const kBlockLength = 4000;  // characters; longer lines are cut into several blocks

/** Starts of blocks: after a line end where possible, otherwise after a space. */
export function blockStarts(text) {
  const starts = [0];
  for (let begin = 0; begin < text.length;) {
    const limit = Math.min(text.length, begin + kBlockLength);
    let end = begin;
    for (let lines = 0; lines < kBlockLines && end < limit; lines++) {
      const next = text.indexOf('\n', end);
      if (next < 0 || next >= limit) {
        if (lines === 0 || limit === text.length) end = limit;
        break;
      }
      end = next + 1;
    }
    if (end < text.length && text[end - 1] !== '\n') {
      const space = text.lastIndexOf(' ', end - 1);
      if (space > begin) end = space + 1;
      else if (isPairAt(text, end - 1)) end++;
    }
    if (end < text.length) starts.push(end);
    begin = end;
  }
  return starts;
}

export class DocumentView {
  /** root: the scrolling element. onView(begin, end): the visible part changed, as fractions of the bytes. */
  constructor(root, { onView, onPassage }) {
    Object.assign(this, { root, onView, onPassage });
    this.passages = [];
    this.marked = new Set();
    this.setText('');
    let pending = false;
    const report = () => {
      if (pending) return;
      pending = true;
      requestAnimationFrame(() => {
        pending = false;
        this.#report();
      });
    };
    root.addEventListener('scroll', report, { passive: true });
    new ResizeObserver(report).observe(root);
  }

  setText(text) {
    this.text = text;
    this.index = new TextIndex(text);
    this.starts = blockStarts(text);
    this.passages = [];
    this.marked.clear();
    const columns = Math.max(20, Math.floor(this.root.clientWidth / 7.6));
    const fragment = document.createDocumentFragment();
    this.blocks = this.starts.map((begin, i) => {
      const piece = text.slice(begin, this.#endOf(i));
      const block = h('div', { class: 'block' }, piece);
      block.style.containIntrinsicBlockSize = `auto ${(1.6 * estimateLines(piece, columns)).toFixed(1)}em`;
      fragment.append(block);
      return block;
    });
    this.root.replaceChildren(fragment);
    this.root.scrollTop = 0;
    this.#report();
  }

  /** passages: [{begin, end, share, label}] with string indices, most important first; the label is optional. */
  setPassages(passages) {
    this.passages = passages;
    const touched = new Map();  // block -> its pieces
    passages.forEach(({ begin, end }, number) => {
      if (end <= begin) return;
      for (let i = lastNotAbove(this.starts, begin); i < this.blocks.length && this.starts[i] < end; i++) {
        if (!touched.has(i)) touched.set(i, []);
        touched.get(i).push({ begin: Math.max(begin, this.starts[i]), end: Math.min(end, this.#endOf(i)), number });
      }
    });
    for (const i of this.marked) if (!touched.has(i)) this.blocks[i].replaceChildren(this.text.slice(this.starts[i], this.#endOf(i)));
    for (const [i, pieces] of touched) this.#markBlock(i, pieces);
    this.marked = new Set(touched.keys());
  }

  #markBlock(i, pieces) {
    const nodes = [];
    const peak = Math.max(...this.passages.map((passage) => passage.share), 1e-9);
    let at = this.starts[i];
    for (const { begin, end, number } of pieces.sort((a, b) => a.begin - b.begin)) {
      if (end <= at) continue;  // inside another passage
      const from = Math.max(begin, at);
      if (from > at) nodes.push(this.text.slice(at, from));
      const { share, label } = this.passages[number];
      const mark = h('mark', { data: { passage: number }, title: label ?? `Passage ${number + 1}: ${percent(share)} of the attention`,
        on: { click: () => this.onPassage(number) } }, this.text.slice(from, end));
      mark.style.setProperty('--share', Math.sqrt(Math.max(0, share) / peak).toFixed(2));
      nodes.push(mark);
      at = end;
    }
    nodes.push(this.text.slice(at, this.#endOf(i)));
    this.blocks[i].replaceChildren(...nodes);
  }

  scrollToPassage(number) {
    const mark = this.root.querySelector(`mark[data-passage="${number}"]`);
    if (mark) this.#center(mark);
    for (const other of this.root.querySelectorAll('mark.current')) other.classList.remove('current');
    for (const piece of this.root.querySelectorAll(`mark[data-passage="${number}"]`)) piece.classList.add('current');
  }

  /** Scrolls a fraction of the bytes to the top of the view. */
  scrollToFraction(fraction) {
    this.scrollToIndex(this.index.toIndex(Math.floor(fraction * this.index.bytes)));
  }

  scrollToIndex(index) {
    const i = lastNotAbove(this.starts, index);
    const block = this.blocks[i];
    const share = (index - this.starts[i]) / Math.max(1, this.#endOf(i) - this.starts[i]);
    const move = () => {
      block.scrollIntoView({ block: 'start', behavior: 'instant' });
      this.root.scrollTop += share * block.offsetHeight;
    };
    move();
    requestAnimationFrame(move);  // blocks above got their real height
  }

  /** String index of the first visible character, estimated inside its block. */
  topIndex() { return this.#indexAt(this.root.scrollTop); }

  #center(element) {
    const move = () => element.scrollIntoView({ block: 'center', behavior: 'instant' });
    move();
    requestAnimationFrame(move);
  }

  #endOf(i) { return i + 1 < this.starts.length ? this.starts[i + 1] : this.text.length; }

  #indexAt(y) {
    let low = 0;
    let high = this.blocks.length - 1;
    const top = this.blocks[0].offsetTop;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.blocks[middle].offsetTop - top <= y) low = middle;
      else high = middle - 1;
    }
    const block = this.blocks[low];
    const share = Math.min(1, Math.max(0, (y - (block.offsetTop - top)) / Math.max(1, block.offsetHeight)));
    return Math.round(this.starts[low] + share * (this.#endOf(low) - this.starts[low]));
  }

  #report() {
    if (this.text === '' || this.root.clientHeight === 0) return;
    const y = this.root.scrollTop;
    const all = Math.max(1, this.index.bytes);
    this.onView(this.index.toByte(this.#indexAt(y)) / all, this.index.toByte(this.#indexAt(y + this.root.clientHeight)) / all);
  }
}

function estimateLines(piece, columns) {
  let lines = 0;
  let begin = 0;
  for (let end; begin < piece.length; begin = end + 1) {
    end = piece.indexOf('\n', begin);
    if (end < 0) end = piece.length;
    lines += Math.max(1, Math.ceil((end - begin) / columns));
  }
  return Math.max(1, lines);
}
