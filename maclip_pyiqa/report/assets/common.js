'use strict';
// What all pages share: elements, numbers, data of the page, pictures, files to save. Text becomes text nodes only.

const Page = (() => {
  const byId = (id) => document.getElementById(id);

  // The data that the page holds under an id.
  const data = (id) => JSON.parse(byId(id).textContent);

  // An element: properties are set, those with a dash as attributes; children are elements or text.
  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    set(element, properties);
    element.append(...children);
    return element;
  }

  function set(element, properties) {
    for (const [name, value] of Object.entries(properties)) {
      if (name.includes('-') || name === 'role') element.setAttribute(name, value);
      else element[name] = value;
    }
  }

  // The same in SVG, where all are attributes.
  function svg(tag, attributes = {}, ...children) {
    const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // A number to read; missing ones are a dash.
  function number(value) {
    if (value === null || value === undefined || Number.isNaN(value)) return '\u2013';
    const size = Math.abs(value);
    if (Number.isInteger(value)) return String(value);
    if (size >= 0.0001 && size < 10) return value.toFixed(4);
    return size >= 10 && size < 1e6 ? value.toFixed(2) : value.toExponential(3);
  }

  const count = (value) => value.toLocaleString('en');

  // Address of a JPEG that the page holds in base64.
  const jpeg = (base64) => `data:image/jpeg;base64,${base64}`;

  // Text as the bytes of a file. Python holds bytes of paths that are not UTF-8 as U+DC80 to U+DCFF: they become these
  // bytes again.
  function bytes(text) {
    const parts = [];
    const encoder = new TextEncoder();
    for (const piece of text.split(/((?<![\ud800-\udbff])[\udc80-\udcff])/)) {
      const lone = piece.length === 1 && piece >= '\udc80' && piece <= '\udcff';
      parts.push(lone ? new Uint8Array([piece.charCodeAt(0) - 0xdc00]) : encoder.encode(piece));
    }
    return parts;
  }

  // Hands text to the reader as a file.
  function save(name, text, type = 'text/plain') {
    const address = URL.createObjectURL(new Blob(bytes(text), { type }));
    const link = make('a', { href: address, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  // Text as a cell of maclip_pyiqa's tables: valid UTF-8 without NUL (see scoring/tables.py), quoted where needed.
  function cell(text) {
    if (text.startsWith('\ufffd') || /\0/.test(text) || !text.isWellFormed()) {
      const escape = (c) => (c === '\\' ? '\\\\' : `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
      const lone = /[\\\0]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
      text = `\ufffd${text.replace(lone, escape)}`;
    }
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  // Something small kept between visits, where the browser allows it.
  const store = {
    read(key) {
      try {
        return JSON.parse(localStorage.getItem(key));
      } catch {
        return null;
      }
    },
    write(key, value) {
      try {
        localStorage.setItem(key, JSON.stringify(value));
        return true;
      } catch {
        return false;
      }
    },
  };

  return { byId, data, make, set, svg, number, count, jpeg, save, cell, store };
})();
