import { pipeline, type Readable, type Transform } from 'node:stream'
import { createBrotliDecompress, createGunzip, createInflate, createZstdDecompress } from 'node:zlib'
import type { Dispatcher } from 'undici'
import { AnswerTooLong } from './answer-choice.ts'

/** More than any answer, error or list of vectors takes: an upstream that never ends must not take the process along. */
const MAX_BODY_BYTES = 134_217_728
/** What comes after an answer's end: hardly ever more than the mark that says so. */
const MAX_REST_BYTES = 65_536
const MAX_REST_MS = 250

type Response = Pick<Dispatcher.ResponseData, 'body' | 'headers'>

/** What an upstream wrote below its headers, decoded. Read once. */
export class ResponseBody {
  readonly #response: Response
  readonly #pieces: AsyncGenerator<Uint8Array, void>
  #first: IteratorResult<Uint8Array, void> | undefined

  constructor(response: Response) {
    this.#response = response
    this.#pieces = piecesOf(response)
  }

  /** Whether it is JSON, whatever its headers say. Waits for its first piece. @throws what broke the connection */
  async beginsAsJson(): Promise<boolean> {
    this.#first ??= await this.#pieces.next()
    return !this.#first.done && /^\s*\{/.test(new TextDecoder().decode(this.#first.value))
  }

  /** @throws AnswerTooLong, and what broke the connection */
  pieces(): AsyncGenerator<Uint8Array, void> {
    return this.#first ? this.#piecesFrom(this.#first) : this.#pieces
  }

  async *#piecesFrom(first: IteratorResult<Uint8Array, void>): AsyncGenerator<Uint8Array, void> {
    try {
      if (!first.done) yield first.value
      yield* this.#pieces
    } finally {
      await this.#pieces.return()
    }
  }

  /** All of it. @throws as `pieces` does */
  async text(): Promise<string> {
    const decoder = new TextDecoder()
    let text = ''
    for await (const bytes of this.pieces()) text += decoder.decode(bytes, { stream: true })
    return text + decoder.decode()
  }

  /** As much of it as came until it ended in whatever way, it was long, or its time was up. Never fails. */
  async beginning(most: { readonly bytes: number; readonly ms: number }): Promise<string> {
    const timer = setTimeout(() => this.#response.body.destroy(), most.ms)
    const decoder = new TextDecoder()
    let text = ''
    let count = 0
    try {
      for await (const bytes of this.pieces()) {
        text += decoder.decode(bytes, { stream: true })
        count += bytes.length
        if (count > most.bytes) break
      }
    } catch {
      // What broke while it told what is wrong says less than what came of it.
    } finally {
      clearTimeout(timer)
    }
    return text + decoder.decode()
  }
}

async function* piecesOf(response: Response): AsyncGenerator<Uint8Array, void> {
  let count = 0
  try {
    for await (const bytes of decoded(response).iterator({ destroyOnReturn: false })) {
      if (!(bytes instanceof Uint8Array)) throw new TypeError('the body is not of bytes')
      count += bytes.length
      if (count > MAX_BODY_BYTES) throw new AnswerTooLong(`the answer has more than ${MAX_BODY_BYTES} bytes`)
      yield bytes
    }
  } finally {
    readRest(response, count)
  }
}

const DECODERS = new Map<string, () => Transform>([
  ['gzip', createGunzip],
  ['x-gzip', createGunzip],
  ['deflate', createInflate],
  ['br', createBrotliDecompress],
  ['zstd', createZstdDecompress],
])

/** Nobody was asked to compress; some do, and some name what is no encoding at all. */
function decoded({ body, headers }: Response): Readable {
  const names = headerText(headers['content-encoding'])?.toLowerCase().split(',') ?? []
  const makers = names.flatMap((name) => DECODERS.get(name.trim()) ?? []).toReversed()
  return makers.reduce<Readable>((source, make) => pipeline(source, make(), () => {}), body)
}

/**
 * Whoever has heard the answer's end stops reading, mostly a moment before the last byte: a connection that is read to its
 * end serves the next request, one that is cut has to be made again. An abort cuts it at once, by its own signal.
 */
function readRest({ body }: Response, count: number): void {
  if (body.readableEnded || body.destroyed) return
  const timer = setTimeout(() => body.destroy(), MAX_REST_MS)
  body
    .dump({ limit: count + MAX_REST_BYTES })
    .catch(() => {})
    .finally(() => clearTimeout(timer))
}

/** Null for a header that did not come. */
export function headerText(value: string | readonly string[] | undefined): string | null {
  return typeof value === 'string' ? value : (value?.join(', ') ?? null)
}
