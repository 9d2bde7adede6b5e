import type { FastifyReply } from 'fastify'

/** A client that reads nothing keeps so many bytes of its answer here at most, before it counts as gone. */
const MOST_UNREAD_BYTES = 4 * 1024 * 1024

/** A comment, which every reader of events passes over. */
const COMMENT = ': keep-alive\n\n'

/** An answer in server-sent events. Its head is written with the first of them: until then a refusal has its own status. */
export class EventStream {
  readonly #reply: FastifyReply
  readonly #onSlow: () => void
  #hasBegun = false
  #isFresh = true

  /** @param onSlow told when the client has left too much unread */
  constructor(reply: FastifyReply, onSlow: () => void) {
    this.#reply = reply
    this.#onSlow = onSlow
  }

  get hasBegun(): boolean {
    return this.#hasBegun
  }

  /** Sends one event; `name` for the dialects that name theirs. */
  send(data: object, name?: string): void {
    this.write(`${name === undefined ? '' : `event: ${name}\n`}data: ${JSON.stringify(data)}\n\n`)
  }

  write(text: string): void {
    if (!this.#hasBegun) this.#begin()
    this.#isFresh = true
    const { raw } = this.#reply
    raw.write(text)
    if (raw.writableLength > MOST_UNREAD_BYTES) this.#onSlow()
  }

  /** Says that somebody is there whenever nothing was written for so long. @returns what ends it */
  keepAlive(intervalMs: number, text = COMMENT): () => void {
    this.#isFresh = true
    const timer = setInterval(() => {
      if (!this.#isFresh) this.write(text)
      this.#isFresh = false
    }, intervalMs)
    return () => clearInterval(timer)
  }

  end(): void {
    if (!this.#hasBegun) this.#begin()
    this.#reply.raw.end()
  }

  #begin(): void {
    this.#hasBegun = true
    this.#reply.hijack()
    const { raw } = this.#reply
    raw.on('error', () => {})
    raw.writeHead(200, {
      ...Object.fromEntries(Object.entries(this.#reply.getHeaders()).filter(([, value]) => value !== undefined)),
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    })
  }
}
