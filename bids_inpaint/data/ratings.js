// Ratings of images: kept in the browser for this folder, and saved as a table.
"use strict";
const page = JSON.parse(document.getElementById("page").textContent);
const folder = "bids_inpaint " + location.href.split("#")[0].replace(/[^/]*$/, "");
const marks = ["good", "check", "exclude"];

const ratings = (() => {
  let kept = { rater: "", images: {} };
  try { kept = Object.assign(kept, JSON.parse(localStorage.getItem(folder))); } catch (error) { /* none yet */ }
  function keep() {
    try { localStorage.setItem(folder, JSON.stringify(kept)); } catch (error) { /* until the page is closed */ }
  }
  // what was said of these results, not of earlier ones
  function of(image) {
    const known = kept.images[image.image];
    return known && known.results === image.results ? known : {};
  }
  function change(image, changes) {
    const entry = Object.assign({}, of(image), changes, { results: image.results, participant_id: image.participant,
      rated: new Date().toISOString().slice(0, 19) + "Z", saved: false });
    kept.images[image.image] = entry;
    keep();
  }
  const clean = (cell) => String(cell || "").replace(/[\t\r\n]+/g, " ").trim() || "n/a";
  // images of this page alone, or of all pages in the folder
  function rows(all) {
    const here = new Set(page.images.map((image) => image.image));
    return Object.entries(kept.images).filter(([image]) => all || here.has(image));
  }
  function table(all) {
    const lines = rows(all).sort(([a], [b]) => (a < b ? -1 : 1)).map(([image, entry]) =>
      page.columns.map((name) => clean(name === "image" ? image : name === "rater" ? kept.rater : entry[name])));
    return [page.columns, ...lines].map((line) => line.join("\t") + "\n").join("");
  }
  function save(all) {
    const link = document.createElement("a");
    const who = kept.rater.replace(/[^A-Za-z0-9]+/g, "");
    link.href = URL.createObjectURL(new Blob([table(all)], { type: "text/tab-separated-values" }));
    link.download = page.name + "_ratings" + (who ? "-" + who : "") + ".tsv";
    link.click();
    URL.revokeObjectURL(link.href);
    for (const [, entry] of rows(all)) entry.saved = true;
    keep();
  }
  function load(text) {
    const [header, ...lines] = text.replace(/^\ufeff/, "").split(/\r?\n/).filter((line) => line.trim())
      .map((line) => line.split("\t"));
    for (const line of lines) {
      const row = Object.fromEntries(header.map((name, i) => [name, line[i] === "n/a" ? "" : line[i] || ""]));
      const known = kept.images[row.image];
      if (!row.image || (known && known.rated > row.rated)) continue;
      if (row.rater && !kept.rater) kept.rater = row.rater;
      kept.images[row.image] = Object.assign(row, { saved: true });
    }
    keep();
  }
  return {
    of, change, table, save, load,
    unsaved: (all) => rows(all).filter(([, entry]) => !entry.saved).length,
    get rater() { return kept.rater; },
    set rater(name) { kept.rater = name; keep(); },
  };
})();

function worst(entry) {
  return marks.filter((mark) => page.steps.some((step) => entry[step] === mark)).pop() || "";
}

function connect(all, shown) {
  const button = document.getElementById("save"), rater = document.getElementById("rater");
  function count() {
    const left = ratings.unsaved(all);
    button.textContent = left ? `Save ratings (${left} unsaved)` : "Save ratings";
  }
  button.addEventListener("click", () => { ratings.save(all); count(); });
  rater.value = ratings.rater;
  rater.addEventListener("change", () => { ratings.rater = rater.value; });
  document.getElementById("load").addEventListener("change", async (event) => {
    for (const file of event.target.files) ratings.load(await file.text());
    rater.value = ratings.rater;
    event.target.value = "";
    shown();
    count();
  });
  count();
  return count;
}
