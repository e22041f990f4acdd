// The table of all records: sorted by its headings, filtered by words and by
// "column=value|value". Without this script it is a plain table.
(() => {
  const figure = document.getElementById("all-numbers");
  if (!figure) return;
  const table = figure.querySelector("table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const names = heads.map((head) => head.textContent.trim());
  const text = (cell) => cell.textContent.trim();

  // ---- sorting: a button in each heading; a second press turns the order round

  const sort = (column, downwards) => {
    const isNumber = heads[column].dataset.kind === "number";
    const value = (row) => {
      const found = text(row.cells[column]);
      if (!isNumber) return found;
      const number = parseFloat(found);
      // a dash comes last, whatever the order
      return Number.isNaN(number) ? (downwards ? -Infinity : Infinity) : number;
    };
    const sign = downwards ? -1 : 1;
    const compare = (a, b) =>
      isNumber ? a - b : a.localeCompare(b, "en", { numeric: true });
    const keyed = rows.map((row) => [value(row), row]);
    keyed.sort(([a], [b]) => (a === b ? 0 : sign * compare(a, b)));
    body.append(...keyed.map(([, row]) => row));
    heads.forEach((head, place) => {
      if (place !== column) head.removeAttribute("aria-sort");
    });
    heads[column].setAttribute("aria-sort", downwards ? "descending" : "ascending");
  };

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = names[column];
    if (head.title) button.title = head.title;
    button.addEventListener("click", () =>
      sort(column, head.getAttribute("aria-sort") === "ascending"),
    );
    head.replaceChildren(button);
  });

  // ---- filtering

  const matches = (row, word) => {
    const split = word.match(/^([^=]+)=(.*)$/);
    if (!split) return row.textContent.toLowerCase().includes(word);
    const column = names.findIndex((name) => name.toLowerCase().startsWith(split[1]));
    if (column < 0) return false;
    const found = text(row.cells[column]).toLowerCase();
    return split[2].split("|").includes(found);
  };

  const form = document.createElement("form");
  form.className = "fgbook-find";
  form.setAttribute("role", "search");
  form.innerHTML =
    '<label>Find <input type="search" autocomplete="off" spellcheck="false"' +
    ' placeholder="golodov cub50, or row=plain|hybrid"></label>' +
    '<span class="selects"></span><output aria-live="polite"></output>';
  const input = form.querySelector("input");
  const output = form.querySelector("output");

  const selects = ["kind", "paper", "profile", "data"].map((name) => {
    const column = names.indexOf(name);
    const values = [...new Set(rows.map((row) => text(row.cells[column])))].sort();
    const label = document.createElement("label");
    label.textContent = `${name} `;
    const select = document.createElement("select");
    select.add(new Option("all", ""));
    for (const value of values) select.add(new Option(value, value));
    label.append(select);
    form.querySelector(".selects").append(label);
    return { column, select };
  });

  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const chosen = selects.every(
        ({ column, select }) => !select.value || text(row.cells[column]) === select.value,
      );
      row.hidden = !(chosen && words.every((word) => matches(row, word)));
      if (!row.hidden) shown += 1;
    }
    output.textContent = `${shown} of ${rows.length}`;
  };

  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  figure.querySelector("figcaption").after(form);

  // ---- an address can ask: numbers.html?find=paper=feng+row=plain

  input.value = new URLSearchParams(location.search).get("find") || "";
  filter();
})();
