// The interactive view of a report: a contact map on the left, the 20 x 20 couplings of the chosen pair on the right.
// Plain JavaScript and two canvases; no library and no network. The data stand in the page as JSON (see explorer.py).
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  if (!data.proteins.length) return;
  const GROUPED = "AFILVMWYDEKRHNQSTGPC";
  const find = (id) => document.getElementById(id);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const [mapCanvas, pairCanvas] = [find("map"), find("couplings")];
  const choice = { protein: data.proteins[0], map: "", i: 0, j: 0, order: GROUPED };

  function decode(protein) {
    if (protein.ready) return;
    for (const map of Object.values(protein.maps)) {
      const levels = new Uint16Array(bytes(map.values).buffer);
      map.score = (i, j) => map.low + (levels[i * protein.length + j] / 65535) * (map.high - map.low);
    }
    protein.known = protein.truth ? bytes(protein.truth) : null;
    protein.state = (i, j) => (protein.known ? protein.known[i * protein.length + j] : 2);
    if (protein.couplings) {
      const stored = protein.couplings;
      stored.levels = new Int8Array(bytes(stored.values).buffer);
      stored.scale = new Float32Array(bytes(stored.scales).buffer);
      stored.index = new Map();
      const pairs = new Uint16Array(bytes(stored.pairs).buffer);
      for (let n = 0; n < stored.scale.length; n += 1) stored.index.set(pairs[2 * n] * 65536 + pairs[2 * n + 1], n);
    }
    protein.ready = true;
  }

  // The coupling of amino acid a at i with b at j, or null where the page does not hold this pair.
  function coupling(protein, i, j) {
    const stored = protein.couplings;
    if (!stored) return null;
    const n = stored.index.get(Math.min(i, j) * 65536 + Math.max(i, j));
    if (n === undefined) return null;
    return (a, b) => (stored.scale[n] / 127) * stored.levels[n * 400 + (i < j ? a * 20 + b : b * 20 + a)];
  }

  const name = (protein, i) => `${protein.sequence[i]}${i + 1}`;
  const words = ["not in contact", "in contact", "not known"];

  function quantiles(protein, map) {
    if (map.range) return map.range;
    const shown = [];
    for (let i = 0; i < protein.length; i += 1)
      for (let j = i + data.separation; j < protein.length; j += 1) shown.push(map.score(i, j));
    shown.sort((x, y) => x - y);
    const at = (q) => (shown.length ? shown[Math.floor(q * (shown.length - 1))] : 0);
    map.range = [at(0.5), Math.max(at(0.995), at(0.5) + 1e-9)];
    return map.range;
  }

  function drawMap() {
    const protein = choice.protein, size = protein.length, map = protein.maps[choice.map];
    const [low, high] = quantiles(protein, map);
    const zoom = Math.max(1, Math.floor(1200 / size));
    mapCanvas.width = mapCanvas.height = size * zoom;
    const pen = mapCanvas.getContext("2d");
    for (let i = 0; i < size; i += 1) {
      for (let j = 0; j < size; j += 1) {
        let colour;
        if (Math.abs(i - j) < data.separation) colour = "#faf2d1";
        else if (j > i || !protein.known) {
          const grey = Math.round(255 * (1 - Math.min(1, Math.max(0, (map.score(i, j) - low) / (high - low)))));
          colour = `rgb(${grey},${grey},${grey})`;
        } else colour = ["#ffffff", "#1f59b3", "#faf2d1"][protein.state(i, j)];
        pen.fillStyle = colour;
        pen.fillRect(j * zoom, i * zoom, zoom, zoom);
      }
    }
    pen.strokeStyle = "#e4572e";
    pen.lineWidth = Math.max(2, zoom / 4);
    for (const [i, j] of [[choice.i, choice.j], [choice.j, choice.i]]) {
      pen.beginPath();
      pen.arc((j + 0.5) * zoom, (i + 0.5) * zoom, Math.max(9, 1.2 * zoom), 0, 7);
      pen.stroke();
    }
  }

  function drawPair() {
    const { protein, i, j, order } = choice, cell = 30, edge = 34;
    const values = coupling(protein, i, j);
    pairCanvas.width = pairCanvas.height = edge + 20 * cell + 4;
    const pen = pairCanvas.getContext("2d");
    pen.fillStyle = "#ffffff";
    pen.fillRect(0, 0, pairCanvas.width, pairCanvas.height);
    const map = protein.maps[choice.map];
    find("pair").textContent =
      `${name(protein, i)} and ${name(protein, j)}, ${Math.abs(i - j)} apart: score ${map.score(i, j).toFixed(4)}, ` +
      words[protein.state(i, j)];
    find("missing").textContent = values ? "" : protein.couplings
      ? "The couplings of this pair are not in the page (the best-scored pairs are): open the store for it."
      : "The store keeps no Jacobian: run predict with keep=[contacts,jacobian] to see couplings.";
    if (!values) return;
    let most = 1e-12;
    for (let a = 0; a < 20; a += 1) for (let b = 0; b < 20; b += 1) most = Math.max(most, Math.abs(values(a, b)));
    pen.font = "15px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    for (let row = 0; row < 20; row += 1) {
      const a = data.alphabet.indexOf(order[row]);
      for (const [x, y, here] of [[edge / 2, edge + (row + 0.5) * cell, i], [edge + (row + 0.5) * cell, edge / 2, j]]) {
        pen.fillStyle = protein.sequence[here] === order[row] ? "#e4572e" : "#1c2733";
        pen.fillText(order[row], x, y);
      }
      for (let column = 0; column < 20; column += 1) {
        const share = values(a, data.alphabet.indexOf(order[column])) / most;
        const pale = Math.round(255 * (1 - Math.abs(share)));
        pen.fillStyle = share > 0 ? `rgb(255,${pale},${pale})` : `rgb(${pale},${pale},255)`;
        pen.fillRect(edge + column * cell, edge + row * cell, cell - 1, cell - 1);
      }
    }
    const [row, column] = [order.indexOf(protein.sequence[i]), order.indexOf(protein.sequence[j])];
    if (row >= 0 && column >= 0) {
      pen.strokeStyle = "#1c2733";
      pen.lineWidth = 2;
      pen.strokeRect(edge + column * cell, edge + row * cell, cell - 1, cell - 1);
    }
    find("range").textContent = `red: favoured together, up to +${most.toFixed(3)}; blue: disfavoured. ` +
      `Rows: residue ${i + 1}, columns: residue ${j + 1}; the frame is the wild type.`;
    pairCanvas.value = (row, column) =>
      values(data.alphabet.indexOf(order[row]), data.alphabet.indexOf(order[column]));
    pairCanvas.place = (event) => {
      const box = pairCanvas.getBoundingClientRect(), scale = pairCanvas.width / box.width;
      return [event.clientY - box.top, event.clientX - box.left].map((at) => Math.floor((at * scale - edge) / cell));
    };
  }

  function ranked(protein, map) {
    if (map.ranking) return map.ranking;
    const all = [];
    for (let i = 0; i < protein.length; i += 1)
      for (let j = i + data.separation; j < protein.length; j += 1) all.push([map.score(i, j), i, j]);
    all.sort((x, y) => y[0] - x[0]);
    map.ranking = all.slice(0, Math.max(1, protein.length));
    return map.ranking;
  }

  function listPairs() {
    const protein = choice.protein, body = find("pairs").tBodies[0];
    body.replaceChildren();
    ranked(protein, protein.maps[choice.map]).forEach(([score, i, j], rank) => {
      const row = body.insertRow();
      const cells = [rank + 1, name(protein, i), name(protein, j), score.toFixed(4)];
      if (protein.known) cells.push(["no", "yes", "not known"][protein.state(i, j)]);
      else cells.push("");
      cells.forEach((text) => { row.insertCell().textContent = text; });
      row.dataset.pair = `${i}-${j}`;
      row.addEventListener("click", () => select(i, j));
    });
  }

  function select(i, j) {
    choice.i = i;
    choice.j = j;
    drawMap();
    drawPair();
    for (const row of find("pairs").tBodies[0].rows)
      row.className = row.dataset.pair === `${Math.min(i, j)}-${Math.max(i, j)}` ? "chosen" : "";
  }

  function show(protein, mapName, pair) {
    decode(protein);
    choice.protein = protein;
    choice.map = mapName in protein.maps ? mapName : Object.keys(protein.maps)[0];
    find("choose-map").replaceChildren(...Object.keys(protein.maps).map((key) => new Option(key, key, false, key === choice.map)));
    find("summary").textContent = `${protein.length} residues. ${protein.summary}`;
    listPairs();
    const best = ranked(protein, protein.maps[choice.map])[0] || [0, 0, 0];
    select(...(pair || [best[1], best[2]]));
  }

  const cellOf = (event) => {
    const box = mapCanvas.getBoundingClientRect(), size = choice.protein.length;
    return [event.clientY - box.top, event.clientX - box.left].map((at) =>
      Math.min(size - 1, Math.max(0, Math.floor((at / box.width) * size))));
  };
  mapCanvas.addEventListener("mousemove", (event) => {
    const [i, j] = cellOf(event), protein = choice.protein;
    find("readout").textContent = `${name(protein, i)} and ${name(protein, j)}: score ` +
      `${protein.maps[choice.map].score(i, j).toFixed(4)}, ${words[protein.state(i, j)]}`;
  });
  mapCanvas.addEventListener("click", (event) => {
    const [i, j] = cellOf(event);
    if (i !== j) select(Math.min(i, j), Math.max(i, j));
  });
  mapCanvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const last = choice.protein.length - 1, at = (value) => Math.min(last, Math.max(0, value));
    const [i, j] = [at(choice.i + step[0]), at(choice.j + step[1])];
    if (i !== j) select(i, j);
  });
  pairCanvas.addEventListener("mousemove", (event) => {
    if (!pairCanvas.value) return;
    const [row, column] = pairCanvas.place(event);
    if (row < 0 || column < 0 || row > 19 || column > 19) return;
    const { i, j, order } = choice;
    find("value").textContent = `${order[row]} at ${i + 1}, ${order[column]} at ${j + 1}: ${pairCanvas.value(row, column).toFixed(4)}`;
  });
  find("choose-protein").append(...data.proteins.map((protein, n) => new Option(protein.id, n)));
  find("choose-protein").addEventListener("change", (event) => show(data.proteins[event.target.value], choice.map));
  find("choose-map").addEventListener("change", (event) => show(choice.protein, event.target.value, [choice.i, choice.j]));
  find("choose-order").addEventListener("change", (event) => {
    choice.order = event.target.value === "model" ? data.alphabet : GROUPED;
    drawPair();
  });
  // A link to one pair, residues counted from 1: report.html#1TEN_A:12-57
  const [, wanted, first, second] = decodeURIComponent(location.hash).match(/^#(.+):(\d+)-(\d+)$/) || [];
  const linked = data.proteins.find((protein) => protein.id === wanted);
  const inside = linked && [first, second].every((at) => at >= 1 && at <= linked.length) && first !== second;
  if (linked) find("choose-protein").value = data.proteins.indexOf(linked);
  show(linked || data.proteins[0], "contacts", inside ? [first - 1, second - 1] : null);
})();
