// Pieces to play with (fgbook/widgets): the controls choose one of the frames that were
// drawn beforehand. Without this script the first one stands there.
(() => {
  "use strict";

  const isRange = (control) => control.type === "range";

  // Which of its values a control has, and of how many.
  const place = (control) => {
    if (control.type === "checkbox") return Number(control.checked);
    return isRange(control) ? Number(control.value) : control.selectedIndex;
  };
  const count = (control) => {
    if (control.type === "checkbox") return 2;
    return isRange(control) ? Number(control.max) + 1 : control.length;
  };

  const start = (piece) => {
    const controls = [...piece.querySelectorAll(".fgbook-controls :is(input, select)")];
    const frames = [...piece.querySelectorAll("template")];
    const stage = piece.querySelector(".fgbook-stage");
    const told = piece.querySelector(".fgbook-told");

    const show = () => {
      let number = 0;
      for (const control of controls) {
        number = number * count(control) + place(control);
        if (!isRange(control)) continue;
        const text = JSON.parse(control.dataset.texts)[place(control)];
        control.setAttribute("aria-valuetext", text);
        control.nextElementSibling.textContent = text;
      }
      const frame = frames[number];
      stage.replaceChildren(frame.content.cloneNode(true));
      told.textContent = frame.dataset.says;
    };

    // Pictures are fetched when a reader turns to the piece, so that none comes late.
    const fetchPictures = () => {
      for (const frame of frames)
        for (const image of frame.content.querySelectorAll("image"))
          new Image().src = image.getAttribute("href");
    };

    for (const control of controls) control.addEventListener("input", show);
    for (const event of ["focusin", "pointerenter"])
      piece.addEventListener(event, fetchPictures, { once: true });
    piece.querySelector(".fgbook-controls").hidden = false;
  };

  const startAll = () => document.querySelectorAll(".fgbook-play").forEach(start);
  if (document.readyState === "loading")
    document.addEventListener("DOMContentLoaded", startAll);
  else startAll();
})();
