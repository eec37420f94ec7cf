// Attention over a picture, as perceiver_jax/attention_pictures.py and serving/looking.py draw it.

const SIDE = 224; // Pixels of what is drawn, at least about so many.
const GREYS = [50, 210]; // Of what is beneath.
const OPACITY = 0.6;
const LATENTS = 3; // That are shown one by one.

/** The PNG file, in base64, of a picture with weights [rows, columns] over it; null: none. */
export function overlay({ data, shape }, weights, [rows, columns], colours) {
  const [height, width, count] = shape;
  const factor = Math.max(1, Math.round(SIDE / Math.max(height, width)));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width * factor, height * factor];
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const [low, high] = weights ? [Math.min(...weights), Math.max(...weights)] : [0, 1];
  for (let y = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++) {
      const from = (Math.floor(y / factor) * width + Math.floor(x / factor)) * count;
      let pixel = Array.from({ length: 3 }, (_, c) => data[from + Math.min(c, count - 1)]);
      if (weights) {
        const row = Math.floor((y * rows) / canvas.height);
        const cell = weights[row * columns + Math.floor((x * columns) / canvas.width)];
        const share = (cell - low) / Math.max(high - low, 1e-30);
        const colour = colours[Math.round(share * (colours.length - 1))];
        const mean = (pixel[0] + pixel[1] + pixel[2]) / 3;
        const grey = GREYS[0] + ((GREYS[1] - GREYS[0]) / 255) * mean;
        pixel = colour.map((level) => Math.round((1 - OPACITY) * grey + OPACITY * level));
      }
      image.data.set([...pixel, 255], 4 * (y * canvas.width + x));
    }
  }
  context.putImageData(image, 0, 0);
  if (weights && high > low) box(context, weights.indexOf(high), [rows, columns]);
  return canvas.toDataURL("image/png").split(",")[1];
}

/** Latents that attend to other places than the mean does, and than each other. */
export function different(latents, mean) {
  const distance = (a, b) => a.reduce((sum, x, i) => sum + Math.abs(x - b[i]), 0);
  let nearest = latents.map((latent) => distance(latent, mean));
  const found = [];
  for (let i = 0; i < Math.min(LATENTS, latents.length - 1); i++) {
    const farthest = nearest.indexOf(Math.max(...nearest));
    found.push(farthest);
    nearest = nearest.map((least, j) => Math.min(least, distance(latents[j], latents[farthest])));
  }
  return found.sort((a, b) => a - b);
}

/** Frames the highest cell in white and black, which is seen on any colour. */
function box(context, cell, [rows, columns]) {
  const { width, height } = context.canvas;
  const [row, column] = [Math.floor(cell / columns), cell % columns];
  const [left, right] = [column, column + 1].map((i) => Math.floor((i * width) / columns));
  const [top, bottom] = [row, row + 1].map((i) => Math.floor((i * height) / rows));
  for (const [distance, colour] of [[2.5, "black"], [1.5, "white"], [0.5, "white"]]) {
    context.strokeStyle = colour;
    const corner = [left - distance, top - distance];
    context.strokeRect(...corner, right - left + 2 * distance, bottom - top + 2 * distance);
  }
}
