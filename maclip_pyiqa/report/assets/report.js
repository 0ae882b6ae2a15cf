'use strict';
// The page of scores: one state, `update` after each change of it, and lists that draw what is in sight.

(() => {
  const { byId, make, set, number, count, label } = Page;
  const scores = Page.data('scores');
  const pictures = Page.data('pictures'); // row -> {jpeg, windows}

  // --- the table ------------------------------------------------------------------------------------------------------

  const columns = Rows.columns(scores.columns);
  const column = Object.fromEntries(columns.map((each) => [each.name, each]));
  const size = column.path.values.length;
  const path = (row) => scores.folder + column.path.values[row];
  const name = (row) => Rows.fileName(path(row), scores.folder);
  const score = column.score.values;
  const flagsOf = (row) => Rows.flags(column.flags?.values[row] || '');
  const numbers = columns.filter((each) => !each.text && each.values.some((value) => !Number.isNaN(value)));
  const scored = Array.from(score.keys()).filter((row) => !Number.isNaN(score[row]));

  // --- choices --------------------------------------------------------------------------------------------------------

  const KEEP = 1;
  const REJECT = 2;
  const SIGNS = ['', '\u2713', '\u2717'];
  const WORDS = ['undecided', 'kept', 'rejected'];
  const choice = new Uint8Array(size);
  const undone = []; // [row, choice before]
  const shelf = `maclip-choices-${scores.id}`;
  let waiting = 0;

  function restore() {
    const kept = Page.store.read(shelf);
    if (!kept) return;
    const rows = new Map(column.path.values.map((value, row) => [value, row]));
    [kept.kept, kept.rejected].forEach((paths, i) =>
      paths?.forEach?.((each) => rows.has(each) && (choice[rows.get(each)] = i + 1)),
    );
  }

  function remember() {
    clearTimeout(waiting);
    waiting = 0;
    const paths = (which) => column.path.values.filter((value, row) => choice[row] === which);
    const stored = Page.store.write(shelf, { kept: paths(KEEP), rejected: paths(REJECT) });
    if (!stored) say('This browser does not store choices: export them before you close the page.');
  }

  addEventListener('pagehide', () => waiting && remember());

  function choose(row, which, forget = false) {
    if (row < 0 || choice[row] === which) return;
    if (!forget) undone.push([row, choice[row]]);
    choice[row] = which;
    clearTimeout(waiting);
    waiting = setTimeout(remember, 200);
    if (state.choices.size) {
      // it may leave the list: the next takes its place
      const place = listed.indexOf(row);
      update();
      if (!listed.includes(row) && listed.length) go(Math.min(place, listed.length - 1));
    } else {
      drawChoices();
      inSight()?.redraw(listed.indexOf(row));
    }
    if (detail.open && current >= 0) fill(current);
  }

  function undo() {
    const last = undone.pop();
    if (!last) return say('nothing to undo');
    choose(last[0], last[1], true);
    const place = listed.indexOf(last[0]);
    if (place >= 0) go(place);
    say(`${name(last[0])} is ${WORDS[last[1]]} again`);
  }

  // --- what is shown --------------------------------------------------------------------------------------------------

  const state = {
    view: Object.keys(pictures).length ? 'grid' : 'table',
    sort: 'score',
    down: false, // highest first
    of: 'score', // of the histogram
    range: null,
    search: '',
    flags: new Set(),
    choices: new Set(),
  };
  let shown = []; // rows that pass, sorted
  let listed = []; // those of the list in sight
  let mask = new Uint8Array(size); // rows that pass all but the range
  let current = -1; // row
  const orders = new Map(); // direction and column -> rows
  const lowered = [];

  function order() {
    const key = `${state.down} ${state.sort}`;
    if (!orders.has(key)) orders.set(key, Rows.order(scored, column[state.sort], state.down));
    return orders.get(key);
  }

  function update() {
    if (state.search && !lowered.length) for (let row = 0; row < size; row++) lowered.push(path(row).toLowerCase());
    mask = Rows.mask(scored, state, { paths: lowered, flagsOf, choice });
    histogram.show(column[state.of].values, mask, state.of);
    filter(state.range);
    drawChoices();
  }

  function filter(range) {
    state.range = range;
    shown = Rows.within(order(), mask, column[state.of].values, range);
    [byId('low').value, byId('high').value] = range ? range.map((value) => Number(value.toPrecision(6))) : ['', ''];
    byId('reset').disabled = !range;
    list();
  }

  function list() {
    const { view } = state;
    for (const each of ['grid', 'table', 'scatter', 'errors']) {
      byId(each).hidden = each !== view;
      byId(`tab-${each}`).setAttribute('aria-selected', each === view);
      byId(`tab-${each}`).tabIndex = each === view ? 0 : -1;
    }
    listed = view === 'grid' ? shown.filter((row) => row in pictures) : shown;
    if (view === 'grid') {
      box.grid.setAttribute('aria-label', `${listed.length} pictures`);
      grid.show(listed.length);
    } else if (view === 'table') {
      byId('table').setAttribute('aria-rowcount', listed.length + 1);
      table.show(listed.length);
    } else if (view === 'scatter') drawScatter();
    const some = view === 'grid' && listed.length < shown.length;
    say(
      view === 'errors'
        ? `${count(failed.length)} of ${count(size)} images with an error`
        : `${count(shown.length)} of ${count(scored.length)} images with a score` +
            (some ? `; ${count(listed.length)} have a picture here, the table has all` : ''),
    );
    point();
  }

  const say = (text) => (byId('status').textContent = text);

  // --- lists ----------------------------------------------------------------------------------------------------------

  const sign = (row) =>
    make('span', { className: `sign ${WORDS[choice[row]]}`, title: WORDS[choice[row]] }, SIGNS[choice[row]]);
  const badges = (row) => flagsOf(row).map((flag) => make('span', { className: 'flag' }, flag));
  const show = (each, row) => (each.text ? each.values[row] : number(each.values[row]));
  const box = { grid: byId('grid'), table: byId('table') };

  function entry(row, position, properties, ...children) {
    const element = make('div', { id: `row-${row}`, 'aria-selected': row === current, ...properties }, ...children);
    element.classList.toggle('current', row === current);
    element.addEventListener('click', () => (row === current ? open(row) : go(position)));
    return element;
  }

  const grid = new LongList(box.grid, {
    width: 172,
    height: 226,
    entry(position) {
      const row = listed[position];
      const by = column[state.sort];
      const image = make('img', { src: Page.jpeg(pictures[row].jpeg), alt: '' });
      const button = make(
        'button',
        { type: 'button', className: 'picture', tabIndex: -1, 'aria-label': `Open ${name(row)}` },
        image,
      );
      button.addEventListener('click', (event) => {
        event.stopPropagation();
        go(position);
        open(row);
      });
      const also =
        state.sort !== 'score' && state.sort !== 'path'
          ? make('span', { className: 'soft', title: by.name }, show(by, row))
          : '';
      const line = make(
        'div',
        { className: 'line' },
        make('b', {}, number(score[row])),
        also,
        ...badges(row),
        sign(row),
      );
      return entry(
        row,
        position,
        { className: 'card', role: 'option', 'aria-setsize': listed.length, 'aria-posinset': position + 1 },
        button,
        line,
        make('div', { className: 'name path', title: path(row) }, name(row)),
      );
    },
  });

  const narrow = matchMedia('(max-width: 50rem)').matches;
  const widths = new Map([
    ['path', narrow ? 11 : 20],
    ['flags', 9],
    ['error', 16],
  ]);
  const rem = (each) => widths.get(each.name) ?? (each.text ? 12 : 7.5);
  const template = [
    '3rem',
    ...columns.map((each) => (each.name === 'path' ? `minmax(${rem(each)}rem, 1fr)` : `${rem(each)}rem`)),
  ].join(' ');
  const least = columns.reduce((sum, each) => sum + rem(each), 3);
  const head = make('div', { className: 'line head', role: 'row' });
  box.table.append(head);
  const table = new LongList(box.table, {
    height: 32,
    entry(position) {
      const row = listed[position];
      const cells = columns.map((each) => {
        const className = each.name === 'path' ? 'end' : each.text ? '' : 'number';
        const title = each.text ? each.values[row] : '';
        if (each.name === 'path')
          return make(
            'span',
            { role: 'gridcell', className, title: path(row) },
            make('span', { className: 'path' }, title),
          );
        return make(
          'span',
          { role: 'gridcell', className, title },
          ...(each.name === 'flags' ? badges(row) : [show(each, row)]),
        );
      });
      const first = make('span', { role: 'gridcell' }, sign(row));
      return entry(row, position, { className: 'line', role: 'row', 'aria-rowindex': position + 2 }, first, ...cells);
    },
  });
  for (const line of [head, table.space]) line.style.setProperty('--columns', template);
  for (const line of [head, table.space]) line.style.minWidth = `${least}rem`;

  function drawHead() {
    const titles = columns.map((each) => {
      const button = make(
        'button',
        { type: 'button', title: each.name },
        `${label(each.name)} ${each.name === state.sort ? (state.down ? '\u25bc' : '\u25b2') : ''}`,
      );
      button.addEventListener('click', () => sort(each.name, each.name === state.sort ? !state.down : false));
      const sorted = each.name === state.sort ? (state.down ? 'descending' : 'ascending') : 'none';
      return make('span', { role: 'columnheader', className: each.text ? '' : 'number', 'aria-sort': sorted }, button);
    });
    head.replaceChildren(
      make('span', { role: 'columnheader' }, make('span', { className: 'unseen' }, 'choice')),
      ...titles,
    );
  }
  const inSight = () => (state.view === 'grid' ? grid : state.view === 'table' ? table : null);

  // Makes an entry of the list the current one.
  function go(position) {
    const before = listed.indexOf(current);
    current = listed[position] ?? -1;
    inSight()?.redraw(before);
    inSight()?.redraw(position);
    if (current >= 0) inSight()?.reveal(position);
    if (state.view === 'scatter') drawScatter();
    point();
  }

  function point() {
    for (const each of Object.values(box)) {
      if (current >= 0 && byId(`row-${current}`)) each.setAttribute('aria-activedescendant', `row-${current}`);
      else each.removeAttribute('aria-activedescendant');
    }
  }

  // --- errors ---------------------------------------------------------------------------------------------------------

  const MOST = 5000; // errors that are shown
  const failed = Array.from(score.keys()).filter((row) => Number.isNaN(score[row]) || column.error?.values[row]);
  byId('tab-errors').textContent = `Errors (${count(failed.length)})`;
  byId('errors').append(
    ...failed
      .slice(0, MOST)
      .map((row) =>
        make(
          'p',
          { className: 'error' },
          make('b', { className: 'path' }, path(row)),
          make('br'),
          column.error?.values[row] || 'no score',
        ),
      ),
    failed.length > MOST ? make('p', {}, `and ${count(failed.length - MOST)} more`) : '',
    failed.length ? '' : make('p', {}, 'None.'),
  );

  // --- scatter --------------------------------------------------------------------------------------------------------

  const scatter = new Scatter(byId('points'), (row) => {
    go(listed.indexOf(row));
    open(row);
  });

  function drawScatter() {
    const [x, y] = ['scatter-x', 'scatter-y'].map((id) => column[byId(id).value]);
    scatter.show(listed, [label(x.name), x.values], [label(y.name), y.values], current);
    const rank = Scatter.correlation(listed, x.values, y.values);
    byId('correlation').textContent = Number.isNaN(rank) ? '' : `rank correlation ${rank.toFixed(3)}`;
    byId('points').setAttribute(
      'aria-label',
      `${y.name} against ${x.name} of ${listed.length} images; the table has the numbers`,
    );
  }

  // --- one image ------------------------------------------------------------------------------------------------------

  const detail = byId('detail');

  function open(row) {
    fill(row);
    if (!detail.open) detail.showModal();
  }

  // The list has the keys again.
  function close() {
    detail.close();
    box[state.view]?.focus();
  }

  function fill(row) {
    byId('detail-path').textContent = path(row);
    const picture = pictures[row];
    byId('detail-picture').hidden = !picture;
    byId('detail-none').textContent = picture
      ? picture.windows
        ? ''
        : 'No map: the values of its windows are not on this page.'
      : 'No picture of this image is on this page.';
    if (picture) set(byId('detail-image'), { src: Page.jpeg(picture.jpeg), alt: name(row) });
    byId('map-controls').hidden = !picture?.windows;
    if (picture?.windows) {
      const names = Object.keys(picture.windows.values);
      const select = byId('map-of');
      const before = select.value;
      select.replaceChildren(
        make('option', { value: '' }, 'none'),
        ...names.map((each) => make('option', { value: each }, label(each))),
      );
      select.value = names.includes(before) ? before : '';
    }
    drawMap();
    const bars = columns.filter(
      (each) => ['score', 'q_sim', 'q_mag'].includes(each.name) || each.name.startsWith('attribute_'),
    );
    byId('detail-bars').replaceChildren(
      ...bars.flatMap((each) => {
        const value = each.values[row];
        const bar = make('span', { className: 'bar' }, make('i'));
        bar.firstChild.style.width = `${100 * Math.min(Math.max(value || 0, 0), 1)}%`;
        return [make('span', {}, label(each.name)), bar, make('span', { className: 'number' }, number(value))];
      }),
    );
    byId('detail-flags').replaceChildren(...badges(row));
    const rest = columns.filter((each) => each.name !== 'path' && each.name !== 'flags' && !bars.includes(each));
    byId('detail-columns').replaceChildren(
      ...rest.flatMap((each) => {
        const text = show(each, row);
        return text ? [make('dt', {}, label(each.name)), make('dd', {}, text)] : [];
      }),
    );
    const place = listed.indexOf(row);
    byId('previous').disabled = place <= 0;
    byId('next').disabled = place < 0 || place >= listed.length - 1;
    byId('keep').setAttribute('aria-pressed', choice[row] === KEEP);
    byId('reject').setAttribute('aria-pressed', choice[row] === REJECT);
  }

  function drawMap() {
    const windows = current >= 0 ? pictures[current]?.windows : null;
    const of = windows ? byId('map-of').value : '';
    byId('detail-map').hidden = byId('map-legend').hidden = !of;
    byId('map-strength').disabled = !of;
    if (!of) return;
    const [low, high] = QualityMap.draw(byId('detail-map'), windows, of);
    byId('detail-map').style.opacity = byId('map-strength').value;
    [byId('map-low').textContent, byId('map-high').textContent] = [number(low), number(high)];
  }

  const step = (by) => {
    const place = listed.indexOf(current) + by;
    if (place < 0 || place >= listed.length) return;
    go(place);
    if (detail.open) fill(current);
  };

  byId('previous').addEventListener('click', () => step(-1));
  byId('next').addEventListener('click', () => step(1));
  byId('keep').addEventListener('click', () => choose(current, KEEP));
  byId('reject').addEventListener('click', () => choose(current, REJECT));
  byId('detail-close').addEventListener('click', close);
  detail.addEventListener('click', (event) => event.target === detail && close());
  byId('map-of').addEventListener('change', drawMap);
  byId('map-strength').addEventListener('input', drawMap);
  QualityMap.legend(byId('map-colours'));

  // --- controls -------------------------------------------------------------------------------------------------------

  const histogram = new Histogram(byId('histogram'), filter);

  function sort(by, down) {
    [state.sort, state.down] = [by, down];
    byId('sort').value = by;
    const words = by === 'score' ? ['worst first', 'best first'] : ['lowest first', 'highest first'];
    byId('direction').textContent = words[Number(down)];
    drawHead();
    filter(state.range);
  }

  function options(id, some, value) {
    byId(id).replaceChildren(...some.map((each) => make('option', { value: each.name }, label(each.name))));
    byId(id).value = value;
  }

  // Buttons that are on or off; none on means all.
  function switches(id, set, words) {
    byId(id).replaceChildren(
      ...words.map(([value, text]) => {
        const button = make('button', { type: 'button', 'aria-pressed': set.has(value) }, text);
        button.addEventListener('click', () => {
          if (!set.delete(value)) set.add(value);
          button.setAttribute('aria-pressed', set.has(value));
          update();
        });
        return button;
      }),
    );
  }

  function drawChoices() {
    const counts = [0, 0, 0];
    for (const row of scored) counts[choice[row]]++;
    const words = WORDS.map((word, which) => `${SIGNS[which]} ${word} ${count(counts[which])}`.trim());
    const buttons = byId('choices').children;
    if (buttons.length) words.forEach((word, which) => (buttons[which].textContent = word));
    else
      switches(
        'choices',
        state.choices,
        words.map((word, which) => [which, word]),
      );
  }

  function drawFlags() {
    const counts = new Map();
    let none = 0;
    for (const row of scored) {
      const found = flagsOf(row);
      if (!found.length) none++;
      for (const flag of found) counts.set(flag, (counts.get(flag) ?? 0) + 1);
    }
    byId('flags-section').hidden = !counts.size;
    const words = [...counts].sort().map(([flag, n]) => [flag, `${flag} ${count(n)}`]);
    switches('flags', state.flags, [...words, ['none', `none ${count(none)}`]]);
  }

  byId('export').addEventListener('click', () => {
    const what = byId('export-what').value;
    const wanted = { kept: [KEEP], rejected: [REJECT], chosen: [KEEP, REJECT] }[what];
    const rows = wanted ? order().filter((row) => wanted.includes(choice[row])) : shown;
    const as = byId('export-as').value;
    let left = 0;
    if (as === 'table') Page.save(`${what}.csv`, Rows.csv(rows, columns, scores.folder), 'text/csv');
    else if (as === 'choices') {
      const lines = rows.map((row) => `${Page.cell(path(row))},${WORDS[choice[row]]}\n`);
      Page.save(`${what}-choices.csv`, `path,choice\n${lines.join('')}`, 'text/csv');
    } else {
      const paths = rows.map(path).filter((each) => !/[\r\n]/.test(each));
      left = rows.length - paths.length;
      Page.save(`${what}.txt`, paths.map((each) => `${each}\n`).join(''));
    }
    say(
      `${count(rows.length - left)} images saved` +
        (left ? `; ${count(left)} are left out, as their paths have line breaks: save .csv` : ''),
    );
  });

  let frame = 0;
  byId('search').addEventListener('input', (event) => {
    state.search = event.target.value;
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(update);
  });
  byId('histogram-of').addEventListener('change', (event) => {
    state.of = event.target.value;
    state.range = null;
    histogram.set(null);
    update();
  });
  for (const id of ['low', 'high']) {
    byId(id).addEventListener('change', () => {
      let [low, high] = ['low', 'high'].map((each) => byId(each).valueAsNumber);
      if (low > high) [low, high] = id === 'low' ? [low, NaN] : [NaN, high]; // the other end gives way
      histogram.move([Number.isNaN(low) ? histogram.low : low, Number.isNaN(high) ? histogram.high : high]);
    });
  }
  byId('reset').addEventListener('click', () => histogram.move([histogram.low, histogram.high]));
  byId('sort').addEventListener('change', (event) => sort(event.target.value, false));
  byId('direction').addEventListener('click', () => sort(state.sort, !state.down));
  for (const id of ['scatter-x', 'scatter-y']) byId(id).addEventListener('change', drawScatter);
  const tabs = [...byId('tabs').children];
  for (const tab of tabs) {
    tab.addEventListener('click', () => {
      state.view = tab.id.slice(4);
      list();
      const place = listed.indexOf(current);
      if (place >= 0) go(place);
    });
    tab.addEventListener('keydown', (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      const seen = tabs.filter((each) => !each.hidden);
      const next = seen[(seen.indexOf(tab) + by + seen.length) % seen.length];
      next.focus();
      next.click();
      event.preventDefault();
    });
  }

  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === 'Escape' && detail.open) {
      close(); // by itself, Chromium may do it after the next key
      return event.preventDefault();
    }
    if (event.target.closest?.('input, select, textarea, summary, [role=slider]')) return;
    if (event.defaultPrevented) return; // a tab has used it
    if (!['grid', 'table', 'scatter'].includes(state.view)) return;
    const across = state.view === 'grid' && !detail.open ? grid.columns : 1;
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across };
    if (event.key in moves) {
      if (!detail.open) box[state.view]?.focus({ preventScroll: true });
      if (current < 0 || !listed.includes(current)) go(0);
      else step(moves[event.key]);
    } else if (event.key === 'k') choose(current, KEEP);
    else if (event.key === 'x') choose(current, REJECT);
    else if (event.key === 'u') undo();
    else if (event.key === 'Enter' && current >= 0 && !event.target.closest?.('button')) open(current);
    else return;
    event.preventDefault();
  });

  // --- begin ----------------------------------------------------------------------------------------------------------

  restore();
  set(box.grid, { tabIndex: 0, role: 'listbox' });
  set(box.table, { tabIndex: 0, role: 'grid', 'aria-label': 'Table of images' });
  byId('tab-grid').hidden = !Object.keys(pictures).length;
  byId('tab-scatter').hidden = numbers.length < 2;
  if (numbers.length) {
    options('histogram-of', numbers, 'score' in column && numbers.includes(column.score) ? 'score' : numbers[0].name);
    state.of = byId('histogram-of').value;
    const others = numbers.filter((each) => !/^(score|q_sim|q_mag|w_sim|width|height|attribute_.*)$/s.test(each.name));
    options('scatter-x', numbers, state.of);
    options('scatter-y', numbers, (others[0] ?? numbers.find((each) => each.name !== state.of) ?? numbers[0]).name);
  }
  options('sort', columns, 'score');
  drawFlags();
  update();
  sort('score', false);
})();
