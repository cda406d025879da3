// Turn decoded frames (YUV) into RGB of the size that the model takes, in the arithmetic of FFmpeg's libswscale: the
// pixels are those that Python's reader gives for the same decoded frame.
//
// Resized frames are filtered in two passes of integers: along rows to 15 bits, then along columns, color apart from
// brightness. Frames of the wanted size are converted without a filter, each color sample to its 2x2 pixels.

/** Red from V, blue from U, green from U and from V, times 65536, by color matrix (ITU-T H.273). */
const MATRICES = {
  bt709: [117489, 138438, 13975, 34925],
  smpte170m: [104597, 132201, 25675, 53279],
  bt470bg: [104597, 132201, 25675, 53279],
  "bt2020-ncl": [110013, 140363, 12277, 42626],
};
const PLANAR = { I420: [1, 1], NV12: [1, 1], I422: [1, 0], I444: [0, 0] };

/** Return whether `convert` reads a pixel format of WebCodecs; the others are left to the browser. */
export const isPlanar = (format) => format in PLANAR;

/** Return [height, width] with the shorter side at `shortSide`, the longer rounded down. */
export function scaledSize(height, width, shortSide) {
  return height <= width
    ? [shortSide, Math.floor((shortSide * width) / height)]
    : [Math.floor((shortSide * height) / width), shortSide];
}

/** Weights of a filter by the distance from its center, in 2^-30 samples: [samples that it spans when it enlarges, 2^54 times the weight]. */
const triangle = [2, (far) => (far < 1n << 30n ? ((1n << 30n) - far) << 24n : 0n)];
const sharpness = BigInt(Math.trunc(0.6 * 2 ** 24)); // of libswscale's bicubic filter
const bicubic = [4, (far) => {
  if (far >= 1n << 31n) return 0n;
  const square = (far * far) >> 30n, cube = (square * far) >> 30n;
  return far < 1n << 30n
    ? ((12n << 24n) - 6n * sharpness) * cube + (6n * sharpness - (18n << 24n)) * square + (6n << 54n)
    : -6n * sharpness * cube + 30n * sharpness * square - 48n * sharpness * far + ((24n * sharpness) << 30n);
}];

/**
 * Return the taps of a filter from `size` samples to `newSize`: `{first, taps, num}`, where output i is the sum
 * of `taps[i * num + j]` times sample `first[i] + j`. They sum to `one`.
 *
 * Positions are in 128ths of a sample: 128 is the center, where brightness is; color at the left of two pixels has 64.
 */
function filterTaps([span, weight], size, newSize, one, position = 128, align = 1) {
  const step = Math.floor((size * 65536 + (newSize >> 1)) / newSize);
  const first = new Int32Array(newSize);
  const unit = 1n << BigInt(54 - Math.min(Math.max(0, 31 - Math.clz32(Math.floor(size / newSize))), 8));
  let rows;
  if (Math.abs(step - 65536) < 10 && position === 128) {
    rows = Array.from({ length: newSize }, (_, i) => ((first[i] = i), [unit]));
  } else {
    const wanted = step <= 65536 ? 1 + span : 1 + Math.floor((span * size + newSize - 1) / newSize);
    const num = Math.max(1, Math.min(wanted, size - 2));
    // Twice the position in the source, times 65536.
    let center = ((128n * BigInt(step)) >> 7n) - BigInt(position) * 512n;
    rows = Array.from({ length: newSize }, (_, i) => {
      first[i] = Number((center - BigInt(num - 2) * 65536n) / 131072n); // toward zero
      const row = Array.from({ length: num }, (_, j) => {
        const distance = BigInt(first[i] + j) * 131072n - center;
        let far = abs(distance) << 13n;
        if (step > 65536) far = (far * BigInt(newSize)) / BigInt(size);
        return weight(far) / ((1n << 54n) / unit);
      });
      center += 2n * BigInt(step);
      return row;
    });
  }
  const num = cutEnds(rows, first, unit, align);
  const taps = new Int32Array(newSize * num);
  rows.forEach((row, i) => {
    const kept = Array.from({ length: num }, (_, j) => row[j] ?? 0n);
    moveInside(kept, first, i, size);
    // Rounding errors are carried from tap to tap, so that the sum is exact.
    const sum = (kept.reduce((a, b) => a + b, 0n) + BigInt(one / 2)) / BigInt(one) || 1n;
    let error = 0n;
    kept.forEach((tap, j) => {
      const value = tap + error;
      const rounded = (value >= 0n ? value + (sum >> 1n) : value - (sum >> 1n)) / sum;
      error = value - rounded * sum;
      taps[i * num + j] = Number(rounded);
    });
  });
  return { first, taps, num };
}

const abs = (value) => (value < 0n ? -value : value);

/** Drop what adds next to nothing at both ends of every row of taps; return their common length, a multiple of `align`. */
function cutEnds(rows, first, unit, align) {
  const negligible = unit / 500n;
  let longest = 0;
  for (let i = rows.length - 1; i >= 0; i--) {
    const row = rows[i];
    let dropped = 0n;
    for (let j = 0; j < row.length; j++) {
      dropped += abs(row[0]);
      // The positions must not decrease.
      if (dropped > negligible || (i < rows.length - 1 && first[i] >= first[i + 1])) break;
      row.shift();
      row.push(0n);
      first[i]++;
    }
    let length = row.length;
    dropped = 0n;
    for (let j = row.length - 1; j > 0; j--) {
      dropped += abs(row[j]);
      if (dropped > negligible) break;
      length--;
    }
    longest = Math.max(longest, length);
  }
  return Math.ceil(longest / align) * align;
}

/** Give the taps outside the picture to the sample at its edge. */
function moveInside(row, first, i, size) {
  const num = row.length;
  if (first[i] < 0) {
    for (let j = 1; j < num; j++) {
      const left = Math.max(j + first[i], 0);
      const tap = row[j];
      row[j] = 0n;
      row[left] += tap;
    }
    first[i] = 0;
  }
  if (first[i] + num > size) {
    const shift = first[i] + Math.min(num - size, 0);
    let outside = 0n;
    for (let j = num - 1; j >= 0; j--) {
      if (first[i] + j >= size) {
        outside += row[j];
        row[j] = 0n;
      }
    }
    for (let j = num - 1; j >= 0; j--) row[j] = j < shift ? 0n : row[j - shift];
    first[i] -= shift;
    row[size - 1 - first[i]] += outside;
  }
}

/** Filter the rows of a plane of bytes to 15 bits: Int16Array of `height` x `first.length`. */
function filterRows(plane, offset, stride, pixelStride, height, { first, taps, num }) {
  const width = first.length;
  const out = new Int16Array(height * width);
  for (let y = 0; y < height; y++) {
    const row = offset + y * stride;
    for (let x = 0; x < width; x++) {
      let sum = 0;
      let sample = row + first[x] * pixelStride;
      for (let j = x * num, end = j + num; j < end; j++, sample += pixelStride) {
        if (taps[j]) sum += plane[sample] * taps[j]; // samples beyond the edge have no weight
      }
      out[y * width + x] = Math.min(sum >> 7, 32767);
    }
  }
  return out;
}

/** The coefficients of a conversion to RGB, in 16 bits of fraction. */
function coefficients(matrix, fullRange) {
  const [redV, blueU, greenU, greenV] = MATRICES[matrix] ?? MATRICES.smpte170m;
  const scaled = (value) => (fullRange ? Math.floor((value * 224) / 255) : value);
  // Green is subtracted; division of integers rounds toward zero.
  const green = (value) => (fullRange ? Math.trunc((-value * 224) / 255) : -value);
  return {
    luma: fullRange ? 65536 : Math.floor((65536 * 255) / 219),
    black: fullRange ? 0 : 16,
    redV: scaled(redV), blueU: scaled(blueU), greenU: green(greenU), greenV: green(greenV),
  };
}

const round16 = (value) => Math.max(-32768, Math.min(32767, Math.floor((value + 32768) / 65536)));

/**
 * Convert one frame to planes of RGB: Uint8Array `(3, height, width)`.
 *
 * @param frame `{data, layout, format, width, height, matrix, fullRange, colorAtLeft, colorAtTop}`: the bytes of a
 *   `VideoFrame` and its `PlaneLayout`s; whether color samples are at the left and at the top of the pixels that share them,
 *   instead of between them.
 */
export function convert(frame, height, width) {
  const isSameSize = frame.height === height && frame.width === width;
  // libswscale interpolates the color of pictures of odd heights, and of those with color at every pixel.
  const [subX, subY] = PLANAR[frame.format];
  if (!isSameSize || !subX || height % 2) return convertFiltered(frame, height, width);
  return convertNearest(frame, subY);
}

function planesOf(frame) {
  const [y, u, v] = frame.layout;
  const isInterleaved = frame.format === "NV12";
  return {
    y: { offset: y.offset, stride: y.stride, step: 1 },
    u: { offset: u.offset, stride: u.stride, step: isInterleaved ? 2 : 1 },
    v: isInterleaved ? { offset: u.offset + 1, stride: u.stride, step: 2 } : { offset: v.offset, stride: v.stride, step: 1 },
  };
}

function convertNearest(frame, subY) {
  const { data, width, height } = frame;
  const planes = planesOf(frame);
  const c = coefficients(frame.matrix, frame.fullRange);
  const eighth = (value) => round16(value * 8192);
  const luma = eighth(c.luma), redV = eighth(c.redV), blueU = eighth(c.blueU);
  const greenU = eighth(c.greenU), greenV = eighth(c.greenV), black = c.black * 8;
  const area = height * width;
  const out = new Uint8ClampedArray(3 * area);
  for (let y = 0; y < height; y++) {
    const uRow = planes.u.offset + (y >> subY) * planes.u.stride;
    const vRow = planes.v.offset + (y >> subY) * planes.v.stride;
    for (let x = 0; x < width; x++) {
      const u = data[uRow + (x >> 1) * planes.u.step] * 8 - 1024;
      const v = data[vRow + (x >> 1) * planes.v.step] * 8 - 1024;
      const bright = ((data[planes.y.offset + y * planes.y.stride + x] * 8 - black) * luma) >> 16;
      const at = y * width + x;
      out[at] = bright + ((v * redV) >> 16);
      out[area + at] = bright + ((u * greenU) >> 16) + ((v * greenV) >> 16);
      out[2 * area + at] = bright + ((u * blueU) >> 16);
    }
  }
  return new Uint8Array(out.buffer);
}

function convertFiltered(frame, height, width) {
  const [subX, subY] = PLANAR[frame.format];
  const colorWidth = Math.ceil(frame.width / 2 ** subX), colorHeight = Math.ceil(frame.height / 2 ** subY);
  // Two neighbors share their color, where the width and the source allow it.
  const isFull = width % 2 === 1 || (subX === 0 && subY === 0);
  const newColorWidth = isFull ? width : width / 2;
  // At the same size only colors are interpolated.
  const filter = frame.width === width && frame.height === height ? bicubic : triangle;
  const left = subX && frame.colorAtLeft ? 64 : 128, top = subY && frame.colorAtTop ? 64 : 128;
  const one = 1 << 14, oneDown = 1 << 12;
  const planes = planesOf(frame);
  const colorTaps = filterTaps(filter, colorWidth, newColorWidth, one, left, 4);
  const filtered = (plane, planeHeight, taps) =>
    filterRows(frame.data, plane.offset, plane.stride, plane.step, planeHeight, taps);
  const lumaRows = filtered(planes.y, frame.height, filterTaps(filter, frame.width, width, one, 128, 4));
  const uRows = filtered(planes.u, colorHeight, colorTaps);
  const vRows = filtered(planes.v, colorHeight, colorTaps);
  const down = filterTaps(filter, frame.height, height, oneDown);
  const colorDown = filterTaps(filter, colorHeight, height, oneDown, top);
  const write = isFull ? exactColors(frame, height, width) : tabledColors(frame, height, width);
  const lumas = new Int32Array(width), us = new Int32Array(newColorWidth), vs = new Int32Array(newColorWidth);
  for (let y = 0; y < height; y++) {
    // One or two rows have shortcuts with other rounding.
    const luma = columnSum(down, y), color = columnSum(colorDown, y);
    const isTwo = luma.num === 2 && color.num === 2;
    const isOne = luma.num === 1 && color.num <= 2;
    const rounding = isTwo ? 0 : isFull ? 1 << 9 : 1 << 18;
    if (isOne) {
      oneRow(lumaRows, width, luma.first, lumas, isFull);
      for (const [rows, out] of [[uRows, us], [vRows, vs]]) {
        colorRow(rows, newColorWidth, color, out, isFull);
      }
    } else {
      sumRows(lumaRows, width, luma, rounding, isFull ? 10 : 19, 0, lumas);
      const middle = isFull ? 128 << 19 : 0;
      sumRows(uRows, newColorWidth, color, rounding, isFull ? 10 : 19, middle, us);
      sumRows(vRows, newColorWidth, color, rounding, isFull ? 10 : 19, middle, vs);
    }
    write.row(y, lumas, us, vs);
  }
  return write.out;
}

const columnSum = ({ first, taps, num }, y) => ({ first: first[y], taps: taps.subarray(y * num, (y + 1) * num), num });

function sumRows(rows, width, { first, taps, num }, rounding, shift, middle, out) {
  for (let x = 0; x < width; x++) {
    let sum = rounding - middle;
    for (let j = 0; j < num; j++) if (taps[j]) sum += rows[(first + j) * width + x] * taps[j];
    out[x] = sum >> shift;
  }
}

function oneRow(rows, width, first, out, isFull) {
  for (let x = 0; x < width; x++) {
    const value = rows[first * width + x];
    out[x] = isFull ? value * 4 : (value + 64) >> 7;
  }
}

/** One row of color, or the mean of two where the second weighs at least half. */
function colorRow(rows, width, { first, taps, num }, out, isFull) {
  const isMean = num === 2 && taps[1] >= 2048;
  for (let x = 0; x < width; x++) {
    const value = rows[first * width + x];
    if (isMean) {
      const sum = value + rows[(first + 1) * width + x];
      out[x] = isFull ? (sum - (128 << 8)) * 2 : (sum + 128) >> 8;
    } else {
      out[x] = isFull ? (value - (128 << 7)) * 4 : (value + 64) >> 7;
    }
  }
}

/** Write rows of pixels of which two neighbors share their color, by a table of brightness that color shifts. */
function tabledColors(frame, height, width) {
  const c = coefficients(frame.matrix, frame.fullRange);
  const steps = (value) => Math.trunc((value * 65536 + 32768) / c.luma);
  const clip = (value) => Math.max(0, Math.min(255, value));
  const shifts = (value) => Int32Array.from({ length: 512 }, (_, i) => -(value >> 9) + Math.floor((clip(i - 128) * value) / 65536));
  const [redV, blueU, greenU, greenV] = [c.redV, c.blueU, c.greenU, c.greenV].map(steps).map(shifts);
  const zero = frame.fullRange ? 384 : 326, headroom = 512;
  const table = new Uint8Array(1024 + 2 * headroom);
  let level = -(384 * 65536) - headroom * c.luma - c.black * 65536;
  for (let i = 0; i < table.length; i++, level += c.luma) table[i] = clip(Math.floor((level + 32768) / 65536));
  const out = new Uint8Array(3 * height * width), area = height * width;
  return {
    out,
    row(y, lumas, us, vs) {
      for (let x = 0; x < width; x++) {
        const u = us[x >> 1] + 128, v = vs[x >> 1] + 128, at = y * width + x;
        const base = zero + headroom + lumas[x];
        out[at] = table[base + redV[v]];
        out[area + at] = table[base + greenU[u] + greenV[v]];
        out[2 * area + at] = table[base + blueU[u]];
      }
    },
  };
}

/** Write rows of pixels with a color each. */
function exactColors(frame, height, width) {
  const c = coefficients(frame.matrix, frame.fullRange);
  const scaled = (value) => round16(value * 8192);
  const luma = scaled(c.luma), redV = scaled(c.redV), blueU = scaled(c.blueU);
  const greenU = scaled(c.greenU), greenV = scaled(c.greenV), black = c.black * 512;
  const out = new Uint8Array(3 * height * width), area = height * width;
  const byte = (value) => Math.max(0, Math.min(2 ** 30 - 1, value)) >> 22;
  return {
    out,
    row(y, lumas, us, vs) {
      for (let x = 0; x < width; x++) {
        const bright = (lumas[x] - black) * luma + (1 << 21), at = y * width + x;
        // In 32 bits, as in libswscale: the brightest colors overflow there, and become black.
        out[at] = byte((bright + vs[x] * redV) | 0);
        out[area + at] = byte((bright + vs[x] * greenV + us[x] * greenU) | 0);
        out[2 * area + at] = byte((bright + us[x] * blueU) | 0);
      }
    },
  };
}

/** Resize a picture of RGBA bytes to planes of RGB, Uint8Array `(3, height, width)`, with the filter of `convert`. */
export function resizeRgba(rgba, fromHeight, fromWidth, height, width) {
  const across = filterTaps(triangle, fromWidth, width, 1 << 14);
  const down = filterTaps(triangle, fromHeight, height, 1 << 12);
  const out = new Uint8ClampedArray(3 * height * width), line = new Int32Array(width);
  for (let channel = 0; channel < 3; channel++) {
    const rows = filterRows(rgba, channel, 4 * fromWidth, 4, fromHeight, across);
    for (let y = 0; y < height; y++) {
      sumRows(rows, width, columnSum(down, y), 1 << 18, 19, 0, line);
      out.set(line, (channel * height + y) * width);
    }
  }
  return new Uint8Array(out.buffer);
}
