import type { GatewayLimits } from '#contracts/gateway-limits.ts'
import { networkOf } from '#domain/network-of.ts'
import { expect, test } from 'vitest'
import { makeTenant } from '../support/api.ts'
import { askChat } from '../support/gateway-process.ts'
import { useGateway, type TestGateway } from '../support/gateway.ts'
import { pollUntil } from '../support/poll.ts'

const useLimits = (limits: Partial<GatewayLimits>): Promise<TestGateway> => useGateway({ limits })

/** Calls that stay open at the provider. */
async function openCalls({ url, sandbox }: TestGateway, key: string, count: number) {
  await sandbox.control('PUT', '/faults/sandbox-steady', { hang: true })
  const controller = new AbortController()
  const before = (await sandbox.readLog()).length
  const calls = Array.from({ length: count }, () => askChat({ url, key, signal: controller.signal }))
  const ended = Promise.allSettled(calls)
  await pollUntil(async () => (await sandbox.readLog()).length === before + count, {
    what: 'the calls at the provider',
  })
  return {
    async leave() {
      controller.abort()
      await ended
      await sandbox.control('DELETE', '/faults/sandbox-steady')
    },
  }
}

/** Once those that left are counted out. */
async function answeredOnce({ url }: TestGateway, key: string): Promise<void> {
  await pollUntil(async () => (await askChat({ url, key })).status === 200, { what: 'room for a request' })
}

test('a key has so many requests in flight, the next is told when to come again, and others are answered', async () => {
  const gateway = await useLimits({ requestsOfKey: 3 })
  const { key } = gateway.tenant
  const other = await makeTenant(gateway.api)
  const open = await openCalls(gateway, key, 3)
  const refused = await askChat({ url: gateway.url, key })
  expect([refused.status, refused.headers.get('retry-after')]).toEqual([429, '1'])
  expect(await refused.json()).toMatchObject({ error: { code: 'rate_limit_exceeded' } })
  await gateway.sandbox.control('DELETE', '/faults/sandbox-steady')
  expect((await askChat({ url: gateway.url, key: other.key })).status).toBe(200)
  await open.leave()
  await answeredOnce(gateway, key)
})

test('a process has so many requests in flight, whoever sends them, and looks no key up beyond', async () => {
  const gateway = await useLimits({ requests: 2 })
  const open = await openCalls(gateway, gateway.tenant.key, 2)
  const refused = await askChat({ url: gateway.url, key: 'purser_pk_nobody-has-this-key-at-all' })
  expect(refused.status).toBe(429)
  await open.leave()
  await answeredOnce(gateway, gateway.tenant.key)
})

test('an address that tries keys is refused more of them, and its good keys are not', async () => {
  const gateway = await useLimits({ failuresOfAddress: 5 })
  const { url, tenant } = gateway
  expect((await askChat({ url, key: tenant.key })).status).toBe(200)
  const guess = (index: number) => askChat({ url, key: `purser_pk_${String(index).padStart(43, 'g')}` })
  for (let index = 0; index < 5; index += 1) expect((await guess(index)).status).toBe(401)
  const refused = await guess(5)
  expect([refused.status, refused.headers.get('retry-after')]).toEqual([429, '60'])
  // A key that nobody used here before is a guess as well, for a minute.
  const unknown = await makeTenant(gateway.api)
  expect((await askChat({ url, key: unknown.key })).status).toBe(429)
  expect((await askChat({ url, key: tenant.key })).status).toBe(200)
})

test('where a sender can choose its address, all that it can choose from is one', () => {
  expect(networkOf('203.0.113.7')).toBe('203.0.113.7')
  expect(networkOf('::ffff:203.0.113.7')).toBe('203.0.113.7')
  expect(networkOf('2001:db8:1:2:3:4:5:6')).toBe('2001:db8:1:2::/64')
  expect(networkOf('2001:0DB8:1:2::9')).toBe('2001:db8:1:2::/64')
  expect(networkOf('2001:db8::9')).toBe('2001:db8:0:0::/64')
  expect(networkOf('::1')).toBe('0:0:0:0::/64')
  expect(networkOf('fe80::1%eth0')).toBe('fe80:0:0:0::/64')
})

test('a body that is too large is refused before it is read, and one that is nested too deep before it is looked at', async () => {
  const gateway = await useLimits({ bodyBytes: 10_000 })
  const { url, tenant, api, sandbox } = gateway
  const large = await askChat({ url, key: tenant.key, content: 'x'.repeat(20_000) })
  expect(large.status).toBe(413)
  expect(await large.json()).toMatchObject({ error: { code: 'request_too_large' } })
  const deep = `{"model":"steady","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f","parameters":${'{"a":'.repeat(500)}1${'}'.repeat(500)}}}]}`
  const answer = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${tenant.key}`, 'content-type': 'application/json' },
    body: deep,
  })
  expect(answer.status).toBe(400)
  expect(await answer.json()).toMatchObject({
    error: { code: 'invalid_request', message: expect.stringContaining('deep') },
  })
  expect(await sandbox.readLog()).toEqual([])
  expect(await api.db.selectFrom('call').select('id').execute()).toEqual([])
})
