import { startWebhookSender } from '#api/webhook-sender.ts'
import type { SecretBox } from '#db/secret-box.ts'
import { makeSecretsKey, secretBox } from '#db/secret-box.ts'
import { encryptAgain } from '#db/secret-turn.ts'
import { createHmac } from 'node:crypto'
import { expect, onTestFinished, test } from 'vitest'
import { testSecrets } from '../support/api-deps.ts'
import { makeTenant, startTestRun, text, useApi, type Tenant, type TestApi } from '../support/api.ts'
import { pollUntil } from '../support/poll.ts'
import { sendJson, useUpstream, type SeenRequest, type Upstream } from '../support/upstream.ts'

const SOON = { deadlineMs: 20_000 }

interface Stage {
  readonly api: TestApi
  readonly tenant: Tenant
  readonly receiver: Upstream
  readonly webhookId: string
  /** What the project was told deliveries are signed with. */
  readonly secret: Buffer
}

async function useWebhook(): Promise<Stage> {
  const api = await useApi({ allowsPrivateWebhooks: true })
  const tenant = await makeTenant(api)
  const receiver = await useUpstream((response) => sendJson(response, {}))
  const body = { url: receiver.url, topics: ['state'] }
  const made = await api.make('/api/v1/webhooks', { key: tenant.key, body })
  const secret = Buffer.from(text(made, 'secret').replace('whsec_', ''), 'base64')
  return { api, tenant, receiver, webhookId: text(made, 'id'), secret }
}

/** A process that tells webhooks, with these keys for secrets, and what it logs. */
function startTeller({ api }: Stage, secrets: SecretBox | undefined) {
  const warnings: string[] = []
  const log = { warn: (...said: readonly unknown[]) => void warnings.push(JSON.stringify(said)) }
  const teller = startWebhookSender({ db: api.db, log, nowMs: () => Date.now(), allowsPrivate: true, secrets })
  onTestFinished(() => teller.stop())
  return { teller, warnings }
}

async function makeNews({ api, tenant }: Stage): Promise<void> {
  const run = await startTestRun(api, tenant)
  await api.make(`/api/v1/runs/${run}/cancel`, { key: tenant.key, body: {} })
}

/** As it comes over the wire, with the text that was signed. */
function isSigned({ headers, body }: SeenRequest, secret: Buffer): boolean {
  const content = `${String(headers['webhook-id'])}.${String(headers['webhook-timestamp'])}.${JSON.stringify(body)}`
  return headers['webhook-signature'] === `v1,${createHmac('sha256', secret).update(content).digest('base64')}`
}

test('one from before there was a key is told as ever, encrypted once there is one, and signed as before', async () => {
  const stage = await useWebhook()
  const { api, receiver, webhookId, secret } = stage
  await api.db.updateTable('webhook').set({ secret, encrypted_by: null }).where('id', '=', webhookId).execute()
  const { teller } = startTeller(stage, undefined)
  await makeNews(stage)
  await pollUntil(() => receiver.requests.length > 0, { what: 'it is told', ...SOON })
  await teller.stop()
  expect(await encryptAgain(api.db, testSecrets)).toEqual({ encrypted: 1, unreadable: 0 })
  const before = receiver.requests.length
  startTeller(stage, testSecrets)
  await makeNews(stage)
  await pollUntil(() => receiver.requests.length > before, { what: 'it is told again', ...SOON })
  expect(receiver.requests.map((request) => isSigned(request, secret))).not.toContain(false)
})

test('a process that cannot read the secret sends nothing unsigned, says why to operators alone, and another one tells it', async () => {
  const stage = await useWebhook()
  const { api, receiver, tenant, webhookId, secret } = stage
  for (const box of [undefined, secretBox(makeSecretsKey())]) {
    const { teller, warnings } = startTeller(stage, box)
    await makeNews(stage)
    await pollUntil(() => warnings.length > 0, { what: 'it complains', ...SOON })
    await teller.stop()
    expect(warnings.join()).toContain(webhookId)
  }
  expect(receiver.requests).toEqual([])
  const told = await api.ask('GET', `/api/v1/webhooks/${webhookId}/deliveries`, { key: tenant.key })
  expect(JSON.stringify(told.body)).toContain('its secret cannot be read here')
  expect(JSON.stringify(told.body)).not.toContain('PURSER_SECRETS_KEY_FILE')
  await api.db
    .updateTable('webhook_delivery')
    .set({ due_at: new Date(0) })
    .where('state', '=', 'waiting')
    .execute()
  startTeller(stage, testSecrets)
  await pollUntil(() => receiver.requests.length > 0, { what: 'it is told', ...SOON })
  expect(receiver.requests.every((request) => isSigned(request, secret))).toBe(true)
})

test('a secret that cannot be read uses up no try, is said once, and is told of when it can be read', async () => {
  const stage = await useWebhook()
  const { api, receiver, secret } = stage
  const deliveries = () => api.db.selectFrom('webhook_delivery').select(['state', 'tries', 'last_error']).execute()
  const set = (columns: { readonly tries?: number; readonly due_at: Date }) =>
    api.db.updateTable('webhook_delivery').set(columns).where('state', '=', 'waiting').execute()
  const { teller, warnings } = startTeller(stage, undefined)
  await makeNews(stage)
  const isTried = async () => (await deliveries()).some(({ last_error: error }) => error !== null)
  await pollUntil(isTried, { what: 'it is tried', ...SOON })
  // As if it had been tried in vain, but for one time.
  await set({ tries: 8, due_at: new Date(0) })
  const isPutOff = async () => {
    const rows = await api.db.selectFrom('webhook_delivery').select('due_at').execute()
    return rows.every(({ due_at: due }) => due.getTime() > 0)
  }
  await pollUntil(isPutOff, { what: 'it is tried again', ...SOON })
  await teller.stop()
  const waiting = await deliveries()
  expect(new Set(waiting.map(({ state, tries }) => `${state} ${tries}`))).toEqual(new Set(['waiting 8']))
  expect(warnings).toHaveLength(1)
  await set({ due_at: new Date(0) })
  startTeller(stage, testSecrets)
  await pollUntil(() => receiver.requests.length === waiting.length, { what: 'all is told', ...SOON })
  expect(receiver.requests.every((request) => isSigned(request, secret))).toBe(true)
})
