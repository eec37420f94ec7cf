// What a visitor gives -> arrays that the model takes, by what export.json says of preprocessing: as
// perceiver_jax/data does it. An array is { type, data, shape }, of one example.

const TYPES = { uint8: Uint8Array, float32: Float32Array, int32: Int32Array, bool: Uint8Array };
const BICUBIC = { reach: 2, weight: bicubic };

/** The arrays of all inputs, by name; `inputs` are as of backend.js. */
export async function prepare(described, inputs) {
  const batch = {};
  for (const [name, about] of Object.entries(described)) {
    if (about.kind === "mask") continue;
    const given = inputs[name];
    if (about.kind === "image") batch[name] = await image(about, given);
    else if (about.kind === "array") batch[name] = array(about, given);
    else Object.assign(batch, text(about, name, given));
  }
  for (const [name, about] of Object.entries(described)) {
    if (batch[name]) continue; // The mask of an array: all of it counts.
    const shape = about.shape.slice(1);
    batch[name] = { type: "bool", data: new Uint8Array(product(shape)).fill(1), shape };
  }
  return batch;
}

// ---------------------------------------------------------------- pictures

async function image(about, blob) {
  const numbers = about.preprocessing;
  const { width, height, data } = await decode(blob, numbers.upright);
  const count = numbers.colours === "grey" ? 1 : 3;
  let pixels = { width, height, count, data: colours(data, count) };
  let box = [0, 0, width, height]; // Left, upper, right, lower.
  if (numbers.crop) {
    const side = Math.max(1, Math.floor(numbers.crop.fraction * Math.min(width, height)));
    const before = numbers.crop.odd_pixel === "before" ? 1 : 0;
    const [left, upper] = [width, height].map((size) => Math.floor((size - side + before) / 2));
    box = [left, upper, left + side, upper + side];
  }
  if (numbers.crop_before_resize) {
    pixels = cut(pixels, box);
    box = [0, 0, pixels.width, pixels.height];
  }
  const [rows, columns] = numbers.size;
  const narrow = resizeRows(pixels, box[0], box[2], columns);
  const small = resizeColumns(narrow, box[1], box[3], rows);
  return { type: "uint8", data: small.data, shape: [rows, columns, count] };
}

async function decode(blob, upright) {
  let bitmap;
  try {
    const imageOrientation = upright ? "from-image" : "none";
    bitmap = await createImageBitmap(blob, { imageOrientation, colorSpaceConversion: "none" });
  } catch {
    throw new Error("This browser can't read that picture. Try a JPEG or PNG file.");
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // Where it is transparent.
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/** Red, green and blue of each pixel, or its grey as Pillow has it. */
function colours(rgba, count) {
  const found = new Uint8Array((rgba.length / 4) * count);
  for (let i = 0, j = 0; i < rgba.length; i += 4) {
    const [red, green, blue] = [rgba[i], rgba[i + 1], rgba[i + 2]];
    if (count === 1) found[j++] = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16;
    else found.set([red, green, blue], (j += 3) - 3);
  }
  return found;
}

function cut({ width, count, data }, [left, upper, right, lower]) {
  const row = (right - left) * count;
  const found = new Uint8Array(row * (lower - upper));
  for (let y = upper; y < lower; y++) {
    const begin = (y * width + left) * count;
    found.set(data.subarray(begin, begin + row), (y - upper) * row);
  }
  return { width: right - left, height: lower - upper, count, data: found };
}

function resizeRows({ width, height, count, data }, begin, end, size) {
  const found = new Uint8Array(size * height * count);
  windows(width, begin, end, size).forEach(({ first, weights }, x) => {
    for (let y = 0; y < height; y++) {
      for (let c = 0; c < count; c++) {
        let sum = 0;
        weights.forEach((weight, i) => (sum += weight * data[(y * width + first + i) * count + c]));
        found[(y * size + x) * count + c] = level(sum);
      }
    }
  });
  return { width: size, height, count, data: found };
}

function resizeColumns({ width, height, count, data }, begin, end, size) {
  const row = width * count;
  const found = new Uint8Array(size * row);
  windows(height, begin, end, size).forEach(({ first, weights }, y) => {
    for (let x = 0; x < row; x++) {
      let sum = 0;
      weights.forEach((weight, i) => (sum += weight * data[(first + i) * row + x]));
      found[y * row + x] = level(sum);
    }
  });
  return { width, height: size, count, data: found };
}

/** Of each new pixel, which old ones it is made of; Pillow's, which widens its filter to shrink. */
function windows(count, begin, end, size) {
  const { reach, weight } = BICUBIC;
  const step = (end - begin) / size;
  const wide = Math.max(step, 1);
  return Array.from({ length: size }, (_, i) => {
    const centre = begin + (i + 0.5) * step;
    const first = Math.max(0, Math.floor(centre - reach * wide + 0.5));
    const last = Math.min(count, Math.floor(centre + reach * wide + 0.5));
    const weights = [];
    for (let j = first; j < last; j++) weights.push(weight((j + 0.5 - centre) / wide));
    const sum = weights.reduce((total, each) => total + each, 0);
    return { first, weights: weights.map((each) => each / sum) };
  });
}

function bicubic(distance) {
  const x = Math.abs(distance);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

function level(value) {
  return Math.min(255, Math.max(0, Math.floor(value + 0.5)));
}

// ---------------------------------------------------------------- numbers and texts

function array(about, given) {
  const shape = about.shape.slice(1);
  if (given instanceof Blob) throw new Error("This demo takes numbers, no files of them.");
  const flat = [given].flat(Infinity).map(Number);
  if (flat.length !== product(shape) || !flat.every(Number.isFinite)) {
    const expected = shape.join(" × ") || "one";
    throw new Error(`Got ${flat.length} numbers; the model takes ${expected}, all finite.`);
  }
  return { type: about.dtype, data: TYPES[about.dtype].from(flat), shape };
}

function text(about, name, given) {
  if (!given.trim()) throw new Error("There is no text. Write some.");
  const { max_length: most, byte_offset: offset, pad, mask, gap, first, last } = about.preprocessing;
  const encoder = new TextEncoder();
  let ids = given.split(gap).flatMap((part, i) => {
    const bytes = Array.from(encoder.encode(part), (byte) => byte + offset);
    return i ? [mask, ...bytes] : bytes;
  });
  const [before, after] = [first, last].map((id) => (id === null ? [] : [id]));
  ids = [...before, ...ids.slice(0, most - before.length - after.length), ...after];
  const data = new Int32Array(most).fill(pad);
  data.set(ids);
  const there = Uint8Array.from({ length: most }, (_, i) => (i < ids.length ? 1 : 0));
  return {
    [name]: { type: "int32", data, shape: [most] },
    [`${name}_mask`]: { type: "bool", data: there, shape: [most] },
  };
}

/** A text with its gaps filled by predicted ids. */
export function textOf(described, name, predicted, batch) {
  const { byte_offset: offset, mask } = described[name].preprocessing;
  const there = batch[`${name}_mask`].data;
  const ids = Array.from(batch[name].data, (id, i) => (id === mask ? Number(predicted[i]) : id));
  const bytes = ids.filter((id, i) => there[i] && id >= offset).map((id) => id - offset);
  return new TextDecoder().decode(Uint8Array.from(bytes));
}

function product(shape) {
  return shape.reduce((total, size) => total * size, 1);
}
