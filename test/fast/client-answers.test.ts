import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { once } from 'node:events'
import { expect, onTestFinished, test } from 'vitest'
import { PurserClient } from '#client/purser-client.ts'

/** A client of a server that answers as it likes. */
async function clientOf(answer: (request: IncomingMessage, response: ServerResponse) => void) {
  const server = createServer(answer).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the server has no port')
  return new PurserClient(`http://127.0.0.1:${address.port}`, `purser_pk_${'x'.repeat(43)}`)
}

test('what is no answer of Purser, or half of one, is said in words', async () => {
  const html = { 'content-type': 'text/html' }
  const page = await clientOf((_request, response) => response.writeHead(200, html).end('<html>Sign in</html>'))
  await expect(page.get('/models')).rejects.toThrow(/answered 200, and not as Purser does/)
  const broken = await clientOf((_request, response) => response.writeHead(502, html).end('<html>Bad gateway</html>'))
  await expect(broken.get('/models')).rejects.toThrow(/answered 502, and not as Purser does/)
  const cut = await clientOf((_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': 100 })
    response.write('{"models":', () => response.destroy())
  })
  await expect(cut.get('/models')).rejects.toThrow(/broke off/)
})

test('whoever asks can leave, and learns that he did', async () => {
  const controller = new AbortController()
  const gone = Promise.withResolvers<void>()
  const client = await clientOf((request) => {
    request.once('close', () => gone.resolve())
    controller.abort(new Error('enough'))
  })
  await expect(client.get('/models', { signal: controller.signal })).rejects.toThrow('enough')
  await gone.promise
})

test('a server that is silent for too long is named', async () => {
  const client = await clientOf(() => {})
  const impatient = new PurserClient(client.url, 'key', { timeoutMs: 50 })
  await expect(impatient.get('/models')).rejects.toThrow(`${client.url} has not answered within 0.05 s.`)
})

test('what is known already is not sent again', async () => {
  const client = await clientOf((request, response) => {
    const isKnown = request.headers['if-none-match'] === '"1"'
    response.writeHead(isKnown ? 304 : 200, { 'content-type': 'application/json', etag: '"1"' })
    response.end(isKnown ? undefined : '{"models":[]}')
  })
  const { body, etag } = await client.getTagged('/models')
  expect(body).toEqual({ models: [] })
  if (etag === null) throw new Error('it has no ETag')
  const unlike = (tag: string) => ({ params: { header: { 'if-none-match': tag } } })
  expect(await client.getChanged('/models', unlike(etag))).toBeUndefined()
  expect(await client.getChanged('/models', unlike('"0"'))).toEqual({ body: { models: [] }, etag: '"1"' })
})
