// The lists of texts and conversations.

import { h, byId, icon } from './dom.js';
import { age, bytes, count, percent } from './format.js';

const item = (current, open, title, details, remove) => h('li', { class: current ? 'current' : '' },
  h('button', { type: 'button', class: 'open', 'aria-current': current ? 'true' : null, on: { click: open } },
    h('span', { class: 'title' }, title), details && h('span', { class: 'details' }, details)),
  remove && h('button', { type: 'button', class: 'quiet remove', 'aria-label': `${remove[0]} ${title}`, title: remove[0], on: { click: remove[1] } }, icon('trash')));

// Replaces the items of a list and keeps the focus at the same position in it.
function replaceItems(list, items) {
  const buttons = [...list.querySelectorAll('button')];
  const focused = buttons.indexOf(document.activeElement);
  list.replaceChildren(...items);
  if (focused >= 0) [...list.querySelectorAll('button')][Math.min(focused, list.querySelectorAll('button').length - 1)]?.focus();
}

/** handlers: open(name or null), remove(context), removeJob(job). */
export function showContexts(contexts, jobs, current, handlers) {
  const own = contexts.filter((context) => !jobs.has(context.name));
  const rows = [item(current === null, () => handlers.open(null), 'No text', 'plain chat')];
  for (const job of jobs.values()) {
    rows.push(item(job.name === current, () => handlers.open(job.name), job.name, jobDetails(job),
      [job.status === 'reading' ? 'Cancel reading' : 'Remove', () => handlers.removeJob(job)]));
  }
  for (const context of own.sort((a, b) => b.created - a.created)) {
    const details = context.status === 'reading' ? 'being read'
      : `${count(context.tokens)} tokens · ${bytes(context.bytes)} · ${age(context.created)}`;
    rows.push(item(context.name === current, () => handlers.open(context.name), context.name, details, ['Delete', () => handlers.remove(context)]));
  }
  replaceItems(byId('contexts'), rows);
}

function jobDetails({ status, progress }) {
  if (status !== 'reading') return status === 'failed' ? 'not read: error' : 'cancelled';
  return progress && progress.total > 0 ? `reading, ${percent(progress.processed / progress.total)}` : 'waiting to be read';
}

/** handlers: open(id), remove(meta). */
export function showChats(list, current, handlers) {
  replaceItems(byId('chats'), list.length === 0 ? [h('li', { class: 'note' }, 'None yet.')]
    : list.map((meta) => item(meta.id === current, () => handlers.open(meta.id), meta.title, age(meta.updated), ['Delete', () => handlers.remove(meta)])));
}
