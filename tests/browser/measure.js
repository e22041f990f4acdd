// What a page looks like on the screen that it is on: returns {what: [where, ...]}.
// `phone` says whether the screen is narrow, `chapter` whether the page is a chapter with
// numbers, and `method` whether it is one about a method.
({ phone, chapter, method }) => {
  const SHORTEST = 11; // px, of text in a figure
  const FIRST_NUMBER = 1200; // px from the top of the page
  const LONGEST_ALT = 300; // characters
  const faults = {};
  const article = document.querySelector("article") || document.body;
  const all = (selector, inside = article) => [...inside.querySelectorAll(selector)];
  const fault = (what, where) => (faults[what] ??= []).push(where);
  const shown = (element) => element.getClientRects().length > 0;

  const named = (element) => {
    const section = element.closest("section[id]");
    const text = (element.textContent || "").trim().replace(/\s+/g, " ").slice(0, 60);
    return `#${section ? section.id : "?"} ${element.tagName.toLowerCase()}: ${text}`;
  };

  // ---- the first screen, before anything is unfolded
  if (chapter) {
    const short = document.getElementById("in-short");
    const second = article.querySelector("section section h2");
    const first = second && second.closest("section");
    if (!short) fault("no section #in-short", "the page");
    else if (first !== short && !short.contains(second))
      fault("#in-short is not the first section", named(second));
    const number = all(".fgbook-measured").find(shown);
    const top = number && number.getBoundingClientRect().top + scrollY;
    if (!number) fault("no measured number", "the page");
    else if (!phone && top > FIRST_NUMBER)
      fault(`first measured number below ${FIRST_NUMBER} px`, `${Math.round(top)} px`);
  }

  for (const fold of all("details")) fold.open = true;
  for (const fold of all(".toggle-hidden")) fold.classList.remove("toggle-hidden");

  // ---- what is cut
  const scrolls = (element) =>
    /auto|scroll|hidden|clip/.test(getComputedStyle(element).overflowX) &&
    element.scrollWidth > element.clientWidth + 1;
  const cut = (element) => {
    const limit = article.getBoundingClientRect().right + 1;
    if (element.getBoundingClientRect().right > Math.max(limit, 0)) return true;
    for (let box = element; box && box !== article; box = box.parentElement)
      if (scrolls(box)) return true;
    return false;
  };
  const wider = document.documentElement.scrollWidth - innerWidth;
  if (wider > 1) fault("page wider than the screen", `${wider} px`);
  if (!phone)
    for (const table of all("table").filter(shown))
      if (cut(table)) fault("table cut", named(table));
  for (const code of all("pre").filter(shown))
    if (cut(code)) fault(phone ? "code not wrapped" : "code line cut", named(code));

  // ---- outcomes on a phone
  const outcome = /^(verdict|outcome)$/i;
  for (const table of phone ? all("table") : []) {
    const heads = all("thead th", table).map((cell) => cell.textContent.trim());
    const column = heads.findIndex((text) => outcome.test(text));
    if (column < 0) continue;
    for (const row of all("tbody tr", table)) {
      const { left, right, width } = row.children[column].getBoundingClientRect();
      if (!width || left < 0 || right > innerWidth + 1) {
        fault("outcome not on the screen", named(row));
        break;
      }
    }
  }

  // ---- figures
  const name = (image) =>
    image.getAttribute("alt") ??
    image.getAttribute("aria-label") ??
    image.querySelector(":scope > title")?.textContent ??
    "";
  const drawn = "figure img, .cell_output img, svg[role=img]";
  for (const image of all(drawn).filter((one) => !one.closest("[aria-hidden=true]"))) {
    const alt = name(image).trim();
    const figure = named(image.closest("figure") || image);
    if (!alt) fault("figure without alternative text", figure);
    if (alt.length > LONGEST_ALT)
      fault(`alternative text over ${LONGEST_ALT} characters`, `${alt.length}: ${figure}`);
  }
  for (const image of phone ? all("svg[role=img]").filter(shown) : []) {
    let smallest = Infinity;
    for (const text of all("text", image)) {
      if (!text.textContent.trim()) continue;
      const scale = text.getScreenCTM();
      const size = parseFloat(getComputedStyle(text).fontSize);
      smallest = Math.min(smallest, size * Math.hypot(scale.a, scale.b));
    }
    if (smallest < SHORTEST - 0.05)
      fault(
        `text below ${SHORTEST} px in a figure`,
        `${smallest.toFixed(1)} px: ${named(image.closest("figure") || image)}`,
      );
  }
  // ---- diagrams of methods
  if (method && !all(".fgbook-diagram").length) fault("no diagram", "the page");
  for (const section of all("#the-methods > section:not(#not-here)")) {
    const methods = all(":scope > p > strong:first-child", section).length;
    if (all(".fgbook-diagram", section).length < Math.max(methods, 1))
      fault("method without a diagram", named(section));
  }
  for (const drawing of all(".fgbook-diagram > div").filter(shown))
    if (scrolls(drawing)) fault("diagram cut", named(drawing));

  for (const image of all("img"))
    if (image.complete && !image.naturalWidth) fault("picture missing", image.src);

  // ---- the source of each number
  for (const number of all(".fgbook-measured").filter(shown)) {
    if (number.tabIndex < 0) fault("number not reachable by keyboard", named(number));
    const { records = "", versus = "" } = number.dataset;
    for (const key of `${records} ${versus}`.split(" ").filter(Boolean))
      if (!document.querySelector(`[data-record="${key}"]`))
        fault("record of a number not on its page", `${key}: ${named(number)}`);
  }
  return faults;
}
