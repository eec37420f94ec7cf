// Small helpers for elements.

/** Makes an element: `make("button", { type: "button" }, "Go")`; functions are listeners. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** A button that is none of a form. */
export function button(text, onClick, kind = "") {
  return make("button", { type: "button", class: kind, click: onClick }, text);
}

/** A button that lets the visitor choose files, and gives them. */
export function chooser(text, accept, onFiles, multiple = false) {
  const input = make("input", {
    type: "file",
    accept,
    multiple,
    hidden: true,
    "aria-label": text,
    change: () => {
      if (input.files.length) onFiles([...input.files]);
      input.value = ""; // The same file can be chosen again.
    },
  });
  return make("span", {}, button(text, () => input.click()), input);
}

/** "3.4 %" */
export function percent(fraction) {
  const value = 100 * fraction;
  if (value > 99.9 && value < 100) return "> 99.9 %";
  if (value < 0.1 && value > 0) return "< 0.1 %";
  return `${value.toFixed(value < 10 ? 1 : 0)} %`;
}

/** The picture of a PNG file in base64. */
export function picture(png, alt, kind = "") {
  return make("img", { src: `data:image/png;base64,${png}`, alt, class: kind });
}
