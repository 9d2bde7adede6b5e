import type { CatalogDocument } from '#contracts/catalog.ts'
import { importCatalog } from '#db/catalog.ts'
import { parseDecimal } from '#domain/money.ts'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { usd } from '../support/api.ts'
import { askChat, useGatewayStage, type GatewayProcess, type GatewayStage } from '../support/gateway-process.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { testCatalog } from '../support/world.ts'

const CALLERS = 1_000
const DOLLAR = 1_000_000_000n

/** So dear that a dollar pays for some hundred of the calls. */
const dear: CatalogDocument = {
  ...testCatalog,
  models: testCatalog.models.filter(({ name }) => name === 'steady'),
  prices: [{ provider: 'sandbox', upstreamModel: 'sandbox-steady', currency: 'USD', input: '40', output: '160' }],
}

const refusalSchema = z.object({
  error: z.looseObject({ message: z.string().min(1), type: z.string(), code: z.string() }),
})

/** All at once, by turns to each process; how many were answered. */
async function crowd(stage: GatewayStage, processes: readonly GatewayProcess[]): Promise<number> {
  const answers = await Promise.all(
    Array.from({ length: CALLERS }, async (_, caller) => {
      const process = processes[caller % processes.length]
      if (!process) throw new Error('no process')
      const response = await askChat({ url: process.url, key: stage.tenant.key })
      const body: unknown = await response.json()
      return { status: response.status, headers: response.headers, body }
    }),
  )
  const refused = answers.filter(({ status }) => status !== 200)
  for (const { status, headers, body } of refused) {
    expect([402, 429]).toContain(status)
    const { error } = refusalSchema.parse(body)
    if (status === 429) expect(Number(headers.get('retry-after'))).toBeGreaterThan(0)
    else {
      expect(error).toMatchObject({
        code: 'insufficient_quota',
        limit: expect.any(String),
        remaining: expect.any(String),
      })
      expect(headers.get('x-should-retry')).toBe('false')
      expect(parseDecimal(String(error['remaining']))).toMatchObject({ ok: true })
    }
  }
  return answers.length - refused.length
}

/** What was spent and held after each movement of the pocket that paid, in the order of its versions. */
async function outlays({ api }: GatewayStage): Promise<readonly bigint[]> {
  const pockets = await api.db
    .selectFrom('account')
    .select('id')
    .where('kind', '=', 'pocket')
    .where('balance_class', '=', 'direct')
    .execute()
  const ids = pockets.map(({ id }) => id)
  expect(ids).toHaveLength(1)
  const rows = await api.db
    .selectFrom('transfer')
    .select(['code', 'amount', 'debit_version', 'debit_held'])
    .where('debit_account', 'in', ids)
    .orderBy('debit_version')
    .execute()
  let spent = 0n
  return rows.map(({ code, amount, debit_held: held }) => {
    if (code !== 'hold' && code !== 'void') spent += amount
    return spent + (held ?? 0n)
  })
}

async function expectWithin(stage: GatewayStage, answered: number): Promise<void> {
  const found = await outlays(stage)
  const most = found.reduce((top, each) => (each > top ? each : top), 0n)
  expect(found.length).toBeGreaterThan(answered)
  expect(most).toBeLessThanOrEqual(DOLLAR)
  // It was pressed to the edge: what was left did not pay one more call.
  expect(most).toBeGreaterThan((DOLLAR * 9n) / 10n)
  expect(answered).toBeGreaterThan(50)
  expect(answered).toBeLessThan(CALLERS)
  const log = await stage.sandbox.readLog()
  const attempts = await stage.api.db.selectFrom('attempt').select('state').execute()
  expect(log).toHaveLength(answered)
  expect(attempts.map(({ state }) => state)).toEqual(attempts.map(() => 'resolved'))
  expect(attempts).toHaveLength(answered)
  const held = await stage.api.db.selectFrom('account').select('id').where('pending_debit', '>', 0n).execute()
  expect(held).toEqual([])
  await expectVerified(stage.api)
}

test.each([1, 2])(
  'a thousand callers at once spend a dollar that is a limit of their key, and not a nano more (%i processes)',
  { timeout: 240_000 },
  async (count) => {
    const stage = await useGatewayStage()
    const { api, tenant } = stage
    await importCatalog(api.db, dear)
    await stage.sandbox.control('PUT', '/settings/sandbox-steady', { delayFirstByteMs: 300 })
    await api.make('/api/v1/limits', {
      key: api.operatorKey,
      body: { scope: 'key', subjectId: tenant.keyId, measure: 'money', period: 'life', cap: usd('1') },
    })
    const processes = await Promise.all(Array.from({ length: count }, () => stage.start()))
    await expectWithin(stage, await crowd(stage, processes))
  },
)

test.each([1, 2])(
  'a thousand callers at once spend a dollar that is all of their wallet, and not a nano more (%i processes)',
  { timeout: 240_000 },
  async (count) => {
    const stage = await useGatewayStage({ dollars: '1' })
    await importCatalog(stage.api.db, dear)
    await stage.sandbox.control('PUT', '/settings/sandbox-steady', { delayFirstByteMs: 300 })
    const processes = await Promise.all(Array.from({ length: count }, () => stage.start()))
    await expectWithin(stage, await crowd(stage, processes))
  },
)
