import { expect, test } from 'vitest'
import { askChat, useGatewayStage, type GatewayProcess, type GatewayStage } from '../support/gateway-process.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'

const STREAMS = 100
/** Three leases of ten seconds. */
const PATIENCE_MS = 60_000

/** Streams that have begun and go on until the provider is let go. */
async function openStreams(stage: GatewayStage, { url }: GatewayProcess, count: number) {
  const streams = await Promise.all(
    Array.from({ length: count }, () => askChat({ url, key: stage.tenant.key, stream: true })),
  )
  expect(streams.map(({ status }) => status)).toEqual(streams.map(() => 200))
  return streams
}

async function statesOf({ api }: GatewayStage): Promise<Readonly<Record<string, number>>> {
  const rows = await api.db.selectFrom('attempt').select(['state', 'outcome']).execute()
  return Object.fromEntries(
    [...Map.groupBy(rows, ({ state, outcome }) => (state === 'sent' ? state : (outcome ?? '')))].map(
      ([state, those]) => [state, those.length],
    ),
  )
}

async function expectNothingHeld({ api }: GatewayStage): Promise<void> {
  const held = await api.db.selectFrom('account').select('id').where('pending_debit', '>', 0n).execute()
  expect(held).toEqual([])
  await expectVerified(api)
}

test(
  'kill -9 with a hundred streams open loses their answers and no money: another process books what they may have cost',
  { timeout: 180_000 },
  async () => {
    const stage = await useGatewayStage()
    await stage.sandbox.control('PUT', '/faults/sandbox-steady', { hangAfterChunks: 2 })
    const first = await stage.start()
    const streams = await openStreams(stage, first, STREAMS)
    expect(await statesOf(stage)).toEqual({ sent: STREAMS })
    first.kill('SIGKILL')
    await first.exited
    await Promise.allSettled(streams.map((stream) => stream.text()))
    expect(await statesOf(stage)).toEqual({ sent: STREAMS })

    const second = await stage.start()
    await pollUntil(async () => !('sent' in (await statesOf(stage))), {
      what: 'no attempt is left to a process that is dead',
      deadlineMs: PATIENCE_MS,
      intervalMs: 500,
    })
    expect(await statesOf(stage)).toEqual({ lost: STREAMS })
    await expectNothingHeld(stage)
    const captures = await stage.api.db
      .selectFrom('transfer')
      .select(['certainty', 'use'])
      .where('code', '=', 'capture')
      .execute()
    expect(captures).toEqual(Array.from({ length: STREAMS }, () => ({ certainty: 'unknown', use: 'wasted' })))
    await stage.sandbox.control('DELETE', '/faults/sandbox-steady')
    expect((await askChat({ url: second.url, key: stage.tenant.key })).status).toBe(200)
  },
)

test(
  'a process that is told to end lets streams finish, and aborts, settles and tells the rest after its drain timeout',
  { timeout: 180_000 },
  async () => {
    const stage = await useGatewayStage()
    const { sandbox } = stage
    await sandbox.control('PUT', '/faults/sandbox-steady', { hangAfterChunks: 2 })
    const process = await stage.start({ PURSER_DRAIN_TIMEOUT_MS: '3000' })
    const endless = await openStreams(stage, process, 20)
    await sandbox.control('DELETE', '/faults/sandbox-steady')
    const holds = await Promise.all(
      Array.from({ length: 10 }, () =>
        sandbox.control('POST', '/holds', { model: 'sandbox-steady', at: 'mid-stream' }),
      ),
    )
    expect(holds).toHaveLength(10)
    const ending = await openStreams(stage, process, 10)
    const texts = Promise.all(ending.map((stream) => stream.text()))
    const cut = Promise.all(endless.map((stream) => stream.text()))

    process.kill('SIGTERM')
    for (let hold = 1; hold <= 10; hold += 1) await sandbox.control('POST', `/holds/hold-${hold}/release`)
    for (const text of await texts) expect(text).toContain('data: [DONE]')
    expect(await process.exited).toEqual({ code: 0, signal: null })
    // Each was told, in an event of its own, and not only cut off.
    for (const text of await cut) {
      expect(text).toContain('"error"')
      expect(text).not.toContain('[DONE]')
    }
    expect(await statesOf(stage)).toEqual({ answered: 10, network_after_send: 20 })
    const captures = await stage.api.db
      .selectFrom('transfer')
      .select('certainty')
      .where('code', '=', 'capture')
      .execute()
    expect(captures.filter(({ certainty }) => certainty === 'billed')).toHaveLength(10)
    expect(captures.filter(({ certainty }) => certainty === 'estimated')).toHaveLength(20)
    await expectNothingHeld(stage)
  },
)

test(
  'a revoked key buys nothing from the answer of its revocation on, in any process',
  { timeout: 60_000 },
  async () => {
    const stage = await useGatewayStage()
    const { api, sandbox, tenant } = stage
    const processes = await Promise.all([stage.start(), stage.start()])
    for (const { url } of processes) expect((await askChat({ url, key: tenant.key })).status).toBe(200)
    const [first] = processes
    const revoked = await fetch(`${first.url}/api/v1/keys/${tenant.keyId}`, {
      method: 'DELETE',
      headers: { authorization: `Bearer ${api.operatorKey}` },
    })
    expect(revoked.status).toBe(204)
    for (const { url } of processes) {
      const refused = await askChat({ url, key: tenant.key })
      expect(refused.status).toBe(401)
      expect(await refused.json()).toMatchObject({ error: { code: 'invalid_api_key' } })
    }
    for (const { url } of processes) {
      const headers = { authorization: `Bearer ${tenant.key}` }
      // The second, and what a loaded machine needs.
      await pollUntil(async () => (await fetch(`${url}/v1/models`, { headers })).status === 401, {
        what: 'it opens nothing else either',
        deadlineMs: 2_000,
      })
    }
    expect(await sandbox.readLog()).toHaveLength(2)
    await expectVerified(api)
  },
)
