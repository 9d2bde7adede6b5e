import { anchorLineSchema, type AnchorLine } from '#contracts/seals.ts'
import type { Database } from '#db/schema.ts'
import { headsFrom, whileNobodyAnchors } from '#db/seal.ts'
import type { Kysely } from 'kysely'
import { open, type FileHandle } from 'node:fs/promises'

/** Heads of one append; the next turn goes on. */
const MAX_LINES = 1_000
/** Where the last line is looked for; a line has about 350 bytes. */
const TAIL_BYTES = 16_384
const PRIVATE_MODE = 0o600

/** What is in the file already. */
interface Tail {
  readonly last: AnchorLine | undefined
  /** A line that was being written when its process or its machine ended: it is left, and written again whole. */
  readonly isTorn: boolean
}

/**
 * Appends the heads that the file does not have to it, and flushes it to the disk. One line for each height, whoever
 * sealed it; what a crash left out is made up for. Answers how many were appended.
 *
 * @throws when the file names a head that the database does not have, or has otherwise: nothing is appended to hide it
 */
export async function anchorHeads(db: Kysely<Database>, path: string): Promise<number> {
  return whileNobodyAnchors(db, async (trx) => {
    const file = await open(path, 'a+', PRIVATE_MODE)
    try {
      const { last, isTorn } = await readTail(file)
      const heads = await headsFrom(trx, { height: last?.height ?? 1, limit: MAX_LINES + 1 })
      if (last && heads[0]?.hash !== last.hash) {
        throw new Error(`The anchor ${path} has a block ${last.height} that the database has not, or has otherwise.`)
      }
      const missing = last ? heads.slice(1) : heads
      if (missing.length === 0) return 0
      const lines = missing.map((head) => `${JSON.stringify(anchorLineSchema.parse(head))}\n`)
      await file.appendFile(`${isTorn ? '\n' : ''}${lines.join('')}`)
      await file.sync()
      return missing.length
    } finally {
      await file.close()
    }
  })
}

/** The newest head in the file; undefined when there is none yet. */
export async function lastAnchored(path: string): Promise<AnchorLine | undefined> {
  const file = await open(path, 'a+', PRIVATE_MODE)
  try {
    const { last } = await readTail(file)
    return last
  } finally {
    await file.close()
  }
}

async function readTail(file: FileHandle): Promise<Tail> {
  const { size } = await file.stat()
  const start = Math.max(0, size - TAIL_BYTES)
  const buffer = Buffer.alloc(size - start)
  await file.read(buffer, 0, buffer.length, start)
  const text = buffer.toString('utf8')
  const heads = text.split('\n').flatMap((line) => headIn(line) ?? [])
  return { last: heads.at(-1), isTorn: text !== '' && !text.endsWith('\n') }
}

/**
 * The heads of an anchor file. A crash leaves a last line without its end, or a beginning that the next line writes again
 * whole: such a line is passed over.
 *
 * @throws when another line cannot be read: what it vouched for would be vouched for by nobody
 */
export function anchorLinesIn(text: string): readonly AnchorLine[] {
  const lines = text.split('\n')
  return lines.flatMap((line, index) => {
    const head = headIn(line)
    if (head || line === '') return head ?? []
    const isTorn = index === lines.length - 1 || lines[index + 1]?.startsWith(line) === true
    if (!isTorn) throw new Error(`its line ${index + 1} cannot be read`)
    return []
  })
}

function headIn(line: string): AnchorLine | undefined {
  const parsed = anchorLineSchema.safeParse(parseJson(line))
  return parsed.success ? parsed.data : undefined
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
