'use strict';
// What all pages share: elements, numbers, data of the page, pictures, files to save, rows. Text becomes text nodes.

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

  const signed = (value) => (value > 0 ? '+' : '') + number(value);

  const count = (value) => value.toLocaleString('en');

  // Fills a list to choose from with pairs [value, text]; the first is chosen where `value` is none of them.
  function options(select, pairs, value) {
    select.replaceChildren(...pairs.map(([each, text]) => make('option', { value: each }, text)));
    select.value = value;
    if (select.selectedIndex < 0) select.selectedIndex = 0;
  }

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
    // \p{Cs}: a surrogate without its other half
    if (/^\ufffd|[\0\p{Cs}]/u.test(text)) {
      const escape = (c) => (c === '\\' ? '\\\\' : `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
      text = `\ufffd${text.replace(/[\\\0\p{Cs}]/gu, escape)}`;
    }
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  // Tells screen readers a text once nothing else was told for a moment: not at each letter of a search. While a dialog
  // is open, only what is in it is read.
  let timer = 0;
  function announce(text) {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const place = document.querySelector('dialog[open] [role=status]') ?? byId('live');
      place.textContent = text;
    }, 500);
  }

  // Lets a dialog go to what is before and after it. The focus leaves a button that can no longer be used: keys would
  // be lost with it.
  function neighbours(before, after) {
    const [previous, next] = [byId('previous'), byId('next')];
    const focused = document.activeElement;
    [previous.disabled, next.disabled] = [!before, !after];
    if (focused.disabled) [next, previous].find((each) => !each.disabled)?.focus();
  }

  // Small data that the browser stores between visits, where it allows that.
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

  return {
    ...{ byId, data, make, set, svg, number, signed, count, options, jpeg, bytes, save, cell, announce, neighbours },
    store,
  };
})();

// Which rows, or pairs of them, are shown, in which order, and how they are saved: functions of their arguments alone.
const Rows = {
  // Columns as a page holds them (see page.py), with NaN for missing numbers.
  columns: (held) =>
    held.map(({ scale = 1, ...column }) => {
      const text = column.kind === 'text' || column.kind === 'words';
      const number = (value) => (value === null ? NaN : value / scale);
      return { ...column, text, values: text ? column.values : Float64Array.from(column.values, number) };
    }),

  // The name of a file. Backslashes separate folders only in Windows' paths; elsewhere names may hold them.
  fileName(path, folder) {
    const slash = folder.includes('/') || !folder.includes('\\') ? '/' : '\\';
    return path.slice(path.lastIndexOf(slash) + 1);
  },

  // Words separated by spaces.
  words: (text) => text.split(' ').filter(Boolean),

  // Rows by a column, lowest first, ties in the order of the table; or the reverse. Those without a value are last.
  order(rows, { values, text }, down) {
    const compare = text
      ? (a, b) => (values[a] < values[b] ? -1 : values[a] > values[b] ? 1 : a - b)
      : (a, b) => values[a] - values[b] || a - b;
    const has = (row) => text || !Number.isNaN(values[row]);
    const some = rows.filter(has).sort(compare);
    return [...(down ? some.reverse() : some), ...rows.filter((row) => !has(row))];
  },

  // Place of a row by a column, highest first, from 1 on: equal values share the better place, and a missing one has
  // none, NaN.
  rank: (values, row) =>
    Number.isNaN(values[row]) ? NaN : values.reduce((place, value) => place + (value > values[row]), 1),

  // 1 for the rows whose path, in lower case, holds the searched text, and that have one of the flags ('none': no flag)
  // and one of the choices. An empty set admits all.
  mask(rows, { search, flags, choices }, { paths, flagsOf, choice }) {
    const lower = search.toLowerCase();
    const mask = new Uint8Array(choice.length);
    for (const row of rows) {
      if (lower && !paths[row].includes(lower)) continue;
      if (flags.size) {
        const found = flagsOf(row);
        if (!(found.length ? found.some((flag) => flags.has(flag)) : flags.has('none'))) continue;
      }
      if (choices.size && !choices.has(choice[row])) continue;
      mask[row] = 1;
    }
    return mask;
  },

  // Rows of the mask whose value is in the range, ends included; null admits rows without a value too.
  within: (rows, mask, values, range) =>
    rows.filter((row) => mask[row] && (!range || (values[row] >= range[0] && values[row] <= range[1]))),

  // A table as CSVTable of maclip_pyiqa writes it; `folder` is what all paths begin with.
  csv(rows, columns, folder) {
    const cell = ({ name, kind, text, values }, row) => {
      if (text) return Page.cell(name === 'path' ? folder + values[row] : values[row]);
      return Number.isNaN(values[row]) ? '' : kind === 'integer' ? String(values[row]) : values[row].toFixed(6);
    };
    const lines = [
      columns.map(({ name }) => Page.cell(name)),
      ...rows.map((row) => columns.map((column) => cell(column, row))),
    ];
    return lines.map((cells) => `${cells.join(',')}\n`).join('');
  },

  // The second value less the first; null where one is missing.
  change: (a, b) => (a === null || b === null ? null : b - a),

  // Images that both versions have a value of: [{i: number of the image, rows: of both, value: the change}].
  pairs: (images, versions, at) =>
    images.flatMap((image, i) => {
      const rows = versions.map((version) => image.rows[version]);
      const value = Rows.change(...rows.map((row) => (row ? row.values[at] : null)));
      return value === null ? [] : [{ i, rows, value }];
    }),

  // Pairs with the text in one of their paths, by 'low' (lowest change first), 'high', 'size' or 'path'.
  sortedPairs(pairs, search, by) {
    const words = search.toLowerCase();
    const order = {
      low: (p, q) => p.value - q.value,
      high: (p, q) => q.value - p.value,
      size: (p, q) => Math.abs(q.value) - Math.abs(p.value),
      path: () => 0, // as they come
    }[by];
    return pairs
      .filter(({ rows }) => rows.some((row) => row.path.toLowerCase().includes(words)))
      .sort((p, q) => order(p, q) || p.i - q.i);
  },
};
