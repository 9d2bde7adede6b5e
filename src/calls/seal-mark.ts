import { sealMarkSchema } from '#contracts/seals.ts'
import type { SealMark } from '#db/seal-head.ts'
import { readFile, rename, writeFile } from 'node:fs/promises'
import { lastAnchored } from './seal-anchor.ts'

const PRIVATE_MODE = 0o600

/** Where a process keeps the newest head that it trusts, so that it knows the chain again when it seals on. */
export interface MarkKeeper {
  read(): Promise<SealMark | undefined>
  /** After the block of the mark is committed, never before: a mark ahead of the database says that blocks are gone. */
  write(mark: SealMark): Promise<void>
}

/**
 * The anchor has the newest head in its last line. Without one a small file beside the key has it; and without either only
 * this process knows it, as long as it lives.
 */
export function markKeeper(files: {
  readonly keyFile: string | undefined
  readonly anchorFile: string | undefined
}): MarkKeeper {
  const { keyFile, anchorFile } = files
  let newest: SealMark | undefined
  const read = async (): Promise<SealMark | undefined> => {
    if (anchorFile !== undefined) return lastAnchored(anchorFile)
    return keyFile === undefined ? undefined : readMark(pathOf(keyFile))
  }
  return {
    async read() {
      const kept = await read()
      return newest && (!kept || newest.height > kept.height) ? newest : kept
    },
    async write(mark) {
      const isNew = newest?.hash !== mark.hash
      newest = mark
      if (isNew && anchorFile === undefined && keyFile !== undefined) await writeMark(pathOf(keyFile), mark)
    },
  }
}

function pathOf(keyFile: string): string {
  return `${keyFile}.head`
}

async function readMark(path: string): Promise<SealMark | undefined> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  return text === undefined ? undefined : sealMarkSchema.parse(JSON.parse(text))
}

/** Whole or not at all: a torn mark would look like another chain. */
async function writeMark(path: string, mark: SealMark): Promise<void> {
  const draft = `${path}.${process.pid}`
  await writeFile(draft, JSON.stringify(mark), { mode: PRIVATE_MODE, flush: true })
  await rename(draft, path)
}
