// The strip over the document: 256 cells, each for an equal part of the bytes of the text. Shows how much attention
// each part got, how much of the text is read, and which part is visible. A slider for the keyboard.

import { svg, h } from './dom.js';
import { percent } from './format.js';

export const kCells = 256;

export class Strip {
  #cell = 0;
  #values = null;

  /** onSelect(fraction): the user selected the position `fraction` (0..1) of the text. */
  constructor(root, onSelect) {
    this.root = root;
    this.onSelect = onSelect;
    this.cells = Array.from({ length: kCells }, (_, i) => svg('rect', { x: i, y: 0, width: 1, height: 1, class: 'cell' }));
    this.read = svg('rect', { x: 0, y: 0, width: 0, height: 1, class: 'read' });
    this.marks = svg('g', { class: 'marks' });
    this.view = svg('rect', { x: 0, y: 0, width: 0, height: 1, class: 'view' });
    this.cursor = svg('rect', { x: 0, y: 0, width: 1, height: 1, class: 'cursor' });
    this.summary = h('p', { id: `${root.id}-summary`, class: 'hidden-text' });
    root.append(svg('svg', { viewBox: `0 0 ${kCells} 1`, preserveAspectRatio: 'none', 'aria-hidden': 'true' },
      this.read, ...this.cells, this.marks, this.view, this.cursor));
    root.after(this.summary);
    for (const [name, value] of Object.entries({ role: 'slider', tabindex: 0, 'aria-label': 'Position in the text',
      'aria-valuemin': 1, 'aria-valuemax': kCells, 'aria-describedby': this.summary.id })) root.setAttribute(name, value);
    root.addEventListener('keydown', (event) => this.#onKey(event));
    root.addEventListener('pointerdown', (event) => this.#onPointer(event));
    root.addEventListener('pointermove', (event) => {
      const cell = this.#cellAt(event);
      root.title = this.#describe(cell);
      if (event.buttons === 1) this.#select(cell);
    });
    this.setAttention(null);
  }

  /** values: 256 numbers 0..1, or null for none. passages: [{begin, end}] as fractions of the text. */
  setAttention(values, passages = []) {
    this.#values = values;
    const peak = values ? Math.max(...values, 1e-9) : 1;
    // The power makes small shares visible.
    this.cells.forEach((cell, i) => { cell.style.opacity = values ? ((Math.max(0, values[i] || 0) / peak) ** 0.75).toFixed(3) : '0'; });
    this.marks.replaceChildren(...passages.map(({ begin, end }) =>
      svg('rect', { x: kCells * begin, y: 0.86, width: Math.max(0.75, kCells * (end - begin)), height: 0.14 })));
    this.summary.textContent = this.#summarise();
    this.#update();
  }

  /** Share of the text that is read; null if all of it is. */
  setRead(share) {
    this.root.classList.toggle('reading', share !== null);
    this.read.setAttribute('width', share === null ? 0 : kCells * share);
  }

  /** The visible part, as fractions. */
  setView(begin, end) {
    const width = Math.max(2, kCells * (end - begin));
    this.view.setAttribute('x', Math.min(kCells * begin, kCells - width));
    this.view.setAttribute('width', width);
    if (document.activeElement !== this.root) this.#cell = Math.min(kCells - 1, Math.floor(kCells * begin));
    this.#update();
  }

  #cellAt(event) {
    const box = this.root.getBoundingClientRect();
    return Math.min(kCells - 1, Math.max(0, Math.floor((kCells * (event.clientX - box.left)) / box.width)));
  }

  #onPointer(event) {
    if (event.button !== 0) return;
    this.root.setPointerCapture(event.pointerId);
    this.#select(this.#cellAt(event));
  }

  #onKey(event) {
    const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -16, PageUp: 16 }[event.key];
    const cell = event.key === 'Home' ? 0 : event.key === 'End' ? kCells - 1 : step ? this.#cell + step : null;
    if (event.key === 'Enter') this.#select(this.#cell);
    if (cell === null) return;
    event.preventDefault();
    this.#select(Math.min(kCells - 1, Math.max(0, cell)));
  }

  #select(cell) {
    this.#cell = cell;
    this.#update();
    this.onSelect(cell / kCells);
  }

  #update() {
    this.cursor.setAttribute('x', this.#cell);
    this.root.setAttribute('aria-valuenow', this.#cell + 1);
    this.root.setAttribute('aria-valuetext', this.#describe(this.#cell));
  }

  #describe(cell) {
    const where = `${percent(cell / kCells)} of the text`;
    return this.#values ? `${where}, attention ${(this.#values[cell] || 0).toFixed(2)}` : where;
  }

  #summarise() {
    if (!this.#values) return 'No attention is shown.';
    const parts = [];  // the strongest cells that are not next to one another
    const order = this.#values.map((value, i) => [value || 0, i]).sort((a, b) => b[0] - a[0]);
    for (const [value, i] of order) {
      if (value <= 0 || parts.length === 5) break;
      if (parts.every(([, other]) => Math.abs(other - i) > 2)) parts.push([value, i]);
    }
    return parts.length === 0 ? 'The answer attended to no part of the text.'
      : `Most attention: ${parts.map(([value, i]) => `${value.toFixed(2)} at ${percent(i / kCells)}`).join(', ')} of the text.`;
  }
}
