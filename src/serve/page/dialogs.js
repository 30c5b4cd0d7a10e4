// Modal dialogs. Each function resolves when the dialog closes.

import { h } from './dom.js';
import { contextName } from './format.js';

// Shows a dialog; resolves to the result of `accept` when the form is sent, or to null.
function ask(title, content, action, { accept, danger = false }) {
  return new Promise((resolve) => {
    let result = null;
    const cancel = h('button', { type: 'button', on: { click: () => dialog.close() } }, 'Cancel');
    const form = h('form', { on: { submit: (event) => {
      event.preventDefault();
      result = accept();
      if (result !== undefined) dialog.close();
    } } }, h('h2', { id: 'dialog-title' }, title), ...content,
    h('div', { class: 'actions' }, cancel, h('button', { type: 'submit', class: danger ? 'danger' : 'primary' }, action)));
    const dialog = h('dialog', { 'aria-labelledby': 'dialog-title', on: { close: () => {
      dialog.remove();
      resolve(result ?? null);
    } } }, form);
    document.body.append(dialog);
    dialog.showModal();
    if (danger) cancel.focus();
  });
}

/** Resolves to {checked} if the user agrees, otherwise to null. */
export function confirmDialog({ title, text, action, option }) {
  const box = option ? h('input', { type: 'checkbox' }) : null;
  return ask(title, [h('p', {}, text), box && h('label', { class: 'check' }, box, option)], action,
    { accept: () => ({ checked: box?.checked ?? false }), danger: true });
}

/** Resolves to an API key, or to null. */
export function keyDialog(wrong) {
  const field = h('input', { type: 'password', id: 'key', autocomplete: 'off', required: true });
  return ask('API key', [
    h('p', {}, wrong ? 'The server did not accept this key.' : 'This server needs an API key. It was set with --api-key when the server was started.'),
    h('label', { for: 'key' }, 'Key'), field,
    h('p', { class: 'note' }, 'The key is kept until this tab is closed.')], 'Use this key', { accept: () => field.value.trim() || undefined });
}

/** Resolves to {name, text}, or to null. */
export function pasteDialog(taken, text = '') {
  const name = h('input', { id: 'paste-name', required: true, maxlength: 64, pattern: '[A-Za-z0-9._\\-]{1,64}', spellcheck: 'false',
    value: contextName('pasted', taken), title: 'Letters, digits, point, underscore and hyphen' });
  const area = h('textarea', { id: 'paste-text', rows: 12, required: true, autofocus: text === '' });
  const note = h('p', { class: 'note', role: 'status' });
  const check = () => { note.textContent = taken.includes(name.value) ? 'A text with this name exists. It will be replaced.' : ''; };
  name.addEventListener('input', check);
  area.value = text;
  return ask('Paste a text', [h('label', { for: 'paste-name' }, 'Name'), name, note, h('label', { for: 'paste-text' }, 'Text'), area],
    'Read', { accept: () => ({ name: name.value, text: area.value }) });
}
