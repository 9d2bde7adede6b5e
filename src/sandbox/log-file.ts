import { closeSync, createReadStream, existsSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { z } from 'zod'
import type { LoggedRequest } from './log.ts'
import { NO_USAGE } from './bill.ts'
import { parseJson } from './json.ts'

/** JSON lines, of which the last of a `seq` counts. What changes within one turn of the event loop is one write. */
export class LogFile {
  readonly path: string
  /** Null once it is closed: what is noted then is lost. */
  #descriptor: number | null
  readonly #noted = new Set<LoggedRequest>()
  #flushing: NodeJS.Immediate | null = null

  constructor(path: string) {
    this.path = path
    this.#descriptor = openSync(path, 'a')
  }

  note(request: LoggedRequest): void {
    this.#noted.add(request)
    this.#flushing ??= setImmediate(() => this.flush())
  }

  flush(): void {
    if (this.#flushing !== null) clearImmediate(this.#flushing)
    this.#flushing = null
    if (this.#noted.size === 0 || this.#descriptor === null) return
    let lines = ''
    for (const request of this.#noted) lines += `${JSON.stringify(request)}\n`
    this.#noted.clear()
    writeSync(this.#descriptor, lines)
  }

  clear(): void {
    this.#noted.clear()
    if (this.#descriptor !== null) ftruncateSync(this.#descriptor)
  }

  close(): void {
    this.flush()
    if (this.#descriptor !== null) closeSync(this.#descriptor)
    this.#descriptor = null
  }
}

const tokens = z.number().catch(0)

const lineSchema = z.object({
  seq: z.int(),
  id: z.string().catch(''),
  at: z.string().catch(''),
  callKey: z.string().nullable().catch(null),
  attempt: z.number().nullable().catch(null),
  model: z.string().nullable().catch(null),
  status: z.number().catch(0),
  begun: z.boolean().catch(false),
  finished: z.boolean().catch(false),
  clientGoneAt: z.string().exactOptional(),
  endedAt: z.string().exactOptional(),
  streamed: z.boolean().catch(false),
  finishReason: z.string().nullable().catch(null),
  usage: z
    .object({
      promptTokens: tokens,
      completionTokens: tokens,
      cachedTokens: tokens,
      cacheWriteTokens: tokens,
      reasoningTokens: tokens,
      images: tokens,
      toolUses: z.record(z.string(), z.number()).catch({}),
    })
    .catch(NO_USAGE),
  billed: z.string().catch('0.000000000'),
  keyName: z.string().nullable().catch(null),
})

/** All lines but those that a crash cut short. */
export async function* readLogFile(path: string): AsyncGenerator<LoggedRequest> {
  if (!existsSync(path)) return
  for await (const line of createInterface({ input: createReadStream(path), crlfDelay: Number.POSITIVE_INFINITY })) {
    const parsed = parseJson(line)
    const request = parsed.ok ? lineSchema.safeParse(parsed.value) : null
    if (request?.success === true) yield request.data
  }
}
