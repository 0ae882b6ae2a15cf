import assert from 'node:assert/strict';
import test from 'node:test';
import { Page, Rows, Scores } from './load.mjs';

const column = (...values) => ({ values: Float64Array.from(values), text: false });

test('numbers to read', () => {
  const want = [
    ...[[null, '\u2013'], [undefined, '\u2013'], [NaN, '\u2013'], [0, '0'], [-3, '-3'], [1e12, '1000000000000']],
    ...[[0.5, '0.5000'], [-0.123456, '-0.1235'], [0.0001, '0.0001'], [9.99996, '10.0000'], [12.3456, '12.35']],
    ...[[-640.5, '-640.50'], [0.0000123456, '1.235e-5'], [1234567.5, '1.235e+6']],
  ];
  for (const [value, text] of want) assert.equal(Page.number(value), text);
  assert.deepEqual([0.25, 0, -0.25, null].map(Page.signed), ['+0.2500', '0', '-0.2500', '\u2013']);
  assert.equal(Page.count(1234567), '1,234,567');
});

test('columns are known by their kinds and roles', () => {
  const scores = new Scores({
    id: 'x',
    folder: '/a/',
    columns: [
      { name: 'path', title: 'path', kind: 'text', role: 'key', values: ['b.png', 'c/d.png', 'e.png'] },
      { name: 'score', title: 'score', kind: 'number', role: 'quality', scale: 10, values: [5, null, 7] },
      { name: 'cue', title: 'the cue', kind: 'number', role: 'quality', scale: 1, values: [null, null, null] },
      { name: 'tags', title: 'tags', kind: 'words', role: 'image', values: ['flat noise', '', ''] },
      { name: 'marks', title: 'marks', kind: 'words', role: 'other', values: ['x', '', 'y'] },
      { name: 'why', title: 'why', kind: 'text', role: 'error', values: ['', 'broken', 'no niqe'] },
    ],
  });
  assert.deepEqual([scores.scored, scores.failed, scores.size], [[0, 2], [1, 2], 3]);
  assert.deepEqual(scores.numbers.map(({ name }) => name), ['score']);
  assert.deepEqual([0, 1, 2].map((row) => scores.flags(row)), [['flat', 'noise', 'x'], [], ['y']]);
  assert.deepEqual([1, 2].map((row) => scores.error(row)), ['broken', 'no niqe']);
  assert.deepEqual([scores.path(1), scores.name(1)], ['/a/c/d.png', 'd.png']);
  assert.deepEqual(['cue', 'none', 'constructor'].map((name) => scores.title(name)), ['the cue', 'none', 'constructor']);
});

test('columns of the page', () => {
  const [path, score, width] = Rows.columns([
    { name: 'path', kind: 'text', values: ['a', ''] },
    { name: 'score', kind: 'number', scale: 10 ** 6, values: [250000, null] },
    { name: 'width', kind: 'integer', values: [640, null] },
  ]);
  assert.deepEqual(path, { name: 'path', kind: 'text', text: true, values: ['a', ''] });
  assert.deepEqual([...score.values, ...width.values], [0.25, NaN, 640, NaN]);
});

test('names of files', () => {
  const name = (folder, rest) => Rows.fileName(folder + rest, folder);
  assert.equal(name('/photos/', 'a/b.png'), 'b.png');
  assert.equal(name('/photos/', 'back\\slash.png'), 'back\\slash.png');
  assert.equal(name('C:\\photos\\', 'a\\b.png'), 'b.png');
  assert.equal(name('/back\\slash/', 'a\\b.png'), 'a\\b.png');
  assert.equal(name('', 'a\\b.png'), 'a\\b.png');
});

test('rows are ordered by a column, those without a value last', () => {
  const rows = [0, 1, 2, 4, 5]; // row 3 has no score
  const numbers = column(2, NaN, 0.5, 0, 2, 10);
  assert.deepEqual(Rows.order(rows, numbers, false), [2, 0, 4, 5, 1]);
  assert.deepEqual(Rows.order(rows, numbers, true), [5, 4, 0, 2, 1]);
  const texts = { values: ['b', '', 'a', '0', 'b', 'B'], text: true };
  assert.deepEqual(Rows.order(rows, texts, false), [1, 5, 2, 0, 4]);
  assert.deepEqual(Rows.order(rows, texts, true), [4, 0, 2, 5, 1]);
  assert.deepEqual(rows, [0, 1, 2, 4, 5]);
});

test('the place of a row by a column, equal values at the better one', () => {
  const { values } = column(0.5, NaN, 0.9, 0.5, 0.1, 0.9);
  assert.deepEqual([0, 1, 2, 3, 4, 5].map((row) => Rows.rank(values, row)), [3, NaN, 1, 3, 5, 1]);
});

test('the rank on the page, unless there are percentiles of a reference', () => {
  const rank = (...more) => {
    const columns = [
      { name: 'path', title: 'path', kind: 'text', role: 'key', values: ['a', 'b', 'c', 'd'] },
      { name: 'score', title: 'score', kind: 'number', role: 'quality', scale: 10, values: [5, null, 7, 5] },
    ];
    const scores = new Scores({ id: 'x', folder: '', columns: [...columns, ...more] });
    return [0, 1, 2, 3].map((row) => scores.rank(row));
  };
  const percentile = (...values) => ({ name: 'percentile', kind: 'number', role: 'detail', scale: 1, values });
  const words = ['rank 2 of 3 on this page', '', 'rank 1 of 3 on this page', 'rank 2 of 3 on this page'];
  assert.deepEqual(rank(), words);
  assert.deepEqual(rank(percentile(40, null, 60, 40)), ['', '', '', '']);
  assert.deepEqual(rank(percentile(null, null, null, null)), words); // a column that says nothing
});

test('rows that pass the search, the flags and the choices', () => {
  const flags = ['flat clipped', '', 'noise', 'flat', ''];
  const table = {
    paths: ['/a/1.png', '/a/2.png', '/b/1.png', '/b/2.png', '/b/3.png'],
    flagsOf: (row) => Rows.words(flags[row]),
    choice: Uint8Array.of(0, 1, 2, 0, 1),
  };
  const passing = ({ search = '', flags = [], choices = [], rows = [0, 1, 2, 3, 4] }) => {
    const mask = Rows.mask(rows, { search, flags: new Set(flags), choices: new Set(choices) }, table);
    assert.equal(mask.length, 5);
    return [0, 1, 2, 3, 4].filter((row) => mask[row]);
  };
  assert.deepEqual(passing({}), [0, 1, 2, 3, 4]);
  assert.deepEqual(passing({ rows: [1, 3] }), [1, 3]);
  assert.deepEqual(passing({ search: 'B/' }), [2, 3, 4]);
  assert.deepEqual(passing({ flags: ['flat'] }), [0, 3]);
  assert.deepEqual(passing({ flags: ['clipped', 'noise'] }), [0, 2]);
  assert.deepEqual(passing({ flags: ['none', 'noise'] }), [1, 2, 4]);
  assert.deepEqual(passing({ choices: [0] }), [0, 3]);
  assert.deepEqual(passing({ choices: [1, 2], flags: ['none'], search: '/b' }), [4]);
});

test('rows within a range', () => {
  const { values } = column(0.1, 0.5, NaN, 0.9, 0.3);
  const mask = Uint8Array.of(1, 1, 1, 1, 0);
  assert.deepEqual(Rows.within([4, 3, 2, 1, 0], mask, values, null), [3, 2, 1, 0]);
  assert.deepEqual(Rows.within([4, 3, 2, 1, 0], mask, values, [0.1, 0.5]), [1, 0]);
});

test('pairs of two versions', () => {
  const row = (path, ...values) => ({ path, values });
  const images = [
    { rows: [row('old/A', 0.5, 1), row('mid/A', 0.25, 2), row('new/A', 0.75, null)] },
    { rows: [row('old/B', 0.5, 1), null, row('new/B', 0, 2)] },
    { rows: [row('old/C', 0, 1), row('mid/C', 0, 1), row('new/c2', 0.25, 4)] },
    { rows: [row('old/D', 0, 0), row('mid/D', 1, 1), row('new/D', 0, 1)] },
  ];
  const pairs = Rows.pairs(images, [0, 2], 0);
  assert.deepEqual(pairs.map(({ i, value }) => [i, value]), [[0, 0.25], [1, -0.5], [2, 0.25], [3, 0]]);
  assert.deepEqual(pairs[1].rows, [images[1].rows[0], images[1].rows[2]]);
  assert.deepEqual(Rows.pairs(images, [0, 1], 0).map(({ i, value }) => [i, value]), [[0, -0.25], [2, 0], [3, 1]]);
  assert.deepEqual(Rows.pairs(images, [0, 2], 1).map(({ i, value }) => [i, value]), [[1, 1], [2, 3], [3, 1]]);

  const sorted = (by, search = '') => Rows.sortedPairs(pairs, search, by).map(({ i }) => i);
  assert.deepEqual(sorted('low'), [1, 3, 0, 2]);
  assert.deepEqual(sorted('high'), [0, 2, 3, 1]);
  assert.deepEqual(sorted('size'), [1, 0, 2, 3]);
  assert.deepEqual(sorted('path'), [0, 1, 2, 3]);
  assert.deepEqual(sorted('low', 'OLD/'), [1, 3, 0, 2]);
  assert.deepEqual(sorted('low', 'C2'), [2]); // in the second path only
  assert.deepEqual(sorted('low', 'mid'), []);
});
