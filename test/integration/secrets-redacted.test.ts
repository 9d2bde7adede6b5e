import { withoutSecrets } from '#api/log.ts'
import { DOCUMENT_PATH } from '#api/documentation.ts'
import { startWebhookSender } from '#api/webhook-sender.ts'
import { newWebhookSchema } from '#contracts/api-webhook.ts'
import type { RunningEngine } from '#calls/start-engine.ts'
import { startEngine } from '#calls/start-engine.ts'
import { registerGateway } from '#src/gateway/gateway.ts'
import { randomBytes } from 'node:crypto'
import { expect, onTestFinished, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { testSecrets } from '../support/api-deps.ts'
import { makeTenant, startTestRun, text, useApi, type Ask, type Tenant, type TestApi } from '../support/api.ts'
import { pollUntil } from '../support/poll.ts'
import { sendJson, useUpstream } from '../support/upstream.ts'

const marker = (name: string) => `${name}-${randomBytes(12).toString('hex')}`

/** All that a secret could look like: as it is, and as bytes of it are printed. */
function looksOf(secret: string | Buffer): readonly string[] {
  const bytes = Buffer.from(secret)
  const plain = typeof secret === 'string' ? [secret] : []
  return [...plain, bytes.toString('hex'), bytes.toString('base64').replace(/=+$/, '')]
}

/** Every column of every table, as text. */
async function dumpOf(api: TestApi): Promise<string> {
  const rows: string[] = []
  await asAdmin(api, async (admin) => {
    const { rows: tables } = await admin.query<{ name: string }>(
      `select format('%I.%I', table_schema, table_name) as name from information_schema.tables
       where table_schema not in ('pg_catalog', 'information_schema') and table_type = 'BASE TABLE'`,
    )
    for (const { name } of tables) {
      const { rows: found } = await admin.query<{ row: string }>(`select t::text as row from ${name} t`)
      rows.push(...found.map(({ row }) => row))
    }
  })
  return rows.join('\n')
}

interface Stage {
  readonly api: TestApi
  readonly tenant: Tenant
  readonly url: string
  /** All lines of the log. */
  readonly log: string[]
  /** All that was answered but where a new secret is told. */
  readonly answers: string[]
}

const stripeSecret = marker('whsec')

async function useStage(): Promise<Stage> {
  const log: string[] = []
  const answers: string[] = []
  let engine: RunningEngine | undefined
  const api = await useApi({
    log: { level: 'trace', stream: { write: (line) => void log.push(line) } },
    stripeSecret,
    allowsPrivateWebhooks: true,
    async extend(app, { db, databaseUrl }) {
      const stored = { secrets: testSecrets, complain: (sentence: string) => app.log.error(sentence) }
      const started = await startEngine({ db, databaseUrl, kind: 'test', providers: [], stored })
      engine = started
      await registerGateway(app, { engine: started, drainTimeoutMs: 0 })
    },
  })
  const sender = startWebhookSender({
    db: api.db,
    log: api.app.log,
    nowMs: () => Date.now(),
    allowsPrivate: true,
    secrets: testSecrets,
  })
  onTestFinished(async () => {
    await sender.stop()
    await api.app.close()
    await engine?.stop()
  })
  const url = await api.app.listen({ host: '127.0.0.1', port: 0 })
  return { api, tenant: await makeTenant(api), url, log, answers }
}

async function ask(
  { api, answers }: Stage,
  method: 'GET' | 'POST' | 'PATCH' | 'DELETE',
  path: string,
  request: Ask = {},
) {
  const answer = await api.ask(method, path, { key: api.operatorKey, ...request })
  answers.push(JSON.stringify(answer))
  return answer
}

async function askRaw({ url, answers }: Stage, path: string, init: RequestInit): Promise<void> {
  const answer = await fetch(`${url}${path}`, init)
  answers.push(`${JSON.stringify([...answer.headers])} ${await answer.text()}`)
}

/** A provider that says what it was sent, as some do: in errors, before and after an answer has begun. */
async function askProviders(stage: Stage, [first, second]: readonly [string, string]): Promise<void> {
  const { tenant } = stage
  let asked = 0
  const upstream = await useUpstream((response, { headers }) => {
    asked += 1
    const said = `Incorrect API key provided: ${String(headers['authorization'])} (${String(headers['x-api-key'])})`
    if (asked % 2 === 0) response.destroy()
    else sendJson(response, { error: { message: said, code: said } }, asked === 1 ? 500 : 401)
  })
  const provider = { name: 'lux', baseUrl: upstream.url, apiKey: first }
  const headers = { 'idempotency-key': 'once' }
  for (let time = 0; time < 2; time += 1) await ask(stage, 'POST', '/api/v1/providers', { body: provider, headers })
  await ask(stage, 'POST', '/api/v1/providers', { body: { ...provider, apikey: first, key: { [first]: first } } })
  await ask(stage, 'POST', '/api/v1/providers', { body: { ...provider, apiKey: `${first} ${first}` } })
  await ask(stage, 'PATCH', '/api/v1/providers/lux', { body: { apiKey: second, kind: 'openrouter' } })
  await ask(stage, 'PATCH', '/api/v1/providers/lux', { body: { baseUrl: 'http://127.0.0.1:1' } })
  await askRaw(stage, '/api/v1/providers', {
    method: 'POST',
    headers: { authorization: `Bearer ${stage.api.operatorKey}`, 'content-type': 'application/json' },
    body: `{"apiKey": "${first}", "apiKey`,
  })
  const { body } = await ask(stage, 'GET', '/api/v1/catalog')
  const catalog = JSON.parse(JSON.stringify(body['catalog']).replaceAll('"provider":"sandbox"', '"provider":"lux"'))
  await stage.api.ask('PATCH', '/api/v1/providers/lux', { key: stage.api.operatorKey, body: { kind: 'openai' } })
  const put = await stage.api.ask('PUT', '/api/v1/catalog', { key: stage.api.operatorKey, body: catalog })
  expect(put.status).toBe(200)
  // Known within a second; each way of failing has its turn.
  await pollUntil(
    async () => {
      for (const stream of [false, true]) {
        for (const model of ['steady', 'research']) {
          const asked = { model, stream, max_tokens: 20, messages: [{ role: 'user', content: 'When?' }] }
          await askRaw(stage, '/v1/chat/completions', {
            method: 'POST',
            headers: { authorization: `Bearer ${tenant.key}`, 'content-type': 'application/json' },
            body: JSON.stringify(asked),
          })
        }
      }
      return upstream.requests.length >= 3
    },
    { what: 'the provider is asked', deadlineMs: 40_000 },
  )
}

/** An address that says what it was sent. Returns the bytes that deliveries are signed with. */
async function tellWebhook(stage: Stage): Promise<Buffer> {
  const { api, tenant } = stage
  const heard = await useUpstream((response, request) => sendJson(response, request, 500))
  const made = newWebhookSchema.parse(
    await api.make('/api/v1/webhooks', { key: tenant.key, body: { url: heard.url, topics: ['state'] } }),
  )
  const run = await startTestRun(api, tenant)
  await ask(stage, 'POST', `/api/v1/runs/${run}/cancel`, { key: tenant.key, body: {} })
  await pollUntil(() => heard.requests.length >= 1, { what: 'it is told', deadlineMs: 20_000 })
  const path = `/api/v1/webhooks/${made.id}/deliveries`
  await ask(stage, 'GET', path, { key: tenant.key })
  await ask(stage, 'GET', `/api/v1/runs/${run}/events?format=json`, { key: tenant.key })
  return Buffer.from((made.secret ?? '').replace('whsec_', ''), 'base64')
}

test('no secret is in the log, in an answer but the one that hands it out, or in the database', async () => {
  const stage = await useStage()
  const { api, tenant, log, answers } = stage
  const keys = [marker('lux'), `sk-${marker('proj')}`] as const
  await askProviders(stage, keys)
  const webhookSecret = await tellWebhook(stage)
  const made = await api.make(`/api/v1/projects/${tenant.projectId}/keys`, {
    key: api.operatorKey,
    body: { name: 'x' },
  })
  const rotated = await api.make(`/api/v1/keys/${text(made, 'id')}/rotate`, {
    key: api.operatorKey,
    body: { overlapSeconds: 60 },
  })
  await askRaw(stage, '/api/v1/payments/stripe', {
    method: 'POST',
    headers: { 'stripe-signature': `t=1,v1=${stripeSecret}`, 'content-type': 'application/json' },
    body: '{}',
  })
  const secrets = [
    ...keys,
    webhookSecret,
    text(made, 'secret'),
    text(rotated, 'secret'),
    tenant.key,
    api.operatorKey,
    stripeSecret,
  ]
  for (const secret of secrets) {
    await askRaw(stage, `/api/v1/runs?key=${encodeURIComponent(secret.toString())}`, {
      headers: { authorization: `Bearer ${tenant.key}`, 'x-api-key': secret.toString('hex') },
    })
  }
  const lists = ['/providers', '/providers/lux', '/secrets', '/audit?limit=200', '/routes', '/webhooks', '/keys']
  for (const path of lists) {
    const query = path === '/webhooks' ? `?projectId=${tenant.projectId}` : ''
    await ask(stage, 'GET', `/api/v1${path}${query}`)
  }
  await ask(stage, 'GET', `/api/v1/keys/${tenant.keyId}/calls`)
  await askRaw(stage, DOCUMENT_PATH, {})

  const places = { log: log.join('\n'), answers: answers.join('\n'), database: await dumpOf(api) }
  expect(places.log).toContain('/api/v1/runs')
  expect(places.answers).toContain('authentication')
  expect(places.database).toContain('lux')
  const found = Object.entries(places).flatMap(([place, said]) =>
    secrets.flatMap((secret) =>
      looksOf(secret)
        .filter((look) => said.includes(look))
        .map((look) => [place, look]),
    ),
  )
  expect(found).toEqual([])
})

test('what a field with a key says is taken out of a line of the log, however the field is written', () => {
  expect(withoutSecrets('GET /v1/models?limit=1&key=of-no-known-form&cursor=2')).toBe(
    'GET /v1/models?limit=1&key=…&cursor=2',
  )
  for (const name of ['apiKey', 'api_key', 'api-key', 'x-api-key', 'apikey', 'secret']) {
    expect(withoutSecrets(JSON.stringify({ [name]: 'of no known form', level: 30 }))).toBe(`{"${name}":"…","level":30}`)
  }
})
