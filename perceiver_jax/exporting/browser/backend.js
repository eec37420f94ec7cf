// What answers in a static demo: the model itself, an ONNX file that onnxruntime-web runs in this
// browser. It takes the place of the page's backend.js, and does what that one asks a server for.

import * as ort from "../onnxruntime/ort.js";
import { different, overlay } from "./painting.js";
import { prepare, textOf } from "./preparing.js";

const BEST = 5; // Classes that are named.

// One thread: more need headers that most web hosts don't send.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { wasm: new URL("../onnxruntime/ort.wasm", import.meta.url).href };

let about = null; // As of `describe`, with what the programs take and give.
let program = null; // Promises of sessions, made when they are first needed.
let looking = null;

/** What the model takes and gives, see perceiver_jax/serving/about.py. */
export async function describe() {
  const answer = await fetch("model/about.json");
  if (!answer.ok) throw new Error("The model is not here.");
  about = await answer.json();
  program = load("model/model.onnx");
  program.catch(() => {}); // Said by `ready`.
  return about;
}

/** Waits until the model is loaded; calls back before. */
export async function ready(onWait) {
  onWait();
  await program;
}

/** The prediction, by name of the output. */
export async function predict(inputs) {
  const batch = await prepare(about.program.inputs, inputs);
  const session = await program;
  const names = about.program.outputs;
  const wanted = about.outputs.map((output) => names[output.name]);
  const found = await session.run(tensors(batch), wanted);
  return Object.fromEntries(
    about.outputs.map((output) => [output.name, answer(output, found[names[output.name]].data, batch)]),
  );
}

/** Pictures of what a layer attends to; null: the last. */
export async function attention(inputs, layer = null) {
  const index = layer ?? about.layers.at(-1).index;
  const batch = await prepare(about.program.inputs, inputs);
  looking ??= load("model/attention.onnx");
  const session = await looking;
  const name = `layer_${index}`;
  const map = (await session.run(tensors(batch), [name]))[name];
  const [input] = about.inputs;
  const pixels = batch[input.name];
  const [, count, ...grid] = map.dims; // [1, N, rows, columns]
  const size = grid[0] * grid[1];
  const latents = Array.from({ length: count }, (_, i) => map.data.subarray(i * size, (i + 1) * size));
  const mean = Float32Array.from({ length: size }, (_, i) => {
    return latents.reduce((sum, latent) => sum + latent[i], 0) / count;
  });
  const drawn = [
    ["the input", null],
    ["all latents", mean],
    ...different(latents, mean).map((i) => [`latent ${i}`, latents[i]]),
  ];
  const pictures = drawn.map(([of, weights]) => ({
    input: input.name,
    of,
    share: weights ? weights.reduce((sum, weight) => sum + weight, 0) : 1,
    png: overlay(pixels, weights, grid, about.colours),
  }));
  return { layer: index, layers: about.layers, pictures };
}

/** Probabilities over time: none, for there are no recordings. */
export async function overTime() {
  throw new Error("This demo takes no recordings.");
}

/** The contents of one of the model's example files. */
export async function example(name) {
  const found = await fetch(`examples/${encodeURIComponent(name)}`);
  if (!found.ok) throw new Error("This example is gone.");
  return found.blob();
}

async function load(path) {
  const file = await fetch(path);
  if (!file.ok) throw new Error("The model can't be loaded.");
  return ort.InferenceSession.create(await file.arrayBuffer(), { executionProviders: ["wasm"] });
}

function tensors(batch) {
  const made = Object.entries(batch).map(([name, { type, data, shape }]) => {
    return [name, new ort.Tensor(type, data, [1, ...shape])];
  });
  return Object.fromEntries(made);
}

function answer(output, values, batch) {
  if (output.kind === "text") return textOf(about.program.inputs, output.name, values, batch);
  if (output.kind !== "classes") return Array.from(values, Number);
  const names = about.program.class_names[output.name];
  const order = Array.from(values.keys()).sort((a, b) => values[b] - values[a]);
  return order.slice(0, BEST).map((i) => [names[i], values[i]]);
}
