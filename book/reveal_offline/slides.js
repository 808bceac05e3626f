// Formulas first, then the sizes: a slide that is too full gets smaller letters, a figure takes the room that is left.
const ROOM = 690, LEAST = 60, FIGURE = 240, LARGER = 1.7;

function fit(slide) {
  const places = [slide, slide.parentElement].map(one => [one, one.style.cssText]);
  places.forEach(([one]) => { one.style.cssText = 'display: block !important; height: auto; transform: none; top: 0'; });
  const figures = [...slide.querySelectorAll('img')];
  slide.querySelectorAll('pre').forEach(one => {  // printed columns stay columns
    const longest = Math.max(...one.textContent.split('\n').map(line => line.length));
    one.style.fontSize = `${Math.max(0.5, Math.min(0.75, 66 / longest)).toFixed(3)}em`;
  });
  let size = 100;
  const fits = () => {
    slide.style.fontSize = `${size}%`;
    figures.forEach(one => { one.style.display = 'none'; });
    const left = (ROOM - slide.offsetHeight) / Math.max(1, figures.length);
    figures.forEach(one => {
      one.style.height = `${Math.max(FIGURE, Math.min(left, LARGER * one.naturalHeight))}px`;
      one.style.display = '';
    });
    return slide.offsetHeight <= ROOM && slide.scrollWidth <= slide.clientWidth;
  };
  while (!fits() && size > LEAST) size -= 2;
  slide.dataset.fit = `${size} ${slide.offsetHeight} ${slide.scrollWidth - slide.clientWidth}`;
  places.forEach(([one, style]) => { one.style.cssText = style; });
  slide.style.fontSize = `${size}%`;
}

Reveal.initialize({
  width: 1280, height: 720, margin: 0, center: false, hash: true, slideNumber: 'c/t', transition: 'none',
  pdfSeparateFragments: false, plugins: [RevealNotes],
}).then(() => MathJax.startup.promise).then(() => MathJax.typesetPromise()).then(() => Promise.all(
  [...document.images].map(one => one.decode().catch(() => 0)))).then(() => {
  document.querySelectorAll('.slides > section > section').forEach(fit);
  Reveal.layout();
  document.documentElement.dataset.ready = 'yes';
});
