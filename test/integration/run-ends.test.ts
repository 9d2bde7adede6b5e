import { openChildRun } from '#db/child-run.ts'
import { beginRun } from '#db/run-begin.ts'
import { cancelRun, pauseRun } from '#db/run-commands.ts'
import { finishRun } from '#db/run-end.ts'
import { askOwner } from '#db/run-pause.ts'
import { expect, test } from 'vitest'
import { makeTenant, startTestRun, useApi } from '#test/support/api.ts'

const CANCELLED = { state: 'cancelled', reason: 'cancelled', detail: 'Told to stop.' } as const
const COMPLETED = { state: 'completed', reason: 'finished', detail: 'Done.' } as const

/** A run that has begun, in the hands of a test. */
async function begunRun() {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const scope = { projectId: tenant.projectId }
  const runId = await startTestRun(api, tenant)
  await beginRun(api.db, scope, runId)
  const order = { runId, nowMs: Date.now() }
  const open = (path: string, parentId = runId) =>
    openChildRun(api.db, scope, { runId: parentId, path, agent: 'echo', input: { text: 'x' } })
  const cancel = (mode: 'now' | 'wrap_up') =>
    api.db.transaction().execute((trx) => cancelRun(trx, scope, { ...order, mode, reason: undefined }))
  const rows = () =>
    api.db.selectFrom('run').select(['state', 'reason', 'finished_at', 'ending_at']).orderBy('created_at').execute()
  return { api, scope, runId, order, open, cancel, rows }
}

test('a run that finishes while its owner has paused it is completed', async () => {
  const { api, scope, runId, order, rows } = await begunRun()
  await api.db.transaction().execute((trx) => pauseRun(trx, scope, order))
  await finishRun(api.db, scope, { runId, end: COMPLETED, output: { done: true } })
  expect(await rows()).toMatchObject([{ state: 'completed', reason: 'finished' }])
})

test('a question that comes after the order to stop pauses nothing, and the run ends for the reason it was given', async () => {
  for (const mode of ['now', 'wrap_up'] as const) {
    const { api, scope, runId, cancel, rows } = await begunRun()
    await cancel(mode)
    const question = { runId, path: 'ask', question: 'Go on?' }
    expect(await askOwner(api.db, scope, question)).toEqual({})
    expect(await askOwner(api.db, scope, { ...question, otherwise: 'no' })).toEqual({ answer: 'no' })
    expect(await rows()).toMatchObject([{ state: 'running', reason: 'cancelled' }])
    await finishRun(api.db, scope, { runId, end: CANCELLED, output: null })
    expect(await rows()).toMatchObject([{ state: 'cancelled', reason: 'cancelled' }])
  }
})

test('a child that was opened and never started ends with its parent', async () => {
  const { api, scope, runId, open, cancel, rows } = await begunRun()
  const child = await open('child')
  if (child.kind !== 'opened') throw new Error(child.detail)
  await open('deeper', child.runId)
  await cancel('now')
  await finishRun(api.db, scope, { runId, end: CANCELLED, output: null })
  const ended = await rows()
  expect(ended.map(({ state }) => state)).toEqual(['cancelled', 'cancelled', 'cancelled'])
  expect(ended.filter((row) => row.finished_at === null || row.ending_at === null)).toEqual([])
  expect(await beginRun(api.db, scope, child.runId)).toEqual({ closing: true })
})

test('a run that is told to deliver opens no child, which could never spend', async () => {
  const { open, cancel } = await begunRun()
  await cancel('wrap_up')
  expect(await open('child')).toMatchObject({ kind: 'refused', reason: 'run_ending' })
})
