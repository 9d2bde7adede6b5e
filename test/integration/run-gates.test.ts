import { connectDatabase } from '#db/database.ts'
import { newId } from '#db/ids.ts'
import { resumeLimitedRuns } from '#db/limited-run.ts'
import { beginRun } from '#db/run-begin.ts'
import { cancelRun, pauseRun, topUpRun } from '#db/run-commands.ts'
import { beginClosing } from '#db/run-end.ts'
import { pauseForMoney } from '#db/run-pause.ts'
import { runFacts, standingOf } from '#db/run.ts'
import type { Database } from '#db/schema.ts'
import { sql, type Kysely, type Transaction } from 'kysely'
import { describe, expect, onTestFinished, test } from 'vitest'
import { makeTenant, startTestRun, usd, useApi } from '#test/support/api.ts'
import { useEngine } from '#test/support/api-engine.ts'
import { expectVerified } from '#test/support/open-attempt.ts'
import { pollUntil } from '#test/support/poll.ts'
import { runRow } from '#test/support/run-row.ts'

const STOP = { limit: 'direct pocket', needed: '2.000000', free: '1.000000', currency: 'USD' }
const EXPIRED = { reason: 'pause_expired', detail: 'Nobody came.', from: 'paused' } as const

/** A run that has begun, in the hands of a test. */
async function begunRun(change = {}) {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const scope = { projectId: tenant.projectId }
  const runId = await startTestRun(api, tenant, change)
  await beginRun(api.db, scope, runId)
  const watcher = connectDatabase({ url: api.database.adminUrl, maxConnections: 1 })
  onTestFinished(() => watcher.destroy())
  return { api, tenant, scope, runId, watcher, order: { runId, nowMs: Date.now() } }
}

type Begun = Awaited<ReturnType<typeof begunRun>>

const stopAt = (refusalId = newId(Date.now())) => ({ ...STOP, refusalId })

/** Until so many statements wait for a lock. */
async function untilWaiting(watcher: Kysely<Database>, count: number): Promise<void> {
  const waiting = sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
  await pollUntil(async () => (await waiting.execute(watcher)).rows.length === count, { what: `${count} who wait` })
}

/** Does `second` while `first` is done and not committed. */
async function during<Result>(
  { api, watcher }: Begun,
  first: (trx: Transaction<Database>) => Promise<unknown>,
  second: () => Promise<Result>,
): Promise<Result> {
  const works = await api.db.transaction().execute(async (trx) => {
    await first(trx)
    const work = second()
    await untilWaiting(watcher, 1)
    return [work] as const
  })
  return works[0]
}

/** Of the run's only limit. */
async function setCap({ api, tenant, runId }: Begun, cap: number): Promise<void> {
  const { id } = await api.db
    .selectFrom('usage_limit')
    .select('id')
    .where('subject_id', '=', runId)
    .executeTakeFirstOrThrow()
  const answer = await api.ask('PATCH', `/api/v1/limits/${id}`, { key: tenant.key, body: { cap } })
  expect(answer.status).toBe(200)
}

describe('a pause for money', () => {
  test('follows each refusal, also when an older one of the same call would fit by now', async () => {
    const begun = await begunRun({ limits: { tokens: 10 } })
    const { api, tenant, scope, runId } = begun
    const { call, world } = await useEngine(api, tenant)
    const refused = async () => {
      const result = await call(runId, 'read')
      if (result.kind !== 'exhausted') throw new Error(`the call is ${result.kind}`)
      return pauseForMoney(api.db, scope, { runId, stop: stopAt(result.refusal.id) })
    }
    expect(await refused()).toBe('paused')
    await setCap(begun, 11)
    await resumeLimitedRuns(api.db, Date.now())
    expect(await runRow(begun.api, runId)).toMatchObject({ state: 'running', gate: 'open' })
    expect(await refused()).toBe('paused')
    await expectVerified(world)
  })

  test('does not take its reserve from a run that began to deliver meanwhile', async () => {
    const pockets = [{ balanceClass: 'direct', amount: usd('0.1') }]
    const { api, scope, runId, watcher } = await begunRun({ envelope: { pockets, wrapUpPercent: 50 } })
    const { wrapUpEnvelopeId } = await runFacts(api.db, runId)
    const works = await api.db.transaction().execute(async (trx) => {
      await trx.selectFrom('run').select('id').where('id', '=', runId).forUpdate().execute()
      const end = { reason: 'deadline', detail: 'Over.', from: 'any', wrapUp: true } as const
      const closing = beginClosing(api.db, scope, { runId, ...end })
      await untilWaiting(watcher, 1)
      const pausing = pauseForMoney(api.db, scope, { runId, stop: stopAt() })
      await untilWaiting(watcher, 2)
      return [closing, pausing]
    })
    expect(await Promise.all(works)).toEqual(['wrapping_up', 'wrapping_up'])
    const reserve = await api.db
      .selectFrom('envelope')
      .select('gate')
      .where('id', '=', wrapUpEnvelopeId ?? '')
      .execute()
    expect(reserve).toEqual([{ gate: 'open' }])
  })
})

describe('the deadline of a pause', () => {
  test('that passes while a top-up is written leaves the run open', async () => {
    const begun = await begunRun()
    const { api, scope, runId, order } = begun
    await pauseForMoney(api.db, scope, { runId, stop: stopAt() })
    const pockets = [{ balanceClass: 'direct', amount: usd('0.01') } as const]
    const standing = await during(
      begun,
      (trx) => topUpRun(trx, scope, { ...order, pockets }),
      () => beginClosing(api.db, scope, { runId, ...EXPIRED }),
    )
    expect(standing).toBe('running')
    expect(await runRow(begun.api, runId)).toMatchObject({ state: 'running', gate: 'open' })
  })
})

describe('a limit with room again', () => {
  const limited = async () => {
    const begun = await begunRun({ limits: { tokens: 10 } })
    const { api, tenant, scope, runId } = begun
    const { call, engine } = await useEngine(api, tenant)
    const result = await call(runId, 'read')
    if (result.kind !== 'exhausted') throw new Error(`the call is ${result.kind}`)
    await engine.stop()
    await pauseForMoney(api.db, scope, { runId, stop: stopAt(result.refusal.id) })
    await setCap(begun, 1_000_000)
    return begun
  }

  test('does not end the pause that its owner has made meanwhile', async () => {
    const begun = await limited()
    const { api, scope, runId, order } = begun
    const resumed = await during(
      begun,
      (trx) => pauseRun(trx, scope, order),
      () => resumeLimitedRuns(api.db, Date.now()),
    )
    expect(resumed).toBe(0)
    expect(await runRow(begun.api, runId)).toEqual({ state: 'paused', reason: 'paused_by_owner', gate: 'frozen' })
  })

  test('does not open a run that is told to deliver meanwhile', async () => {
    const begun = await limited()
    const { api, scope, runId, order } = begun
    const resumed = await during(
      begun,
      (trx) => cancelRun(trx, scope, { ...order, mode: 'wrap_up', reason: undefined }),
      () => resumeLimitedRuns(api.db, Date.now()),
    )
    expect(resumed).toBe(0)
    expect(await runRow(begun.api, runId)).toEqual({ state: 'paused', reason: 'cancelled', gate: 'frozen' })
    expect(await standingOf(api.db, scope, runId)).toBe('wrapping_up')
  })
})
