import { callLedgerSchema, keyCallListSchema } from '#contracts/api-call.ts'
import { callStorySchema } from '#contracts/report.ts'
import { expect, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { makeTenant, usd } from '../support/api.ts'
import { useGateway, type TestGateway } from '../support/gateway.ts'
import { expectVerified } from '../support/open-attempt.ts'

function asker(gateway: TestGateway, key = gateway.tenant.key) {
  return async (content: string, idempotencyKey?: string): Promise<string> => {
    const { response } = await gateway
      .client(key)
      .chat.completions.create(
        { model: 'steady', messages: [{ role: 'user', content }], max_tokens: 50 },
        idempotencyKey === undefined ? {} : { headers: { 'Idempotency-Key': idempotencyKey } },
      )
      .withResponse()
    return response.headers.get('x-purser-call-id') ?? ''
  }
}

async function calls(gateway: TestGateway, query = '') {
  const { key, keyId } = gateway.tenant
  const answer = await gateway.api.ask('GET', `/api/v1/keys/${keyId}/calls${query}`, { key })
  expect(answer.status).toBe(200)
  return keyCallListSchema.parse(answer.body)
}

test('the story of a call that belongs to no run is told with its attempts and the entries that prove it', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const { key } = tenant
  const id = await asker(gateway)('When was the mill built?')
  const story = callStorySchema.parse((await api.ask('GET', `/api/v1/calls/${id}`, { key })).body)
  expect(story).toMatchObject({
    runId: null,
    projectId: tenant.projectId,
    apiKey: { id: tenant.keyId, name: 'first', hint: key.slice(0, 14) },
    asked: { model: 'steady' },
    served: { provider: 'sandbox', route: 'steady' },
    bound: { gate: 'open', verdict: 'allowed' },
    call: { id, state: 'answered' },
  })
  const charged = story.call.attempts.at(-1)?.charged
  expect(story.paid).toEqual([{ balanceClass: 'direct', charged }])
  const ledger = callLedgerSchema.parse((await api.ask('GET', `/api/v1/calls/${id}/ledger`, { key })).body)
  expect(ledger.transfers.map(({ code }) => code)).toEqual(['hold', 'capture'])
  expect(ledger.transfers.map((each) => each.id)).toEqual(story.call.attempts.flatMap(({ transfers }) => transfers))
  expect(ledger.transfers[1]?.amount).toEqual(charged)
  await expectVerified(api)
})

test('what refused such a call is told too', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const limit = { scope: 'key', subjectId: tenant.keyId, measure: 'money', period: 'day', cap: usd('0.0000001') }
  await api.make('/api/v1/limits', { key: api.operatorKey, body: limit })
  await expect(asker(gateway)('When was the mill built?')).rejects.toThrow('402')
  const [call] = (await calls(gateway)).calls
  expect(call).toMatchObject({ state: 'open', charged: [], attempts: [{ kind: 'refusal', bound: { by: 'limit' } }] })
  const story = await api.ask('GET', `/api/v1/calls/${call?.id}`, { key: tenant.key })
  expect(story.body).toMatchObject({ served: null, paid: [], bound: { verdict: 'stopped' } })
})

test('the calls of a key are listed page by page, filtered, and likely repeats stand together', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const ask = asker(gateway)
  const first = await ask('When was the mill built?')
  const other = await ask('When was the harbour dredged?')
  const second = await ask('When was the mill built?')
  const third = await ask('When was the mill built?')
  const keyed = await ask('When was the mill built?', 'mine')
  expect(await ask('When was the mill built?', 'mine')).toBe(keyed)

  const all = await calls(gateway)
  expect(all.calls.map(({ id, repeats, idempotencyKey }) => [id, repeats, idempotencyKey])).toEqual([
    [keyed, null, 'mine'],
    [third, second, null],
    [second, first, null],
    [other, null, null],
    [first, null, null],
  ])
  const spent = all.calls.map(({ charged }) => charged)
  expect(all.likelyRepeats).toMatchObject([{ first, repeats: [second, third] }])
  expect(spent.every((each) => each.length === 1)).toBe(true)

  const paged: string[] = []
  const groups = []
  for (let cursor: string | null = ''; cursor !== null;) {
    const page = await calls(gateway, `?limit=2${cursor === '' ? '' : `&cursor=${cursor}`}`)
    paged.push(...page.calls.map(({ id }) => id))
    groups.push(...page.likelyRepeats.map(({ repeats }) => repeats))
    cursor = page.nextCursor
  }
  expect(paged).toEqual([keyed, third, second, other, first])
  // A page knows what came before it.
  expect(groups).toEqual([[third], [second]])

  expect((await calls(gateway, '?state=open')).calls).toEqual([])
  expect((await calls(gateway, '?model=nothing')).calls).toEqual([])
  const from = all.calls[1]?.at ?? ''
  expect((await calls(gateway, `?from=${from}`)).calls.map(({ id }) => id)).toEqual([keyed, third])
  expect((await calls(gateway, `?to=${from}`)).calls.map(({ id }) => id)).toEqual([second, other, first])
  const odd = await api.ask('GET', `/api/v1/keys/${tenant.keyId}/calls?cursor=odd`, { key: tenant.key })
  expect([odd.status, odd.body['code']]).toEqual([400, 'invalid_request'])

  const stranger = await makeTenant(api)
  const foreign = await api.ask('GET', `/api/v1/keys/${tenant.keyId}/calls`, { key: stranger.key })
  expect(foreign.status).toBe(404)
  const operator = await api.ask('GET', `/api/v1/keys/${tenant.keyId}/calls?limit=1`, { key: api.operatorKey })
  expect(keyCallListSchema.parse(operator.body).calls).toHaveLength(1)
  await expectVerified(api)
})

test('a client that gave up after minutes and asked again is a likely repeat: its call ended just before', async () => {
  const gateway = await useGateway()
  const { api } = gateway
  const ask = asker(gateway)
  const [early, first] = [await ask('When was the mill built?'), await ask('When was the harbour dredged?')]
  await asAdmin(api, async (admin) => {
    // One was asked long before and answered at once; the other took the minutes in between.
    await admin.query('set session_replication_role = replica')
    await admin.query("update call set created_at = created_at - interval '8 minutes'")
    await admin.query("update attempt set resolved_at = resolved_at - interval '8 minutes' where call_id = $1", [early])
  })
  await ask('When was the mill built?')
  const second = await ask('When was the harbour dredged?')
  const { likelyRepeats } = await calls(gateway)
  expect(likelyRepeats).toMatchObject([{ first, repeats: [second] }])
})
