// Tables that sort by their headings and can be filtered by words and by
// "column=value|value": every figure with the attribute data-sortable. Without this
// script they are plain tables. data-selects names columns that get a list of values;
// where data-asked is set, an address can ask: numbers.html?find=paper=feng+row=plain.
// A column whose cells are numbers, as far as there is something in them, sorts as such.
(() => {
  const text = (cell) => cell.textContent.trim();

  // What a cell is sorted by: what it says of itself, else its text.
  const key = (cell) => {
    const said = cell.querySelector("[data-sort]");
    return said ? said.dataset.sort : text(cell);
  };

  const NOTHING = ["", "–", "not run"];
  const holdsNumbers = (rows, column) => {
    const found = rows.map((row) => key(row.cells[column]));
    const said = found.filter((one) => !NOTHING.includes(one));
    return said.length > 0 && said.every((one) => /^[-+]?[\d.]/.test(one));
  };

  // ---- sorting: a button in each heading; a second press turns the order round.
  // Where headings are not shown (a phone's cards) the list below does it.

  const addSorting = (heads, body, rows) => {
    const numbers = heads.map((_, column) => holdsNumbers(rows, column));
    const sort = (column, downwards) => {
      const isNumber = numbers[column];
      const value = (row) => {
        const found = key(row.cells[column]);
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
      button.textContent = text(head);
      if (head.title) button.title = head.title;
      button.addEventListener("click", () =>
        sort(column, head.getAttribute("aria-sort") === "ascending"),
      );
      head.replaceChildren(button);
    });
    return (column) => sort(column, numbers[column]); // the largest first
  };

  // ---- filtering

  const addFilter = (figure, names, rows, sort) => {
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
      '<label>Find <input type="search" autocomplete="off" spellcheck="false"></label>' +
      '<span class="selects"></span><label class="sort">sort by </label>' +
      '<output aria-live="polite"></output>';
    const input = form.querySelector("input");
    const output = form.querySelector("output");
    input.placeholder = figure.dataset.sortable;

    const wanted = (figure.dataset.selects || "").split(" ").filter(Boolean);
    const selects = wanted.map((name) => {
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

    const order = document.createElement("select");
    order.add(new Option("as it is", ""));
    names.forEach((name, column) => order.add(new Option(name, column)));
    order.addEventListener("change", () => order.value && sort(Number(order.value)));
    form.querySelector(".sort").append(order);

    const filter = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const chosen = selects.every(
          ({ column, select }) =>
            !select.value || text(row.cells[column]) === select.value,
        );
        row.hidden = !(chosen && words.every((word) => matches(row, word)));
        if (!row.hidden) shown += 1;
      }
      output.textContent = `${shown} of ${rows.length}`;
    };

    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    figure.querySelector("figcaption").after(form);
    if ("asked" in figure.dataset) {
      input.value = new URLSearchParams(location.search).get("find") || "";
    }
    filter();
  };

  for (const figure of document.querySelectorAll("figure[data-sortable]")) {
    if (figure.querySelector(".fgbook-find")) continue; // the page has another one
    const table = figure.querySelector("table");
    const heads = [...table.tHead.rows[0].cells];
    const names = heads.map(text);
    const rows = [...table.tBodies[0].rows];
    const sort = addSorting(heads, table.tBodies[0], rows);
    addFilter(figure, names, rows, sort);
  }
})();
