// What a model answers, for people.

import { make, percent, picture } from "./elements.js";

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = ["#2f6fd0", "#d0662f", "#2f9e6b", "#a24bc4", "#8a7a1f"];
const DASHES = ["", "6 3", "2 3", "9 3 2 3", "1 4"]; // For who can't tell colours apart.
const WIDE = ["audio", "text", "video"]; // Kinds whose maps take a row each.

/** Shows a prediction; returns a sentence of it, to be read aloud. */
export function showPrediction(place, model, prediction, given) {
  place.replaceChildren();
  const said = [];
  for (const output of model.outputs) {
    const value = prediction[output.name];
    if (value === undefined) continue;
    if (model.outputs.length > 1) place.append(make("h3", {}, output.name));
    const show = { classes, text, flow: pictures, pictures, samples }[output.kind] ?? numbers;
    said.push(show(place, value, output, given));
  }
  return said.join(" ");
}

function classes(place, likeliest) {
  const [[name, probability]] = likeliest;
  place.append(make("p", { class: "best" }, name, " ", make("small", {}, percent(probability))));
  const bars = likeliest.map(([each, share]) => {
    const fill = make("div", { class: "fill" });
    fill.style.width = `${100 * share}%`;
    return make(
      "li",
      {},
      make("span", { class: "name" }, each),
      make("div", { class: "track", "aria-hidden": "true" }, fill),
      make("span", { class: "percent" }, percent(share)),
    );
  });
  place.append(make("ol", { class: "bars", "aria-label": "Likeliest classes" }, ...bars));
  const [, second] = likeliest;
  const then = second ? ` Then ${second[0]}, ${percent(second[1])}.` : "";
  return `It says ${name}, ${percent(probability)}.${then}`;
}

/** The text, with what was filled in marked. */
function text(place, filled, output, given) {
  const asked = given[output.name];
  const parts = typeof asked === "string" ? asked.split(/((?:\[MASK\])+)/) : [filled];
  const shown = make("p", { class: "filled" });
  // Gaps are counted in bytes.
  const bytes = new TextEncoder().encode(filled);
  const decoder = new TextDecoder();
  let at = 0;
  for (const part of parts) {
    const isGap = part.startsWith("[MASK]");
    const length = isGap ? part.length / 6 : new TextEncoder().encode(part).length;
    const content = decoder.decode(bytes.slice(at, at + length));
    shown.append(isGap ? make("mark", {}, content) : content);
    at += length;
  }
  place.append(shown);
  return `It says: ${filled}`;
}

function pictures(place, value, output) {
  const isFlow = output.kind === "flow";
  const alt = isFlow ? "Where each pixel moves, as colours" : "What the model made of it";
  place.append(picture(value.png, alt, "results-picture"));
  if (isFlow) {
    place.append(
      make("p", { class: "soft" }, "Colour is the direction of motion, strength its speed: red moves to ",
        "the right, yellow down, green-blue to the left, blue-violet up; what is white stays."),
    );
  }
  return `${alt}.`;
}

function samples(place, value, output) {
  const player = make("audio", { class: "preview", controls: true, "aria-label": "What the model made of the sound" });
  player.src = URL.createObjectURL(wave(value.flat(), output.rate));
  place.append(player);
  return "It made a sound.";
}

/** A WAV file of 16 bits, one channel. */
function wave(values, rate) {
  const file = new DataView(new ArrayBuffer(44 + 2 * values.length));
  const write = (at, text) => [...text].forEach((letter, i) => file.setUint8(at + i, letter.charCodeAt(0)));
  write(0, "RIFF");
  file.setUint32(4, 36 + 2 * values.length, true);
  write(8, "WAVEfmt ");
  file.setUint32(16, 16, true);
  file.setUint16(20, 1, true); // Whole numbers.
  file.setUint16(22, 1, true); // One channel.
  file.setUint32(24, rate, true);
  file.setUint32(28, 2 * rate, true);
  file.setUint16(32, 2, true);
  file.setUint16(34, 16, true);
  write(36, "data");
  file.setUint32(40, 2 * values.length, true);
  values.forEach((x, i) => file.setInt16(44 + 2 * i, 32767 * Math.max(-1, Math.min(1, x ?? 0)), true));
  return new Blob([file], { type: "audio/wav" });
}

function numbers(place, value) {
  const flat = [value].flat(Infinity);
  const rows = flat.slice(0, 100).map((number, i) =>
    make("tr", {}, make("th", { scope: "row" }, String(i + 1)), make("td", {}, shorten(number))),
  );
  const head = make("tr", {}, make("th", { scope: "col" }, "Number"), make("th", { scope: "col" }, "Value"));
  place.append(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
  return `It says ${flat.slice(0, 5).map(shorten).join(", ")}.`;
}

function shorten(number) {
  return number === null ? "none" : String(Number(number.toPrecision(5)));
}

/** Shows what was attended to: of each input itself and all latents, and some of these alone. */
export function showMaps(place, model, found) {
  const kinds = new Map(model.inputs.map((input) => [input.name, input.kind]));
  const names = [...new Set(found.pictures.map((each) => each.input))];
  const groups = names.map((name) => {
    const wide = WIDE.includes(kinds.get(name));
    const row = (pictures) =>
      make("div", { class: wide ? "maps wide" : "maps" }, ...pictures.map((each) => figure(each, names.length > 1)));
    const own = found.pictures.filter((each) => each.input === name);
    const group = make("div", {});
    if (names.length > 1) group.append(make("h3", {}, name));
    if (!wide) {
      group.append(row(own));
      return group;
    }
    const more = make("details", {}, make("summary", {}, "Some latents alone"), row(own.slice(2)));
    group.append(row(own.slice(0, 2)), more);
    return group;
  });
  place.replaceChildren(...groups);
}

function figure(each, severalInputs) {
  const share = severalInputs && each.of === "all latents" ? ` (${percent(each.share)} of their attention)` : "";
  const caption = `${captions(each.of)}${share}`;
  const alt = severalInputs ? `${each.input}: ${caption}` : caption;
  return make("figure", {}, picture(each.png, alt), make("figcaption", {}, caption));
}

function captions(of) {
  if (of === "the input") return "What it got";
  if (of === "all latents") return "All latents together";
  return of[0].toUpperCase() + of.slice(1);
}

/** Draws probabilities over time, with a table of them for who can't see it. */
export function showOverTime(place, found) {
  const [width, height, left, bottom, top, right] = [480, 220, 46, 28, 8, 18];
  const last = found.seconds.at(-1) || 1;
  const first = found.seconds.length > 1 ? 0 : last / 2;
  const x = (seconds) => left + ((width - left - right) * (seconds - first)) / (last - first || 1);
  const y = (share) => top + (height - top - bottom) * (1 - share);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  for (const share of [0, 0.5, 1]) {
    svg.append(shape("line", { x1: left, x2: width - right, y1: y(share), y2: y(share), class: "grid" }));
    svg.append(shape("text", { x: left - 6, y: y(share) + 4, "text-anchor": "end" }, `${100 * share} %`));
  }
  const ticks = Math.min(found.seconds.length, 6);
  for (let i = 0; i < ticks; i++) {
    const at = first + ((last - first) * i) / Math.max(ticks - 1, 1);
    const anchor = i === ticks - 1 && ticks > 1 ? "end" : "middle";
    const label = `${at.toFixed(1)} s`;
    svg.append(shape("text", { x: x(at), y: height - 8, "text-anchor": anchor }, label));
  }
  found.classes.forEach((each, number) => {
    const stroke = COLOURS[number % COLOURS.length];
    const points = each.probabilities.map((share, i) => `${x(found.seconds[i])},${y(share)}`);
    const dashes = DASHES[number % DASHES.length];
    svg.append(
      shape("polyline", { points: points.join(" "), fill: "none", stroke, "stroke-width": 2.5, "stroke-dasharray": dashes }),
    );
    for (const point of points) {
      const [cx, cy] = point.split(",");
      svg.append(shape("circle", { cx, cy, r: 3, fill: stroke }));
    }
  });
  const legend = found.classes.map((each, number) => {
    const key = make("span", {});
    key.style.background = COLOURS[number % COLOURS.length];
    return make("li", {}, key, each.name);
  });
  place.replaceChildren(svg, make("ul", { class: "legend", "aria-hidden": "true" }, ...legend), table(found));
}

function table(found) {
  const names = found.classes.map((each) => make("th", { scope: "col" }, each.name));
  const rows = found.seconds.map((seconds, i) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, `${seconds.toFixed(1)} s`),
      ...found.classes.map((each) => make("td", {}, percent(each.probabilities[i]))),
    ),
  );
  const all = make(
    "table",
    {},
    make("caption", {}, "Probabilities of classes over time"),
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Time"), ...names)),
    make("tbody", {}, ...rows),
  );
  return make("div", { class: "unseen" }, all); // Tables have no least width.
}

function shape(tag, attributes, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}
