import assert from 'node:assert/strict';
import test from 'node:test';
import { Histogram, LongList, QualityMap, Scatter } from './load.mjs';

// --- histogram -------------------------------------------------------------------------------------------------------

test('least and greatest value', () => {
  assert.deepEqual(Histogram.extent([NaN, 3, -2, 0]), [-2, 3]);
  assert.deepEqual(Histogram.extent([NaN, 3, 3]), [2.5, 3.5]);
  assert.deepEqual(Histogram.extent([NaN]), [0, 1]);
});

// A histogram of values from 0 to 10, without its elements: what it asks for is in `asked`.
function histogram(range = null) {
  const asked = [];
  const changed = (next) => asked.push(next);
  const it = Object.assign(Object.create(Histogram.prototype), { low: 0, high: 10, range, changed, place() {} });
  return { it, asked };
}

test('a range is in order and within the values; all of them are no range', () => {
  const { it, asked } = histogram();
  for (const range of [[2, 8], [8, 2], [-5, 3], [4, 99], [0, 10], [-1, 11]]) it.move(range);
  assert.deepEqual(asked, [[2, 8], [2, 8], [0, 3], [4, 10], null, null]);
});

test('keys move an end of the range, not past the other', () => {
  const pressed = (key, side, range) => {
    const { it, asked } = histogram(range);
    let used = false;
    it.key({ key, preventDefault: () => (used = true), stopPropagation() {} }, side);
    assert.equal(used, asked.length === 1);
    return asked[0];
  };
  assert.deepEqual(pressed('ArrowRight', 0, null), [0.1, 10]);
  assert.deepEqual(pressed('ArrowDown', 1, [2, 8]), [2, 7.9]);
  assert.deepEqual(pressed('PageUp', 0, [2, 8]), [3, 8]);
  assert.deepEqual(pressed('PageDown', 1, [2, 2.5]), [2, 2]);
  assert.deepEqual(pressed('PageUp', 0, [2, 2.5]), [2.5, 2.5]);
  assert.deepEqual(pressed('Home', 0, [2, 8]), [0, 8]);
  assert.equal(pressed('End', 1, [0, 8]), null);
  assert.equal(pressed('k', 0, [2, 8]), undefined);
});

// --- scatter ---------------------------------------------------------------------------------------------------------

test('ticks are round numbers between the ends', () => {
  assert.deepEqual(Scatter.ticks(0, 1, 5), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  assert.deepEqual(Scatter.ticks(-0.25, 0.25, 4), [-0.2, 0, 0.2]);
  assert.deepEqual(Scatter.ticks(997, 1003, 6.5), [997, 998, 999, 1000, 1001, 1002, 1003]);
  for (const span of [3e-5, 0.07, 1, 4.9, 12, 99999]) {
    for (const low of [-span / 3, 0, 7.3 * span]) {
      for (const count of [2, 5, 11.5]) {
        const ticks = Scatter.ticks(low, low + span, count);
        const slack = span * 1e-9;
        assert.ok(ticks.every((tick) => tick >= low - slack && tick <= low + span + slack));
        const step = (ticks.at(-1) - ticks[0]) / (ticks.length - 1);
        ticks.forEach((tick, i) => i && assert.ok(Math.abs(tick - ticks[i - 1] - step) < slack));
        if (ticks.length > 1) assert.match(step.toExponential(6), /^[125]\.0{6}e/);
        assert.ok(ticks.length <= count + 1 && ticks.length >= Math.floor(count / 2.5), `${ticks} of ${count}`);
      }
    }
  }
});

test('the point that is clicked is the nearest one, within 20 pixels', () => {
  const it = { rows: [7, 8, 9], points: [[10, 10], [30, 10], [10, 100]] };
  const near = (x, y) => Scatter.prototype.near.call(it, x, y);
  assert.deepEqual([near(12, 9), near(21, 10), near(10, 81), near(10, 80), near(500, 10)], [7, 8, 9, -1, -1]);
});

test('no correlation of fewer than three points or of equal values', () => {
  assert.equal(Scatter.correlation([0, 1, 2], [1, 2, NaN], [1, 2, 3]), NaN);
  assert.equal(Scatter.correlation([0, 1, 2], [1, 1, 1], [1, 2, 3]), NaN);
});

// --- map -------------------------------------------------------------------------------------------------------------

const windows = (size, score) => ({ size, rows: [[0, size[0]]], columns: [[0, 2], [2, 4]], values: { score } });

test('the range of colours is that of the values, and never narrow', () => {
  assert.deepEqual(QualityMap.range('score', windows([4, 4], [2000, 7000])), [0.2, 0.7]);
  assert.deepEqual(QualityMap.range('score', windows([4, 4], [2000, 7000]), windows([4, 4], [9000, 5000])), [0.2, 0.9]);
  assert.deepEqual(QualityMap.range('score', windows([4, 4], [5000, 5000])), [0.495, 0.505]);
  const [low, high] = QualityMap.range('score', windows([4, 4], [5000, 5050]));
  assert.ok(Math.abs(low - 0.4975) < 1e-12 && Math.abs(high - 0.5075) < 1e-12);
});

test('a map is drawn in the colours of its values', () => {
  const draw = (windows, ...range) => {
    const canvas = {
      getContext: () => ({
        createImageData: (width, height) => ({ data: new Uint8ClampedArray(4 * width * height) }),
        putImageData: ({ data }) => (canvas.data = data),
      }),
    };
    return [canvas, QualityMap.draw(canvas, windows, 'score', ...range)];
  };
  const [wide, range] = draw(windows([2, 4], [2000, 7000]));
  assert.deepEqual([wide.width, wide.height, range], [160, 80, [0.2, 0.7]]);
  const pixel = (x, y) => [...wide.data.slice(4 * (y * 160 + x), 4 * (y * 160 + x) + 4)];
  const [low, high] = [[68, 1, 84, 255], [253, 231, 37, 255]];
  for (const y of [0, 79]) assert.deepEqual([0, 79, 80, 159].map((x) => pixel(x, y)), [low, low, high, high]);
  const [thin] = draw(windows([4000, 4], [2000, 7000]));
  assert.deepEqual([thin.width, thin.height, thin.data.length], [1, 160, 640]);
  const [within] = draw(windows([2, 4], [2000, 7000]), [0.2, 1.2]);
  assert.deepEqual([...within.data.slice(-4, -1)], QualityMap.colour(0.5));
});

// --- long list -------------------------------------------------------------------------------------------------------

test('a long list draws what is in sight and little more', () => {
  const lists = [[0, 100, 1, 1000], [333, 95, 4, 1001], [7950, 100, 5, 1000], [0, 500, 3, 4]];
  for (const [top, seen, columns, count] of lists) {
    const [first, last] = LongList.inSight(top, seen, 40, columns, count);
    const line = (position) => 40 * Math.floor(position / columns);
    const sight = [...Array(count).keys()].filter((i) => line(i) + 40 > top && line(i) < top + seen);
    assert.ok(first >= 0 && first % columns === 0 && first <= sight[0], `${first} of ${sight[0]}`);
    assert.ok(last <= count && last > sight.at(-1), `${last} of ${sight.at(-1)}`);
    assert.ok(last - first <= (Math.ceil(seen / 40) + 5) * columns);
  }
});
