// The keys, layers and ratings of a participant's report.
"use strict";
document.documentElement.classList.add("js");
const body = document.body, main = document.querySelector("main");
const articles = [...document.querySelectorAll("article")];
let current = 0, step = 0, alternating = null;

const shown = () => articles[current];
const image = () => page.images.find((one) => one.image === shown().id);

function open(index, scroll) {
  if (!articles.length) return;
  current = Math.max(0, Math.min(index, articles.length - 1));
  articles.forEach((article, i) => article.classList.toggle("now", i === current));
  main.classList.add("reading");
  document.getElementById("place").textContent = `${shown().id} (${current + 1} of ${articles.length})`;
  choose(0, false);
  if (scroll) window.scrollTo(0, 0);
}

// whether an image is seen: what isn't seen is not rated
const reading = () => articles.length === 1 || main.classList.contains("reading");

function overview() {
  main.classList.remove("reading");
  if (articles.length > 1) {
    articles.forEach((article) => article.classList.remove("now"));
    history.replaceState(null, "", location.href.split("#")[0]);
  }
  document.getElementById("place").textContent = "";
  window.scrollTo(0, 0);
}

function go(by) {
  const next = reading() ? current + by : current;
  if (next >= 0 && next < articles.length) {
    history.replaceState(null, "", "#" + articles[next].id);
    open(next, true);
  }
}

// lay the steps of the image out with the marks that they have
function draw() {
  for (const row of document.querySelectorAll(".index tr[data-image]")) {
    const known = page.images.find((one) => one.image === row.dataset.image);
    const entry = known ? ratings.of(known) : {};
    row.querySelector(".marks").replaceChildren(...page.steps.filter((name) => entry[name]).map((name) => {
      const tag = document.createElement("span");
      tag.className = "tag " + entry[name];
      tag.textContent = page.names[name] + ": " + entry[name];
      return tag;
    }));
  }
  for (const article of articles) {
    const known = page.images.find((one) => one.image === article.id);
    if (!known) continue;
    const entry = ratings.of(known);
    for (const one of article.querySelectorAll(".step")) {
      for (const button of one.querySelectorAll("button")) {
        button.setAttribute("aria-pressed", String(entry[one.dataset.step] === button.dataset.mark));
      }
    }
    article.querySelector(".comment").value = entry.comment || "";
  }
}

function choose(index, scroll) {
  if (!reading()) return;
  const steps = [...shown().querySelectorAll(".step")];
  if (!steps.length) return;
  step = Math.max(0, Math.min(index, steps.length - 1));
  steps.forEach((one, i) => one.classList.toggle("now", i === step));
  const view = shown().querySelector(`.view[data-steps~="${steps[step].dataset.step}"]`);
  if (scroll && view) view.scrollIntoView({ block: "center" });
}

function rate(mark) {
  if (!reading()) return;
  const steps = [...shown().querySelectorAll(".step")];
  if (!steps.length) return;
  ratings.change(image(), { [steps[step].dataset.step]: mark });
  draw();
  count();
  if (mark) choose(step + 1, step + 1 < steps.length);
}

// to another page of the folder, if it is there
function leave(id) {
  const link = document.getElementById(id);
  if (!link.hidden) link.click();
}

function flicker(on) { body.classList.toggle("show-second", on); }

function alternate() {
  if (alternating) {
    clearInterval(alternating);
    alternating = null;
  } else alternating = setInterval(() => flicker(), 700);
}

const keys = {
  n: () => go(1), ArrowRight: () => go(1), p: () => go(-1), ArrowLeft: () => go(-1),
  i: overview, Escape: overview,
  f: () => flicker(), a: alternate, o: () => body.classList.toggle("hide-contours"),
  d: () => body.classList.toggle("show-difference"), z: () => body.classList.toggle("zoom"),
  g: () => rate("good"), c: () => rate("check"), x: () => rate("exclude"), u: () => rate(""),
  l: () => { if (reading()) near.start(shown()); },
  s: () => document.getElementById("save").click(),
  N: () => leave("after"), P: () => leave("before"), G: () => leave("group"),
  "?": () => { const help = document.getElementById("keys"); help.open = !help.open; },
};
for (let i = 0; i < page.steps.length; i++) keys[i + 1] = () => choose(i, true);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const action = (near.open() ? near.keys : keys)[event.key];
  if (action && articles.length) {
    event.preventDefault();
    action();
  }
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (event.target.closest(".stack")) flicker();
  if (button && button.dataset.key) keys[button.dataset.key]();
  if (button && button.dataset.mark) {
    const one = button.closest(".step");
    choose([...one.parentNode.querySelectorAll(".step")].indexOf(one), false);
    rate(button.getAttribute("aria-pressed") === "true" ? "" : button.dataset.mark);
  }
});
document.addEventListener("change", (event) => {
  if (event.target.matches(".comment")) {
    ratings.change(image(), { comment: event.target.value });
    count();
  }
});

function follow() {
  const index = articles.findIndex((article) => "#" + article.id === decodeURIComponent(location.hash));
  if (index >= 0) open(index, true);
  // other places of the page are found by the browser
  else if (!location.hash) overview();
}
window.addEventListener("hashchange", follow);

// who else is in the folder
const others = window.participants || { labels: [], group: false };
const here = others.labels.indexOf(page.name);
for (const [id, label] of [["before", others.labels[here - 1]], ["after", others.labels[here + 1]]]) {
  const link = document.getElementById(id);
  if (here >= 0 && label) {
    link.href = encodeURIComponent(label) + ".html";
    link.textContent = (id === "before" ? "← " : "") + label + (id === "after" ? " →" : "");
    link.hidden = false;
  }
}
document.getElementById("group").hidden = !others.group;

const count = connect(false, draw);
draw();
if (articles.length === 1) open(0, false);
follow();
