// The page: what the model takes -> its controls; what they give -> answers.

import * as backend from "./backend.js";
import { makeControls } from "./controls.js";
import { make } from "./elements.js";
import { showMaps, showOverTime, showPrediction } from "./results.js";

const place = (id) => document.getElementById(id);
const values = {}; // By name of the input.
const NOTHING = "Nothing yet: give it something.";
let model = null;
let controls = new Map();
let asked = 0; // Questions so far: answers to earlier ones are not shown.

start();

async function start() {
  try {
    model = await backend.describe();
  } catch (error) {
    place("about").textContent = error.message;
    return;
  }
  describe();
  controls = makeControls(model, onChange, (text) => showProblem(text));
  for (const [name, control] of controls) {
    const group = make("div", { role: "group", "aria-label": name });
    if (controls.size > 1) group.append(make("h3", {}, name));
    group.append(control.element);
    place("controls").append(group);
  }
  takeDropsAndPastes();
  showExamples();
  place("layer").addEventListener("change", () => look(asked, Number(place("layer").value)));
  await backend.ready(() => say("The model is warming up …"));
  say(NOTHING);
  place("answer").dataset.ready = "true";
}

function describe() {
  const [output] = model.outputs;
  const lists = output.kind === "classes" && model.outputs.length === 1;
  const few = lists && output.number <= 12 ? `: ${output.classes.join(", ")}` : "";
  const rebuilds = model.outputs.some((each) => ["pictures", "samples"].includes(each.kind));
  const what = {
    classes: `names what it gets: one of ${output.number} classes${few}`,
    text: "fills the gaps of a text",
    flow: "sees where things move between two pictures",
  };
  place("title").textContent = `Try ${model.name}`;
  document.title = `Try ${model.name}`;
  place("about").textContent = rebuilds
    ? "This model puts what it gets together again, from what its latents keep of it."
    : `This model ${what[output.kind] ?? `predicts ${model.task}`}.`;
}

// ---------------------------------------------------------------- questions

function onChange(name, value) {
  values[name] = value;
  const needed = [...controls.keys()].filter((key) => !mayLack(key));
  const given = Object.fromEntries(Object.entries(values).filter(([, each]) => each !== null));
  if (!Object.keys(given).length) {
    asked += 1;
    clear(NOTHING);
    return;
  }
  const lacking = needed.filter((key) => !(key in given));
  if (lacking.length) say(`Still needed: ${lacking.join(", ")}.`);
  else ask(given);
}

function mayLack(name) {
  return model.inputs.find((input) => input.name === name)?.may_lack ?? false;
}

async function ask(given) {
  const question = ++asked;
  showProblem("");
  place("answer").setAttribute("aria-busy", "true");
  if (!place("results").children.length) say("The model is thinking …");
  try {
    const prediction = await backend.predict(given);
    if (question !== asked) return;
    say(showPrediction(place("results"), model, prediction, given), true);
  } catch (error) {
    if (question !== asked) return;
    clear("There is no answer.");
    showProblem(error.message);
    return;
  } finally {
    if (question === asked) place("answer").removeAttribute("aria-busy");
  }
  ask.given = given;
  if (model.over_time) watch(question);
  await look(question, null);
}

async function look(question, layer) {
  if (!model.layers.length) return;
  let found;
  try {
    found = await backend.attention(ask.given, layer);
  } catch {
    place("attention").hidden = true; // The answer is there all the same.
    return;
  }
  if (question !== asked) return;
  const { layers } = found;
  place("attention-about").textContent =
    `The model reads what it gets ${layers.length === 1 ? "once" : `${layers.length} times`}. Each of its ` +
    "latents looks somewhere else: most at what is red, least at what is blue.";
  place("layer").replaceChildren(
    ...layers.map((each, i) => {
      const reads = each.reads === "all" ? "" : `, at ${each.reads}`;
      return make("option", { value: each.index, selected: each.index === found.layer }, `${i + 1} of ${layers.length}${reads}`);
    }),
  );
  place("layer-label").hidden = layers.length < 2;
  showMaps(place("maps"), model, found);
  place("attention").hidden = false;
}

async function watch(question) {
  let found;
  try {
    found = await backend.overTime(ask.given);
  } catch {
    place("over-time").hidden = true;
    return;
  }
  if (question !== asked) return;
  place("over-time-about").textContent =
    found.reads === "parts"
      ? "It reads the recording part by part; its latents keep what they have seen. After each part:"
      : "What it says of each window of the recording, by the middle of the window:";
  showOverTime(place("chart"), found);
  place("over-time").hidden = false;
}

// ---------------------------------------------------------------- files

function takeDropsAndPastes() {
  const target = place("input");
  const isFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!isFile(event)) return;
    event.preventDefault();
    target.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) target.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    if (!isFile(event)) return;
    event.preventDefault();
    target.classList.remove("dropping");
    take([...event.dataTransfer.files], event.target);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) take(files, event.target);
  });
}

/** Gives files to the control that they were dropped on, or else to the first. */
function take(files, where) {
  if (!files.length) return;
  const all = [...controls.values()];
  const control = all.find((each) => each.element.contains(where)) ?? all[0];
  Promise.resolve(control.take(files)).catch((error) => showProblem(error.message));
}

async function showExamples() {
  if (!model.examples.length) return;
  const pictures = model.inputs.some((input) => input.kind === "image");
  for (const name of model.examples) {
    const blob = await backend.example(name).catch(() => null);
    if (!blob) continue;
    const file = new File([blob], name, { type: blob.type });
    const label = name.replace(/\.[^.]*$/, "").replaceAll("_", " ");
    const shown = pictures
      ? make("img", { src: URL.createObjectURL(blob), alt: `Example ${label}` })
      : label;
    const choose = make("button", { type: "button", click: () => take([file], null) }, shown);
    place("example-list").append(make("li", {}, choose));
  }
  place("examples").hidden = !place("example-list").children.length;
}

// ---------------------------------------------------------------- what is said

/** Says something in the answer's place, or only to who has the page read aloud. */
function say(text, aloud = false) {
  place("status").textContent = text;
  place("status").classList.toggle("unseen", aloud);
}

function showProblem(text) {
  place("problem").textContent = text;
  place("problem").hidden = !text;
}

function clear(text) {
  say(text);
  showProblem("");
  place("results").replaceChildren();
  place("attention").hidden = place("over-time").hidden = true;
}
