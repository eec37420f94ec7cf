// What answers: here the server that the page comes from. Another module with these functions, such
// as one that runs the model in the browser, can take this one's place.
//
// Inputs are an object by name: a Blob (the contents of a file), a string, numbers in arrays, or two
// Blobs. The name `file` stands for all inputs, in one file.

let query = ""; // Of questions for a prediction.

/** What the model takes and gives, see perceiver_jax/serving/about.py. */
export async function describe() {
  const answer = await fetch("model");
  if (!answer.ok) throw new Error("The model does not answer.");
  const model = await answer.json();
  query = model.arrays ? "?arrays=png" : "";
  return model;
}

/** The prediction, by name of the output. */
export async function predict(inputs) {
  const found = await post(`predict${query}`, inputs);
  return found.predictions[0];
}

/** Pictures of what a layer attends to; null: the last. */
export function attention(inputs, layer = null) {
  return post(layer === null ? "attention" : `attention?layer=${layer}`, inputs);
}

/** Probabilities of classes at times of a recording. */
export function overTime(inputs) {
  return post("over_time", inputs);
}

/** The contents of one of the model's example files. */
export async function example(name) {
  const answer = await fetch(`examples/${encodeURIComponent(name)}`);
  if (!answer.ok) throw new Error("This example is gone.");
  return answer.blob();
}

/** Waits until the model is warm; calls back each time that it is not. */
export async function ready(onWait) {
  for (;;) {
    const answer = await fetch("health").catch(() => null);
    if (answer?.ok) return;
    onWait();
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function post(path, inputs) {
  let answer;
  try {
    answer = await fetch(path, { method: "POST", body: form(inputs) });
  } catch {
    throw new Error("The server can't be reached. Is it still running?");
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(problem(answer.status, found.detail));
  return found;
}

function form(inputs) {
  const data = new FormData();
  for (const [name, value] of Object.entries(inputs)) {
    const values = Array.isArray(value) && value[0] instanceof Blob ? value : [value];
    for (const each of values) {
      if (each instanceof Blob) data.append(name, each, each.name || "file");
      else data.append(name, typeof each === "string" ? each : JSON.stringify(each));
    }
  }
  return data;
}

function problem(status, detail) {
  const said = typeof detail === "string" ? detail : "";
  if (status === 503) return "The server is busy. Try again in a moment.";
  if (status === 413) return `That is too large. ${said}`;
  const why = said.match(/^Can't read [^:]*: (.*?)\. Expected /);
  if (why) return `That can't be read: ${why[1]}.`;
  return said || `The server failed (${status}).`;
}
