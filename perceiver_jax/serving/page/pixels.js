// Pictures as a model knows them: for one of light strokes on black, what is drawn or photographed on
// paper is turned into that, cut out and put where strokes of its training lie.

const STROKES = 20 / 28; // Of the side, that strokes take up, as in MNIST.
const BRIGHT = 0.5; // A border that is brighter is paper.
const LEAST = 0.15; // Of the light that paper throws back, that ink takes at least.
const FAINT = 0.3; // Of what the darkest ink takes; less is shadow, or the grain of paper.
const CELLS = 8; // Along each side, in which the brightness of paper is looked at: it is not even.
const SPECKS = 0.003; // Of all ink, that may lie outside of each side of what is cut out.

/** Whether a model was trained on small grey pictures of light strokes on black. */
export function isOfStrokes(input) {
  return input.kind === "image" && input.channels === 1 && input.size <= 64 && input.mean < 0.4;
}

/** Reads a picture; returns a canvas no larger than `most` on a side. */
export async function toCanvas(blob, most = 512) {
  const bitmap = await createImageBitmap(blob);
  const scale = Math.min(1, most / Math.max(bitmap.width, bitmap.height));
  const canvas = newCanvas(
    Math.max(1, Math.round(bitmap.width * scale)),
    Math.max(1, Math.round(bitmap.height * scale)),
  );
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // What is transparent.
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** Whether the border of a picture is bright, as paper is. */
export function isOnPaper(canvas) {
  const grey = greys(canvas);
  return quantile(border(grey, canvas.width, canvas.height), 0.5) > BRIGHT;
}

/** Strokes light on black, cut out and centred; null if there are none. */
export function strokes(canvas, size, onPaper) {
  const { width, height } = canvas;
  let ink = greys(canvas);
  if (onPaper) {
    const light = paper(ink, width, height);
    ink = ink.map((level, i) => Math.max(0, 1 - level / light[i]));
    const darkest = quantile(ink, 0.999);
    if (darkest < LEAST) return null;
    ink = ink.map((level) => (level < FAINT * darkest ? 0 : Math.min(level / darkest, 1)));
  }
  const box = bounds(ink, width, height);
  if (!box) return null;
  const source = newCanvas(width, height);
  const image = new ImageData(width, height);
  ink.forEach((level, i) => image.data.fill(Math.round(255 * level), 4 * i, 4 * i + 3));
  for (let i = 3; i < image.data.length; i += 4) image.data[i] = 255;
  source.getContext("2d").putImageData(image, 0, 0);
  return centred(source, box, size);
}

/** A canvas of the model's size, as it gets it if nothing is changed. */
export function shrunk(canvas, size) {
  const small = newCanvas(size, size);
  const context = small.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(halved(canvas, size), 0, 0, size, size);
  return small;
}

/** The PNG file of a canvas. */
export function toFile(canvas, name = "picture.png") {
  return new Promise((resolve) => {
    canvas.toBlob((blob) => resolve(new File([blob], name, { type: "image/png" })), "image/png");
  });
}

export function newCanvas(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

/** Scales what is in a box to the size of strokes, with its mass in the middle. */
function centred(source, box, size) {
  const scale = (STROKES * size) / Math.max(box.width, box.height);
  const small = newCanvas(size, size);
  const context = small.getContext("2d", { willReadFrequently: true });
  const cut = newCanvas(box.width, box.height);
  cut.getContext("2d").drawImage(source, -box.left, -box.top);
  const [width, height] = [box.width * scale, box.height * scale];
  const shrunken = halved(cut, Math.max(width, height));
  const draw = (left, top) => {
    context.fillStyle = "black";
    context.fillRect(0, 0, size, size);
    context.imageSmoothingQuality = "high";
    context.drawImage(shrunken, left, top, width, height);
  };
  const [left, top] = [(size - width) / 2, (size - height) / 2];
  draw(left, top);
  const [x, y] = middle(greys(small), size);
  draw(left + size / 2 - x, top + size / 2 - y);
  return small;
}

/** Halves a canvas until it is less than twice as large: browsers average four pixels alone. */
function halved(canvas, size) {
  let current = canvas;
  while (Math.max(current.width, current.height) >= 2 * size) {
    const next = newCanvas(Math.ceil(current.width / 2), Math.ceil(current.height / 2));
    const context = next.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(current, 0, 0, next.width, next.height);
    current = next;
  }
  return current;
}

function greys(canvas) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const grey = new Float32Array(data.length / 4);
  for (let i = 0; i < grey.length; i++) {
    grey[i] = (0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]) / 255;
  }
  return grey;
}

function border(grey, width, height) {
  const found = [];
  for (let x = 0; x < width; x++) found.push(grey[x], grey[(height - 1) * width + x]);
  for (let y = 0; y < height; y++) found.push(grey[y * width], grey[y * width + width - 1]);
  return found;
}

function quantile(values, fraction) {
  const sorted = Float32Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * fraction))];
}

/** How bright the paper is at each pixel: what most pixels around are, between cells' middles. */
function paper(grey, width, height) {
  const [across, down] = [width / CELLS, height / CELLS];
  const cells = [];
  for (let row = 0; row < CELLS; row++) {
    for (let column = 0; column < CELLS; column++) {
      const around = [];
      const top = Math.max(0, Math.floor((row - 0.5) * down));
      const left = Math.max(0, Math.floor((column - 0.5) * across));
      for (let y = top; y < Math.min(height, (row + 1.5) * down); y += 2) {
        for (let x = left; x < Math.min(width, (column + 1.5) * across); x += 2) {
          around.push(grey[y * width + x]);
        }
      }
      cells.push(quantile(around, 0.8));
    }
  }
  const between = (at) => {
    const place = Math.min(Math.max(at - 0.5, 0), CELLS - 1.001);
    return [Math.floor(place), place - Math.floor(place)];
  };
  const found = new Float32Array(grey.length);
  for (let y = 0; y < height; y++) {
    const [row, below] = between((y + 0.5) / down);
    for (let x = 0; x < width; x++) {
      const [column, right] = between((x + 0.5) / across);
      const first = row * CELLS + column;
      const upper = (1 - right) * cells[first] + right * cells[first + 1];
      const lower = (1 - right) * cells[first + CELLS] + right * cells[first + CELLS + 1];
      found[y * width + x] = Math.max((1 - below) * upper + below * lower, 0.02);
    }
  }
  return found;
}

/** The box of the strokes, but for specks; null if there are none. */
function bounds(ink, width, height) {
  const [columns, rows] = [new Float64Array(width), new Float64Array(height)];
  ink.forEach((level, i) => {
    columns[i % width] += level;
    rows[Math.floor(i / width)] += level;
  });
  const all = columns.reduce((sum, each) => sum + each, 0);
  if (all < 1) return null;
  const edge = (sums) => {
    let sum = 0;
    return sums.findIndex((each) => (sum += each) > SPECKS * all);
  };
  const [left, top] = [edge(columns), edge(rows)];
  const right = width - 1 - edge(columns.reverse());
  const bottom = height - 1 - edge(rows.reverse());
  return { left, top, width: right - left + 1, height: bottom - top + 1 };
}

function middle(grey, size) {
  let [sum, across, down] = [0, 0, 0];
  grey.forEach((level, i) => {
    sum += level;
    across += level * ((i % size) + 0.5);
    down += level * (Math.floor(i / size) + 0.5);
  });
  return sum ? [across / sum, down / sum] : [size / 2, size / 2];
}
