'use strict';
// The page of scores: one state, `update` after each change of it, and lists that draw what is in sight.

(() => {
  const { byId, make, set, number, count } = Page;
  const scores = new Scores(Page.data('scores'));
  const pictures = Page.data('pictures'); // row -> {jpeg, windows}

  const state = {
    view: Object.keys(pictures).length ? 'grid' : 'table',
    sort: 'score',
    down: false, // highest first
    of: 'score', // column of the histogram
    range: null, // of the histogram, [low, high]
    search: '',
    flags: new Set(),
    choices: new Set(),
    mask: null, // rows that pass all but the range
    shown: [], // rows that pass, sorted
    listed: [], // those of the list in sight
    current: -1, // row
    orders: new Map(), // direction and column -> rows
    lowered: [], // paths in lower case, for the search
    frame: 0, // animation frame in which a search is done
  };

  function say(text) {
    byId('status').textContent = text;
    Page.announce(text);
  }

  const choices = new Choices(scores, () =>
    say('This browser does not store choices: export them before you close the page.'),
  );
  const histogram = new Histogram(byId('histogram'), filter);
  const scatter = new Scatter(byId('points'), (row) => {
    go(state.listed.indexOf(row));
    detail.open(row);
  });
  const detail = new Detail(scores, pictures, choices, {
    around(row) {
      const position = state.listed.indexOf(row);
      return [position > 0, position >= 0 && position < state.listed.length - 1];
    },
    step,
    choose,
    closed: () => box[state.view]?.focus(), // the list has the keys again
  });
  new Export(scores, choices, { shown: () => state.shown, sorted: order, say });

  // --- what is shown --------------------------------------------------------------------------------------------------

  function order() {
    const key = `${state.down} ${state.sort}`;
    if (!state.orders.has(key)) {
      state.orders.set(key, Rows.order(scores.scored, scores.column(state.sort), state.down));
    }
    return state.orders.get(key);
  }

  function update() {
    if (state.search && !state.lowered.length) {
      for (let row = 0; row < scores.size; row++) state.lowered.push(scores.path(row).toLowerCase());
    }
    const table = { paths: state.lowered, flagsOf: (row) => scores.flags(row), choice: choices.of };
    state.mask = Rows.mask(scores.scored, state, table);
    const { title, values } = scores.column(state.of);
    histogram.show(values, state.mask, title);
    filter(state.range);
    drawChoices();
  }

  function filter(range) {
    state.range = range;
    state.shown = Rows.within(order(), state.mask, scores.column(state.of).values, range);
    [byId('low').value, byId('high').value] = range ? range.map((value) => Number(value.toPrecision(6))) : ['', ''];
    byId('reset').setAttribute('aria-disabled', !range); // not `disabled`: the focus may be on it
    list();
  }

  function list() {
    const { view, shown } = state;
    for (const each of ['grid', 'table', 'scatter', 'errors']) {
      byId(each).closest('[role=tabpanel]').hidden = each !== view;
      byId(`tab-${each}`).setAttribute('aria-selected', each === view);
      byId(`tab-${each}`).tabIndex = each === view ? 0 : -1;
    }
    const listed = (state.listed = view === 'grid' ? shown.filter((row) => row in pictures) : shown);
    if (view === 'grid') {
      box.grid.setAttribute('aria-label', `${listed.length} pictures`);
      grid.show(listed.length);
    } else if (view === 'table') {
      box.table.setAttribute('aria-rowcount', listed.length + 1);
      table.show(listed.length);
    } else if (view === 'scatter') drawScatter();
    const some = view === 'grid' && listed.length < shown.length;
    say(
      view === 'errors'
        ? `${count(scores.failed.length)} of ${count(scores.size)} images with an error`
        : `${count(shown.length)} of ${count(scores.scored.length)} images with a score` +
            (some ? `; ${count(listed.length)} have a picture here, the table has all` : ''),
    );
    point();
  }

  // --- the current image ----------------------------------------------------------------------------------------------

  // Makes an entry of the list the current one.
  function go(position) {
    const before = state.listed.indexOf(state.current);
    state.current = state.listed[position] ?? -1;
    inSight()?.redraw(before);
    inSight()?.redraw(position);
    if (state.current >= 0) inSight()?.reveal(position);
    if (state.view === 'scatter') drawScatter();
    point();
    if (state.current < 0) return;
    if (detail.isOpen) detail.show(state.current);
    if (detail.isOpen || !inSight()) Page.announce(spoken(state.current)); // a list says it by itself
  }

  function step(by) {
    const position = state.listed.indexOf(state.current) + by;
    if (position >= 0 && position < state.listed.length) go(position);
  }

  // An image to hear: path, numbers that it is listed by, flags, choice.
  function spoken(row) {
    const names = state.view === 'scatter' ? [byId('scatter-x').value, byId('scatter-y').value] : ['score', state.sort];
    const numbers = [...new Set(names)]
      .map((name) => scores.column(name))
      .filter(({ text }) => !text)
      .map((column) => `${column.title} ${Scores.text(column, row)}`);
    const choice = choices.of[row] ? [choices.word(row)] : [];
    return [scores.paths[row], ...numbers, ...scores.flags(row), ...choice].join(', ');
  }

  // Tells screen readers which entry is the current one.
  function point() {
    for (const each of Object.values(box)) {
      const id = `${state.view}-${state.current}`;
      if (state.current >= 0 && byId(id)) each.setAttribute('aria-activedescendant', id);
      else each.removeAttribute('aria-activedescendant');
    }
  }

  function choose(choice) {
    const row = state.current;
    if (row < 0 || choices.of[row] === choice) return;
    choices.set(row, choice);
    chosen(row);
    const next = state.current === row ? '' : `; ${spoken(state.current)}`;
    Page.announce(`${scores.name(row)} is ${choices.word(row)}${next}`);
  }

  function undo() {
    const row = choices.undo();
    if (row === undefined) return say('nothing to undo');
    chosen(row);
    const position = state.listed.indexOf(row);
    if (position >= 0) go(position);
    say(`${scores.name(row)} is ${choices.word(row)} again`);
  }

  // Draws a choice that has changed.
  function chosen(row) {
    if (state.choices.size) {
      // it may leave the list: the next takes its place
      const position = state.listed.indexOf(row);
      update();
      if (!state.listed.includes(row) && state.listed.length) go(Math.min(position, state.listed.length - 1));
    } else {
      drawChoices();
      inSight()?.redraw(state.listed.indexOf(row));
    }
    if (detail.isOpen && state.current >= 0) detail.show(state.current);
  }

  // --- lists ----------------------------------------------------------------------------------------------------------

  const box = { grid: byId('grid'), table: byId('table') };
  const inSight = () => (state.view === 'grid' ? grid : state.view === 'table' ? table : null);

  function entry(row, position, properties, ...children) {
    const current = row === state.current;
    const id = `${state.view}-${row}`;
    const element = make('div', { id, 'aria-selected': current, ...properties }, ...children);
    element.classList.toggle('current', current);
    element.addEventListener('click', () => {
      const selection = getSelection();
      if (!selection.isCollapsed && selection.containsNode(element, true)) return; // its text was selected
      if (row === state.current) detail.open(row);
      else go(position);
    });
    return element;
  }

  const grid = new LongList(box.grid, {
    width: 172,
    height: 226,
    entry(position) {
      const row = state.listed[position];
      const by = scores.column(state.sort);
      const name = scores.name(row);
      const picture = make('div', { className: 'picture' });
      picture.append(make('img', { src: Page.jpeg(pictures[row].jpeg), alt: '' }));
      picture.addEventListener('click', (event) => {
        event.stopPropagation();
        go(position);
        detail.open(row);
      });
      const unseen = (text) => make('span', { className: 'unseen' }, `${text} `);
      const also = make('span', { className: 'soft', title: by.title }, unseen(by.title), Scores.text(by, row));
      const line = make(
        'div',
        { className: 'line' },
        make('b', {}, unseen('score'), number(scores.values[row])),
        ...(['score', 'path'].includes(by.name) ? [] : [also]),
        ...Scores.badges(scores.flags(row)),
        choices.sign(row),
      );
      return entry(
        row,
        position,
        { className: 'card', role: 'option', 'aria-setsize': state.listed.length, 'aria-posinset': position + 1 },
        // heard first, seen last; the folder tells files of one name apart
        unseen(scores.paths[row].slice(0, -name.length)),
        make('div', { className: 'name path', title: scores.path(row) }, name),
        picture,
        line,
      );
    },
  });

  // rem: of a column of the table
  const narrow = matchMedia('(max-width: 50rem)').matches;
  function rem({ role, kind, text }) {
    if (role === 'key') return narrow ? 11 : 20;
    if (role === 'error') return 16;
    return kind === 'words' ? 9 : text ? 12 : 7.5;
  }

  function cell(column, row) {
    const { role, kind, text, values } = column;
    const className = role === 'key' ? 'end' : text ? '' : 'number';
    const title = role === 'key' ? scores.path(row) : text ? values[row] : '';
    const content =
      role === 'key'
        ? [make('span', { className: 'path' }, values[row])]
        : kind === 'words'
          ? Scores.badges(Rows.words(values[row]))
          : [Scores.text(column, row)];
    return make('span', { role: 'gridcell', className, title }, ...content);
  }

  const head = make('div', { className: 'line head', role: 'row', 'aria-rowindex': 1 });
  box.table.append(head);
  const table = new LongList(box.table, {
    height: 32,
    entry(position) {
      const row = state.listed[position];
      const sign = make('span', { role: 'gridcell' }, choices.sign(row));
      const cells = scores.columns.map((column) => cell(column, row));
      const heard = { role: 'row', 'aria-label': spoken(row), 'aria-rowindex': position + 2 };
      return entry(row, position, { className: 'line', ...heard }, sign, ...cells);
    },
  });
  const widths = scores.columns.map((each) =>
    each.role === 'key' ? `minmax(${rem(each)}rem, 1fr)` : `${rem(each)}rem`,
  );
  for (const line of [head, table.space]) {
    line.style.setProperty('--columns', ['3rem', ...widths].join(' '));
    line.style.minWidth = `${scores.columns.reduce((sum, each) => sum + rem(each), 3)}rem`;
  }

  const heads = scores.columns.map(({ name, title, meaning, text }) => {
    const arrow = make('span', { 'aria-hidden': true });
    const button = make('button', { type: 'button', title: `${name}: ${meaning}` }, `${title} `, arrow);
    button.addEventListener('click', () => sort(name, name === state.sort && !state.down));
    const header = make('span', { role: 'columnheader', className: text ? '' : 'number' }, button);
    return { name, header, arrow };
  });
  head.append(
    make('span', { role: 'columnheader' }, make('span', { className: 'unseen' }, 'choice')),
    ...heads.map(({ header }) => header),
  );

  function drawHead() {
    for (const { name, header, arrow } of heads) {
      const sorted = name === state.sort;
      arrow.textContent = sorted ? (state.down ? '\u25bc' : '\u25b2') : '';
      header.setAttribute('aria-sort', sorted ? (state.down ? 'descending' : 'ascending') : 'none');
    }
  }

  function drawErrors() {
    const most = 5000; // errors that are shown
    const { failed } = scores;
    const texts = failed
      .slice(0, most)
      .map((row) => [make('b', { className: 'path' }, scores.path(row)), make('br'), scores.error(row) || 'no score']);
    byId('tab-errors').textContent = `Errors (${count(failed.length)})`;
    byId('errors').append(
      texts.length
        ? make('ul', { role: 'list' }, ...texts.map((parts) => make('li', { className: 'error' }, ...parts)))
        : '',
      failed.length > most ? make('p', {}, `and ${count(failed.length - most)} more`) : '',
      failed.length ? '' : make('p', {}, 'None.'),
    );
  }

  function drawScatter() {
    const [x, y] = ['scatter-x', 'scatter-y'].map((id) => scores.column(byId(id).value));
    scatter.show(state.listed, [x.title, x.values], [y.title, y.values], state.current);
    const rank = Scatter.correlation(state.listed, x.values, y.values);
    byId('correlation').textContent = Number.isNaN(rank) ? '' : `rank correlation ${rank.toFixed(3)}`;
    const also = byId('correlation').textContent && `, ${byId('correlation').textContent}`;
    const text = `${y.title} against ${x.title} of ${state.listed.length} images${also}; the table has the numbers`;
    byId('points').setAttribute('aria-label', text);
  }

  // --- controls -------------------------------------------------------------------------------------------------------

  function sort(by, down) {
    [state.sort, state.down] = [by, down];
    byId('sort').value = by;
    const words = by === 'score' ? ['worst first', 'best first'] : ['lowest first', 'highest first'];
    byId('direction').textContent = words[Number(down)];
    drawHead();
    filter(state.range);
  }

  const options = (id, columns, value) =>
    Page.options(
      byId(id),
      columns.map(({ name, title }) => [name, title]),
      value,
    );

  // Buttons that are on or off; none on means all.
  function switches(id, chosen, words) {
    byId(id).replaceChildren(
      ...words.map(([value, text]) => {
        const button = make('button', { type: 'button', 'aria-pressed': chosen.has(value) }, text);
        button.addEventListener('click', () => {
          if (!chosen.delete(value)) chosen.add(value);
          button.setAttribute('aria-pressed', chosen.has(value));
          update();
        });
        return button;
      }),
    );
  }

  function drawChoices() {
    const buttons = byId('choices').children;
    choices.counts(scores.scored).forEach((text, choice) => (buttons[choice].textContent = text));
  }

  function drawFlags() {
    const counts = new Map();
    let none = 0;
    for (const row of scores.scored) {
      const found = scores.flags(row);
      if (!found.length) none++;
      for (const flag of found) counts.set(flag, (counts.get(flag) ?? 0) + 1);
    }
    byId('flags-section').hidden = !counts.size;
    const words = [...counts].sort().map(([flag, n]) => [flag, `${flag} ${count(n)}`]);
    switches('flags', state.flags, [...words, ['none', `none ${count(none)}`]]);
  }

  byId('search').addEventListener('input', (event) => {
    state.search = event.target.value;
    cancelAnimationFrame(state.frame);
    state.frame = requestAnimationFrame(update);
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
      if (low > high) [low, high] = id === 'low' ? [low, NaN] : [NaN, high]; // the other end is dropped
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
      const position = state.listed.indexOf(state.current);
      if (position >= 0) go(position);
    });
    tab.addEventListener('keydown', (event) => {
      const seen = tabs.filter((each) => !each.hidden);
      const at = seen.indexOf(tab);
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: -1 }[event.key];
      if (to === undefined) return;
      const next = seen.at(to % seen.length);
      next.focus();
      next.click();
      event.preventDefault();
    });
  }

  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === 'Escape' && detail.isOpen) {
      detail.close(); // by itself, Chromium may do it after the next key
      return event.preventDefault();
    }
    if (event.target.closest?.('input, select, textarea, summary, [role=slider]')) return;
    if (event.defaultPrevented) return; // a tab has used it
    if (!['grid', 'table', 'scatter'].includes(state.view)) return;
    const across = state.view === 'grid' && !detail.isOpen ? grid.columns : 1;
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across };
    if (event.key in moves) {
      if (!detail.isOpen) box[state.view]?.focus({ preventScroll: true });
      if (state.current < 0 || !state.listed.includes(state.current)) go(0);
      else step(moves[event.key]);
    } else if (['k', 'x', 'u'].includes(event.key)) {
      if (!byId('letters').checked) return;
      if (event.key === 'u') undo();
      else choose(event.key === 'k' ? Choices.KEEP : Choices.REJECT);
    } else if (['Home', 'End'].includes(event.key) && event.target === box[state.view]) {
      go(event.key === 'Home' ? 0 : state.listed.length - 1);
    } else if (event.key === 'Enter' && state.current >= 0 && !event.target.closest?.('button')) {
      detail.open(state.current);
    } else return;
    event.preventDefault();
  });

  // --- begin ----------------------------------------------------------------------------------------------------------

  for (const each of Object.values(box)) each.addEventListener('scroll', point); // it may be drawn no more, or again
  byId('letters').checked = Page.store.read('maclip-letters') ?? true;
  byId('letters').addEventListener('change', (event) => Page.store.write('maclip-letters', event.target.checked));
  byId('tab-grid').hidden = !Object.keys(pictures).length;
  byId('tab-scatter').hidden = scores.numbers.length < 2;
  if (scores.numbers.length) {
    options('histogram-of', scores.numbers, 'score');
    state.of = byId('histogram-of').value;
    options('scatter-x', scores.numbers, state.of);
    const others = scores.numbers.filter(({ name }) => name !== state.of);
    const second = others.find(({ role }) => role === 'other') ?? others[0];
    options('scatter-y', scores.numbers, second?.name);
  }
  options('sort', scores.columns, 'score');
  const words = choices.counts([]).map((text, choice) => [choice, text]);
  switches('choices', state.choices, words);
  drawFlags();
  drawErrors();
  update();
  sort('score', false);
})();
