import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http'
import { Pool } from 'undici'

/** What a proxy in Node costs that checks nothing: it passes each request on, and its answer back as it comes. */
const { BENCH_UPSTREAM = '' } = process.env
/** Of one hop only (RFC 9110, 7.6.1). */
const OF_HOP = new Set(['connection', 'keep-alive', 'transfer-encoding', 'host', 'expect'])

const upstream = new Pool(BENCH_UPSTREAM)
const server = createServer((request, response) => {
  pass(request, response).catch(() => response.destroy())
})
server.listen({ host: '127.0.0.1', port: 0, backlog: 4_096 }, () => {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the proxy has no TCP address')
  process.stdout.write(`${JSON.stringify({ ready: { url: `http://127.0.0.1:${address.port}` } })}\n`)
})
process.once('SIGTERM', () => process.exit(0))

async function pass(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const gone = new AbortController()
  response.once('close', () => {
    if (!response.writableFinished) gone.abort()
  })
  const { url = '/' } = request
  const asked = {
    path: url,
    method: 'POST' as const,
    headers: ofBothHops(request.headers),
    body: request,
    signal: gone.signal,
  }
  await upstream.stream(asked, ({ statusCode, headers }) => response.writeHead(statusCode, ofBothHops(headers)))
}

function ofBothHops(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !OF_HOP.has(name)))
}
