// How Sphinx's search ranks pages: as it does by itself, but a chapter before the
// notebooks whose tables it shows. (Sphinx takes the whole of this or nothing.)
var Scorer = {
  // [page, title, anchor, description, score, file] -> score
  score: ([page, , , , score]) => score + (page.startsWith("book/") ? 30 : 0),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
