/** Beginnings that make a spreadsheet run a cell, also behind blanks and in full width; and our own mark. */
const FORMULA = /^\s*['=+\-@＝＋－＠]|^[\t\r\n]/

/**
 * A text of somebody else as a CSV cell (RFC 4180): always quoted, and with a `'` in front when a spreadsheet could take
 * it for a formula. Whoever reads a cell that begins with `'` drops that one character.
 *
 * @example csvText('=1+1') // `"'=1+1"`
 */
export function csvText(text: string | null): string {
  if (text === null) return ''
  const inert = FORMULA.test(text) ? `'${text}` : text
  return `"${inert.replaceAll('"', '""')}"`
}

/** A line of cells that are ready. */
export function csvLine(cells: readonly string[]): string {
  return `${cells.join(',')}\r\n`
}
