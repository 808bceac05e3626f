// Text whose contrast to its ground is below 4.5 (WCAG AA): one line for each kind.
(() => {
  const rgb = c => { const m = c.match(/[\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = c => { const f = c.slice(0, 3).map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
  const ground = e => { const stack = []; for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); stack.push(c); if (c[3] === 1) break; } let found = [255, 255, 255, 1]; for (const c of stack.reverse()) found = over(c, found); return found; };
  const said = new Map();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    const style = getComputedStyle(e), back = ground(e), text = over(rgb(style.color), back);
    const [a, b] = [light(text), light(back)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) { const key = e.tagName + '.' + e.className + ' ' + style.color; if (!said.has(key)) said.set(key, ratio.toFixed(2) + ' ' + key + ': ' + walk.currentNode.data.trim().slice(0, 40)); }
  }
  return [...said.values()];
})()
