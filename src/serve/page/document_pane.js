// The pane of the document: text with marked passages, strip, progress of reading, and the editor.

import { h, byId, announce } from './dom.js';
import { DocumentView } from './document_view.js';
import { Editor } from './editor.js';
import { Strip } from './strip.js';
import { applyEdits } from './diff.js';
import { confirmDialog } from './dialogs.js';
import { errorBox } from './chat_view.js';
import { isAbort } from './api.js';
import { bytes, count, duration, rate } from './format.js';

export class DocumentPane {
  /** handlers: onEdited(context, result), onAskAgain() or null, onPassage(number). */
  constructor(api, handlers) {
    Object.assign(this, { api, handlers });
    this.root = byId('document');
    this.status = byId('document-status');
    this.strip = new Strip(byId('strip'), (fraction) => this.#goTo(fraction));
    this.view = new DocumentView(byId('text'), {
      onView: (begin, end) => this.strip.setView(begin, end),
      onPassage: (number) => {
        this.view.scrollToPassage(number);
        handlers.onPassage(number);
      },
    });
    this.editor = new Editor({
      onChange: () => this.#showDirty(),
      onView: (begin, end) => this.strip.setView(this.#fraction(begin), this.#fraction(end)),
    });
    this.tag = null;
    this.context = null;
    byId('edit').addEventListener('click', () => this.edit());
    byId('edit-cancel').addEventListener('click', () => this.cancelEdit());
    byId('edit-save').addEventListener('click', () => this.save());
  }

  get text() { return this.view.text; }
  get index() { return this.view.index; }
  get editing() { return !byId('editor').hidden; }

  /** Shows no document. */
  close() {
    this.loading?.abort();
    this.#closeEditor();
    this.context = null;
    this.root.hidden = true;
    this.view.setText('');
  }

  /** Loads and shows the text of a context that was read. */
  async open(context) {
    this.show(context, '');
    const loading = new AbortController();
    this.loading = loading;
    this.setStatus(h('p', {}, 'Loading the text …'));
    try {
      const { text, tag } = await this.api.text(context.name, loading.signal);
      if (loading.signal.aborted) return;
      this.show(context, text, tag);
    } catch (error) {
      if (isAbort(error) || loading.signal.aborted) return;
      this.setStatus(errorBox(error, [['Try again', () => this.open(context)]]));
    }
  }

  /** Shows a text. A context that is not ready cannot be edited. */
  show(context, text, tag = null) {
    this.loading?.abort();
    this.#closeEditor();
    this.context = context;
    this.tag = tag;
    this.root.hidden = false;
    byId('document-title').textContent = context.name;
    this.setContext(context);
    this.view.setText(text);
    this.strip.setAttention(null);
    this.strip.setRead(null);
    this.setStatus(null);
  }

  setContext(context) {
    this.context = context;
    byId('edit').hidden = context.status !== 'ready';
    byId('document-info').textContent = [context.tokens >= 0 && `${count(context.tokens)} tokens`, bytes(context.bytes)].filter(Boolean).join(' · ');
  }

  setStatus(...nodes) {
    this.status.replaceChildren(...nodes.filter(Boolean));
    this.status.hidden = this.status.childNodes.length === 0;
  }

  /** Shows how far a text is read. progress: null before the first report. */
  setProgress(label, progress, onCancel) {
    if (!this.bar?.isConnected || this.barLabel !== label) {
      this.bar = h('progress', { max: 1, 'aria-label': label });
      this.barLabel = label;
      this.figures = h('p', { class: 'figures' }, 'Waiting for the server …');
      this.setStatus(h('div', { class: 'reading' }, h('div', { class: 'row' }, h('p', {}, `${label} …`),
        h('button', { type: 'button', on: { click: onCancel } }, 'Cancel')), this.bar, this.figures));
    }
    if (!progress) return;
    const { total, cached, processed } = progress;
    const share = total > 0 ? (cached + processed) / total : 0;
    this.bar.value = share;
    this.figures.textContent = progressText(progress);
    this.strip.setRead(share);
    if (cached > 0) this.figures.append(`, ${count(cached)} from the cache`);
  }

  /** Shows attention. values: 256 numbers or null; passages: [{begin, end, share}] with string indices. */
  setAttention(values, passages) {
    this.view.setPassages(passages);
    this.strip.setAttention(values, passages.map(({ begin, end }) => ({ begin: this.#fraction(begin), end: this.#fraction(end) })));
  }

  #fraction(index) { return this.index.toByte(index) / Math.max(1, this.index.bytes); }

  scrollToPassage(number) { this.view.scrollToPassage(number); }

  #goTo(fraction) {
    if (this.editing) this.editor.goTo(this.index.toIndex(Math.floor(fraction * this.index.bytes)));
    else this.view.scrollToFraction(fraction);
  }

  edit() {
    if (this.editing || this.context?.status !== 'ready') return;
    const index = this.view.topIndex();
    this.#setEditing(true);
    this.setStatus(null);
    this.editor.open(this.text, index);
    this.#showDirty();
  }

  /** Leaves the editor. Resolves to false if the user wants to keep unsaved changes. */
  async cancelEdit() {
    if (this.saving) return false;
    if (this.editing && this.editor.dirty) {
      const agreed = await confirmDialog({ title: 'Discard the changes?', text: 'The changes of the text were not saved.', action: 'Discard' });
      if (!agreed) return false;
    }
    const wasEditing = this.editing;
    this.#closeEditor();
    if (wasEditing) byId('edit').focus();
    return true;
  }

  /** Sends the changed ranges and shows how much was read again. */
  async save() {
    const edits = this.editor.edits();
    if (edits.length === 0) {
      this.#closeEditor();
      byId('edit').focus();
      return;
    }
    const { context, index, text } = this;
    const exact = byId('edit-exact').checked;
    const controller = new AbortController();
    this.saving = controller;
    this.#lock(true);
    this.setProgress('Reading the changes', null, () => controller.abort());
    try {
      const ranges = edits.map((edit) => ({ begin: index.toByte(edit.begin), end: index.toByte(edit.end), text: edit.text }));
      const result = await this.api.edit(context.name, ranges, { exact, tag: this.tag },
        (progress) => this.setProgress('Reading the changes', progress, null), controller.signal);
      const top = edits[0].begin;
      this.saving = null;
      this.show({ ...context, ...result.context }, applyEdits(text, edits), result.context?.etag ?? null);
      const line = this.text.lastIndexOf('\n', Math.max(0, top - 200)) + 1;
      this.view.scrollToIndex(top - line < 2000 ? line : top - 200);
      this.setAttention(null, changedRanges(edits, this.text));
      this.#showResult(result, edits.length);
      byId('edit').focus();
      this.handlers.onEdited(this.context, result);
    } catch (error) {
      this.strip.setRead(null);
      if (isAbort(error)) this.setStatus(h('p', {}, 'Saving was cancelled. The text on the server is unchanged.'));
      else this.setStatus(errorBox(error, error.status === 412 ? [['Open the text again', () => this.open(context)]] : [['Save again', () => this.save()]]));
      announce(isAbort(error) ? 'Saving was cancelled.' : `The changes were not saved: ${error.message}`);
    } finally {
      this.saving = null;
      this.#lock(false);
    }
  }

  #showResult({ read, moved, kept, seconds }, edits) {
    const text = [`${count(edits)} ${edits === 1 ? 'change' : 'changes'} saved:`, `${count(read)} tokens read again,`,
      moved >= 0 && `${count(moved)} moved,`, `${count(kept)} kept`, seconds >= 0 && `(${duration(seconds)})`].filter(Boolean).join(' ');
    const again = this.handlers.onAskAgain();
    const total = Math.max(1, read + (moved ?? 0) + kept);
    const shares = h('div', { class: 'shares', 'aria-hidden': 'true' });
    for (const [name, tokens] of [['kept', kept], ['moved', moved ?? 0], ['again', read]]) {
      const part = h('span', { class: name });
      part.style.flexGrow = tokens / total;
      shares.append(part);
    }
    this.setStatus(h('div', { class: 'result' }, h('div', { class: 'row' }, h('p', { id: 'edit-result' }, text),
      again && h('button', { type: 'button', on: { click: again } }, 'Ask the last question again'),
      h('button', { type: 'button', class: 'quiet', on: { click: () => this.setStatus(null) } }, 'Hide')), shares));
    announce(text);
  }

  #setEditing(on) {
    byId('editor').hidden = !on;
    byId('text').hidden = on;
    byId('editor-actions').hidden = !on;
    byId('document-actions').hidden = on;
  }

  #closeEditor() {
    if (!this.editing) return;
    this.saving?.abort();
    this.#setEditing(false);
    this.setStatus(null);
  }

  #showDirty() { byId('edit-save').disabled = !this.editor.dirty; }

  #lock(on) {
    for (const id of ['edit-save', 'edit-cancel', 'edit-exact', 'editor-text']) byId(id).disabled = on;
    if (!on && this.editing) this.#showDirty();
  }
}

// The words that ascending edits changed, in the new text.
function changedRanges(edits, after) {
  let shift = 0;
  return edits.map(({ begin, end, text }) => {
    let from = begin + shift;
    let to = from + text.length;
    shift += text.length - (end - begin);
    while (from > 0 && isWord(after[from - 1]) && isWord(after[from])) from--;
    while (to < after.length && isWord(after[to - 1]) && isWord(after[to])) to++;
    return { begin: from, end: to, share: 1, label: 'Changed text' };
  });
}

const isWord = (c) => c !== undefined && /[\p{L}\p{N}]/u.test(c);

export function progressText({ total, cached = 0, processed, tokens_per_second: speed, seconds_left: left }) {
  const done = cached + processed;
  return [`${count(done)} of ${count(total)} tokens`, speed > 0 && rate(speed), left !== null && left >= 0 && done < total && `${duration(left)} left`]
    .filter(Boolean).join(' · ');
}
