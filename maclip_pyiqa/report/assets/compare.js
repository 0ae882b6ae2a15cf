'use strict';
// Versions of the same images: statistics, pairs side by side, and a dialog with a slider and both quality maps.
//
// `comparison`: names of the versions, quantities; titles of quantities and maps; images with key and rows, one for each version or null, whose values
// are in the order of the quantities; results for each two versions and quantity. `pictures`: by the numbers of the
// images, one for each version or null.

(() => {
  const { byId, make, svg, number, signed, count, jpeg } = Page;
  const comparison = Page.data('comparison');
  const pictures = Page.data('pictures');
  const { names, quantities, titles, images, results } = comparison;
  const STEP = 24; // pairs that are added at once

  const state = { first: 0, second: 1, quantity: quantities[0], list: [], added: 0, place: 0 };

  // --- statistics -----------------------------------------------------------------------------------------------------

  // The result of the two chosen versions; results hold each two once, in the order of the names.
  const chosen = () => results.filter((r) => r.a === names[state.first] && r.b === names[state.second]);

  // A line from the lower to the upper end, with the mean as a dot, on a scale that is symmetric about zero.
  function interval({ difference, low, high }) {
    if (low === null) return make('span', { className: 'soft' }, 'too few pairs');
    const most = Math.max(Math.abs(low), Math.abs(high)) || 1;
    const x = (value) => 60 + (54 * value) / most;
    const text = `${signed(low)} to ${signed(high)}`;
    return make(
      'span',
      { className: 'interval' },
      svg(
        'svg',
        { viewBox: '0 0 120 16', 'aria-hidden': 'true' },
        svg('line', { class: 'zero', x1: 60, x2: 60, y1: 0, y2: 16 }),
        svg('line', {
          class: low > 0 || high < 0 ? 'span shown' : 'span',
          x1: x(low) - 1,
          x2: x(high) + 1,
          y1: 8,
          y2: 8,
        }),
        svg('circle', { cx: x(difference), cy: 8, r: 3.5 }),
      ),
      text,
    );
  }

  function drawStatistics() {
    const found = chosen();
    const score = found.find((r) => r.quantity === 'score') ?? found[0];
    byId('verdict').textContent = score ? score.verdict : 'These two versions have no image in common.';
    byId('mean-first').textContent = names[state.first];
    byId('mean-second').textContent = names[state.second];
    const percent = (share) => (100 * share).toFixed(0);
    const body = byId('statistics').tBodies[0];
    const focused = body.contains(document.activeElement);
    body.replaceChildren(
      ...found.map((r) => {
        const button = make(
          'button',
          { type: 'button', 'aria-pressed': String(r.quantity === state.quantity) },
          titles[r.quantity],
        );
        button.addEventListener('click', () => choose(r.quantity));
        const wins =
          r.wins === null ? '\u2013' : `${percent(r.wins)} % (${percent(r.wins_low)} to ${percent(r.wins_high)})`;
        return make(
          'tr',
          {},
          make('th', { scope: 'row' }, button),
          make('td', { className: 'number' }, count(r.n)),
          make('td', { className: 'number' }, number(r.mean_a)),
          make('td', { className: 'number' }, number(r.mean_b)),
          make('td', { className: 'number' }, signed(r.difference)),
          make('td', {}, interval(r)),
          make('td', { className: 'number' }, wins),
          make(
            'td',
            { className: 'number' },
            r.p === null ? '\u2013' : r.p < 1e-4 ? r.p.toExponential(0) : r.p.toFixed(4),
          ),
          make('td', {}, r.verdict),
        );
      }),
    );
    if (focused) body.querySelector('[aria-pressed=true]')?.focus();
  }

  // --- pairs ----------------------------------------------------------------------------------------------------------

  const place = () => quantities.indexOf(state.quantity);
  const valueOf = (row, at = place()) => (row ? row.values[at] : null);

  function list() {
    const pairs = Rows.pairs(images, [state.first, state.second], place());
    const shown = pairs.filter(({ i }) => i in pictures);
    const some = byId('which').value === 'all' ? pairs : shown;
    state.list = Rows.sortedPairs(some, byId('search').value, byId('sort').value);
    state.added = 0;
    const found = `${count(state.list.length)} of ${count(pairs.length)} pairs`;
    byId('status').textContent =
      `${found}; this page has the pictures of ${count(shown.length)}. ` +
      'Choose a pair to wipe one image over the other.';
    Page.announce(found);
    byId('pairs').replaceChildren();
    add();
  }

  function shot(i, version) {
    const picture = (pictures[i] ?? [])[version];
    const box = make('div', { className: 'picture' });
    if (picture) box.append(make('img', { src: jpeg(picture.jpeg), alt: '', loading: 'lazy' }));
    else box.append(make('span', { className: 'soft' }, 'no picture'));
    return box;
  }

  function card({ i, value }, at) {
    const image = images[i];
    const both = [state.first, state.second];
    // the name is heard first and seen last
    const button = make('button', { type: 'button' }, make('span', { className: 'name path' }, image.key));
    if (i in pictures) button.append(make('span', { className: 'two' }, ...both.map((version) => shot(i, version))));
    const sign = value > 0 ? 'up' : value < 0 ? 'down' : '';
    const quiet = (text) => make('span', { 'aria-hidden': true }, text);
    const unseen = (text) => make('span', { className: 'unseen' }, ` ${text} `);
    const arrow = quiet({ up: '\u25b2 ', down: '\u25bc ' }[sign] ?? '');
    const [first, second] = both.map((version) => number(valueOf(image.rows[version])));
    button.append(
      make(
        'span',
        { className: 'line' },
        make('span', {}, unseen(names[both[0]]), first, quiet(' \u2192 '), unseen(names[both[1]]), second),
        make('span', {}, unseen('difference'), make('span', { className: `change ${sign}` }, arrow, signed(value))),
      ),
    );
    button.addEventListener('click', () => open(at));
    const counted = { 'aria-setsize': state.list.length, 'aria-posinset': at + 1 };
    return make('div', { className: 'pair', role: 'listitem', ...counted }, button);
  }

  // A pair to hear.
  function spoken(at) {
    const { i, rows, value } = state.list[at];
    const values = rows.map((row, k) => `${names[[state.first, state.second][k]]} ${number(valueOf(row))}`);
    return [images[i].key, ...values, `difference ${signed(value)}`].join(', ');
  }

  function add() {
    const next = state.list.slice(state.added, state.added + STEP);
    const cards = next.map((pair, k) => card(pair, state.added + k));
    byId('pairs').append(...cards);
    state.added += next.length;
    byId('more').hidden = state.added >= state.list.length;
    return cards;
  }

  // --- one pair -------------------------------------------------------------------------------------------------------

  const dialog = byId('pair');
  const map = new MapControls({ title: (name) => titles[name], none: false });

  function open(at) {
    state.place = at;
    const { i } = state.list[at];
    const image = images[i];
    const both = [state.first, state.second];
    const rows = both.map((version) => image.rows[version]);
    const shots = both.map((version) => (pictures[i] ?? [])[version] ?? null);
    byId('pair-key').textContent = image.key;
    Page.neighbours(at > 0, at < state.list.length - 1);

    ['first', 'second'].forEach((which, k) => {
      const source = shots[k] ? jpeg(shots[k].jpeg) : 'data:,';
      for (const id of [`wipe-${which}`, `map-${which}-image`]) {
        byId(id).src = source;
        byId(id).alt = shots[k] ? `${image.key}, ${names[both[k]]}` : 'no picture';
      }
      byId(`map-${which}-name`).textContent = names[both[k]];
      byId(`values-${which}`).textContent = names[both[k]];
    });
    byId('wipe-left').textContent = names[both[0]];
    byId('wipe-right').textContent = names[both[1]];
    const size = shots[0]?.size ?? shots[1]?.size ?? [4, 3];
    dialog.style.setProperty('--ratio', size[0] / size[1]);
    const usable = shots.every((shot) => shot);
    byId('wipe').hidden = byId('slider').hidden = byId('maps').hidden = !usable;
    byId('wipe-note').textContent = usable
      ? shots.map((shot, k) => `${names[both[k]]}: ${shot.size[0]} \u00d7 ${shot.size[1]} pixels`).join('; ') +
        '. Pictures on this page are at most 640 pixels long.'
      : 'This page has no pictures of this pair.';
    wipe(50);
    map.show([byId('map-first'), byId('map-second')].map((canvas, k) => [canvas, shots[k]?.windows ?? null]));
    byId('map-none').hidden = shots.some((shot) => shot?.windows);

    byId('values').tBodies[0].replaceChildren(
      ...quantities.map((quantity, at) => {
        const values = rows.map((row) => valueOf(row, at));
        return make(
          'tr',
          {},
          make('th', { scope: 'row' }, titles[quantity]),
          ...[...values.map(number), signed(Rows.change(...values))].map((text) =>
            make('td', { className: 'number' }, text),
          ),
        );
      }),
    );
    byId('files').replaceChildren(
      ...rows.flatMap((row, k) => [
        make('dt', {}, names[both[k]]),
        make(
          'dd',
          {},
          make('span', { className: 'path' }, row.path),
          ...Rows.words(row.flags).flatMap((flag) => [' ', make('span', { className: 'flag' }, flag)]),
        ),
      ]),
    );
    if (!dialog.open) dialog.showModal();
  }

  function wipe(percent) {
    byId('slider').value = percent;
    byId('slider').setAttribute('aria-valuetext', `${percent} %`);
    byId('wipe-second').style.clipPath = `inset(0 0 0 ${percent}%)`;
    byId('wipe-line').style.left = `${percent}%`;
  }

  const step = (by) => {
    const at = state.place + by;
    if (at < 0 || at >= state.list.length) return;
    open(at);
    Page.announce(spoken(at));
  };

  // --- choices --------------------------------------------------------------------------------------------------------

  function choose(quantity) {
    state.quantity = quantity;
    byId('quantity').value = quantity;
    drawStatistics();
    list();
  }

  // The second is always after the first in the order of the names, as the results are.
  function versions() {
    state.first = Number(byId('first').value);
    const second = byId('second');
    for (const option of second.options) option.disabled = Number(option.value) <= state.first;
    if (Number(second.value) <= state.first) second.value = state.first + 1;
    state.second = Number(second.value);
    if (!chosen().some((r) => r.quantity === state.quantity)) state.quantity = chosen()[0]?.quantity ?? quantities[0];
    choose(state.quantity);
  }

  function items(id, text, lines) {
    const details = byId(id);
    details.hidden = !lines.length;
    details.querySelector('summary').textContent = `${count(lines.length)} ${text}`;
    // filled when it is opened: there may be many
    details.addEventListener('toggle', () => {
      const target = details.querySelector('ul');
      if (details.open && !target.children.length)
        target.append(...lines.map((line) => make('li', { className: 'path' }, line)));
    });
  }

  const numbered = names.map((name, i) => [String(i), name]);
  Page.options(byId('first'), numbered.slice(0, -1), '0');
  Page.options(byId('second'), numbered.slice(1), '1');
  const titled = quantities.map((name) => [name, titles[name]]);
  Page.options(byId('quantity'), titled, state.quantity);
  byId('versions').hidden = names.length < 3;
  items(
    'unpaired',
    `images are not in all of ${names.join(', ')}`,
    images
      .filter((image) => image.rows.includes(null))
      .map((image) => `${image.key} (in ${names.filter((_, k) => image.rows[k]).join(', ')})`),
  );
  items(
    'failed',
    'images failed and are left out',
    images.flatMap((image) =>
      image.rows.flatMap((row, k) => (row && row.error ? [`${names[k]}: ${row.path}: ${row.error}`] : [])),
    ),
  );

  for (const id of ['first', 'second']) {
    byId(id).addEventListener('change', () => {
      versions();
      Page.announce(byId('verdict').textContent);
    });
  }
  byId('quantity').addEventListener('change', () => choose(byId('quantity').value));
  for (const id of ['sort', 'which']) byId(id).addEventListener('change', list);
  byId('search').addEventListener('input', list);
  byId('more').addEventListener('click', () => add()[0].firstChild.focus()); // it goes away after the last
  byId('slider').addEventListener('input', () => wipe(Number(byId('slider').value)));
  byId('previous').addEventListener('click', () => step(-1));
  byId('next').addEventListener('click', () => step(1));
  byId('close').addEventListener('click', () => dialog.close());
  const drag = (event) => {
    if (event.type === 'pointermove' && !(event.buttons & 1)) return;
    const box = byId('wipe').getBoundingClientRect();
    wipe(Math.round(Math.min(Math.max((100 * (event.clientX - box.left)) / box.width, 0), 100)));
  };
  byId('wipe').addEventListener('pointerdown', drag);
  byId('wipe').addEventListener('pointermove', drag);
  dialog.addEventListener('keydown', (event) => {
    if (event.target.matches('input, select') || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') {
      step(event.key === 'ArrowLeft' ? -1 : 1);
      event.preventDefault();
    }
  });
  if (!Object.keys(pictures).length) byId('which').value = 'all';
  versions();
})();
