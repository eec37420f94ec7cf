// A control for each kind of input: what is dropped, chosen, recorded, drawn or written -> values
// that a backend takes. Each is { element, take(files), clear() }; it calls back with a value, or with
// null while there is none.

import { drawing } from "./drawing.js";
import { button, chooser, make } from "./elements.js";
import { isOfStrokes, isOnPaper, shrunk, strokes, toCanvas, toFile } from "./pixels.js";
import { camera, canRecord, recorder } from "./recording.js";

const MOST_FIELDS = 64; // Numbers with a field each; more are pasted or come as a file.
const PICTURES = "image/*";
const SHAPES = ".obj,.off,.ply,.stl,.npy";

/** The controls of a model's inputs, by name; one for all of them where one file has them. */
export function makeControls(model, onChange, onProblem) {
  const kinds = model.inputs.map((input) => input.kind);
  if (model.inputs.length > 1 && model.one_file) {
    const kind = kinds.includes("video") ? "video" : "audio";
    const control = recording({ kind }, (value) => onChange("file", value), onProblem);
    return new Map([["file", control]]);
  }
  return new Map(
    model.inputs.map((input) => {
      const makers = { image, audio: recording, video: recording, text, frames, points, array };
      const maker = makers[input.kind] ?? array;
      return [input.name, maker(input, (value) => onChange(input.name, value), onProblem)];
    }),
  );
}

// ---------------------------------------------------------------- pictures

function image(input, onValue, onProblem) {
  const ofStrokes = isOfStrokes(input);
  const shown = make("img", { class: "preview", alt: "Your picture", hidden: true });
  const seen = make("canvas", { width: input.size, height: input.size });
  const seenRow = make(
    "div",
    { class: "seen", hidden: true },
    seen,
    make("span", {}, "What the model gets"),
  );
  const check = make("input", { type: "checkbox", change: () => prepare() });
  const checkRow = make(
    "label",
    { class: "check", hidden: true },
    check,
    "Prepare it like the pictures that the model knows: strokes light on black, in the middle",
  );
  let [file, canvas] = [null, null];

  async function prepare() {
    if (!check.checked) {
      draw(shrunk(canvas, input.size));
      onValue(file);
      return;
    }
    const small = strokes(canvas, input.size, isOnPaper(canvas));
    if (!small) {
      onProblem("There are no strokes in this picture. Write larger, or darker.");
      return;
    }
    draw(small);
    onValue(await toFile(small, file.name));
  }
  function draw(small) {
    const context = seen.getContext("2d");
    if (input.channels === 1) context.filter = "grayscale(1)";
    context.drawImage(small, 0, 0);
    seenRow.hidden = !ofStrokes;
  }
  async function take([given]) {
    pad?.clear();
    [file, canvas] = [given, null];
    try {
      canvas = await toCanvas(given);
    } catch {
      // One that this browser can't show may be one that the server can read.
      shown.hidden = seenRow.hidden = checkRow.hidden = true;
      onValue(given);
      return;
    }
    show(shown, given);
    const isSmall = Math.max(canvas.width, canvas.height) <= input.size;
    checkRow.hidden = !ofStrokes;
    check.checked = ofStrokes && !(isSmall && !isOnPaper(canvas));
    if (ofStrokes) await prepare();
    else onValue(given);
  }
  async function takeDrawing(drawn) {
    shown.hidden = checkRow.hidden = true;
    const small = drawn && strokes(drawn, input.size, false);
    seenRow.hidden = !small;
    if (!small) {
      onValue(null);
      return;
    }
    draw(small);
    onValue(await toFile(small, "drawing.png"));
  }
  const pad = ofStrokes ? drawing(takeDrawing) : null;
  const buttons = make("div", { class: "row" }, chooser("Choose a picture", PICTURES, take));
  if (pad) buttons.prepend(pad.button);
  if (canRecord()) buttons.append(camera("Use the camera", (given) => take([given]), onProblem));
  const ways = "drop, paste, choose or take a picture";
  const about = pad ? `Draw in the black square, or ${ways}.` : `Here you can ${ways}.`;
  const element = make(
    "div",
    {},
    make("p", {}, about),
    make("div", { class: "pad" }, ...(pad ? [pad.canvas] : []), seenRow),
    buttons,
    shown,
    checkRow,
  );
  return { element, take };
}

function frames(input, onValue, onProblem) {
  const slots = ["first", "second"].map((which) => ({
    which,
    file: null,
    shown: make("img", { class: "preview", alt: `The ${which} picture`, hidden: true }),
  }));
  const set = (slot, file) => {
    slot.file = file;
    show(slot.shown, file);
    onValue(slots.every((each) => each.file) ? slots.map((each) => each.file) : null);
  };
  const take = (files) => {
    if (files.length > 1) slots.forEach((slot, i) => set(slot, files[i]));
    else set(slots.find((slot) => !slot.file) ?? slots[1], files[0]);
  };
  const element = make(
    "div",
    {},
    make("p", {}, "Two pictures of a scene, one shortly after the other, of one size. Drop both, or"),
    ...slots.map((slot) => {
      const text = `Choose the ${slot.which} picture`;
      const row = make("div", { class: "row" }, chooser(text, PICTURES, ([file]) => set(slot, file)));
      if (canRecord()) row.append(camera(`Take the ${slot.which}`, (file) => set(slot, file), onProblem));
      return make("div", {}, row, slot.shown);
    }),
  );
  return { element, take };
}

// ---------------------------------------------------------------- recordings

function recording(input, onValue, onProblem) {
  const isVideo = input.kind === "video";
  const kind = isVideo ? "video" : "audio";
  const player = make(kind, { class: "preview", controls: true, hidden: true });
  player.setAttribute("aria-label", "Your recording");
  const take = ([file]) => {
    show(player, file);
    onValue(file);
  };
  const accept = isVideo ? "video/*" : "audio/*,video/*";
  const element = make(
    "div",
    {},
    make("p", {}, `Drop ${isVideo ? "a video" : "a sound or a video"} here, or`),
    make("div", { class: "row" }, chooser(isVideo ? "Choose a video" : "Choose a sound", accept, take)),
  );
  if (canRecord()) element.append(recorder(isVideo, (file) => take([file]), onProblem));
  element.append(player);
  return { element, take };
}

function show(element, file) {
  if (element.src) URL.revokeObjectURL(element.src);
  element.src = URL.createObjectURL(file);
  element.hidden = false;
}

// ---------------------------------------------------------------- texts and numbers

function text(input, onValue) {
  const area = make("textarea", { id: `input-${input.name}`, spellcheck: "false" });
  const ask = () => onValue(area.value.trim() ? area.value : null);
  const hide = button("Hide what is selected", () => {
    const { selectionStart: begin, selectionEnd: end, value } = area;
    if (begin === end) {
      area.focus();
      return;
    }
    const bytes = new TextEncoder().encode(value.slice(begin, end)).length;
    area.setRangeText("[MASK]".repeat(bytes), begin, end, "end");
    area.focus();
  });
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask();
  });
  const take = async ([file]) => {
    area.value = await file.text();
    ask();
  };
  const row = make("div", { class: "row" }, button("Ask the model", ask, "main"));
  const note = make("p", { class: "soft" }, `At most ${input.bytes} bytes of it are read.`);
  if (input.has_gaps) {
    row.append(hide);
    note.prepend("Select a word and hide it: the model fills the gap. ");
  }
  const label = make("label", { for: area.id }, "Write or paste a text:");
  return { element: make("div", {}, label, area, row, note), take };
}

function array(input, onValue, onProblem) {
  const shape = input.shape ?? [];
  const count = shape.reduce((product, size) => product * size, 1);
  const take = ([file]) => onValue(file);
  const choose = chooser("Choose a .npy file", ".npy", take);
  const about = make("p", { class: "soft" }, `An array of ${input.type}, ${shape.join(" × ")}.`);
  if (shape.length !== 1 || count > MOST_FIELDS) {
    const area = make("textarea", { id: `input-${input.name}` });
    const ask = () => {
      try {
        onValue(JSON.parse(area.value));
      } catch {
        onProblem("This is no list of numbers, such as [[1, 2], [3, 4]].");
      }
    };
    const label = make("label", { for: area.id }, "Paste numbers, in nested brackets, or choose a file:");
    const row = make("div", { class: "row" }, button("Ask the model", ask, "main"), choose);
    return { element: make("div", {}, label, area, row, about), take };
  }
  const fields = Array.from({ length: count }, (_, i) =>
    make("input", { type: "number", step: "any", value: "0", inputmode: "decimal", "aria-label": `Number ${i + 1}` }),
  );
  const ask = () => onValue(fields.map((field) => Number(field.value)));
  const paste = (event) => {
    const numbers = event.clipboardData.getData("text").split(/[\s,;]+/).filter(Boolean).map(Number);
    if (numbers.length < 2 || numbers.some(Number.isNaN)) return;
    event.preventDefault();
    fields.forEach((field, i) => (field.value = numbers[i] ?? field.value));
  };
  const grid = make(
    "div",
    { class: "numbers", paste },
    ...fields.map((field, i) => make("label", {}, String(i + 1), field)),
  );
  const row = make("div", { class: "row" }, button("Ask the model", ask, "main"), choose);
  return { element: make("div", {}, make("p", {}, "Numbers; a row of a table can be pasted:"), grid, row, about), take };
}

function points(input, onValue) {
  const name = make("p", { class: "soft" });
  const take = ([file]) => {
    name.textContent = file.name;
    onValue(file);
  };
  const element = make(
    "div",
    {},
    make("p", {}, "Drop a shape here: a mesh (.obj, .off, .ply, .stl) or points (.npy), or"),
    make("div", { class: "row" }, chooser("Choose a shape", SHAPES, take)),
    name,
  );
  return { element, take };
}
