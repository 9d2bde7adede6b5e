import { createWriteStream } from 'node:fs'
import { rename, rm, writeFile } from 'node:fs/promises'
import { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { PurserClient } from '#client/purser-client.ts'

/** Writes an answer to standard output, which is not ours to end. */
export async function printDownload(api: PurserClient, path: string): Promise<void> {
  const screen = new Writable({ write: (chunk: Buffer, _encoding, done) => void process.stdout.write(chunk, done) })
  await pipeline(Readable.from(api.download(path)), screen)
}

/** @throws when a file could not be written under this name, with what to do about it */
export async function checkWritable(file: string): Promise<void> {
  const unfinished = `${file}.part`
  try {
    await writeFile(unfinished, '')
    await rm(unfinished, { force: true })
  } catch (error) {
    const why = error instanceof Error && 'code' in error ? `${String(error.code)}` : String(error)
    throw new Error(`${file} cannot be written (${why}): name another file, in a folder that is there.`, {
      cause: error,
    })
  }
}

/** Writes an answer to a file: one that was cut off never stands under its name. */
export async function saveDownload(api: PurserClient, path: string, file: string): Promise<void> {
  const unfinished = `${file}.part`
  try {
    await pipeline(Readable.from(api.download(path)), createWriteStream(unfinished))
    await rename(unfinished, file)
  } catch (error) {
    await rm(unfinished, { force: true })
    throw error
  }
}
