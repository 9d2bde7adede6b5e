import { startWebhookSender } from '#api/webhook-sender.ts'
import { expect, onTestFinished, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { testSecrets } from '../support/api-deps.ts'
import { makeTenant, startTestRun, text, useApi, type Tenant, type TestApi } from '../support/api.ts'
import { pollUntil } from '../support/poll.ts'
import { sendJson, useUpstream } from '../support/upstream.ts'

const SOON = { deadlineMs: 60_000 }
const MANY = 200

async function makeWebhook(api: TestApi, { key }: Tenant, url: string): Promise<string> {
  return text(await api.make('/api/v1/webhooks', { key, body: { url, topics: ['state'] } }), 'id')
}

/** As if so much had happened long ago. */
async function owe(api: TestApi, webhookId: string, count: number): Promise<void> {
  await asAdmin(api, (admin) =>
    admin.query(
      `insert into webhook_delivery (id, webhook_id, project_id, source, topic, body, due_at)
        select gen_random_uuid(), w.id, w.project_id, 'owed ' || n, 'state', '{}', clock_timestamp() - interval '1 hour'
        from webhook w cross join generate_series(1, $2::integer) n where w.id = $1`,
      [webhookId, count],
    ),
  )
}

function startSender(api: TestApi) {
  const log = { warn: () => {} }
  const sender = startWebhookSender({
    db: api.db,
    log,
    nowMs: () => Date.now(),
    allowsPrivate: true,
    secrets: testSecrets,
  })
  onTestFinished(() => sender.stop())
  return sender
}

test('addresses that never answer keep no other project waiting, however much they are owed', async () => {
  const api = await useApi({ allowsPrivateWebhooks: true })
  const [slow, quick] = [await makeTenant(api), await makeTenant(api)]
  const [pit, receiver] = [await useUpstream(() => undefined), await useUpstream((response) => sendJson(response, {}))]
  for (let number = 0; number < 3; number += 1) await owe(api, await makeWebhook(api, slow, pit.url), MANY)
  await makeWebhook(api, quick, receiver.url)
  startSender(api)
  await pollUntil(() => pit.requests.length > 0, { what: 'the slow one is told', ...SOON })
  const run = await startTestRun(api, quick)
  await api.make(`/api/v1/runs/${run}/cancel`, { key: quick.key, body: {} })
  await pollUntil(() => receiver.requests.length > 0, { what: 'the quick one is told', ...SOON })
  // None of them has ended: all of the first that were begun, and no others.
  expect(pit.requests.length).toBeLessThanOrEqual(8)
}, 120_000)

test('what is owed is told without waiting for the next round', async () => {
  const api = await useApi({ allowsPrivateWebhooks: true })
  const tenant = await makeTenant(api)
  const receiver = await useUpstream((response) => sendJson(response, {}))
  await owe(api, await makeWebhook(api, tenant, receiver.url), MANY)
  const sender = startSender(api)
  await pollUntil(() => receiver.requests.length === MANY, { what: 'all is told', ...SOON })
  await sender.stop()
  const waiting = await api.db.selectFrom('webhook_delivery').select('id').where('state', '<>', 'delivered').execute()
  expect(waiting).toEqual([])
}, 120_000)
