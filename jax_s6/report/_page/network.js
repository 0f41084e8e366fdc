"use strict";
// The network and the preprocessing of drawings. Tests compare both with what Python computes.

/** Computes the logits of one image. pixels: 784 numbers in [0, 255]; layers: kernel [3][3][in][16], bias, scale, shift, stride, pool. */
function forward(pixels, layers, mean, std) {
  let size = 28, channels = 1;
  let x = Float32Array.from(pixels, (value) => (value / 255 - mean) / std); // [size][size][channels]
  for (const { kernel, bias, scale, shift, stride, pool } of layers) {
    const out = bias.length, half = Math.floor((size - 1) / stride) + 1;
    let y = new Float32Array(half * half * out);
    for (let row = 0; row < half; row++) for (let column = 0; column < half; column++) {
      const sums = Float64Array.from(bias);
      for (let i = 0; i < 3; i++) for (let j = 0; j < 3; j++) {
        const r = row * stride + i - 1, c = column * stride + j - 1;
        if (r < 0 || c < 0 || r >= size || c >= size) continue;
        for (let k = 0; k < channels; k++) {
          const value = x[(r * size + c) * channels + k], at = ((i * 3 + j) * channels + k) * out;
          for (let o = 0; o < out; o++) sums[o] += value * kernel[at + o];
        }
      }
      for (let o = 0; o < out; o++) y[(row * half + column) * out + o] = Math.max(sums[o], 0) * scale[o] + shift[o];
    }
    [x, size, channels] = [y, half, out];
    if (!pool) continue;
    const small = size >> 1;
    y = new Float32Array(small * small * out).fill(-Infinity);
    for (let row = 0; row < 2 * small; row++) for (let column = 0; column < 2 * small; column++)
      for (let o = 0; o < out; o++) {
        const at = ((row >> 1) * small + (column >> 1)) * out + o;
        y[at] = Math.max(y[at], x[(row * size + column) * out + o]);
      }
    [x, size] = [y, small];
  }
  return Array.from({ length: channels }, (_, o) => {
    let sum = 0;
    for (let at = o; at < x.length; at += channels) sum += x[at];
    return sum / (size * size);
  });
}

function softmax(logits) {
  const highest = Math.max(...logits), powers = logits.map((z) => Math.exp(z - highest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((p) => p / sum);
}

/** Brings ink, [height][width] in [0, 1], into MNIST's form: cropped, scaled to 20x20, centre of mass in the centre of 28x28. */
function toDigit(ink, width, height) {
  let [top, bottom, left, right] = [height, 0, width, 0];
  for (let row = 0; row < height; row++) for (let column = 0; column < width; column++)
    if (ink[row * width + column] > 0.1) {
      [top, bottom] = [Math.min(top, row), Math.max(bottom, row + 1)];
      [left, right] = [Math.min(left, column), Math.max(right, column + 1)];
    }
  if (bottom <= top) return null;
  const scale = 20 / Math.max(bottom - top, right - left);
  const rows = Math.max(1, Math.round((bottom - top) * scale)), columns = Math.max(1, Math.round((right - left) * scale));
  const cut = (length, parts, i) => [i, i + 1].map((k) => Math.min(length, Math.round((k * length) / parts)));
  const digit = [];
  let [mass, down, across] = [0, 0, 0];
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) {
    let sum = 0;
    const [r0, r1] = cut(bottom - top, rows, i), [c0, c1] = cut(right - left, columns, j);
    for (let r = r0; r < r1; r++) for (let c = c0; c < c1; c++) sum += ink[(top + r) * width + left + c];
    const value = sum / Math.max(1, (r1 - r0) * (c1 - c0));
    digit.push(value);
    [mass, down, across] = [mass + value, down + i * value, across + j * value];
  }
  const corner = (moment, length) => Math.min(Math.max(Math.floor(14.5 - moment / mass), 0), 28 - length);
  const field = new Uint8ClampedArray(784), [y, x] = [corner(down, rows), corner(across, columns)];
  digit.forEach((value, n) => { field[(y + Math.floor(n / columns)) * 28 + x + (n % columns)] = Math.round(255 * value); });
  return field;
}
