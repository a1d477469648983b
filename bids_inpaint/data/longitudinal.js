// The keys and layers of a person's report: which visit is seen, before or after filling, with which outlines.
"use strict";
document.documentElement.classList.add("js");
const page = JSON.parse(document.getElementById("page").textContent);
const body = document.body, visits = [...document.querySelectorAll(".visit")];
const choices = [...document.querySelectorAll("[data-visit]")], label = document.getElementById("seen");
let current = 0, alternating = null;

function show(index) {
  if (!visits.length) return;
  current = (index + visits.length) % visits.length;
  visits.forEach((visit, i) => visit.classList.toggle("now", i === current));
  choices.forEach((button, i) => button.setAttribute("aria-pressed", String(i === current)));
  name();
}

function name() {
  const filled = body.classList.contains("filled");
  label.textContent = `${visits[current].dataset.name}, ${filled ? "lesions filled" : "original"}`;
  for (const button of document.querySelectorAll("[data-fill]")) {
    button.setAttribute("aria-pressed", String((button.dataset.fill === "after") === filled));
  }
}

function fill(on) {
  body.classList.toggle("filled", on);
  if (visits.length) name();
}

function alternate() {
  if (alternating) {
    clearInterval(alternating);
    alternating = null;
  } else if (visits.length > 1) alternating = setInterval(() => show(current + 1), 700);
  document.getElementById("alternate")?.setAttribute("aria-pressed", String(Boolean(alternating)));
}

// to another page of the folder, if it is there
function leave(id) {
  const link = document.getElementById(id);
  if (!link.hidden) link.click();
}

const keys = {
  n: () => show(current + 1), ArrowRight: () => show(current + 1),
  p: () => show(current - 1), ArrowLeft: () => show(current - 1),
  f: () => fill(), a: alternate, o: () => body.classList.toggle("hide-outlines"),
  z: () => body.classList.toggle("zoom"),
  i: () => { location.href = page.report; },
  N: () => leave("after"), P: () => leave("before"), G: () => leave("group"),
  "?": () => { const help = document.getElementById("keys"); help.open = !help.open; },
};
for (let i = 0; i < Math.min(visits.length, 9); i++) keys[i + 1] = () => show(i);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const action = keys[event.key];
  if (action) {
    event.preventDefault();
    action();
  }
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (event.target.closest(".stack")) show(current + 1);
  if (!button) return;
  if (button.dataset.key) keys[button.dataset.key]();
  if (button.dataset.visit) show(+button.dataset.visit);
  if (button.dataset.fill) fill(button.dataset.fill === "after");
  if (button.dataset.change) {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    for (const group of document.querySelectorAll(`.visit g.${button.dataset.change}`)) {
      group.classList.toggle("off", !on);
    }
  }
});

// who else is in the folder
const others = window.participants || { courses: [], group: false };
const courses = others.courses || [], here = courses.indexOf(page.name);
for (const [id, other] of [["before", courses[here - 1]], ["after", courses[here + 1]]]) {
  const link = document.getElementById(id);
  if (here >= 0 && other) {
    link.href = encodeURIComponent(other) + "_desc-longitudinal_T1w.html";
    link.textContent = (id === "before" ? "← " : "") + other + (id === "after" ? " →" : "");
    link.hidden = false;
  }
}
document.getElementById("group").hidden = !others.group;
show(0);
// a picture that is decoded only once it is seen would flash
for (const picture of document.querySelectorAll(".visit img")) picture.decode().catch(() => {});
