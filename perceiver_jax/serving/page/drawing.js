// A place to draw on, white on black: with a finger, a mouse, or the keyboard's arrows.

import { button } from "./elements.js";
import { newCanvas } from "./pixels.js";

const SIDE = 280; // Pixels.
const STROKE = 22;
const STEP = 7;
const PAUSE = 250; // Milliseconds after a stroke, for the next one.

/** Returns canvas and button; calls back with the canvas after each stroke, null when it is empty. */
export function drawing(onDrawn) {
  const canvas = newCanvas(SIDE, SIDE);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const pen = { x: SIDE / 2, y: SIDE / 2, down: false, usesKeys: false };
  let timer = 0;
  const drawn = newCanvas(SIDE, SIDE); // Without the keyboard's pen.

  const ink = drawn.getContext("2d", { willReadFrequently: true });
  const show = () => {
    context.drawImage(drawn, 0, 0);
    if (!pen.usesKeys || document.activeElement !== canvas) return;
    context.strokeStyle = pen.down ? "#ffb000" : "#8ab4f8";
    context.lineWidth = 3;
    context.beginPath();
    context.arc(pen.x, pen.y, STROKE / 2, 0, 2 * Math.PI);
    context.stroke();
  };
  const clear = () => {
    clearTimeout(timer);
    ink.fillStyle = "black";
    ink.fillRect(0, 0, SIDE, SIDE);
    pen.down = false;
    show();
  };
  const line = (x, y) => {
    ink.strokeStyle = "white";
    ink.lineWidth = STROKE;
    ink.lineCap = "round";
    ink.beginPath();
    ink.moveTo(pen.x, pen.y);
    ink.lineTo(x, y);
    ink.stroke();
  };
  const tell = () => {
    clearTimeout(timer);
    timer = setTimeout(() => onDrawn(drawn), PAUSE);
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) * SIDE) / box.width,
      ((event.clientY - box.top) * SIDE) / box.height,
    ];
  };

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    [pen.x, pen.y] = place(event);
    pen.down = true;
    pen.usesKeys = false;
    clearTimeout(timer);
    line(pen.x, pen.y);
    show();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!pen.down || pen.usesKeys) return;
    const [x, y] = place(event);
    line(x, y);
    [pen.x, pen.y] = [x, y];
    show();
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(kind, () => {
      if (pen.usesKeys) return;
      pen.down = false;
      tell();
    });
  }
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    if (event.key === " ") pen.down = !pen.down;
    else if (!move) return;
    event.preventDefault();
    pen.usesKeys = true;
    const [x, y] = move ? [pen.x + STEP * move[0], pen.y + STEP * move[1]] : [pen.x, pen.y];
    const [left, top] = [x, y].map((at) => Math.min(Math.max(at, 0), SIDE));
    if (pen.down) line(left, top);
    [pen.x, pen.y] = [left, top];
    if (pen.down) tell();
    show();
  });
  canvas.addEventListener("focus", show);
  canvas.addEventListener("blur", show);
  canvas.className = "draw";
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute(
    "aria-label",
    "Place to draw. With the keyboard: arrows move the pen, space puts it down or lifts it.",
  );
  clear();
  const clearAll = () => {
    clear();
    onDrawn(null);
  };
  return { canvas, button: button("Clear", clearAll), clear };
}
