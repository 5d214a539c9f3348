/**
 * An image in overlapping tiles whose results are blended, as `converse_jax/tiles.py` does it:
 *
 *     out[x] = sum_k w_k[x] fn(tile_k)[x - s_k],   sum_k w_k[x] = 1.
 *
 * A result is finished row of tiles by row of tiles, so that in floating point no more than one
 * row of them is kept.
 */

/** Where the tiles of one axis begin, to cover it and `outside` pixels at both ends. */
export function tileStarts(length, { tile, overlap, align, outside }) {
  const begin = -Math.ceil(outside / align) * align;
  const last = Math.ceil((length + outside - tile) / align) * align;
  if (last <= begin) return [-Math.floor(Math.floor((tile - length) / 2) / align) * align];
  const steps = (last - begin) / align;
  const gaps = Math.ceil(steps / Math.max(Math.floor((tile - overlap) / align), 1));
  return Array.from({ length: gaps + 1 }, (_, k) => begin + align * Math.floor((steps * k) / gaps));
}

/** An index inside an axis for one that may lie outside: the last pixel, or the mirror image. */
export function continued(index, length, beyond) {
  if (beyond === "replicate") return Math.min(Math.max(index, 0), length - 1);
  const period = Math.max(2 * length - 2, 1);
  const inside = ((index % period) + period) % period;
  return Math.min(inside, period - inside);
}

/**
 * The tiles along an axis: the pixels each takes from the image, the part [begin, end) of the result
 * that it has a share in, where that begins in what `fn` returns, and its share of each pixel there.
 */
export function axisParts(length, plan) {
  const { tile, overlap, scale, beyond } = plan;
  const starts = tileStarts(length, plan);
  const width = scale * overlap;
  const ramp = Array.from({ length: width }, (_, i) => Math.sin((Math.PI / 2) * ((i + 0.5) / width)) ** 2);
  const total = new Float64Array(scale * length);
  const parts = starts.map((start, k) => {
    const share = new Float64Array(scale * tile).fill(1);
    if (k > 0) ramp.forEach((r, i) => (share[i] *= r));
    if (k < starts.length - 1) ramp.forEach((r, i) => (share[share.length - 1 - i] *= r));
    const begin = scale * Math.max(start, 0);
    const end = scale * Math.min(start + tile, length);
    const offset = begin - scale * start;
    for (let i = begin; i < end; i++) total[i] += share[i - begin + offset];
    const pixels = Int32Array.from({ length: tile }, (_, i) => continued(start + i, length, beyond));
    return { pixels, begin, end, offset, share };
  });
  for (const part of parts) {
    part.weight = Float32Array.from(
      { length: part.end - part.begin },
      (_, i) => part.share[i + part.offset] / total[i + part.begin],
    );
    delete part.share;
  }
  return parts;
}

/** An axis that is restored as a whole. */
function wholeAxis(length, scale) {
  const pixels = Int32Array.from({ length }, (_, i) => i);
  return [{ pixels, begin: 0, end: scale * length, offset: 0, weight: new Float32Array(scale * length).fill(1) }];
}

/**
 * Apply a function to some channels of an image.
 *
 * @param fn maps `(Float32Array [height, width, channels] in [0, 1], height, width)` to the same,
 *     `scale` times as large, or to a promise of it.
 * @param image `{ width, height, data }`, data of 4 bytes for each pixel.
 * @param channels those that are restored, e.g. [0, 1, 2].
 * @param plan `{ tile, overlap, scale, align, outside, beyond }`. An image of at most a tile is
 *     restored as a whole.
 * @param write called with (channel's number, index of the pixel in the result, value).
 * @param onTile called with (done, total) before the first tile and after each.
 */
export async function inTiles(fn, image, channels, plan, write, onTile = () => {}) {
  const { width, height, data } = image;
  const { scale, tile } = plan;
  const whole = Math.max(width, height) <= tile;
  const rows = whole ? wholeAxis(height, scale) : axisParts(height, plan);
  const columns = whole ? wholeAxis(width, scale) : axisParts(width, plan);
  const count = channels.length;
  const line = scale * width * count;
  let sums = new Float32Array(0);
  let top = 0;

  const finish = (end) => {
    for (let i = 0; i < (end - top) * line; i += count) {
      for (let c = 0; c < count; c++) write(c, top * scale * width + i / count, sums[i + c]);
    }
  };

  let done = 0;
  onTile(0, rows.length * columns.length);
  for (const row of rows) {
    finish(row.begin);
    const kept = sums.subarray((row.begin - top) * line);
    const longer = new Float32Array((row.end - row.begin) * line);
    longer.set(kept);
    [sums, top] = [longer, row.begin];
    for (const column of columns) {
      const [h, w] = [row.pixels.length, column.pixels.length];
      const input = new Float32Array(h * w * count);
      let at = 0;
      for (const y of row.pixels) {
        for (const x of column.pixels) {
          for (const c of channels) input[at++] = data[4 * (y * width + x) + c] / 255;
        }
      }
      const result = await fn(input, h, w);
      for (let y = row.begin; y < row.end; y++) {
        const weight = row.weight[y - row.begin];
        let to = (y - top) * line + column.begin * count;
        let from = ((y - row.begin + row.offset) * scale * w + column.offset) * count;
        for (const share of column.weight) {
          for (let c = 0; c < count; c++) sums[to++] += weight * share * result[from++];
        }
      }
      onTile(++done, rows.length * columns.length);
    }
  }
  finish(scale * height);
}
