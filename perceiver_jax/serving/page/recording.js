// Camera and microphone, where the browser and the visitor let them be used.

import { button, make } from "./elements.js";

const MOST_SECONDS = 30;

/** Whether a page may ask for them: on this computer itself, or over https. */
export function canRecord() {
  return Boolean(navigator.mediaDevices?.getUserMedia) && typeof MediaRecorder === "function";
}

/** A button that opens the camera, and takes a picture with the next click. */
export function camera(text, onPicture, onProblem) {
  const video = make("video", { class: "preview", playsinline: true, hidden: true });
  video.muted = true;
  let stream = null;
  const stop = () => {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    video.hidden = cancel.hidden = true;
    take.textContent = text;
  };
  const take = button(text, async () => {
    if (!stream) {
      try {
        stream = await open({ video: { facingMode: "environment" } });
      } catch (error) {
        onProblem(error.message);
        return;
      }
      video.srcObject = stream;
      await video.play();
      video.hidden = cancel.hidden = false;
      take.textContent = "Take the picture";
      return;
    }
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    stop();
    canvas.toBlob((blob) => onPicture(new File([blob], "camera.png", { type: "image/png" })));
  });
  const cancel = button("Close the camera", stop);
  cancel.hidden = true;
  return make("div", { class: "camera" }, take, " ", cancel, video);
}

/** A button that records sound, or sound and video, until the next click. */
export function recorder(withVideo, onRecording, onProblem) {
  const start = withVideo ? "Record with the camera" : "Record with the microphone";
  const video = make("video", { class: "preview", playsinline: true, hidden: true });
  video.muted = true;
  let running = null;
  let timer = 0;
  const toggle = button(start, async () => {
    if (running) {
      running.stop();
      return;
    }
    let stream;
    try {
      stream = await open({ audio: true, video: withVideo });
    } catch (error) {
      onProblem(error.message);
      return;
    }
    const parts = [];
    running = new MediaRecorder(stream);
    running.addEventListener("dataavailable", (event) => parts.push(event.data));
    running.addEventListener("stop", () => {
      stream.getTracks().forEach((track) => track.stop());
      clearInterval(timer);
      video.hidden = true;
      toggle.textContent = start;
      toggle.classList.remove("recording");
      const type = running.mimeType;
      running = null;
      onRecording(new File(parts, "recording", { type }));
    });
    running.start();
    if (withVideo) {
      video.srcObject = stream;
      video.hidden = false;
      video.play();
    }
    const begun = performance.now();
    toggle.classList.add("recording");
    toggle.textContent = "Stop (0 s)";
    timer = setInterval(() => {
      const seconds = Math.floor((performance.now() - begun) / 1000);
      toggle.textContent = `Stop (${seconds} s)`;
      if (seconds >= MOST_SECONDS) running?.stop();
    }, 250);
  });
  return make("div", { class: "row" }, toggle, video);
}

async function open(wanted) {
  try {
    return await navigator.mediaDevices.getUserMedia(wanted);
  } catch (error) {
    const what = wanted.video ? "The camera" : "The microphone";
    const why = error.name === "NotAllowedError" ? "was not allowed" : "was not found, or is in use";
    throw new Error(`${what} ${why}. You can choose a file instead.`);
  }
}
