// A query as words: Chinese cut by the longest words that the index holds, all else at what is no letter.
var splitQuery = (query) => {
  const holds = (word) =>
    Search._index && (Object.hasOwn(Search._index.terms, word) || Object.hasOwn(Search._index.titleterms, word));
  const parts = query.match(/\p{Script=Han}+|(?:(?!\p{Script=Han})[\p{Letter}\p{Number}_])+/gu) ?? [];
  return parts.flatMap((part) => {
    if (!/\p{Script=Han}/u.test(part) || holds(part)) return [part];
    const words = [];
    for (let at = 0; at < part.length; ) {
      let size = Math.min(8, part.length - at);
      while (size > 1 && !holds(part.slice(at, at + size))) size -= 1;
      if (size > 1) words.push(part.slice(at, at + size));
      at += size;
    }
    return words.length ? words : [part];
  });
};
