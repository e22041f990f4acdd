// How Sphinx's search ranks pages: as it does by itself, but a chapter before the
// notebooks whose tables it shows, and both before the reference of the code. (Sphinx
// takes the whole of this or nothing.)
const raised = (page) => {
  if (page.startsWith("book/api")) return -30;
  return page.startsWith("book/") ? 30 : 0;
};
var Scorer = {
  // [page, title, anchor, description, score, file] -> score
  score: ([page, , , , score]) => score + raised(page),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
