import { openChildRun } from '#db/child-run.ts'
import { beginRun } from '#db/run-begin.ts'
import { cancelRun, pauseRun, resumeRun, topUpRun } from '#db/run-commands.ts'
import { beginClosing, finishRun } from '#db/run-end.ts'
import { askOwner, pauseForMoney } from '#db/run-pause.ts'
import { runFacts, standingOf } from '#db/run.ts'
import { connectDatabase } from '#db/database.ts'
import { newId } from '#db/ids.ts'
import type { Database } from '#db/schema.ts'
import { sql, type Transaction } from 'kysely'
import { expect, onTestFinished, test } from 'vitest'
import { makeTenant, startTestRun, usd, useApi } from '#test/support/api.ts'
import { pollUntil } from '#test/support/poll.ts'
import { runRow } from '#test/support/run-row.ts'

const STOP = { limit: 'direct pocket', needed: '2.000000', free: '1.000000', currency: 'USD' }
const COMPLETED = { state: 'completed', reason: 'finished', detail: 'Done.' } as const

/** A run that has begun, and what its workflow and its owner do to it. */
async function begunRun(change: Readonly<Record<string, unknown>> = {}) {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const scope = { projectId: tenant.projectId }
  const runId = await startTestRun(api, tenant, change)
  await beginRun(api.db, scope, runId)
  const act = (work: (trx: Transaction<Database>) => Promise<void>) => api.db.transaction().execute(work)
  const order = (id = runId) => ({ runId: id, nowMs: Date.now() })
  return {
    ...api,
    scope,
    runId,
    standing: (id = runId) => standingOf(api.db, scope, id),
    pause: (id = runId) => act((trx) => pauseRun(trx, scope, order(id))),
    resume: (id = runId) => act((trx) => resumeRun(trx, scope, order(id))),
    cancel: (mode: 'now' | 'wrap_up') => act((trx) => cancelRun(trx, scope, { ...order(), mode, reason: undefined })),
    topUp: () =>
      act((trx) => topUpRun(trx, scope, { ...order(), pockets: [{ balanceClass: 'direct', amount: usd('1') }] })),
    runOutOfMoney: () => pauseForMoney(api.db, scope, { runId, stop: { ...STOP, refusalId: newId(Date.now()) } }),
    openChild: (path: string) => openChildRun(api.db, scope, { runId, path, agent: 'echo', input: { text: path } }),
  }
}

test('a run that was paused before it began hears of it as it begins', async () => {
  const run = await begunRun()
  await run.pause()
  expect(await beginRun(run.db, run.scope, run.runId)).toMatchObject({ isFrozen: true })
  await run.resume()
  expect(await beginRun(run.db, run.scope, run.runId)).not.toHaveProperty('isFrozen')
})

function openedId(opening: Awaited<ReturnType<typeof openChildRun>>): string {
  if (opening.kind !== 'opened') throw new Error(opening.detail)
  return opening.runId
}

test('a run whose last answer comes while its owner has paused it is completed', async () => {
  const run = await begunRun()
  await run.pause()
  await finishRun(run.db, run.scope, { runId: run.runId, end: COMPLETED, output: 'all of it' })
  expect(await runRow(run, run.runId)).toEqual({ state: 'completed', reason: 'finished', gate: 'closed' })
})

test('a child that waits longer than its pause may last, because the run above it is paused, goes on with it', async () => {
  const run = await begunRun()
  const childId = openedId(await run.openChild('sub'))
  await beginRun(run.db, run.scope, childId)
  await run.pause()
  const expired = { runId: childId, reason: 'pause_expired', detail: 'Over.', from: 'paused' } as const
  expect(await beginClosing(run.db, run.scope, expired)).toBe('paused')
  await run.resume()
  expect(await run.standing(childId)).toBe('running')
})

test('a child whose workflow was never started ends with the run above it', async () => {
  const run = await begunRun()
  const childId = openedId(await run.openChild('sub'))
  await run.cancel('now')
  const end = { state: 'cancelled', reason: 'cancelled', detail: 'Over.' } as const
  expect(await finishRun(run.db, run.scope, { runId: run.runId, end, output: null })).toEqual({ finished: true })
  expect(await runRow(run, childId)).toEqual({ state: 'cancelled', reason: 'cancelled', gate: 'closed' })
  expect(await beginRun(run.db, run.scope, childId)).toEqual({ closing: true })
})

test('a run that is ending asks nobody, and keeps the reason of its end', async () => {
  const run = await begunRun()
  await run.cancel('now')
  const question = { runId: run.runId, path: 'ask', question: 'Go on?' }
  expect(await askOwner(run.db, run.scope, question)).toEqual({ isEnding: true })
  await finishRun(run.db, run.scope, { runId: run.runId, end: COMPLETED, output: null })
  const delivering = await begunRun({
    envelope: { pockets: [{ balanceClass: 'direct', amount: usd('1') }], wrapUpPercent: 10 },
  })
  await delivering.cancel('wrap_up')
  const asked = { ...question, runId: delivering.runId }
  expect(await askOwner(delivering.db, delivering.scope, asked)).toEqual({ isEnding: true })
  expect(await runRow(delivering, delivering.runId)).toMatchObject({ state: 'running', reason: 'cancelled' })
})

test('a run that delivers opens no child: nobody could let it spend', async () => {
  const run = await begunRun()
  await run.cancel('wrap_up')
  expect(await run.openChild('sub')).toMatchObject({ kind: 'refused', reason: 'run_ending' })
})

test('the calls of a run go on when their money has come, though it waits for an answer', async () => {
  const run = await begunRun()
  await run.runOutOfMoney()
  await askOwner(run.db, run.scope, { runId: run.runId, path: 'ask', question: 'Go on?' })
  expect(await run.standing()).toBe('paused')
  await run.topUp()
  expect(await runRow(run, run.runId)).toEqual({ state: 'paused', reason: 'input', gate: 'open' })
  expect(await run.standing()).toBe('running')
})

test('a pause for money that comes after the run began to deliver leaves its reserve open', async () => {
  const run = await begunRun({
    envelope: { pockets: [{ balanceClass: 'direct', amount: usd('1') }], wrapUpPercent: 10 },
  })
  const admin = connectDatabase({ url: run.database.adminUrl, maxConnections: 2 })
  onTestFinished(() => admin.destroy())
  const waiting = sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
  const untilWaiting = (count: number) =>
    pollUntil(async () => (await waiting.execute(admin)).rows.length === count, { what: `${count} wait` })
  const { runId } = run
  const works: Promise<unknown>[] = []
  await admin.transaction().execute(async (trx) => {
    await sql`select from envelope where run_id = ${runId} for update`.execute(trx)
    const closing = { runId, reason: 'deadline', detail: 'Over.', from: 'any', wrapUp: true } as const
    works.push(beginClosing(run.db, run.scope, closing))
    await untilWaiting(1)
    works.push(run.runOutOfMoney())
    await untilWaiting(2)
  })
  expect(await Promise.all(works)).toEqual(['wrapping_up', 'wrapping_up'])
  const { wrapUpEnvelopeId = '' } = await runFacts(run.db, runId)
  const reserve = run.db.selectFrom('envelope').select('gate').where('id', '=', wrapUpEnvelopeId)
  expect(await reserve.executeTakeFirst()).toEqual({ gate: 'open' })
})
