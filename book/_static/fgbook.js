// What pages do. Without this script all of it can be read: tables and formulas scroll,
// and the records of a table are folded below it.
(() => {
  "use strict";

  // ---- tables: on a narrow screen each row becomes a card, its cells with their names

  const name = (table) => {
    const heads = [...table.querySelectorAll("thead tr:last-child th")];
    const names = heads.map((head) => head.textContent.trim());
    if (names.length < 2) return;
    for (const row of table.querySelectorAll("tbody tr"))
      [...row.children].forEach((cell, place) => {
        cell.dataset.label = names[place] || "";
        if (["", "–"].includes(cell.textContent.trim())) cell.dataset.nothing = "";
      });
    table.classList.add("fgbook-cards");
    if (names.length > 6) table.classList.add("fgbook-tight");
    // A table laid out as blocks is none to a screen reader unless it is said.
    const roles = { table: "table", thead: "rowgroup", tbody: "rowgroup", tr: "row" };
    table.setAttribute("role", "table");
    for (const [tag, role] of Object.entries(roles))
      for (const part of table.querySelectorAll(tag)) part.setAttribute("role", role);
    for (const head of heads) head.setAttribute("role", "columnheader");
    for (const cell of table.querySelectorAll("tbody td")) cell.setAttribute("role", "cell");
    for (const cell of table.querySelectorAll("tbody th"))
      cell.setAttribute("role", "rowheader");
  };

  // ---- what is wider than its place can be scrolled by keyboard, and has a name

  const WIDE = {
    ".math-block": "Formula",
    ".fgbook-table > div": "Table",
    ".fgbook-drawn": "Figure",
    ".pst-scrollable-table-container": "Table",
    "div.highlight pre": "Code",
    "div.cell_output pre": "Output",
  };

  const reachable = () => {
    for (const [selector, said] of Object.entries(WIDE))
      for (const box of document.querySelectorAll(selector)) {
        if (box.scrollWidth > box.clientWidth + 1) {
          box.tabIndex = 0;
          box.setAttribute("role", "region");
          box.setAttribute("aria-label", `${said}, scrolls sideways`);
        } else {
          for (const attribute of ["tabindex", "role", "aria-label"])
            box.removeAttribute(attribute);
        }
      }
  };

  // ---- measured numbers: where each comes from

  const box = document.createElement("div");
  box.className = "fgbook-source";
  box.popover = "auto"; // closes on Escape, and on a touch elsewhere
  box.setAttribute("role", "dialog");
  box.setAttribute("aria-label", "Where this number comes from");
  box.tabIndex = -1;
  let asked = null;

  const element = (tag, text, parent) => {
    const made = document.createElement(tag);
    made.textContent = text;
    parent.append(made);
    return made;
  };

  const sources = (keys) =>
    (keys || "")
      .split(" ")
      .filter(Boolean)
      .map((key) => [key, document.querySelector(`[data-record="${key}"]`)]);

  // Records of the same row stand under one line: "feng plain, photo, cub50; seeds 0, 1".
  const list = (title, keys) => {
    const rows = new Map();
    for (const [key, found] of sources(keys)) {
      const [row, seed] = (found?.dataset.of || "record; seed –").split("; seed ");
      if (!rows.has(row)) rows.set(row, []);
      rows.get(row).push({ key, seed, command: found?.lastElementChild.textContent });
    }
    for (const [row, records] of rows) {
      const seeds = records.map((one) => one.seed).join(", ");
      element("p", `${title}${row}; seed${records.length > 1 ? "s" : ""} ${seeds}`, box);
      const items = element("ul", "", box);
      for (const { key, command } of records) {
        const item = element("li", "record ", items);
        element("code", key, item);
        if (command) element("code", command, element("div", "", item));
      }
    }
  };

  const place = (number) => {
    const at = number.getBoundingClientRect();
    const room = 8;
    const left = Math.min(at.left, innerWidth - box.offsetWidth - room);
    const below = at.bottom + room;
    const fits = below + box.offsetHeight < innerHeight;
    box.style.left = `${Math.max(room, left)}px`;
    box.style.top = `${fits ? below : Math.max(room, at.top - box.offsetHeight - room)}px`;
  };

  const tell = (number) => {
    if (asked === number && box.matches(":popover-open")) return box.hidePopover();
    box.replaceChildren();
    const { field, records, versus } = number.dataset;
    element("b", `${number.textContent}: ${field}`, box);
    list(versus ? "of " : "", records);
    list("against ", versus);
    asked = number;
    number.after(box); // what is read and reached after the number
    box.showPopover();
    place(number);
    number.setAttribute("aria-expanded", "true");
  };

  box.addEventListener("toggle", (event) => {
    if (event.newState === "closed") asked?.setAttribute("aria-expanded", "false");
  });

  const openable = (number) => {
    number.removeAttribute("title"); // the same, for a mouse only
    number.tabIndex = 0;
    number.setAttribute("role", "button");
    number.setAttribute("aria-expanded", "false");
    number.setAttribute("aria-label", `${number.textContent}, where from`);
  };

  document.addEventListener("click", (event) => {
    const number = event.target.closest(".fgbook-measured");
    if (number) tell(number);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && box.matches(":popover-open")) {
      box.hidePopover();
      asked.focus();
    }
    if (event.key !== "Enter" && event.key !== " ") return;
    if (!event.target.classList.contains("fgbook-measured")) return;
    event.preventDefault();
    tell(event.target);
  });

  // A table that does not fit is set smaller, before it has to be scrolled.
  const fit = (box) => {
    const table = box.querySelector("table");
    for (const step of ["fgbook-tight", "fgbook-tighter"])
      if (table && box.scrollWidth > box.clientWidth + 1) table.classList.add(step);
  };

  const start = () => {
    document.querySelectorAll("article table").forEach(name);
    const boxes = ".fgbook-table > div, .pst-scrollable-table-container";
    document.querySelectorAll(boxes).forEach(fit);
    document.querySelectorAll(".fgbook-measured").forEach(openable);
    reachable();
    addEventListener("resize", reachable);
    for (const fold of document.querySelectorAll("details"))
      fold.addEventListener("toggle", reachable);
  };
  if (document.readyState === "loading")
    document.addEventListener("DOMContentLoaded", start);
  else start();
})();
