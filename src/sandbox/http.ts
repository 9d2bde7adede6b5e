import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Faults } from './faults.ts'

/** A prompt of 128,000 tokens takes about 600 KB; images come inside the body. */
const MAX_BODY_BYTES = 32 * 1024 * 1024

export function sendJson(res: ServerResponse, status: number, body: unknown): void {
  const text = JSON.stringify(body)
  res.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }).end(text)
}

/** Null when the body is longer than any prompt a model here takes. */
export async function readBody(req: IncomingMessage): Promise<string | null> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of req) {
    const buffer = Buffer.isBuffer(chunk) ? chunk : Buffer.from(String(chunk))
    bytes += buffer.length
    if (bytes <= MAX_BODY_BYTES) chunks.push(buffer)
  }
  if (bytes > MAX_BODY_BYTES) return null
  const [only] = chunks
  return (chunks.length === 1 && only !== undefined ? only : Buffer.concat(chunks)).toString('utf8')
}

export function headerOf(req: IncomingMessage, name: string): string | null {
  const value = req.headers[name]
  return typeof value === 'string' ? value : null
}

/** Says when to come back, in the form that the fault wants. */
export function setRetryAfter(res: ServerResponse, { retryAfterMs, retryAfterAs = 'both' }: Faults): void {
  if (retryAfterMs === undefined) return
  const seconds = Math.ceil(retryAfterMs / 1000)
  if (retryAfterAs === 'both' || retryAfterAs === 'ms') res.setHeader('retry-after-ms', String(retryAfterMs))
  if (retryAfterAs === 'both' || retryAfterAs === 'seconds') res.setHeader('retry-after', String(seconds))
  // A date has whole seconds: rounded up, so that nobody comes too early.
  const date = new Date(Math.ceil((Date.now() + retryAfterMs) / 1000) * 1000)
  if (retryAfterAs === 'date') res.setHeader('retry-after', date.toUTCString())
}
