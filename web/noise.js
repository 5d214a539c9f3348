/**
 * How much noise an image has: `converse_jax.imaging.estimate_noise`, whose docstring has the
 * derivation. Blocks of 8x8 pixels with little energy in low frequencies are taken for flat, and
 * the energy of their high frequencies is read at a low quantile.
 */

const SIDE = 8;
const PIXELS = SIDE * SIDE;
const BLOCKS = 16384; // at most about this many are examined
const FLAT = 0.02; // share of the blocks that may be flat enough to show noise alone
const FEWEST = 32; // of them, in small images
const QUANTILE = 0.1;
const LOW = 4; // coefficients u + v < 4 rank the blocks, the others measure
const CHI_SQUARED = 41.18303878015547; // the quantile 0.1 of chi^2 with 54 degrees of freedom

const { low: LOW_WAVES, high: HIGH_WAVES } = waves();

function waves() {
  const wave = (u, t) => Math.cos((Math.PI * u * (t + 0.5)) / SIDE) * Math.sqrt((u ? 2 : 1) / SIDE);
  const low = [];
  const high = [];
  for (let u = 0; u < SIDE; u++) {
    for (let v = 0; v < SIDE; v++) {
      if (u + v === 0) continue;
      const image = Float32Array.from({ length: PIXELS }, (_, p) => wave(u, Math.floor(p / SIDE)) * wave(v, p % SIDE));
      (u + v < LOW ? low : high).push(image);
    }
  }
  return { low, high };
}

/** Gray and two color differences, an orthonormal basis; of a gray image the gray alone. */
const COLOR_BASIS = [
  [1, 1, 1],
  [1, 0, -1],
  [1, -2, 1],
].map((row) => row.map((v) => v / Math.hypot(...row)));

/**
 * The standard deviation of the noise, in units of [0, 1].
 *
 * @param image `{ width, height, data }`, data of 4 bytes for each pixel.
 * @param channels those that are looked at: [0] or [0, 1, 2].
 */
export function estimateNoise({ width, height, data }, channels) {
  if (Math.min(width, height) < SIDE) return 0;
  const basis = channels.length === 3 ? COLOR_BASIS : [[1]];
  // Odd, so that the blocks meet JPEG's grid at any offset.
  const step = Math.max(3, Math.floor(Math.sqrt(Math.floor((width * height) / BLOCKS)))) | 1;
  const blocks = [];
  for (let top = 0; top <= height - SIDE; top += step) {
    for (let left = 0; left <= width - SIDE; left += step) {
      const block = channels.map(() => new Float32Array(PIXELS));
      let clipped = 0;
      for (let p = 0; p < PIXELS; p++) {
        const at = 4 * ((top + Math.floor(p / SIDE)) * width + left + (p % SIDE));
        channels.forEach((c, i) => {
          const value = data[at + c];
          block[i][p] = value / 255;
          clipped += value === 0 || value === 255;
        });
      }
      if (clipped / (PIXELS * channels.length) >= 0.1) continue;
      blocks.push({ block, rank: energy(project(block, basis[0]), LOW_WAVES) });
    }
  }
  if (!blocks.length) return 0;
  const count = Math.min(Math.max(Math.floor(FLAT * blocks.length), FEWEST), blocks.length);
  const flat = blocks.sort((a, b) => a.rank - b.rank).slice(0, count);
  const energies = basis.map((row) =>
    quantile(flat.map(({ block }) => energy(project(block, row), HIGH_WAVES) / HIGH_WAVES.length)),
  );
  const mean = energies.reduce((a, b) => a + b) / energies.length;
  return Math.sqrt((mean * HIGH_WAVES.length) / CHI_SQUARED);
}

function project(block, row) {
  return Float32Array.from({ length: PIXELS }, (_, p) => row.reduce((sum, r, i) => sum + r * block[i][p], 0));
}

/** Sum of the squares of a block's coefficients. */
function energy(block, waves) {
  let sum = 0;
  for (const wave of waves) {
    let coefficient = 0;
    for (let p = 0; p < PIXELS; p++) coefficient += wave[p] * block[p];
    sum += coefficient * coefficient;
  }
  return sum;
}

function quantile(values) {
  const sorted = Float64Array.from(values).sort();
  const at = QUANTILE * (sorted.length - 1);
  const below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}
