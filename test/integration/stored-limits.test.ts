import { addProvider, MOST_PROVIDERS } from '#db/provider.ts'
import { createWebhook, MOST_WEBHOOKS } from '#db/webhook.ts'
import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { testSecrets } from '../support/api-deps.ts'
import { makeTenant, text, useApi, type Answer, type TestApi, type Tenant } from '../support/api.ts'

const WEBHOOK = { url: 'https://example.org/', topics: ['state'] as const }
const lux = { kind: 'openai', baseUrl: 'https://lux.example/v1', apiKey: 'lux-0123456789-first' } as const

async function storeWebhooks({ db }: TestApi, { projectId }: Tenant, count: number): Promise<void> {
  const webhook = { ...WEBHOOK, lowBalance: [], secret: randomBytes(32), box: testSecrets, nowMs: Date.now() }
  await db.transaction().execute(async (trx) => {
    for (let number = 0; number < count; number += 1) await createWebhook(trx, { projectId }, webhook)
  })
}

/** In any order. */
function told(answers: readonly Answer[]): readonly string[] {
  return answers.map(({ status, body }) => (status < 300 ? `${status}` : text(body, 'code'))).toSorted()
}

test('an organisation has no more webhooks than it may, whoever asks at the same time; one that is deleted makes room', async () => {
  const api = await useApi()
  const [one, two] = [await makeTenant(api), await makeTenant(api)]
  await storeWebhooks(api, one, MOST_WEBHOOKS - 1)
  const ask = (tenant: Tenant, headers = {}) =>
    api.ask('POST', '/api/v1/webhooks', { key: tenant.key, body: WEBHOOK, headers })
  const once = { 'idempotency-key': 'once' }
  const both = await Promise.all([ask(one, once), ask(two, once)])
  expect(told(both)).toEqual(['201', 'too_many'])
  const refused = both.find(({ status }) => status !== 201)
  expect(refused).toMatchObject({ status: 409, body: { remedy: expect.stringContaining('Delete') } })
  const [made] = both.filter(({ status }) => status === 201)
  const whose = both[0] === made ? one : two
  expect((await ask(whose, once)).status).toBe(201)
  expect((await api.ask('DELETE', `/api/v1/webhooks/${String(made?.body['id'])}`, { key: whose.key })).status).toBe(204)
  expect((await ask(two)).status).toBe(201)
})

test('an installation has no more providers than it may; those that are there are changed as ever', async () => {
  const api = await useApi()
  await api.db.transaction().execute(async (trx) => {
    for (let number = 1; number < MOST_PROVIDERS; number += 1) {
      await addProvider(trx, testSecrets, { ...lux, name: `lux-${number}` })
    }
  })
  const add = (name: string) => api.ask('POST', '/api/v1/providers', { key: api.operatorKey, body: { ...lux, name } })
  expect(told(await Promise.all([add('nox'), add('pax')]))).toEqual(['201', 'too_many'])
  expect((await add('lux-1')).body['code']).toBe('already_exists')
  const path = '/api/v1/providers/lux-1'
  expect((await api.ask('PATCH', path, { key: api.operatorKey, body: { apiKey: 'another-key' } })).status).toBe(200)
  expect((await api.ask('DELETE', path, { key: api.operatorKey })).status).toBe(204)
  expect((await add('rex')).status).toBe(201)
})
