import { MAX_DATASET_ROWS, MAX_ROW_BYTES, type DatasetView } from '#contracts/api-dataset.ts'
import type { Problem } from '#contracts/codes.ts'
import { addRows, closeDataset, getDataset, openDataset, type NumberedRow } from '#db/dataset.ts'
import type { Scope } from '#db/database.ts'
import { newId } from '#db/ids.ts'
import { json } from '#db/json.ts'
import type { Database } from '#db/schema.ts'
import type { FileFault } from '#domain/csv-table.ts'
import { MAX_COLUMNS, readDataset, type DatasetFormat } from '#domain/dataset-file.ts'
import { invariant } from '#domain/invariant.ts'
import type { Kysely } from 'kysely'
import { isUtf8 } from 'node:buffer'
import { createHash } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import { faulty } from './validation.ts'

/** Faults that one answer names: the first ones tell what is wrong. */
const MAX_FAULTS = 20
/** Rows and bytes of one insert: some tenths of a second, where a write may take five. */
const PAGE_ROWS = 2_000
const PAGE_BYTES = 1024 * 1024
/** Others are answered after so many rows, or bytes of them, whichever is first; a fault counts as many bytes. */
const ROWS_AT_ONCE = 500
const BYTES_AT_ONCE = 256 * 1024

interface DatasetFile {
  readonly name: string
  readonly format: DatasetFormat
  readonly content: Buffer
}

/**
 * Stores a file as a dataset. It is read twice: once to tell everything that is wrong with it, and once to store it, page
 * by page. Nothing is stored of a file that is wrong. An upload that broke off goes on when the file is sent again.
 *
 * @throws Problem `invalid_request` with the faults and their lines
 */
export async function storeDataset(
  db: Kysely<Database>,
  scope: Scope,
  { file, nowMs }: { readonly file: DatasetFile; readonly nowMs: number },
): Promise<DatasetView> {
  const { name, format, content } = file
  const text = textOf(content)
  const shape = await shapeOf(text, format)
  const digest = createHash('sha256')
    .update(JSON.stringify([name, format]))
    .update(content)
    .digest()
  const datasetId = await openDataset(db, scope, { id: newId(nowMs), name, format, digest, ...shape })
  const known = await getDataset(db, scope, datasetId)
  if (known) return known
  for await (const rows of pagesOf(text, format)) await addRows(db, scope, { datasetId, rows })
  await closeDataset(db, scope, datasetId)
  const dataset = await getDataset(db, scope, datasetId)
  invariant(dataset, `dataset ${datasetId} is gone`)
  return dataset
}

function textOf(content: Buffer): string {
  if (isUtf8(content)) return content.toString('utf8')
  let { begin, line } = badPart(content)
  for (; ; line += 1) {
    const found = content.indexOf(10, begin)
    const end = found < 0 ? content.length : found
    if (!isUtf8(content.subarray(begin, end))) throw wrong([{ line, message: 'is no UTF-8: save the file as UTF-8' }])
    begin = end + 1
  }
}

/** Where the part begins that is no UTF-8: only there it is looked for line by line, of which there may be millions. */
function badPart(content: Buffer): { readonly begin: number; readonly line: number } {
  let line = 1
  for (let begin = 0; ;) {
    const found = content.indexOf(10, begin + BYTES_AT_ONCE)
    const end = found < 0 ? content.length : found + 1
    const part = content.subarray(begin, end)
    if (!isUtf8(part) || end === content.length) return { begin, line }
    for (const byte of part) if (byte === 10) line += 1
    begin = end
  }
}

/** Lets others have a turn now and then. */
function takingTurns(): (bytes: number) => Promise<void> {
  let rows = 0
  let bytes = 0
  return async (more) => {
    rows += 1
    bytes += more
    if (rows < ROWS_AT_ONCE && bytes < BYTES_AT_ONCE) return
    rows = 0
    bytes = 0
    await setImmediate()
  }
}

/** Reads the whole file without keeping it. */
async function shapeOf(text: string, format: DatasetFormat) {
  const takeTurns = takingTurns()
  const faults: FileFault[] = []
  const columns = new Set<string>()
  const size = { rows: 0, bytes: 0, mostRowBytes: 0 }
  let lines = 0
  for (const read of readDataset(text, format)) {
    lines += 1
    if (!read.ok) {
      faults.push(read.fault)
      await takeTurns(BYTES_AT_ONCE)
    } else {
      for (const column of Object.keys(read.row)) columns.add(column)
      const bytes = Buffer.byteLength(json(read.row))
      size.rows += 1
      size.bytes += bytes
      await takeTurns(bytes)
      size.mostRowBytes = Math.max(size.mostRowBytes, bytes)
      if (bytes > MAX_ROW_BYTES) {
        faults.push({ line: read.line, message: `is a row of ${bytes} bytes: at most ${MAX_ROW_BYTES}` })
      }
    }
    if (columns.size > MAX_COLUMNS) {
      const { line } = read.ok ? read : read.fault
      faults.push({ line, message: `has a column too many: at most ${MAX_COLUMNS} in all rows together` })
    }
    if (faults.length >= MAX_FAULTS || columns.size > MAX_COLUMNS) break
    if (lines > MAX_DATASET_ROWS) {
      faults.push({
        line: read.ok ? read.line : read.fault.line,
        message: `is a row too many: at most ${MAX_DATASET_ROWS}`,
      })
      break
    }
  }
  if (faults.length > 0) throw wrong(faults)
  if (size.rows === 0) throw wrong([{ line: 1, message: 'is the end of the file: it has no rows' }])
  return { columns: [...columns], ...size }
}

async function* pagesOf(text: string, format: DatasetFormat): AsyncGenerator<readonly NumberedRow[]> {
  let page: NumberedRow[] = []
  let bytes = 0
  let number = 0
  const takeTurns = takingTurns()
  for (const read of readDataset(text, format)) {
    invariant(read.ok, 'a file that was read without a fault has none')
    number += 1
    page.push({ number, row: read.row })
    const { length } = json(read.row)
    bytes += length
    await takeTurns(length)
    if (page.length < PAGE_ROWS && bytes < PAGE_BYTES) continue
    yield page
    page = []
    bytes = 0
  }
  if (page.length > 0) yield page
}

function wrong(faults: readonly FileFault[]): Problem {
  const errors = faults.map(({ line, message }) => ({ path: `line ${line}`, message }))
  return faulty(errors, 'Mend the file and send it again: nothing of it was stored.')
}
