import { externalRunSchema } from '#contracts/api-external.ts'
import Anthropic from '@anthropic-ai/sdk'
import OpenAI from 'openai'
import { expect, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { usd } from '../support/api.ts'
import { useGateway, type TestGateway } from '../support/gateway.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { endRun, eraseAll, letPass, tablesWith } from '../support/storage.ts'

const CANARY = '4711-kestrel'
const QUESTION = `<passage id="p1">The vault opens with ${CANARY}.</passage> How does the vault open?`
const ONCE = { headers: { 'Idempotency-Key': 'once' } }
const ASKED = { model: 'steady', messages: [{ role: 'user' as const, content: QUESTION }], max_tokens: 200 }

async function keepHashes({ api, tenant }: TestGateway): Promise<void> {
  await api.ask('PATCH', `/api/v1/projects/${tenant.projectId}`, {
    key: api.operatorKey,
    body: { storage: 'hash_only' },
  })
}

const errorOf = (asked: Promise<unknown>): Promise<unknown> =>
  asked.then(() => Promise.reject(new Error('it was answered'))).catch((error: unknown) => error)

test('a client that repeats soon gets its answer, and later is told that it is gone: nothing is sent again', async () => {
  const gateway = await useGateway()
  await keepHashes(gateway)
  const client = gateway.client()
  const first = await client.chat.completions.create(ASKED, ONCE)
  await client.chat.completions.create(ASKED)
  await letPass(gateway.api, '19 minutes')
  expect(await eraseAll(gateway.api)).toEqual({ payloads: 0, runs: 0 })
  const repeated = await client.chat.completions.create(ASKED, ONCE)
  expect(repeated.choices).toEqual(first.choices)

  await letPass(gateway.api, '2 minutes')
  expect(await eraseAll(gateway.api)).toEqual({ payloads: 4, runs: 0 })
  expect(await tablesWith(gateway.api, CANARY)).toEqual([])
  const refused = await errorOf(client.chat.completions.create(ASKED, ONCE))
  if (!(refused instanceof OpenAI.APIError)) throw new Error('no error of OpenAI')
  expect(refused).toMatchObject({ status: 410, code: 'answer_not_stored', type: 'invalid_request_error' })
  expect(refused.message).toContain('new Idempotency-Key')
  expect(refused.headers?.get('x-should-retry')).toBe('false')
  expect(refused.error).toMatchObject({ call_id: first.id.replace('chatcmpl-', '') })
  const streamed = await errorOf(client.chat.completions.create({ ...ASKED, stream: true }, ONCE))
  expect(streamed).toMatchObject({ status: 410, code: 'answer_not_stored' })
  expect(await gateway.sandbox.readLog()).toHaveLength(2)
  await expectVerified(gateway.api)
})

test('the same of a key whose claim was forgotten meanwhile, in the words of Anthropic', async () => {
  const gateway = await useGateway({ kind: 'anthropic' })
  await keepHashes(gateway)
  const client = gateway.anthropic()
  await client.messages.create(ASKED, ONCE)
  await letPass(gateway.api, '1 day')
  await eraseAll(gateway.api)
  await asAdmin(gateway.api, (admin) => admin.query('delete from idempotency'))
  const refused = await errorOf(client.messages.create(ASKED, ONCE))
  if (!(refused instanceof Anthropic.APIError)) throw new Error('no error of Anthropic')
  expect(refused).toMatchObject({ status: 410 })
  expect(refused.error).toMatchObject({
    error: { type: 'not_found_error', details: { error_code: 'answer_not_stored' } },
  })
  expect(await gateway.sandbox.readLog()).toHaveLength(1)
})

test('responses say it too', async () => {
  const { gateway, client } = await startOf()
  const responses = () => client.responses.create({ model: 'steady', input: QUESTION, store: false }, ONCE)
  await responses()
  await letPass(gateway.api, '1 day')
  await eraseAll(gateway.api)
  expect(await errorOf(responses())).toMatchObject({ status: 410, code: 'answer_not_stored' })
  expect(await gateway.sandbox.readLog()).toHaveLength(1)
})

async function startOf() {
  const gateway = await useGateway()
  await keepHashes(gateway)
  return { gateway, client: gateway.client() }
}

test('what clients of an external run asked goes with it, whatever key they sent', async () => {
  const { gateway } = await startOf()
  const { api, tenant } = gateway
  const opened = await api.make('/api/v1/runs/external', {
    key: tenant.key,
    body: { model: 'steady', envelope: { pockets: [{ balanceClass: 'direct', amount: usd('1') }] } },
  })
  const { run, key } = externalRunSchema.parse(opened)
  const client = gateway.client(key.secret)
  await client.chat.completions.create(ASKED)
  await client.chat.completions.create(ASKED, ONCE)
  expect(await tablesWith(api, CANARY)).toEqual(['payload'])
  await endRun({ db: api.db, scope: { projectId: tenant.projectId } }, run.id)
  await letPass(api, '1 day')
  expect(await eraseAll(api)).toEqual({ payloads: 4, runs: 1 })
  expect(await tablesWith(api, CANARY)).toEqual([])
  await expectVerified(api)
})
