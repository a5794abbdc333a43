// Points on a canvas: drawn, zoomed, and found by pointer and keyboard. What they mean is the view's business.

const MARGIN = 24;
const MOST_ZOOM = 60;
// Pixels around the pointer in which a point is found.
const REACH = 18;
const CONE = Math.PI / 3;

// points: [{ x, y }]. paint(context, point, x, y): draws one; later ones lie above. chosen: called with a point or null.
export function plane(canvas, { points, paint, order, chosen, open }) {
  const context = canvas.getContext("2d");
  const { left, right, bottom, top } = boundsOf(order());
  const middle = { zoom: 1, x: (left + right) / 2, y: (bottom + top) / 2 };
  let view = { ...middle }, width = 0, height = 0, current = null, waiting = 0;
  // Pixels of one unit, the same on both axes: a distance means the same in every direction.
  const size = () => view.zoom * Math.min((width - 2 * MARGIN) / (right - left || 1), (height - 2 * MARGIN) / (top - bottom || 1));
  const at = ({ x, y }) => [width / 2 + (x - view.x) * size(), height / 2 - (y - view.y) * size()];

  function draw() {
    if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; paintAll(); });
  }

  function paintAll() {
    const scale = devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    for (const point of order()) {
      const [x, y] = at(point);
      if (x > -20 && y > -20 && x < width + 20 && y < height + 20) paint(context, point, x, y, point === current);
    }
    if (current) paint(context, current, ...at(current), true);
  }

  function choose(point) {
    if (point === current) return;
    current = point;
    draw();
    chosen(point);
  }

  function zoom(factor, x = width / 2, y = height / 2) {
    const before = size();
    view.zoom = Math.min(MOST_ZOOM, Math.max(1, view.zoom * factor));
    // What lies under the pointer stays there.
    const moved = 1 / before - 1 / size();
    view.x += (x - width / 2) * moved;
    view.y -= (y - height / 2) * moved;
    if (view.zoom === 1) return whole();
    draw();
  }

  function whole() { view = { ...middle }; draw(); }

  // Brings a point into sight.
  function show(point) {
    const [x, y] = at(point);
    if (x < 0 || y < 0 || x > width || y > height) Object.assign(view, { x: point.x, y: point.y });
    choose(point);
    draw();
  }

  function nearest(x, y, reach = REACH) {
    let found = null, least = reach ** 2;
    for (const point of points) {
      const [px, py] = at(point), distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [found, least] = [point, distance];
    }
    return found;
  }

  // The next point in the direction of an arrow key: near, and not far aside.
  function beside(from, dx, dy) {
    const [x, y] = at(from);
    let found = null, least = Infinity;
    for (const point of points) {
      const [px, py] = at(point), along = (px - x) * dx + (py - y) * dy, aside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      if (point === from || along <= 0.5 || Math.atan2(aside, along) > CONE) continue;
      const cost = along + 2 * aside;
      if (cost < least) [found, least] = [point, cost];
    }
    return found;
  }

  // --- pointer and keyboard ------------------------------------------------------------------------

  const held = new Map();
  let moved = 0;
  const place = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener("pointerdown", (event) => { held.set(event.pointerId, place(event)); moved = 0; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    const now = place(event), before = held.get(event.pointerId);
    if (!before) return choose(nearest(...now));
    held.set(event.pointerId, now);
    const other = [...held].find(([id]) => id !== event.pointerId)?.[1];
    if (other) zoom(distance(now, other) / Math.max(1, distance(before, other)), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    else {
      view.x -= (now[0] - before[0]) / size();
      view.y += (now[1] - before[1]) / size();
      draw();
    }
    moved += distance(now, before);
  });
  const release = (event) => {
    if (held.delete(event.pointerId) && event.type === "pointerup" && moved < 4) {
      const point = nearest(...place(event));
      const again = point && point === current && event.pointerType === "mouse";
      choose(point);
      if (again) open(point);
    }
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("wheel", (event) => {
    // At the end of the zoom the page scrolls on.
    if (event.deltaY > 0 && view.zoom === 1) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...place(event));
  }, { passive: false });
  canvas.addEventListener("dblclick", whole);
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = steps[event.key];
    if (step) show(current ? beside(current, ...step) || current : nearest(width / 2, height / 2, Infinity));
    else if (event.key === "Enter" && current) open(current);
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") whole();
    else return;
    event.preventDefault();
  });

  const observer = new ResizeObserver(([{ contentRect }]) => { [width, height] = [contentRect.width, contentRect.height]; draw(); });
  observer.observe(canvas);
  return { draw, zoom, whole, show, close: () => observer.disconnect() };
}

const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);

function boundsOf(points) {
  const found = { left: Infinity, right: -Infinity, bottom: Infinity, top: -Infinity };
  for (const { x, y } of points) {
    found.left = Math.min(found.left, x);
    found.right = Math.max(found.right, x);
    found.bottom = Math.min(found.bottom, y);
    found.top = Math.max(found.top, y);
  }
  return found;
}
