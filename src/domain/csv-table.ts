/** A line of a CSV file, with the number of the line that it begins on. */
export interface CsvRow {
  readonly line: number
  readonly cells: readonly string[]
}

export type CsvTable =
  | { readonly ok: true; readonly rows: readonly CsvRow[] }
  | { readonly ok: false; readonly line: number; readonly message: string }

/** Reads CSV as RFC 4180 has it: quoted cells may hold commas, quotes and line breaks. Empty lines are left out. */
export function parseCsv(text: string): CsvTable {
  const rows: CsvRow[] = []
  // A cell and what ends it; a quoted one may go over several lines.
  const cell = /(?:"([^"]*(?:""[^"]*)*)"|([^",\r\n]*))(,|\r\n|\n|\r|$)/y
  let cells: string[] = []
  let line = 1
  let begin = 1
  const source = text.startsWith('\uFEFF') ? text.slice(1) : text
  while (cell.lastIndex < source.length) {
    const match = cell.exec(source)
    if (!match) return { ok: false, line, message: 'has a quote that is not closed, or stands in the middle of a cell' }
    const [whole, quoted, bare = '', end] = match
    cells.push(quoted === undefined ? bare : quoted.replaceAll('""', '"'))
    line += whole.match(/\r\n|\n|\r/g)?.length ?? 0
    if (end === ',' && cell.lastIndex < source.length) continue
    if (end === ',') cells.push('')
    if (cells.length > 1 || cells[0] !== '') rows.push({ line: begin, cells })
    cells = []
    begin = line
  }
  return { ok: true, rows }
}
