"use strict";
// Sort and filter tables, draw densities on demand.  Without this script every number is still there.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const [WIDTH, HEIGHT, LEFT, TOP, BOTTOM] = [640, 240, 10, 24, 28];

  const compare = (a, b) => {
    // Numbers are compared as numbers, anything else as texts.
    const [x, y] = [Number(a), Number(b)];
    return Number.isFinite(x) && Number.isFinite(y) ? x - y : a.localeCompare(b, undefined, { numeric: true });
  };

  function sort(table, column, heading) {
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const body = table.tBodies[0];
    for (const open of body.querySelectorAll(".open[aria-expanded=true]")) toggle(open);
    const key = (row) => row.cells[column].dataset.key;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      // An unknown value comes last in either direction.
      if (x === "" || y === "") return (x === "") - (y === "");
      return ascending ? compare(x, y) : compare(y, x);
    });
    body.append(...rows);
  }

  function filter(tools, table) {
    // A table has the filters that its tools have.
    const [name, kind, outcome] = ["name", "kind", "verdict"].map((by) => tools.querySelector(`.by-${by}`)?.value ?? "");
    const wanted = name.toLowerCase();
    let shown = 0;
    for (const open of table.querySelectorAll(".open[aria-expanded=true]")) toggle(open);
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) {
      const fits = row.querySelector(".name").textContent.toLowerCase().includes(wanted) &&
        (!kind || row.dataset.kind === kind) && (!outcome || row.dataset.outcome === outcome);
      row.hidden = !fits;
      shown += fits;
    }
    tools.querySelector(".shown").textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
  }

  function draw(parent, tag, attributes, text) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }

  function steps(edges, density, x, y) {
    const path = [`M${x(edges[0])} ${y(0)}`];
    density.forEach((value, i) => path.push(`V${y(value)}H${x(edges[i + 1])}`));
    return path.concat(`V${y(0)}`).join("");
  }

  function picture(d) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("class", "density");
    svg.setAttribute("role", "img");
    const edges = [...d.edges, ...(d.start_edges || [])];
    const [low, high] = [Math.min(...edges), Math.max(...edges)];
    const top = 1.08 * Math.max(1, ...d.data, ...(d.start || []), ...(d.lognormal || []));
    const x = (value) => (LEFT + (WIDTH - 2 * LEFT) * (value - low) / (high - low || 1)).toFixed(1);
    const y = (value) => (HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * Math.min(value, top) / top).toFixed(1);
    const middle = d.edges.slice(1).map((edge, i) => (edge + d.edges[i]) / 2);
    draw(svg, "path", { class: "area", d: steps(d.edges, d.data, x, y) });
    if (d.start) draw(svg, "path", { class: "before", d: steps(d.start_edges, d.start, x, y) });
    for (const law of ["rival", "lognormal"]) {
      if (d[law]) draw(svg, "polyline", { class: law, points: d[law].map((v, i) => `${x(middle[i])},${y(v)}`).join(" ") });
    }
    draw(svg, "path", { class: "axis", d: `M${LEFT} ${HEIGHT - BOTTOM}H${WIDTH - LEFT}` });
    for (let tick = Math.ceil(low); tick <= high; tick += Math.max(1, Math.ceil((high - low) / 12))) {
      draw(svg, "text", { x: x(tick), y: HEIGHT - 10, "text-anchor": "middle" }, tick);
    }
    let left = LEFT;
    const entries = [["area", "data"], ["before", "at the start"], ["lognormal", "best lognormal"], ["rival", d.law]];
    for (const [name, label] of entries) {
      if (name === "before" && !d.start || name === "rival" && !d.rival || name === "lognormal" && !d.lognormal) continue;
      draw(svg, "path", { class: name, d: name === "area" ? `M${left} 6h18v10h-18z` : `M${left} 11h18` });
      left += 24 + draw(svg, "text", { x: left + 24, y: 15 }, label).textContent.length * 7 + 18;
    }
    draw(svg, "title", {}, "density of ln w");
    return svg;
  }

  function toggle(button) {
    const row = button.closest("tr");
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) return row.nextElementSibling.remove();
    const run = row.closest("table").dataset.run;
    const density = densities(run)[row.id.slice(run.length + 1)];
    const detail = document.createElement("tr");
    const cell = detail.insertCell();
    cell.colSpan = row.cells.length;
    cell.append(density ? picture(density) : "no values");
    row.after(detail);
  }

  const cache = {};
  const densities = (run) => cache[run] ??= JSON.parse(document.getElementById(`data-${run}`).textContent);

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      heading.querySelector("button").addEventListener("click", () => sort(table, column, heading));
    });
  }
  for (const tools of document.querySelectorAll(".tools")) {
    const table = tools.closest("section").querySelector("table");
    tools.addEventListener("input", () => filter(tools, table));
  }
  for (const table of document.querySelectorAll("table.streams")) {
    table.addEventListener("click", (event) => {
      const button = event.target.closest(".open");
      if (button) toggle(button);
    });
  }
})();
