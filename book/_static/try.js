/* The page on which networks run (book/try.md).

   A picture is made what the networks take; three graphs run; what they give is drawn.
   The graphs hold the methods, see fgbook/tryout/graphs.py. Scripts are classic and
   data lies in scripts: a page that is opened from disk can load nothing else. */

(() => {
  "use strict";

  const page = document.getElementById("fgbook-try");
  const given = window.fgbookTry; // from page.js
  if (!page || !given) return;

  const folder = new URL("try/", document.currentScript.src);
  const find = (selector) => page.querySelector(selector);
  const said = find(".said");
  const sliders = {
    m: find("#try-m"),
    overlap: find("#try-overlap"),
    side: find("#try-side"),
  };

  // ---- what the networks are given

  /* One axis of the bilinear filter that antialiases, as Pillow computes it: for each
     output pixel the first input pixel that it reads, and its weights in units of
     2^-22. */
  function filter(from, to) {
    const scale = from / to;
    const reach = Math.max(scale, 1); // half the width of the triangle
    return Array.from({ length: to }, (_, i) => {
      const centre = (i + 0.5) * scale;
      const first = Math.max(0, Math.trunc(centre - reach + 0.5));
      const last = Math.min(from, Math.trunc(centre + reach + 0.5));
      const heights = [];
      for (let x = first; x < last; x++) {
        heights.push(Math.max(0, 1 - Math.abs((x - centre + 0.5) / reach)));
      }
      const sum = heights.reduce((a, b) => a + b);
      return { first, weights: heights.map((h) => Math.round((h / sum) * 2 ** 22)) };
    });
  }

  /* A weighted sum of bytes, as a byte. Places lie `step` apart from `start` on. */
  function weighted(bytes, start, step, weights) {
    let sum = 2 ** 21; // rounds
    for (let k = 0; k < weights.length; k++) {
      sum += bytes[start + k * step] * weights[k];
    }
    return Math.min(255, Math.floor(sum / 2 ** 22));
  }

  /* RGB bytes, rows of `width` pixels, filtered to `side` pixels across. */
  function across(bytes, width, side) {
    const axis = filter(width, side);
    const narrow = new Uint8Array((bytes.length / width) * side);
    let place = 0;
    for (let row = 0; row < bytes.length; row += width * 3) {
      for (const { first, weights } of axis) {
        for (let c = 0; c < 3; c++) {
          narrow[place++] = weighted(bytes, row + first * 3 + c, 3, weights);
        }
      }
    }
    return narrow;
  }

  /* RGB bytes, `height` rows, filtered to `side` rows. */
  function down(bytes, height, side) {
    const row = bytes.length / height;
    const low = new Uint8Array(side * row);
    filter(height, side).forEach(({ first, weights }, y) => {
      for (let x = 0; x < row; x++) {
        low[y * row + x] = weighted(bytes, first * row + x, row, weights);
      }
    });
    return low;
  }

  /* RGB bytes, row by row, of a bitmap: the mean of each `factor` x `factor` pixels. It
     is read in bands of rows: phones refuse a canvas as large as a photograph. */
  function reduced(bitmap, factor) {
    const { width, height } = bitmap;
    const columns = Math.ceil(width / factor);
    const bytes = new Uint8Array(columns * Math.ceil(height / factor) * 3);
    const band = document.createElement("canvas");
    band.width = width;
    band.height = Math.min(height, 128); // a multiple of every factor
    const pen = band.getContext("2d", { willReadFrequently: true });
    let place = 0;
    for (let top = 0; top < height; top += band.height) {
      const rows = Math.min(band.height, height - top);
      pen.fillStyle = "white"; // behind what is transparent
      pen.fillRect(0, 0, width, rows);
      pen.drawImage(bitmap, 0, -top);
      const { data } = pen.getImageData(0, 0, width, rows); // red, green, blue, alpha
      for (let y = 0; y < rows; y += factor) {
        const bottom = Math.min(y + factor, rows);
        for (let x = 0; x < width; x += factor) {
          const right = Math.min(x + factor, width);
          const count = (bottom - y) * (right - x);
          for (let c = 0; c < 3; c++) {
            let sum = 0;
            for (let v = y; v < bottom; v++) {
              for (let u = x; u < right; u++) sum += data[(v * width + u) * 4 + c];
            }
            bytes[place++] = Math.floor(sum / count + 0.5);
          }
        }
      }
    }
    return { bytes, width: columns, height: Math.ceil(height / factor) };
  }

  /* A picture squeezed to side x side pixels: RGB bytes, row by row. As in
     fgbook/data/store.py, a JPEG more than twice too large is reduced first: there
     libjpeg does so while it decodes, here it is done afterwards. */
  function squeezed(bitmap, side, isJpeg) {
    const tooLarge = Math.min(bitmap.width, bitmap.height) / (2 * side);
    const factor = [8, 4, 2].find((one) => isJpeg && tooLarge >= one) || 1;
    const { bytes, width, height } = reduced(bitmap, factor);
    return down(across(bytes, width, side), height, side);
  }

  /* Whether a file begins as JPEGs do. */
  async function startsAsJpeg(source) {
    if (!(source instanceof Blob)) return false;
    const start = new Uint8Array(await source.slice(0, 3).arrayBuffer());
    return [0xff, 0xd8, 0xff].every((byte, i) => start[i] === byte);
  }

  /* The middle of a squeezed picture as a tensor's values: (1, 3, S, S) in [0, 1]. */
  function middle(square) {
    const side = given.store_size;
    const size = given.image_size;
    const start = Math.floor((side - size) / 2);
    const values = new Float32Array(3 * size * size);
    for (let c = 0; c < 3; c++) {
      for (let y = 0; y < size; y++) {
        for (let x = 0; x < size; x++) {
          values[(c * size + y) * size + x] =
            square[((start + y) * side + start + x) * 3 + c] / 255;
        }
      }
    }
    return values;
  }

  let picture = null; // { values, bitmap, name }
  let latest = 0; // of several pictures in a row, the last one counts

  /* Take a picture: an image of the page, or a file. */
  async function take(source, name) {
    const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
    const turn = ++latest;
    let bitmap, isJpeg;
    try {
      bitmap = await createImageBitmap(source, options);
      isJpeg = await startsAsJpeg(source);
    } catch {
      say(`${name} is not a picture that this browser can read.`);
      return;
    }
    if (turn !== latest) return;
    picture?.bitmap.close();
    const square = squeezed(bitmap, given.store_size, isJpeg);
    picture = { values: middle(square), bitmap, name };
    await look(Object.keys(sessions));
  }

  // ---- loading, after a click

  const sessions = {};

  function script(name) {
    return new Promise((resolve, reject) => {
      const element = document.createElement("script");
      element.src = new URL(name, folder);
      element.onload = resolve;
      element.onerror = () => reject(new Error(`${name} could not be loaded`));
      document.head.append(element);
    });
  }

  /* Bytes that were compressed with gzip and written as base64. */
  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const unzip = new DecompressionStream("gzip");
    const stream = new Blob([bytes]).stream().pipeThrough(unzip);
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async function start() {
    find(".start").disabled = true;
    say(`Loading the networks, about ${given.megabytes} MB …`);
    try {
      await Promise.all(["ort.js", "runtime.js", "networks.js"].map(script));
      const glue = new Blob([given.glue], { type: "text/javascript" });
      ort.env.wasm.numThreads = 1;
      ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(glue) };
      ort.env.wasm.wasmBinary = await unpacked(given.machine);
      for (const [name, graph] of Object.entries(given.graphs)) {
        sessions[name] = await ort.InferenceSession.create(await unpacked(graph));
      }
    } catch (error) {
      say(`The networks cannot run here. ${error.message}`);
      find(".start").disabled = false;
      return;
    }
    find(".start").parentElement.remove();
    find(".looks").hidden = false;
    document.getElementById("fgbook-try-still").hidden = true;
    said.focus({ preventScroll: true }); // the button that had it is gone
    await look(Object.keys(sessions));
  }

  // ---- looking

  const seen = {}; // network -> what it gave for the picture, and the milliseconds
  let waiting = new Set();
  let busy = false;

  /* Have networks look at the picture; what is asked for meanwhile comes after. */
  async function look(names) {
    for (const name of names) waiting.add(name);
    if (busy || !picture) return;
    busy = true;
    while (waiting.size) {
      const [name] = waiting;
      waiting.delete(name);
      seen[name] = await run(name);
      draw(name);
    }
    busy = false;
    tell();
  }

  async function run(name) {
    const size = given.image_size;
    const { values: pixels } = picture;
    const inputs = { picture: new ort.Tensor("float32", pixels, [1, 3, size, size]) };
    if (name === "focus") {
      const place = given.sides.indexOf(Number(sliders.side.value));
      inputs.overlap = new ort.Tensor("float32", [Number(sliders.overlap.value)], []);
      inputs.side = new ort.Tensor("int64", [BigInt(place)], []);
    }
    const started = performance.now();
    const found = await sessions[name].run(inputs);
    const values = { milliseconds: performance.now() - started };
    for (const [output, tensor] of Object.entries(found)) values[output] = tensor.data;
    return values;
  }

  /* Classes with their probabilities, the most probable first. */
  function ranked(probabilities) {
    const pairs = given.classes.map((name, k) => ({ name, share: probabilities[k] }));
    return pairs.sort((a, b) => b.share - a.share);
  }

  const percent = (share) => `${(100 * share).toFixed(0)} %`;

  /* The regions of focus that are shown: { box, named }. */
  function shownRegions() {
    const { boxes, region_probabilities: alone } = seen.focus;
    const classes = given.classes.length;
    return Array.from({ length: Number(sliders.m.value) }, (_, i) => ({
      box: boxes.slice(4 * i, 4 * i + 4),
      named: ranked(alone.slice(classes * i, classes * (i + 1)))[0],
    }));
  }

  // ---- drawing

  const READ = 4; // regions that the hybrid head reads
  // As in the book's figures: line style and number tell them apart without colour.
  const STYLES = [
    { colour: "#E0201B", dash: [] },
    { colour: "#00A651", dash: [18, 9] },
    { colour: "#2B6BFF", dash: [18, 7, 4, 7] },
    { colour: "#FFD800", dash: [4, 7] },
  ];
  const THIN = { colour: "#FFFFFF", dash: [], thin: true };
  const DUSK = 1 / 8; // the light where a map is lowest

  function draw(name) {
    const card = find(`[data-network=${name}]`);
    const canvas = card.querySelector("canvas");
    const pen = canvas.getContext("2d");
    drawView(pen, canvas.width);
    drawDusk(pen, canvas.width, seen[name].map);
    let boxes = "";
    if (name === "focus") {
      const shown = shownRegions();
      shown.forEach(({ box }, i) => outline(pen, box, STYLES[i] || THIN, `${i + 1}`));
      card.querySelector(".alone").replaceChildren(...shown.map(({ named }) =>
        item(`${named.name}, ${percent(named.share)}`)));
      boxes = `, with ${shown.length} regions`;
    } else if (name === "flrdf") {
      outline(pen, seen.flrdf.box, STYLES[3], "");
      boxes = ", with the box of the foreground";
    }
    const shows = `${picture.name}, lit by the network's map${boxes}`;
    canvas.setAttribute("aria-label", shows);
    const best = ranked(seen[name].probabilities).slice(0, 3);
    card.querySelector(".named").replaceChildren(...best.map(({ name, share }) => {
      const line = item(name);
      line.append(element("span", percent(share)));
      line.style.setProperty("--share", `${100 * share}%`);
      return line;
    }));
  }

  function element(tag, text) {
    const made = document.createElement(tag);
    made.textContent = text;
    return made;
  }

  function item(text) {
    const line = element("li", "");
    line.append(element("span", text));
    return line;
  }

  /* What the networks see of the picture, as sharp as it is. */
  function drawView(pen, side) {
    const { width, height } = picture.bitmap;
    const { store_size: whole, image_size: size } = given;
    const cut = Math.floor((whole - size) / 2) / whole;
    const kept = size / whole;
    pen.fillStyle = "white";
    pen.fillRect(0, 0, side, side);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(picture.bitmap,
      cut * width, cut * height, kept * width, kept * height, 0, 0, side, side);
  }

  /* Darkness where a map is low, down to an eighth of the light. */
  function drawDusk(pen, side, map) {
    const size = given.image_size;
    const low = Math.min(...map);
    const range = Math.max(Math.max(...map) - low, 1e-9);
    const dusk = new ImageData(size, size);
    map.forEach((value, i) => {
      dusk.data[4 * i + 3] = 255 * (1 - DUSK) * (1 - (value - low) / range);
    });
    const small = document.createElement("canvas");
    small.width = small.height = size;
    small.getContext("2d").putImageData(dusk, 0, 0);
    pen.drawImage(small, 0, 0, side, side);
  }

  /* A box in the networks' pixels, that stands off light and dark grounds. */
  function outline(pen, box, style, label) {
    const scale = pen.canvas.width / given.image_size;
    const [left, top, right, bottom] = [...box].map((edge) => edge * scale);
    const width = style.thin ? 2 : 5;
    for (const [colour, more] of [["black", 3], [style.colour, 0]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width + more;
      pen.setLineDash(more ? [] : style.dash);
      pen.strokeRect(left, top, right - left, bottom - top);
    }
    if (!label) return;
    pen.font = "bold 22px sans-serif";
    pen.fillStyle = style.colour;
    pen.fillRect(left, top, 24, 26);
    pen.fillStyle = ["#FFD800", "#FFFFFF"].includes(style.colour) ? "black" : "white";
    pen.fillText(label, left + 6, top + 21);
  }

  // ---- saying it

  function say(text) {
    said.textContent = text;
  }

  /* What all networks say, once the sliders rest. */
  let pause;
  function tell() {
    clearTimeout(pause);
    pause = setTimeout(() => {
      if (!Object.keys(seen).length) return;
      const parts = Object.entries(seen).map(([name, found]) => {
        const { probabilities, milliseconds } = found;
        const title = find(`#try-${name}`).textContent;
        const [best] = ranked(probabilities);
        const time = `${milliseconds.toFixed(0)} ms`;
        return `${title}: ${best.name}, ${percent(best.share)}, in ${time}`;
      });
      say(`${picture.name}. ${parts.join("; ")}.`);
    }, 300);
  }

  function showSettings() {
    const { m, overlap, side } = sliders;
    find("output[for=try-m]").value = m.value;
    find("output[for=try-overlap]").value = Number(overlap.value).toFixed(2);
    find("output[for=try-side]").value = (side.value / 448).toFixed(2);
  }

  // ---- what a reader does

  function addBird({ name, picture: url }, place) {
    const label = element("label", "");
    const choice = Object.assign(document.createElement("input"), {
      type: "radio", name: "try-bird", value: place, checked: place === 0,
    });
    const image = Object.assign(new Image(), { src: url, alt: `A drawn ${name}` });
    choice.addEventListener("change", () => take(image, image.alt));
    label.append(choice, image);
    find(".birds").append(label);
    if (place === 0) image.decode().then(() => take(image, image.alt));
  }

  function takeFile(file) {
    if (!file) return;
    const chosen = find(".birds :checked");
    if (chosen) chosen.checked = false;
    take(file, file.name);
  }

  given.birds.forEach(addBird);
  find("#try-file").addEventListener("change", (event) => {
    takeFile(event.target.files[0]);
  });
  find(".start").addEventListener("click", start);
  sliders.m.addEventListener("input", () => {
    showSettings();
    if (!seen.focus) return;
    draw("focus"); // the list of regions is only cut elsewhere
    tell();
  });
  for (const slider of [sliders.overlap, sliders.side]) {
    slider.addEventListener("input", () => {
      showSettings();
      look(["focus"]);
    });
  }

  for (const kind of ["dragover", "dragleave", "drop"]) {
    page.addEventListener(kind, (event) => {
      event.preventDefault();
      page.classList.toggle("dropping", kind === "dragover");
      if (kind === "drop") takeFile(event.dataTransfer.files[0]);
    });
  }

  given.seen = seen; // for the test that compares it with PyTorch
  given.pixels = () => picture.values;
  showSettings();
  page.hidden = false;
})();
