const place = "batteries " + location.pathname, named = new Map();
for (const each of document.querySelectorAll("a, th button, summary, .scroll")) {
  const said = each.getAttribute("aria-label") ?? each.textContent.trim();
  const name = [each.closest("section")?.id, each.tagName, said].join("/");
  let key = name;
  for (let number = 2; named.has(key); number++) key = name + "/" + number;
  named.set(key, each);
}
const heads = [...document.querySelectorAll("h2, h3")];
const topOf = (head) => head.getBoundingClientRect().top;
const before = JSON.parse(sessionStorage.getItem(place) ?? "null");
document.documentElement.style.scrollBehavior = "auto";
history.scrollRestoration = "manual";
if (before) {
  for (const [key, down] of before.sorted) for (let click = 0; click <= down; click++) named.get(key)?.click();
  for (const key of before.open) if (named.has(key)) named.get(key).parentElement.open = true;
  for (const [key, left] of before.aside) if (named.has(key)) named.get(key).scrollLeft = left;
  named.get(before.focus)?.focus({ preventScroll: true });
  const head = heads.find((each) => each.textContent === before.head);
  scrollTo(0, head ? scrollY + topOf(head) - before.top : before.top);
}
addEventListener("pagehide", () => {
  const all = [...named], head = heads.findLast((each) => topOf(each) <= innerHeight / 2);
  const sorted = all.flatMap(([key, each]) => {
    const how = each.closest("th")?.getAttribute("aria-sort") ?? "none";
    return how === "none" ? [] : [[key, Number(how === "descending")]];
  });
  const open = all.flatMap(([key, each]) => (each.tagName === "SUMMARY" && each.parentElement.open ? [key] : []));
  const aside = all.flatMap(([key, each]) => (each.scrollLeft ? [[key, each.scrollLeft]] : []));
  const focus = all.find(([, each]) => each === document.activeElement)?.[0];
  const state = { sorted, open, aside, focus, head: head?.textContent, top: head ? topOf(head) : scrollY };
  sessionStorage.setItem(place, JSON.stringify(state));
});
