// The list of images of the group's page: sorting, choosing, and ratings that the browser keeps.
"use strict";
const list = document.querySelector(".index tbody"), rows = [...list.rows];
const known = new Map(page.images.map((image) => [image.image, image]));

function draw() {
  for (const row of rows) {
    const entry = ratings.of(known.get(row.dataset.image)), mark = worst(entry);
    const tag = row.querySelector(".kept");
    tag.textContent = mark ? `${mark} (this browser)` : "";
    tag.className = "kept" + (mark ? " tag " + mark : "");
  }
  choose();
}

function choose() {
  const kind = document.getElementById("kind").value, text = document.getElementById("text").value.toLowerCase();
  let count = 0;
  for (const row of rows) {
    const mark = row.dataset.mark || worst(ratings.of(known.get(row.dataset.image)));
    const fits = { all: true, warned: row.dataset.warned > 0, unrated: !mark, check: mark === "check",
      exclude: mark === "exclude" }[kind];
    row.hidden = !fits || !row.textContent.toLowerCase().includes(text);
    count += !row.hidden;
  }
  document.getElementById("count").textContent = `${count} of ${rows.length}`;
}
document.getElementById("kind").addEventListener("change", choose);
document.getElementById("text").addEventListener("input", choose);

let sorted = null, down = false;
for (const head of document.querySelectorAll(".index th[data-sort]")) {
  head.querySelector("button").addEventListener("click", () => {
    down = sorted === head ? !down : head.dataset.sort === "number";
    sorted = head;
    const value = (row) => {
      const cell = row.cells[head.cellIndex], text = cell.dataset.value || cell.textContent.trim();
      return head.dataset.sort === "number" ? (Number.isFinite(+text) ? +text : -Infinity) : text;
    };
    rows.sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) * (down ? -1 : 1));
    list.append(...rows);
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  });
}

const count = connect(true, draw);
draw();
