// Helpers to build DOM nodes. Text is always inserted as text nodes, never parsed as markup.

/** Creates an element. Properties: `class`, `on` (event handlers), `data`; all others are attributes. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'on') for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else if (name === 'data') Object.assign(element.dataset, value);
    else if (value === true) element.setAttribute(name, '');
    else element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const kIcons = {
  plus: 'M8 3v10M3 8h10',
  trash: 'M3 4.5h10M6.5 4.5V3h3v1.5M4.5 4.5l.6 8.5h5.8l.6-8.5M6.8 7v3.6M9.2 7v3.6',
  send: 'M8 13V3.5M4 7l4-4 4 4',
  close: 'M4 4l8 8M12 4l-8 8',
};

export function icon(name) {
  return svg('svg', { viewBox: '0 0 16 16', width: 16, height: 16, 'aria-hidden': 'true', class: 'icon' },
    svg('path', { d: kIcons[name], fill: 'none', stroke: 'currentColor', 'stroke-width': 1.5,
      'stroke-linecap': 'round', 'stroke-linejoin': 'round' }));
}

export const byId = (id) => document.getElementById(id);

/** Reads a text to users of screen readers, after what is being read now. */
export function announce(text) {
  const region = byId('announcer');
  region.textContent = '';
  setTimeout(() => { region.textContent = text; }, 30);
}
