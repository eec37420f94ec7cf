// Pictures as a model knows them: for one of light strokes on black, what is drawn or photographed on
// paper is turned into that, cut out and put where strokes of its training lie.

const STROKES = 20 / 28; // Of the side, that strokes take up, as in MNIST.
const BRIGHT = 0.5; // A border that is brighter is paper.
const FAINT = 0.25; // Less ink than that is paper, too.

/** Whether a model was trained on small grey pictures of light strokes on black. */
export function isOfStrokes(input) {
  return input.kind === "image" && input.channels === 1 && input.size <= 64 && input.mean < 0.4;
}

/** Reads a picture; returns a canvas no larger than `most` on a side. */
export async function toCanvas(blob, most = 1024) {
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
  return median(border(grey, canvas.width, canvas.height)) > BRIGHT;
}

/** Strokes light on black, cut out and centred; null if there are none. */
export function strokes(canvas, size, onPaper) {
  const { width, height } = canvas;
  let ink = greys(canvas);
  if (onPaper) {
    const paper = median(border(ink, width, height));
    const sorted = Float32Array.from(ink).sort();
    const darkest = sorted[Math.floor(sorted.length * 0.005)];
    if (paper - darkest < 0.1) return null;
    ink = ink.map((level) => (paper - level) / (paper - darkest));
    ink = ink.map((level) => (level < FAINT ? 0 : Math.min(level, 1)));
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

function median(values) {
  const sorted = Float32Array.from(values).sort();
  return sorted[Math.floor(sorted.length / 2)];
}

function bounds(ink, width, height) {
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (ink[y * width + x] < 0.15) continue;
      [left, right] = [Math.min(left, x), Math.max(right, x)];
      [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
    }
  }
  return right < 0 ? null : { left, top, width: right - left + 1, height: bottom - top + 1 };
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
