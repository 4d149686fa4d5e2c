// Labels pictures one after the other: boxes by mouse, finger or keys. What a release believes is there already.
"use strict";
(() => {
  const root = document.getElementById("labeller");
  if (!root) return;
  const SVG = "http://www.w3.org/2000/svg";
  const csrf = document.querySelector('meta[name="csrf"]').content;
  const find = (id) => document.getElementById(id);
  const svg = find("canvas"), input = find("class-name"), trouble = find("trouble");
  const queue = JSON.parse(root.dataset.queue);
  const names = JSON.parse(root.dataset.names);
  const COLOURS = 6, LEAST_PX = 6, STEP = 0.01;
  const loaded = new Map();

  let at = 0;                 // which picture of the queue
  let picture = null;         // {info, url}
  let boxes = [];             // {name, left, top, right, bottom, believed, confidence}, as shares of the picture
  let chosen = -1;            // which box, or -1
  let current = names[0] || "";
  let past = [];              // what undo returns to
  let drag = null;
  let busy = false;

  // --- pictures ---------------------------------------------------------------------------------------------------

  function load(id) {
    if (!loaded.has(id)) {
      const found = Promise.all([
        fetch(`/samples/${id}`, { headers: { Accept: "application/json" } }).then(checked).then((answer) => answer.json()),
        fetch(`/samples/${id}/picture`).then(checked).then((answer) => answer.blob()),
      ]).then(([info, blob]) => ({ info, url: URL.createObjectURL(blob) }));
      loaded.set(id, found);
      found.catch(() => loaded.delete(id));
    }
    return loaded.get(id);
  }

  async function checked(answer) {
    if (answer.ok) return answer;
    const said = await answer.json().catch(() => ({}));
    throw new Error(said.error || `${answer.status}`);
  }

  async function show(number) {
    at = Math.max(0, number);
    if (at >= queue.length) {
      root.hidden = true;
      find("finished").hidden = false;
      return;
    }
    root.hidden = false;
    find("finished").hidden = true;
    try {
      picture = await load(queue[at]);
      trouble.hidden = true;
    } catch (error) {
      return tell(error);
    }
    const known = picture.info.labels || picture.info.detections;
    boxes = known.map((box) => ({
      name: box.name, believed: !picture.info.labels, confidence: box.confidence,
      left: box.x - box.width / 2, top: box.y - box.height / 2, right: box.x + box.width / 2, bottom: box.y + box.height / 2,
    }));
    past = [];
    chosen = -1;
    await measure();
    draw();
    root.dataset.shown = queue[at];
    if (at + 1 < queue.length) load(queue[at + 1]).catch(() => {});
    for (const [id, found] of loaded) {
      if (Math.abs(queue.indexOf(id) - at) > 3) {
        loaded.delete(id);
        found.then((one) => URL.revokeObjectURL(one.url)).catch(() => {});
      }
    }
  }

  function measure() {
    if (picture.size) return null;
    return new Promise((resolve) => {
      const image = new Image();
      image.onload = () => { picture.size = [image.naturalWidth, image.naturalHeight]; resolve(); };
      image.onerror = () => { picture.size = [picture.info.width || 4, picture.info.height || 3]; resolve(); };
      image.src = picture.url;
    });
  }

  // --- drawing ----------------------------------------------------------------------------------------------------

  function make(kind, attributes, parent, text) {
    const made = document.createElementNS(SVG, kind);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  function colour(name) {
    const number = names.indexOf(name);
    return `series-${(number < 0 ? names.length : number) % COLOURS}`;
  }

  function draw() {
    const [width, height] = picture.size;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren();
    make("image", { href: picture.url, width, height }, svg);
    const unit = 1 / (svg.getScreenCTM()?.a || 1);    // of the picture, for one pixel of the screen
    boxes.forEach((box, index) => {
      const group = make("g", { class: `mark ${colour(box.name)}${box.believed ? " believed" : ""}${index === chosen ? " chosen" : ""}` }, svg);
      const [x, y] = [box.left * width, box.top * height];
      const [w, h] = [(box.right - box.left) * width, (box.bottom - box.top) * height];
      make("rect", { class: "outline", x, y, width: w, height: h, "data-box": index, "data-edge": "move" }, group);
      const text = title(box), size = 13 * unit;
      const over = y > 20 * unit ? y - 18 * unit : y;
      const back = make("rect", { class: "tag-back", x, y: over, width: 0, height: 18 * unit }, group);
      const tag = make("text", { class: "tag", x: x + 5 * unit, y: over + 13.5 * unit, "font-size": size }, group, text);
      back.setAttribute("width", tag.getComputedTextLength() + 10 * unit);
      if (index !== chosen) return;
      const grip = (matchMedia("(pointer: coarse)").matches ? 22 : 12) * unit;
      for (const edge of ["nw", "n", "ne", "e", "se", "s", "sw", "w"]) {
        const gx = edge.includes("w") ? x : edge.includes("e") ? x + w : x + w / 2;
        const gy = edge.includes("n") ? y : edge.includes("s") ? y + h : y + h / 2;
        make("rect", { class: `grip ${edge}`, x: gx - grip / 2, y: gy - grip / 2, width: grip, height: grip, "data-box": index, "data-edge": edge }, group);
      }
    });
    list();
  }

  function title(box) {
    const sure = box.believed && box.confidence !== undefined ? ` ${Math.round(100 * box.confidence)} %` : "";
    return `${box.name || "?"}${sure}`;
  }

  function list() {
    const rows = boxes.map((box, index) => {
      const row = document.createElement("li");
      const choice = document.createElement("button");
      choice.type = "button";
      choice.className = "quiet";
      choice.textContent = title(box);
      choice.setAttribute("aria-pressed", String(index === chosen));
      choice.addEventListener("click", () => choose(index));
      const gone = document.createElement("button");
      gone.type = "button";
      gone.className = "quiet";
      gone.textContent = "×";
      gone.setAttribute("aria-label", `Remove ${box.name}`);
      gone.addEventListener("click", () => { chosen = index; remove(); });
      const dot = document.createElement("i");
      dot.className = colour(box.name);
      row.append(dot, choice, gone);
      return row;
    });
    find("boxes").replaceChildren(...rows);
    find("none").hidden = boxes.length > 0;
    const active = chosen >= 0 ? boxes[chosen].name : current;
    find("classes").replaceChildren(...names.slice(0, 30).map((name, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "quiet";
      const dot = document.createElement("i");
      dot.className = colour(name);
      button.append(dot, name);
      if (index < 9) {
        const key = document.createElement("kbd");
        key.textContent = String(index + 1);
        button.append(key);
      }
      button.setAttribute("aria-pressed", String(name === active));
      button.addEventListener("click", () => classify(name));
      return button;
    }));
    find("count").textContent = `${at + 1} / ${queue.length}`;
    const info = picture.info;
    find("about").textContent = [info.camera || info.device, info.labelled_by && `✓ ${info.labelled_by}`].filter(Boolean).join(" · ");
    find("undo").disabled = past.length === 0 && at === 0;
    find("back").disabled = at === 0;
  }

  // --- changes ----------------------------------------------------------------------------------------------------

  function remember() {
    past.push(JSON.stringify([boxes, chosen]));
    if (past.length > 100) past.shift();
  }

  function undo() {
    if (past.length) {
      [boxes, chosen] = JSON.parse(past.pop());
      draw();
    } else if (at > 0) {
      show(at - 1);
    }
  }

  function choose(index) {
    chosen = index;
    draw();
  }

  function classify(name) {
    if (!names.includes(name)) names.push(name);
    current = name;
    if (chosen >= 0 && boxes[chosen].name !== name) {
      remember();
      Object.assign(boxes[chosen], { name, believed: false });
    }
    draw();
  }

  function remove() {
    if (chosen < 0) return;
    remember();
    boxes.splice(chosen, 1);
    chosen = Math.min(chosen, boxes.length - 1);
    draw();
  }

  function add(left, top, right, bottom) {
    remember();
    boxes.push({ name: current, left, top, right, bottom, believed: false });
    chosen = boxes.length - 1;
    draw();
    if (!current) input.focus();
  }

  function nudge(dx, dy, sizes) {
    const box = boxes[chosen];
    remember();
    if (sizes) {
      box.right = within(box.right + dx, box.left + STEP, 1);
      box.bottom = within(box.bottom + dy, box.top + STEP, 1);
    } else {
      shift(box, box, dx, dy);
    }
    box.believed = false;
    draw();
  }

  function shift(box, from, dx, dy) {
    dx = within(dx, -from.left, 1 - from.right);
    dy = within(dy, -from.top, 1 - from.bottom);
    Object.assign(box, { left: from.left + dx, right: from.right + dx, top: from.top + dy, bottom: from.bottom + dy });
  }

  function within(value, least, most) {
    return Math.min(most, Math.max(least, value));
  }

  // --- saving -----------------------------------------------------------------------------------------------------

  async function post(path, body) {
    const headers = { "Content-Type": "application/json", Accept: "application/json", "X-CSRF-Token": csrf };
    return checked(await fetch(path, { method: "POST", headers, body: JSON.stringify(body) }));
  }

  async function save() {
    if (busy || !picture) return;
    const nameless = boxes.findIndex((box) => !box.name);
    if (nameless >= 0) {
      chosen = nameless;
      draw();
      input.focus();
      return;
    }
    busy = true;
    try {
      const labels = boxes.map((box) => ({
        name: box.name, x: (box.left + box.right) / 2, y: (box.top + box.bottom) / 2,
        width: box.right - box.left, height: box.bottom - box.top,
      }));
      const answer = await post(`/samples/${queue[at]}/labels`, { boxes: labels });
      picture.info = await answer.json();
      await show(at + 1);
    } catch (error) {
      tell(error);
    } finally {
      busy = false;
    }
  }

  async function discard() {
    if (busy || !picture || !window.confirm(find("discard").textContent.trim() + "?")) return;
    busy = true;
    try {
      await post("/samples/several", { ids: [queue[at]], action: "discard" });
      loaded.delete(queue[at]);
      queue.splice(at, 1);
      await show(at);
    } catch (error) {
      tell(error);
    } finally {
      busy = false;
    }
  }

  function tell(error) {
    trouble.textContent = error.message;
    trouble.hidden = false;
  }

  // --- mouse and finger -------------------------------------------------------------------------------------------

  function place(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return [within(point.x / picture.size[0], 0, 1), within(point.y / picture.size[1], 0, 1)];
  }

  svg.addEventListener("pointerdown", (event) => {
    if (!picture || event.button > 0) return;
    event.preventDefault();
    svg.focus({ preventScroll: true });
    svg.setPointerCapture(event.pointerId);
    const [x, y] = place(event);
    const edge = event.target.dataset?.edge;
    drag = { x, y, edge: edge || "new", moved: false, screen: [event.clientX, event.clientY] };
    if (edge) {
      const index = Number(event.target.dataset.box);
      drag.index = smallest(x, y, edge, index);
      drag.from = { ...boxes[drag.index] };
      if (chosen !== drag.index) choose(drag.index);
    }
  });

  function smallest(x, y, edge, index) {
    if (edge !== "move" || index === chosen) return index;
    const inside = boxes.map((box, number) => ({ box, number }))
      .filter(({ box }) => box.left <= x && x <= box.right && box.top <= y && y <= box.bottom)
      .sort((a, b) => area(a.box) - area(b.box));
    return inside.length ? inside[0].number : index;
  }

  function area(box) {
    return (box.right - box.left) * (box.bottom - box.top);
  }

  svg.addEventListener("pointermove", (event) => {
    if (!drag) return;
    if (!drag.moved && Math.hypot(event.clientX - drag.screen[0], event.clientY - drag.screen[1]) < LEAST_PX) return;
    const [x, y] = place(event);
    if (!drag.moved) {
      drag.moved = true;
      if (drag.edge === "new") {
        add(drag.x, drag.y, drag.x, drag.y);
        drag.index = boxes.length - 1;
        drag.from = { ...boxes[drag.index] };
      } else {
        remember();
      }
    }
    const box = boxes[drag.index];
    box.believed = false;
    if (drag.edge === "new") {
      Object.assign(box, { left: Math.min(x, drag.x), right: Math.max(x, drag.x), top: Math.min(y, drag.y), bottom: Math.max(y, drag.y) });
    } else if (drag.edge === "move") {
      shift(box, drag.from, x - drag.x, y - drag.y);
    } else {
      const size = 0.002;
      if (drag.edge.includes("w")) box.left = Math.min(x, box.right - size);
      if (drag.edge.includes("e")) box.right = Math.max(x, box.left + size);
      if (drag.edge.includes("n")) box.top = Math.min(y, box.bottom - size);
      if (drag.edge.includes("s")) box.bottom = Math.max(y, box.top + size);
    }
    draw();
  });

  svg.addEventListener("pointerup", () => {
    if (drag && drag.edge === "new") {
      if (!drag.moved) choose(-1);
      else if (area(boxes[drag.index]) < 1e-5) undo();
    }
    drag = null;
  });
  svg.addEventListener("pointercancel", () => {
    if (drag && drag.moved) undo();
    drag = null;
  });

  // --- keys -------------------------------------------------------------------------------------------------------

  const ARROWS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
  const KEYS = {
    Enter: save, n: () => { remember(); boxes = []; chosen = -1; save(); }, s: () => show(at + 1), b: () => show(at - 1), u: undo,
    x: remove, Delete: remove, Backspace: remove, Escape: () => choose(-1), a: () => add(0.4, 0.4, 0.6, 0.6),
    c: () => { input.focus(); input.select(); },
    j: () => boxes.length && choose((chosen + 1) % boxes.length),
    k: () => boxes.length && choose((chosen <= 0 ? boxes.length : chosen) - 1),
  };

  document.addEventListener("keydown", (event) => {
    const target = event.target;
    if (!picture || root.hidden || target.matches("input, textarea, select, summary, a")) return;
    if (target.matches("button") && (event.key === "Enter" || event.key === " ")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if ((event.ctrlKey || event.metaKey) && key === "z") {
      event.preventDefault();
      return undo();
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (key in ARROWS && chosen >= 0) {
      event.preventDefault();
      nudge(...ARROWS[key], event.shiftKey);
    } else if (key >= "1" && key <= "9" && names[Number(key) - 1]) {
      classify(names[Number(key) - 1]);
    } else if (key in KEYS) {
      event.preventDefault();
      KEYS[key]();
    }
  });

  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") svg.focus();
  });
  find("new-class").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = input.value.trim();
    if (name) classify(name);
    input.value = "";
    svg.focus();
  });
  find("save").addEventListener("click", save);
  find("nothing").addEventListener("click", KEYS.n);
  find("back").addEventListener("click", KEYS.b);
  find("skip").addEventListener("click", KEYS.s);
  find("undo").addEventListener("click", undo);
  find("discard").addEventListener("click", discard);
  window.addEventListener("resize", () => { if (picture && !root.hidden) draw(); });

  svg.focus({ preventScroll: true });
  show(0);
})();
