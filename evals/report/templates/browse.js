"use strict";
(() => {
  const PAGE = 20;
  const byId = (id) => document.getElementById(id);

  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  // A list of what is in a block of JSON, a page at a time, with a filter for each field.
  const browse = (id, what, heading, fill) => {
    if (!byId(`${id}-data`)) return;
    const data = JSON.parse(byId(`${id}-data`).textContent);
    const all = data.rows;
    const form = byId(`${id}-filters`), list = byId(`${id}-list`);
    const count = byId(`${id}-count`), more = byId(`${id}-more`);
    const fields = [...form.querySelectorAll("select")].map((one) => one.name);
    let found = all, shown = 0;

    const card = (one) => {
      const made = element("details", undefined, "transcript");
      const summary = element("summary");
      summary.append(...heading(one));
      made.append(summary);
      made.addEventListener("toggle", () => {
        if (!made.open || made.dataset.filled) return;
        made.dataset.filled = "yes";
        fill(made, one, data);
      });
      return made;
    };

    const showMore = () => {
      const first = list.children.length;
      for (const one of found.slice(shown, shown + PAGE)) list.append(card(one));
      shown = Math.min(shown + PAGE, found.length);
      more.hidden = shown === found.length;
      count.textContent = `${found.length} of ${all.length} ${what}; ${shown} listed`;
      return list.children[first];
    };

    const filter = () => {
      const wanted = form.elements.contains.value.toLowerCase();
      const chosen = fields.map((field) => [field, form.elements[field].value]).filter(([, value]) => value);
      found = all.filter((one) =>
        chosen.every(([field, value]) => one[field] === value)
        && (!wanted || one.texts.some(([, text]) => text.toLowerCase().includes(wanted))));
      list.replaceChildren();
      shown = 0;
      showMore();
    };

    for (const field of fields) {
      for (const value of new Set(all.map((one) => one[field]))) {
        const option = element("option", value);
        option.value = value;
        form.elements[field].append(option);
      }
    }
    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", () => {
      const first = showMore();
      if (first) first.querySelector("summary").focus();
    });
    filter();
  };

  const texts = (made, one) => {
    for (const [name, text] of one.texts) made.append(element("h4", name), element("pre", text));
  };

  browse("transcripts", "transcripts",
    (one) => [element("strong", one.label), ` · ${one.evaluation} · ${one.group} · `,
      element("span", one.verdict, "muted"), ` · ${one.id}`],
    (made, one) => {
      const numbers = Object.entries(one.numbers).map(([name, value]) => `${name} ${value}`);
      made.append(element("p", numbers.join(" · "), "muted"));
      texts(made, one);
    });

  const shown = (value) => value === null ? "unscored" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);

  browse("items", "items",
    (one) => [element("strong", one.id), ` · ${one.evaluation} · ${one.group} · `,
      element("span", one.texts.length ? one.texts[0][1].slice(0, 90) : "", "muted")],
    (made, one, data) => {
      texts(made, one);
      const of = data.of[one.evaluation];
      const table = element("table"), head = element("tr");
      head.append(element("th", "model"), ...of.columns.map((name) => element("th", name, "number")));
      table.append(head);
      one.values.forEach((values, place) => {
        if (!values) return;
        const row = element("tr"), orders = values.slice(1);
        const flips = new Set(orders.map((value) => value > 0)).size > 1;
        row.append(element("td", of.models[place] + (flips ? " (order decides)" : ""), "label"));
        row.append(...values.map((value) => element("td", shown(value), "number")));
        table.append(row);
      });
      const wide = element("div", undefined, "wide");
      wide.tabIndex = 0;
      wide.append(table);
      made.append(wide);
    });
})();
