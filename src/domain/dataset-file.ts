import { type FileFault, readCsv } from './csv-table.ts'
import type { DatasetRow } from './row-template.ts'

export const MAX_COLUMNS = 200
const MAX_COLUMN_LENGTH = 200
/** In a value of a row. The database and everything that writes JSON recurse. */
const MAX_DEPTH = 32
const TOO_DEEP = `is nested deeper than ${MAX_DEPTH} levels`
/** In characters: a row of the largest size, with each of its characters escaped, is shorter. */
const MAX_LINE_LENGTH = 512 * 1024
/** Only such a line is read a second time, number by number. */
const LONG_NUMBER = /\d{16}|\d[eE]/

export type DatasetFormat = 'csv' | 'jsonl'

export type RowRead =
  | { readonly ok: true; readonly line: number; readonly row: DatasetRow }
  | { readonly ok: false; readonly fault: FileFault }

/**
 * Reads the rows of a file, one after the other, and what is wrong with it on the way. CSV has a line of column names and
 * texts below; in JSON lines every line is an object.
 */
export function readDataset(text: string, format: DatasetFormat): Generator<RowRead> {
  return format === 'csv' ? readCsvRows(text) : readJsonLines(text)
}

function* readCsvRows(text: string): Generator<RowRead> {
  let columns: readonly string[] | undefined
  for (const read of readCsv(text)) {
    if (!read.ok) return yield read
    const { line, cells } = read.row
    if (!columns) {
      const faults = headerFaults(cells)
      for (const message of faults) yield fault(line, message)
      if (faults.length > 0) return
      columns = cells
      continue
    }
    if (cells.length !== columns.length) {
      yield fault(line, `has ${cells.length} cells, and there are ${columns.length} columns`)
      continue
    }
    const wrong = cells.map(textFault).find((message) => message !== undefined)
    if (wrong !== undefined) yield fault(line, wrong)
    else yield { ok: true, line, row: Object.fromEntries(columns.map((column, index) => [column, cells[index]])) }
  }
}

function headerFaults(names: readonly string[]): readonly string[] {
  const tooMany = names.length > MAX_COLUMNS ? [`has ${names.length} columns: at most ${MAX_COLUMNS}`] : []
  const again = names.filter((name, index) => names.indexOf(name) !== index)
  const wrong = names.flatMap((name) => columnFault(name) ?? [])
  return [...tooMany, ...wrong, ...[...new Set(again)].map((name) => `has the column ${quote(name)} twice`)]
}

/** What is wrong with the name of a column; undefined when nothing is. */
function columnFault(name: string): string | undefined {
  if (name.trim() === '') return 'has a column without a name'
  if (name.length > MAX_COLUMN_LENGTH) return `has a column name of more than ${MAX_COLUMN_LENGTH} characters`
  if (name === '__proto__') return 'has a column __proto__, which no program can be trusted with'
  return textFault(name)
}

function* readJsonLines(text: string): Generator<RowRead> {
  let line = 0
  let begin = text.startsWith('\uFEFF') ? 1 : 0
  while (begin < text.length) {
    // By character: a file may hold millions of empty lines, and nobody else has a turn meanwhile.
    if (text[begin] === '\n') {
      begin += 1
      line += 1
      continue
    }
    const found = text.indexOf('\n', begin)
    const end = found < 0 ? text.length : found
    const isTooLong = end - begin > MAX_LINE_LENGTH
    const source = isTooLong ? '' : text.slice(begin, end).trim()
    begin = end + 1
    line += 1
    if (isTooLong) yield fault(line, `has more than ${MAX_LINE_LENGTH} characters`)
    if (source !== '') yield readObject(source, line)
  }
}

function readObject(source: string, line: number): RowRead {
  let value: unknown
  let inexact: string | undefined
  try {
    value = JSON.parse(source)
    if (LONG_NUMBER.test(source)) inexact = inexactNumber(source)
  } catch (error) {
    return fault(line, error instanceof RangeError ? TOO_DEEP : 'is no JSON object')
  }
  if (!isRecord(value)) return fault(line, 'is no JSON object')
  if (inexact !== undefined) {
    return fault(
      line,
      `has the number ${inexact.slice(0, 40)}, which loses digits in JSON programs: write it as a text`,
    )
  }
  const wrong =
    Object.keys(value)
      .map(columnFault)
      .find((message) => message !== undefined) ?? valueFault(value, 0)
  return wrong === undefined ? { ok: true, line, row: value } : fault(line, wrong)
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The first number that is not what it says once it was read: an id of 19 digits would come back as another one. */
function inexactNumber(source: string): string | undefined {
  let inexact: string | undefined
  JSON.parse(source, (_key, each: unknown, ...more: readonly unknown[]) => {
    const written = typeof each === 'number' ? writtenAs(more[0]) : undefined
    if (written !== undefined && isInexact(written, each)) inexact ??= written
    return each
  })
  return inexact
}

/** What JSON.parse tells a reviver of the source text of a number. */
function writtenAs(context: unknown): string | undefined {
  if (!isRecord(context)) return undefined
  return typeof context['source'] === 'string' ? context['source'] : undefined
}

function isInexact(written: string, value: unknown): boolean {
  return typeof value === 'number' && (!Number.isFinite(value) || (/^-?\d{16,}$/.test(written) && !isSafe(written)))
}

function isSafe(written: string): boolean {
  const exact = BigInt(written)
  return exact <= BigInt(Number.MAX_SAFE_INTEGER) && exact >= BigInt(Number.MIN_SAFE_INTEGER)
}

function valueFault(value: unknown, depth: number): string | undefined {
  if (typeof value === 'string') return textFault(value)
  if (typeof value !== 'object' || value === null) return undefined
  if (depth >= MAX_DEPTH) return TOO_DEEP
  for (const [key, each] of Object.entries(value)) {
    const wrong = textFault(key) ?? valueFault(each, depth + 1)
    if (wrong !== undefined) return wrong
  }
  return undefined
}

function textFault(text: string): string | undefined {
  if (text.includes('\0')) return 'holds U+0000, which cannot be stored'
  return text.isWellFormed() ? undefined : 'holds half of a character (a lone surrogate)'
}

function fault(line: number, message: string): RowRead {
  return { ok: false, fault: { line, message } }
}

function quote(name: string): string {
  return `"${name.slice(0, 60)}"`
}
