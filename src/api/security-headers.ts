import type { FastifyInstance } from 'fastify'
import type { Socket } from 'node:net'
import { ServerResponse, STATUS_CODES } from 'node:http'

/**
 * On every answer, whoever gives it. No answer is for a page of another origin: none carries `access-control-allow-…`, and
 * most have money or a secret in them, so nothing on the way keeps a copy. TLS, and the promise of it, belong to what stands
 * in front.
 */
export const SECURITY_HEADERS = Object.freeze({
  'x-content-type-options': 'nosniff',
  'cache-control': 'no-store',
  'referrer-policy': 'no-referrer',
  'x-frame-options': 'DENY',
  'cross-origin-resource-policy': 'same-origin',
})
/** What is no page loads nothing; a page loads its own, and stands in no other's frame. */
const CONTENT_POLICY = "default-src 'none'; frame-ancestors 'none'"
const PAGE_POLICY = "object-src 'none'; base-uri 'self'; frame-ancestors 'none'"

/** Must stand before the routes. `isPage`: addresses below it are of a page. */
export function sendSecurityHeaders(app: FastifyInstance, isPage: (url: string) => boolean): void {
  app.addHook('onRequest', (request, reply, done) => {
    const policy = isPage(request.url) ? PAGE_POLICY : CONTENT_POLICY
    void reply.headers({ ...SECURITY_HEADERS, 'content-security-policy': policy })
    done()
  })
}

const STATUS_OF: Readonly<Record<string, number>> = Object.freeze({
  HPE_HEADER_OVERFLOW: 431,
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 413,
  ERR_HTTP_REQUEST_TIMEOUT: 408,
})

/** What is no request is answered without one, and its connection ends. */
export function answerNoRequest(error: Error & { readonly code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable || isAnswering(socket)) {
    socket.destroy()
    return
  }
  const status = STATUS_OF[error.code ?? ''] ?? 400
  const body = JSON.stringify({ error: { message: STATUS_CODES[status], type: 'invalid_request_error' } })
  const headers = Object.entries({
    ...SECURITY_HEADERS,
    'content-type': 'application/json',
    'content-length': String(Buffer.byteLength(body)),
    connection: 'close',
  })
  const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`)
  socket.write(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${body}`)
  socket.destroySoon()
}

/** Whether what is written now would become a part of an answer that has begun. Node looks at the same member. */
function isAnswering(socket: Socket): boolean {
  const answer: unknown = Reflect.get(socket, '_httpMessage')
  return answer instanceof ServerResponse && answer.headersSent
}
