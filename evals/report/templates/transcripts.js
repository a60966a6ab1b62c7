"use strict";
(() => {
  const PAGE = 20;
  const all = JSON.parse(document.getElementById("transcript-data").textContent);
  const form = document.getElementById("transcript-filters");
  const list = document.getElementById("transcript-list");
  const count = document.getElementById("transcript-count");
  const more = document.getElementById("transcript-more");
  const fields = ["evaluation", "arm", "group", "verdict"];
  let found = all, shown = 0;

  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  const fill = (field) => {
    const select = form.elements[field];
    for (const value of new Set(all.map((one) => one[field]))) {
      const option = element("option", value);
      option.value = value;
      select.append(option);
    }
  };

  const card = (one) => {
    const made = element("details", undefined, "transcript");
    const summary = element("summary");
    summary.append(element("strong", one.label), ` · ${one.evaluation} · ${one.group} · `);
    summary.append(element("span", one.verdict, "muted"), ` · ${one.id}`);
    made.append(summary);
    made.addEventListener("toggle", () => {
      if (!made.open || made.dataset.filled) return;
      made.dataset.filled = "yes";
      const numbers = Object.entries(one.numbers).map(([name, value]) => `${name} ${value}`);
      made.append(element("p", numbers.join(" · "), "muted"));
      for (const [name, text] of one.texts) {
        made.append(element("h4", name), element("pre", text));
      }
    });
    return made;
  };

  const showMore = () => {
    const first = list.children.length;
    for (const one of found.slice(shown, shown + PAGE)) list.append(card(one));
    shown = Math.min(shown + PAGE, found.length);
    more.hidden = shown === found.length;
    count.textContent = `${found.length} of ${all.length} transcripts; ${shown} listed`;
    return list.children[first];
  };

  const filter = () => {
    const wanted = form.elements.contains.value.toLowerCase();
    found = all.filter((one) =>
      fields.every((field) => !form.elements[field].value || one[field] === form.elements[field].value)
      && (!wanted || one.texts.some(([, text]) => text.toLowerCase().includes(wanted))));
    list.replaceChildren();
    shown = 0;
    showMore();
  };

  fields.forEach(fill);
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const first = showMore();
    if (first) first.querySelector("summary").focus();
  });
  filter();
})();
