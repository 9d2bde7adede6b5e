import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { expect, test } from 'vitest'
import { askChat, useGatewayStage, type GatewayProcess } from '../support/gateway-process.ts'
import { useGateway } from '../support/gateway.ts'

const MALFORMED = 10_000
const WARM_UP = 2_000
const AT_ONCE = 50
/** Of what is in use: a leak of a kilobyte a request would be more. */
const MOST_GROWTH_BYTES = 8 * 1024 * 1024
/** Of what the process has taken: a young heap grows to its size, and stays there (measured: 370 MB from 5,000 requests on). */
const MOST_TAKEN_BYTES = 160 * 1024 * 1024
const SLOW_MS = 120_000

/** A connection that writes what it likes, and what came back when its server ended it. */
async function openSocket(url: string): Promise<{ readonly socket: Socket; readonly answer: Promise<string> }> {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  await once(socket, 'connect')
  socket.on('error', () => {})
  let text = ''
  socket.on('data', (chunk) => {
    text += String(chunk)
  })
  const answer = once(socket, 'close').then(() => text)
  return { socket, answer }
}

function headOf(key: string, more = ''): string {
  return `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${key}\r\ncontent-type: application/json\r\n${more}`
}

test('headers that are too large are refused with 431, and the connection ends', async () => {
  const { url, tenant } = await useGateway()
  const { socket, answer } = await openSocket(url)
  socket.write(`${headOf(tenant.key, `x-filler: ${'x'.repeat(70_000)}\r\n`)}\r\n`)
  const text = await answer
  expect(text).toMatch(/^HTTP\/1\.1 431 /)
  expect(text).toContain('x-content-type-options: nosniff')
})

test.for([
  ['an id that is none', 'GET', `/v1/models/${'x'.repeat(300)}`, 404],
  ['bytes that are no text', 'GET', '/v1/models/%ff', 400],
  ['a method without its body', 'QUERY', '/v1/models', 400],
] as const)('%s is refused in the words of the client', async ([, method, path, status]) => {
  const { url, tenant } = await useGateway()
  const authorization = `Bearer ${tenant.key}`
  const refused = await fetch(`${url}${path}`, { method, headers: { authorization } })
  expect(refused.status).toBe(status)
  expect(await refused.json()).toMatchObject({ error: { type: 'invalid_request_error' } })
  const headers = { authorization, 'anthropic-version': '2023-06-01' }
  const inOther = await fetch(`${url}${path}`, { method, headers })
  expect(inOther.status).toBe(status)
  expect(await inOther.json()).toMatchObject({ type: 'error', error: { details: { error_code: expect.any(String) } } })
})

test(
  'whoever sends nothing, headers that do not end or a body that does not end, is cut off, and others are answered',
  { timeout: SLOW_MS },
  async () => {
    const { url, tenant, sandbox } = await useGateway()
    const [silent, slowHead, slowBody] = await Promise.all([openSocket(url), openSocket(url), openSocket(url)])
    slowHead.socket.write(headOf(tenant.key))
    slowBody.socket.write(`${headOf(tenant.key, 'content-length: 1000\r\n')}\r\n{"model":`)
    const drip = setInterval(() => {
      slowHead.socket.write('x-a: b\r\n')
      slowBody.socket.write(' ')
    }, 1_000)
    try {
      expect((await askChat({ url, key: tenant.key })).status).toBe(200)
      const texts = await Promise.all([silent.answer, slowHead.answer, slowBody.answer])
      for (const text of texts) expect(text === '' || text.startsWith('HTTP/1.1 408 ')).toBe(true)
    } finally {
      clearInterval(drip)
    }
    expect(await sandbox.readLog()).toHaveLength(1)
  },
)

/** Each wrong in its own way, none worth more than an answer of 4xx. */
function malformed(
  key: string,
  index: number,
): { readonly headers: Readonly<Record<string, string>>; readonly body: string } {
  const json = { 'content-type': 'application/json' }
  const good = { ...json, authorization: `Bearer ${key}` }
  const message = { role: 'user', content: 'x' }
  switch (index % 10) {
    case 0:
      return { headers: json, body: '{}' }
    case 1:
      return { headers: { ...json, authorization: `Bearer purser_pk_${String(index).padStart(43, 'x')}` }, body: '{}' }
    case 2:
      return { headers: good, body: '{"model":"steady","messages":[' }
    case 3:
      return {
        headers: good,
        body: JSON.stringify({ model: 'steady', messages: [{ role: 'nobody', content: index }] }),
      }
    case 4:
      return { headers: good, body: JSON.stringify({ model: `no-${index}`, messages: [message] }) }
    case 5:
      return { headers: good, body: `{"a":${'['.repeat(2_000)}${']'.repeat(2_000)}}` }
    case 6:
      return { headers: good, body: `{"__proto__":{"a":${index}},"model":"steady"}` }
    case 7:
      return { headers: { ...good, 'content-type': 'text/xml' }, body: '<a/>' }
    case 8:
      return {
        headers: good,
        body: JSON.stringify({ model: 'steady', messages: Array.from({ length: 100 }, () => ({})) }),
      }
    default:
      return {
        headers: { ...good, 'idempotency-key': 'ä'.repeat(300) },
        body: JSON.stringify({ model: 'steady', messages: [message] }),
      }
  }
}

async function flood({ url }: GatewayProcess, key: string, count: number): Promise<ReadonlySet<number>> {
  const statuses = new Set<number>()
  let sent = 0
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      while (sent < count) {
        sent += 1
        const { headers, body } = malformed(key, sent)
        const response = await fetch(`${url}/v1/chat/completions`, { method: 'POST', headers, body })
        await response.text()
        statuses.add(response.status)
      }
    }),
  )
  return statuses
}

test('ten thousand malformed requests leave memory flat and the process up', { timeout: 240_000 }, async () => {
  const stage = await useGatewayStage()
  const { key } = stage.tenant
  const process = await stage.start()
  expect((await askChat({ url: process.url, key })).status).toBe(200)
  await flood(process, key, WARM_UP)
  const before = await process.memory()
  const statuses = await flood(process, key, MALFORMED)
  const after = await process.memory()
  expect([...statuses].filter((status) => status < 400 || status >= 500)).toEqual([])
  expect(after.usedBytes - before.usedBytes).toBeLessThan(MOST_GROWTH_BYTES)
  expect(after.residentBytes - before.residentBytes).toBeLessThan(MOST_TAKEN_BYTES)
  expect(process.hasExited()).toBe(false)
  expect((await askChat({ url: process.url, key })).status).toBe(200)
  expect(await stage.sandbox.readLog()).toHaveLength(2)
})
