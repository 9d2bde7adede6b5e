import { takeDue } from '#db/webhook-delivery.ts'
import { fanOut } from '#db/webhook-fan-out.ts'
import { isPublicAddress } from '#api/public-address.ts'
import { startWebhookSender } from '#api/webhook-sender.ts'
import { sql } from 'kysely'
import { createHmac } from 'node:crypto'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import { expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { testSecrets } from '../support/api-deps.ts'
import { makeTenant, startTestRun, text, usd, useApi, type Tenant, type TestApi } from '../support/api.ts'
import { pollUntil } from '../support/poll.ts'

const bodySchema = z.object({
  type: z.string(),
  runId: z.string().optional(),
  eventId: z.string().optional(),
  data: z.record(z.string(), z.unknown()),
})

interface Heard {
  readonly headers: IncomingHttpHeaders
  readonly text: string
  readonly body: z.infer<typeof bodySchema>
}

/** An address that answers as it is told, and keeps what it hears. */
async function useReceiver(): Promise<{ readonly url: string; readonly heard: Heard[]; status: number }> {
  const heard: Heard[] = []
  const receiver = { url: '', heard, status: 204 }
  const server = createServer((request, response) => {
    let whole = ''
    request.setEncoding('utf8')
    request.on('data', (piece: string) => {
      whole += piece
    })
    request.on('end', () => {
      heard.push({ headers: request.headers, text: whole, body: bodySchema.parse(JSON.parse(whole)) })
      response.writeHead(receiver.status, { location: 'http://127.0.0.1:1/' }).end()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the receiver has no port')
  receiver.url = `http://127.0.0.1:${address.port}/hook`
  return receiver
}

function useSender(api: TestApi, allowsPrivate = true): void {
  const log = { warn: () => {} }
  const nowMs = () => Date.now()
  const sender = startWebhookSender({ db: api.db, log, nowMs, allowsPrivate, secrets: testSecrets })
  onTestFinished(() => sender.stop())
}

async function makeWebhook(api: TestApi, tenant: Tenant, url: string, change: object = {}) {
  return api.make('/api/v1/webhooks', { key: tenant.key, body: { url, topics: ['state'], ...change } })
}

test('a webhook hears each state of a run once, signed, in order, from two senders at once', async () => {
  const api = await useApi({ allowsPrivateWebhooks: true })
  const [tenant, stranger] = [await makeTenant(api), await makeTenant(api)]
  const receiver = await useReceiver()
  await startTestRun(api, tenant)
  const made = await makeWebhook(api, tenant, receiver.url)
  const run = await startTestRun(api, tenant)
  await startTestRun(api, stranger)
  useSender(api)
  useSender(api)
  for (const action of ['pause', 'resume', 'cancel']) {
    await api.make(`/api/v1/runs/${run}/${action}`, { key: tenant.key, body: {} })
  }
  await pollUntil(() => receiver.heard.length >= 2, { what: 'two states are told' })
  await pollUntil(() => waits(api).then((count) => count === 0), { what: 'nothing waits' })
  const told = receiver.heard.map(({ body }) => body)
  expect(told.every(({ runId }) => runId === run)).toBe(true)
  expect(told.map(({ type }) => type)).toContain('run.paused')
  expect(new Set(told.map(({ eventId }) => eventId)).size).toBe(told.length)
  const ids = receiver.heard.map(({ headers }) => headers['webhook-id'])
  expect(new Set(ids).size).toBe(ids.length)
  const secret = Buffer.from(text(made, 'secret').replace('whsec_', ''), 'base64')
  for (const { headers, text: sent } of receiver.heard) {
    const content = `${headers['webhook-id']?.toString()}.${headers['webhook-timestamp']?.toString()}.${sent}`
    expect(headers['webhook-signature']).toBe(`v1,${createHmac('sha256', secret).update(content).digest('base64')}`)
  }
  const listed = await api.ask('GET', `/api/v1/webhooks/${text(made, 'id')}/deliveries`, { key: tenant.key })
  expect(listed.body['deliveries']).toHaveLength(receiver.heard.length)
})

test('who does not hear is told again later, then it is a dead letter that can be sent again', async () => {
  const api = await useApi({ allowsPrivateWebhooks: true })
  const tenant = await makeTenant(api)
  const receiver = await useReceiver()
  receiver.status = 302
  const run = await startTestRun(api, tenant)
  const webhook = text(await makeWebhook(api, tenant, receiver.url), 'id')
  await api.make(`/api/v1/runs/${run}/pause`, { key: tenant.key, body: {} })
  useSender(api)
  const path = `/api/v1/webhooks/${webhook}/deliveries`
  // Each try is refused with its own status: a try that was taken and not noted yet shows that of the one before.
  for (let tries = 1; tries <= 9; tries += 1) {
    await pollUntil(() => receiver.heard.length >= tries, { what: `try ${tries}` })
    const state = tries === 9 ? 'dead' : 'waiting'
    await pollUntil(
      async () => {
        const { body } = await api.ask('GET', path, { key: tenant.key })
        const [first] = z
          .array(z.looseObject({ tries: z.int(), state: z.string(), lastStatus: z.int().nullable() }))
          .parse(body['deliveries'])
        return first?.state === state && first.tries === tries && first.lastStatus === 301 + tries
      },
      { what: `${state} after ${tries}` },
    )
    receiver.status = 302 + tries
    await makeDue(api)
  }
  const dead = await api.ask('GET', `${path}?state=dead`, { key: tenant.key })
  const [letter] = z.array(z.looseObject({ id: z.string() })).parse(dead.body['deliveries'])
  receiver.status = 200
  const again = `/api/v1/webhook-deliveries/${letter?.id}/retry`
  expect((await api.ask('POST', again, { key: tenant.key })).status).toBe(202)
  await pollUntil(() => receiver.heard.length >= 10, { what: 'the dead letter comes' })
  expect(new Set(receiver.heard.map(({ headers }) => headers['webhook-id']))).toEqual(new Set([letter?.id]))
  await pollUntil(() => waits(api).then((count) => count === 0), { what: 'it was heard' })
  expect((await api.ask('POST', again, { key: tenant.key })).status).toBe(409)
  expect((await api.ask('DELETE', `/api/v1/webhooks/${webhook}`, { key: tenant.key })).status).toBe(204)
  await api.make(`/api/v1/runs/${run}/cancel`, { key: tenant.key, body: {} })
  expect((await api.ask('DELETE', `/api/v1/webhooks/${webhook}`, { key: tenant.key })).status).toBe(404)
})

test('a wallet below its mark is told once, and again after it was above', async () => {
  const api = await useApi({ allowsPrivateWebhooks: true })
  const tenant = await makeTenant(api)
  const receiver = await useReceiver()
  const lowBalance = [{ balanceClass: 'direct', below: usd('9.5') }]
  await makeWebhook(api, tenant, receiver.url, { topics: ['low_balance'], lowBalance })
  useSender(api)
  await startTestRun(api, tenant)
  await pollUntil(() => receiver.heard.length === 1, { what: 'it is told' })
  expect(receiver.heard[0]?.body).toMatchObject({
    type: 'wallet.low',
    data: { balanceClass: 'direct', free: usd('9.000000'), below: usd('9.500000') },
  })
  const deposit = (reference: string) =>
    api.make('/api/v1/deposits', {
      key: api.operatorKey,
      body: { walletId: tenant.walletId, balanceClass: 'direct', amount: usd('1'), reference },
    })
  await deposit('more')
  await pollUntil(async () => (await api.db.selectFrom('webhook_low_balance').selectAll().execute()).length === 0, {
    what: 'it is above',
  })
  await startTestRun(api, tenant)
  await pollUntil(() => receiver.heard.length === 2, { what: 'it is told again' })
})

test('private addresses are told nothing, by name or by number, and redirects are not followed', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  for (const url of [
    'http://example.org/',
    'https://127.0.0.1/',
    'https://[::1]/',
    'https://169.254.169.254/latest',
    'https://[::ffff:10.0.0.1]/',
    'https://2130706433/',
    'https://0x7f.1/',
    'https://127.0.0.1./',
    'https://[64:ff9b:1::a00:1]/',
    'https://example.org/\0',
  ]) {
    const { status } = await api.ask('POST', '/api/v1/webhooks', { key: tenant.key, body: { url, topics: ['state'] } })
    expect([url, status]).toEqual([url, 400])
  }
  await makeWebhook(api, tenant, 'https://localhost:9/hook')
  await startTestRun(api, tenant)
  useSender(api, false)
  await pollUntil(
    async () => {
      const rows = await api.db.selectFrom('webhook_delivery').select(['last_error', 'tries']).execute()
      return rows.some(
        ({ last_error: error, tries }) => tries === 1 && error?.includes('no address of the public internet'),
      )
    },
    { what: 'localhost is refused' },
  )
  const open = ['8.8.8.8', '2606:4700::1111', '2001:4860:4860::8888']
  expect(open.filter(isPublicAddress)).toEqual(open)
  // The last ones lead to IPv4 addresses of private networks, through gateways of several kinds.
  const closed = ['172.20.0.1', '100.64.1.1', 'fd00::1', '0.0.0.0', '192.0.2.1', 'fec0::1', '2001:db8::1', 'nothing']
  const mapped = [
    '::127.0.0.1',
    '::ffff:10.0.0.1',
    '64:ff9b::a00:1',
    '64:ff9b:1::a00:1',
    '2002:a00:1::',
    '2001:0:a00:1::',
  ]
  expect([...closed, ...mapped].filter(isPublicAddress)).toEqual([])
})

test('the deliveries of a project wait for no others, however many another one has, and are the oldest first', async () => {
  const api = await useApi()
  const [loud, quiet] = [await makeTenant(api), await makeTenant(api)]
  const hooks = {
    loud: await makeWebhook(api, loud, 'https://a.test/'),
    quiet: await makeWebhook(api, quiet, 'https://b.test/'),
  }
  const deliver = (tenant: Tenant, webhook: string, ages: readonly number[]) =>
    sql`
      insert into webhook_delivery (id, webhook_id, project_id, source, topic, body, due_at)
      select gen_random_uuid(), ${webhook}, ${tenant.projectId}, age, 'state', '{}', clock_timestamp() - age * interval '1 second'
      from unnest(${ages}::integer[]) as age`.execute(api.db)
  await deliver(
    loud,
    text(hooks.loud, 'id'),
    Array.from({ length: 100 }, (_, n) => 200 - n),
  )
  await deliver(quiet, text(hooks.quiet, 'id'), [2, 1, -60])
  const taken = await takeDue(api.db, { limit: 8, ofProject: 8, sending: new Map(), leaseMs: 60_000 })
  const ofQuiet = taken.filter(({ webhookId }) => webhookId === text(hooks.quiet, 'id'))
  expect([taken.length, ofQuiet.length]).toEqual([8, 2])
  const oldest = api.db.selectFrom('webhook_delivery').select('source').where('project_id', '=', loud.projectId)
  const sources = (await oldest.where('tries', '=', 1).orderBy('source', 'desc').execute()).map(({ source }) => source)
  expect(sources).toEqual(['200', '199', '198', '197', '196', '195'])
})

test('a delivery that a dead process took is sent again by another', async () => {
  const api = await useApi({ allowsPrivateWebhooks: true })
  const tenant = await makeTenant(api)
  const receiver = await useReceiver()
  await makeWebhook(api, tenant, receiver.url)
  const run = await startTestRun(api, tenant)
  await api.make(`/api/v1/runs/${run}/pause`, { key: tenant.key, body: {} })
  await pollUntil(async () => (await fanOut(api.db, Date.now()), (await waits(api)) > 0), { what: 'it waits' })
  const all = { limit: 10, ofProject: 10, sending: new Map<string, number>(), leaseMs: 600_000 }
  const taken = await takeDue(api.db, all)
  expect(taken.length).toBeGreaterThan(0)
  expect(await takeDue(api.db, all)).toEqual([])
  await makeDue(api)
  useSender(api)
  await pollUntil(() => receiver.heard.length === taken.length, { what: 'it is told' })
})

async function waits(api: TestApi): Promise<number> {
  return (await api.db.selectFrom('webhook_delivery').select('id').where('state', '=', 'waiting').execute()).length
}

async function makeDue(api: TestApi): Promise<void> {
  await api.db
    .updateTable('webhook_delivery')
    .set({ due_at: new Date(0) })
    .where('state', '=', 'waiting')
    .execute()
}
