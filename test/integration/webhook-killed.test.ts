import { expect, test } from 'vitest'
import { startTestRun, text } from '../support/api.ts'
import { useGatewayStage } from '../support/gateway-process.ts'
import { pollUntil } from '../support/poll.ts'
import { sendJson, useUpstream } from '../support/upstream.ts'

/** The lease of a delivery takes thirty seconds. */
const PATIENCE_MS = 60_000

test(
  'kill -9 of who tells a webhook loses no delivery: another tells it under the same id, and the rest once',
  { timeout: 300_000 },
  async () => {
    const stage = await useGatewayStage()
    const { api, tenant } = stage
    let answers = false
    const receiver = await useUpstream((response) => {
      if (answers) sendJson(response, {})
    })
    const body = { url: 'https://example.com/hook', topics: ['state'] }
    const webhookId = text(await api.make('/api/v1/webhooks', { key: tenant.key, body }), 'id')
    // As one of an installation that has no key for secrets, and whose receivers are its own.
    const change = { url: receiver.url, secret: Buffer.alloc(32), encrypted_by: null }
    await api.db.updateTable('webhook').set(change).where('id', '=', webhookId).execute()
    await startTestRun(api, tenant)
    const env = { PURSER_WEBHOOKS_PRIVATE: 'true' }
    const doomed = await stage.start(env)
    await pollUntil(() => receiver.requests.length > 0, { what: 'it is being told', deadlineMs: PATIENCE_MS })
    doomed.kill('SIGKILL')
    await doomed.exited
    const unheard = receiver.requests.map(({ headers }) => headers['webhook-id'])
    answers = true
    await startTestRun(api, tenant)
    await stage.start(env)
    const states = async () => {
      const query = api.db.selectFrom('webhook_delivery').select(['id', 'state'])
      return query.where('webhook_id', '=', webhookId).execute()
    }
    await pollUntil(
      async () =>
        ((all) => all.length > unheard.length && all.every(({ state }) => state === 'delivered'))(await states()),
      { what: 'all is delivered', deadlineMs: PATIENCE_MS, intervalMs: 500 },
    )
    const told = receiver.requests.slice(unheard.length).map(({ headers }) => String(headers['webhook-id']))
    expect(told.toSorted()).toEqual((await states()).map(({ id }) => id).toSorted())
    expect(told).toEqual(expect.arrayContaining(unheard))
  },
)
