/** A line of a CSV file, with the number of the line that it begins on. */
export interface CsvRow {
  readonly line: number
  readonly cells: readonly string[]
}

/** What is wrong with a file, and in which of its lines. */
export interface FileFault {
  readonly line: number
  readonly message: string
}

export type CsvTable = { readonly ok: true; readonly rows: readonly CsvRow[] } | ({ readonly ok: false } & FileFault)

export type CsvRead = { readonly ok: true; readonly row: CsvRow } | { readonly ok: false; readonly fault: FileFault }

/** Reads CSV as RFC 4180 has it: quoted cells may hold commas, quotes and line breaks. Empty lines are left out. */
export function parseCsv(text: string): CsvTable {
  const rows: CsvRow[] = []
  for (const read of readCsv(text)) {
    if (!read.ok) return { ok: false, ...read.fault }
    rows.push(read.row)
  }
  return { ok: true, rows }
}

/** The same, row by row. After a fault nothing follows: where the next row begins is not known then. */
export function* readCsv(text: string): Generator<CsvRead> {
  const cursor: Cursor = { text, at: text.startsWith('\uFEFF') ? 1 : 0, line: 1 }
  while (cursor.at < text.length) {
    const { line } = cursor
    const cells = readRow(cursor)
    if (!cells) {
      const message = 'has a quote that is not closed, or stands in the middle of a cell'
      return yield { ok: false, fault: { line, message } }
    }
    if (cells.length > 1 || cells[0] !== '') yield { ok: true, row: { line, cells } }
  }
}

interface Cursor {
  readonly text: string
  at: number
  line: number
}

const BREAK = /\r\n|\n|\r/g

/** The cells of a row; the cursor stands behind its line break then. Undefined when a quote is wrong. */
function readRow(cursor: Cursor): string[] | undefined {
  const { text } = cursor
  const cells: string[] = []
  for (;;) {
    const cell = text[cursor.at] === '"' ? quotedCell(cursor) : bareCell(cursor)
    if (cell === undefined) return undefined
    cells.push(cell)
    const end = text[cursor.at]
    if (end === '"') return undefined
    if (end !== ',') {
      passBreak(cursor)
      return cells
    }
    cursor.at += 1
  }
}

/** By searching and not by an expression: one over 16 million pairs of quotes overflows its stack. */
function quotedCell(cursor: Cursor): string | undefined {
  const { text } = cursor
  const begin = cursor.at + 1
  let quote = text.indexOf('"', begin)
  while (quote >= 0 && text[quote + 1] === '"') quote = text.indexOf('"', quote + 2)
  if (quote < 0) return undefined
  const quoted = text.slice(begin, quote)
  cursor.at = quote + 1
  cursor.line += quoted.match(BREAK)?.length ?? 0
  const end = text[cursor.at]
  return end === undefined || end === ',' || end === '\r' || end === '\n' ? quoted.replaceAll('""', '"') : undefined
}

function bareCell(cursor: Cursor): string {
  const cell = /[^",\r\n]*/y
  cell.lastIndex = cursor.at
  const [bare = ''] = cell.exec(cursor.text) ?? []
  cursor.at += bare.length
  return bare
}

function passBreak(cursor: Cursor): void {
  const { text, at } = cursor
  if (at >= text.length) return
  cursor.at += text[at] === '\r' && text[at + 1] === '\n' ? 2 : 1
  cursor.line += 1
}
