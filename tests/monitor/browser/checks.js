// What people who cannot see, use no mouse, or hold a phone need of a page. Returns a sentence for each fault.
() => {
  const faults = [];
  const found = (selector) => [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility());
  const name = (one) => `<${one.tagName.toLowerCase()}> ${(one.textContent || one.id || one.name || "").trim().slice(0, 40)}`;
  const fault = (one, what) => faults.push(`${name(one)}: ${what}`);

  if (document.documentElement.lang !== "en") faults.push("the page has no language");
  if (!document.title) faults.push("the page has no title");
  if (found("h1").length !== 1) faults.push(`${found("h1").length} first-level headings`);
  if (found("main").length !== 1) faults.push("no single main part");
  if (document.querySelector("a").getAttribute("href") !== "#main") faults.push("the first link does not skip to the content");

  let level = 0;
  for (const heading of found("h1, h2, h3, h4, h5, h6")) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) fault(heading, `level ${next} after ${level}`);
    level = next;
  }

  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  for (const id of new Set(ids.filter((one, index) => ids.indexOf(one) !== index))) faults.push(`id ${id} twice`);
  for (const one of document.querySelectorAll("[aria-labelledby], [aria-describedby]")) {
    const names = `${one.getAttribute("aria-labelledby") ?? ""} ${one.getAttribute("aria-describedby") ?? ""}`;
    for (const id of names.split(" ").filter(Boolean)) if (!ids.includes(id)) fault(one, `is named by #${id}, which is not there`);
  }

  for (const image of document.images) {
    if (!image.hasAttribute("alt")) fault(image, "no alternative text");
    if (!image.getAttribute("width") || !image.getAttribute("height")) fault(image, "no size before it loads");
  }
  for (const field of found("input:not([type=hidden]), select, textarea")) {
    if (!field.labels.length && !field.ariaLabel) fault(field, `no label (${field.name})`);
  }
  for (const one of found("a[href], button, summary")) {
    const says = one.ariaLabel || one.textContent.trim() || [...one.querySelectorAll("img")].map((image) => image.alt).join("");
    if (!says) fault(one, "no name to be read out");
  }
  for (const one of found("button, .button, input:not([type=hidden], [type=checkbox], [type=radio]), select")) {
    if (one.getBoundingClientRect().height < 24) fault(one, "too small to hit (WCAG 2.5.8)");
  }
  for (const nav of found("nav")) if (!nav.ariaLabel && !nav.hasAttribute("aria-labelledby")) fault(nav, "no name");
  for (const table of found("table")) {
    if (!table.caption) fault(table, "no caption");
    for (const cell of table.querySelectorAll("th")) if (!cell.scope) fault(cell, "no scope");
  }

  // Contrast as it comes out, whatever rules led to it.
  const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [red, green, blue] = parts(colour).map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ground = (one) => {
    for (let each = one; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (parts(colour)[3] !== 0) return colour;
    }
    return getComputedStyle(document.documentElement).colorScheme.includes("dark") && matchMedia("(prefers-color-scheme: dark)").matches
      ? "rgb(0, 0, 0)" : "rgb(255, 255, 255)";
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (seen.has(one) || !walker.currentNode.data.trim() || !one.checkVisibility() || one.closest("svg, script, style")) continue;
    seen.add(one);
    const [dark, light] = [luminance(getComputedStyle(one).color), luminance(ground(one))].sort((a, b) => a - b);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < 4.5) fault(one, `contrast ${contrast.toFixed(2)}`);
  }

  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 0) {
    const culprits = found("body *").filter((one) => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest(".scroll"));
    faults.push(`scrolls ${wide} px sideways: ${culprits.slice(0, 3).map(name).join("; ")}`);
  }
  return faults;
}
