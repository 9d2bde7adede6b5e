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

/** No table has more: a line of commas without end would be read for seconds, and its names be compared for hours. */
const MAX_CELLS = 1_000
/** In characters. */
const MAX_CELL_LENGTH = 4 * 1024 * 1024
const BAD_QUOTE = 'has a quote that is not closed, or stands in the middle of a cell'

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
    passEmptyLines(cursor)
    if (cursor.at >= text.length) return
    const { line } = cursor
    const read = readRow(cursor)
    if (!read.ok) return yield { ok: false, fault: { line, message: read.message } }
    yield { ok: true, row: { line, cells: read.cells } }
  }
}

interface Cursor {
  readonly text: string
  at: number
  line: number
}

const BREAK = /\r\n|\n|\r/g

type RowCells =
  | { readonly ok: true; readonly cells: readonly string[] }
  | { readonly ok: false; readonly message: string }

/** The cells of a row; the cursor stands behind its line break then. */
function readRow(cursor: Cursor): RowCells {
  const { text } = cursor
  const cells: string[] = []
  for (;;) {
    const begin = cursor.at
    const cell = text[begin] === '"' ? quotedCell(cursor) : bareCell(cursor)
    if (cursor.at - begin > MAX_CELL_LENGTH) return wrong(`has a cell of more than ${MAX_CELL_LENGTH} characters`)
    const end = text[cursor.at]
    if (cell === undefined || end === '"') return wrong(BAD_QUOTE)
    cells.push(cell)
    if (end !== ',') {
      passBreak(cursor)
      return { ok: true, cells }
    }
    if (cells.length === MAX_CELLS) return wrong(`has more than ${MAX_CELLS} cells`)
    cursor.at += 1
  }
}

function wrong(message: string): RowCells {
  return { ok: false, message }
}

/** By character: a file may hold millions of them, and nobody else has a turn meanwhile. */
function passEmptyLines(cursor: Cursor): void {
  const { text } = cursor
  while (cursor.at < text.length && (text[cursor.at] === '\n' || text[cursor.at] === '\r')) passBreak(cursor)
}

/** By searching and not by an expression: one over 16 million pairs of quotes overflows its stack. */
function quotedCell(cursor: Cursor): string | undefined {
  const { text } = cursor
  const begin = cursor.at + 1
  let quote = text.indexOf('"', begin)
  while (quote >= 0 && text[quote + 1] === '"') quote = text.indexOf('"', quote + 2)
  if (quote < 0) return undefined
  cursor.at = quote + 1
  // Too long anyway: its breaks need no counting.
  if (quote - begin > MAX_CELL_LENGTH) return undefined
  const quoted = text.slice(begin, quote)
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
