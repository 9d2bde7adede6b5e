import { openChildRun } from '#db/child-run.ts'
import { finishRun } from '#db/run-end.ts'
import { runFacts } from '#db/run.ts'
import { expect, test } from 'vitest'
import { makeTenant, startTestRun, usd, useApi, type TestApi } from '#test/support/api.ts'
import { useEngine } from '#test/support/api-engine.ts'
import { expectVerified } from '#test/support/open-attempt.ts'

const BODY = { messages: [{ role: 'user', content: 'When was the mill built?' }], maxTokens: 40 } as const

/** What one call of `useEngine` costs on the steady route, in nano, as its first answer shows. */
async function costOfCall(api: TestApi, runId: string): Promise<bigint> {
  const row = await api.db
    .selectFrom('transfer')
    .select('amount')
    .where('run_id', '=', runId)
    .where('code', '=', 'capture')
    .executeTakeFirstOrThrow()
  return row.amount
}

async function toldOf({ db }: TestApi, runId: string) {
  const rows = await db
    .selectFrom('event')
    .select('data')
    .where('run_id', '=', runId)
    .where('kind', '=', 'run.threshold')
    .orderBy('seq')
    .execute()
  return rows.map((row) => row.data)
}

function direct(nano: bigint) {
  const digits = nano.toString().padStart(10, '0')
  return [{ balanceClass: 'direct', amount: usd(`${digits.slice(0, -9)}.${digits.slice(-9)}`) }]
}

test('each percentage of a pocket is told once, with what crossed it, also when children spend; a top-up untells none', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const { world, call: callWith } = await useEngine(api, tenant)
  const call = (id: string, path: string) => callWith(id, path, { body: { ...BODY } })
  const probe = await startTestRun(api, tenant)
  await call(probe, 'read/0')
  const cost = await costOfCall(api, probe)
  expect(await toldOf(api, probe)).toEqual([])

  // Twenty calls' money: the worst case of a call is more than it costs.
  const pockets = direct(20n * cost)
  const runId = await startTestRun(api, tenant, {
    envelope: { pockets, wrapUpPercent: 10 },
    thresholds: [2, 5, 15, 90],
  })
  await call(runId, 'read/1')
  const spent = { balanceClass: 'direct', currency: 'USD', spentNano: `${cost}`, fundedNano: `${20n * cost}` }
  expect(await toldOf(api, runId)).toEqual([
    { ...spent, percent: 2 },
    { ...spent, percent: 5 },
  ])
  const child = await openChildRun(world.db, world.scope, { runId, path: 'sub', agent: 'echo', input: { text: 'x' } })
  if (child.kind !== 'opened') throw new Error(child.detail)
  await call(child.runId, 'read/2')
  expect(await toldOf(api, runId)).toHaveLength(2)
  const { wrapUpEnvelopeId: envelopeId } = await runFacts(world.db, runId)
  expect(envelopeId).toBeDefined()
  await Promise.all([call(runId, 'read/3'), call(child.runId, 'read/4')])
  expect(await toldOf(api, runId)).toMatchObject([{ percent: 2 }, { percent: 5 }, { percent: 15 }])

  await api.make(`/api/v1/runs/${runId}/top-up`, { key: tenant.key, body: { pockets: direct(100n * cost) } })
  await call(runId, 'read/5')
  expect(await toldOf(api, runId)).toHaveLength(3)
  // What goes home is not spent.
  const end = { state: 'partial', reason: 'deadline', detail: 'Over.' } as const
  await finishRun(world.db, world.scope, { runId, end, output: null })
  expect(await toldOf(api, runId)).toHaveLength(3)
  await expectVerified(world)
})
