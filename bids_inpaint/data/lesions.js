// The lesions of a report from near, one by one.
"use strict";
const near = (() => {
  let dialog = null, rows = [], row = 0;
  const open = () => dialog !== null && dialog.open;

  function show(index) {
    row = Math.max(0, Math.min(index, rows.length - 1));
    dialog.style.setProperty("--row", row);
    dialog.querySelector(".text").textContent = rows[row].text;
    const names = { first: "before filling", second: "after filling", contours: "outlines" };
    for (const [kind, name] of Object.entries(names)) {
      dialog.querySelector("img." + kind).alt = `Lesion ${rows[row].lesion}, ${name}: axial, sagittal and coronal plane`;
    }
    dialog.querySelector("[data-near=p]").disabled = row === 0;
    dialog.querySelector("[data-near=n]").disabled = row === rows.length - 1;
  }

  // a lesion of an image, by its number; the first one without it
  function start(article, lesion) {
    dialog = article.querySelector("dialog.near");
    if (!dialog) return;
    rows = JSON.parse(dialog.dataset.rows);
    // what is inside of something closed is not shown
    article.querySelector("details.lesions").open = true;
    show(Math.max(0, rows.findIndex((one) => one.lesion === lesion)));
    if (!dialog.open) dialog.showModal();
  }

  function end() {
    dialog.close();
    const button = dialog.parentNode.querySelector(`tr[data-lesion="${rows[row].lesion}"] button`);
    button.focus({ preventScroll: true });
    button.scrollIntoView({ block: "center" });
  }

  const keys = {
    n: () => show(row + 1), ArrowRight: () => show(row + 1), p: () => show(row - 1), ArrowLeft: () => show(row - 1),
    f: () => flicker(), a: () => alternate(), o: () => body.classList.toggle("hide-contours"), Escape: end,
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-near]"), line = event.target.closest("tr[data-lesion]");
    if (button) keys[button.dataset.near]();
    else if (line) start(line.closest("article"), line.dataset.lesion);
    // beside the pictures is back
    else if (event.target === dialog) end();
  });
  return { open, start, keys };
})();
