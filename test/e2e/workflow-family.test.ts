import { deriveId } from '#db/ids.ts'
import { readReport } from '#db/report.ts'
import { cancelRun } from '#db/run-commands.ts'
import { expect, test } from 'vitest'
import { expectAllHome } from '../support/all-home.ts'
import { pollUntil } from '../support/poll.ts'
import { createWorkflowWorld, type WorkflowWorld } from './workflow-world.ts'

/** Enough for some steps of the agent `steps`, not for twelve. In USD. */
const FOR_SOME_STEPS = '0.0002'

async function childrenOf({ db }: WorkflowWorld, runId: string) {
  return db
    .selectFrom('run')
    .innerJoin('envelope', 'envelope.id', 'run.envelope_id')
    .select(['run.id', 'run.state', 'run.reason', 'envelope.gate', 'envelope.created_at', 'run.finished_at'])
    .where('parent_run_id', '=', runId)
    .orderBy('run.parent_path')
    .execute()
}

test('children spend what their parent has left, and the parent ends after them', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const runId = await world.startAgent('family', { children: 3, steps: 2 }, { direct: '0.5' })
  const run = await world.until(runId, ['completed', 'failed'])
  expect(run).toMatchObject({ state: 'completed' })
  const children = await childrenOf(world, runId)
  expect(children.map(({ state }) => state)).toEqual(['completed', 'completed', 'completed'])
  const report = await readReport(world.db, world.scope, runId)
  const childReports = await Promise.all(children.map(({ id }) => readReport(world.db, world.scope, id)))
  expect(childReports.map((each) => each?.counts.calls)).toEqual([2, 2, 2])
  expect(report?.counts.calls).toBe(0)
  const told = report?.children.toSorted((one, other) => one.path.localeCompare(other.path))
  expect(told).toMatchObject(
    children.map(({ id }, index) => ({ runId: id, path: `child/${index}`, totals: childReports[index]?.totals })),
  )
  const spent = childReports.flatMap((each) => each?.totals.map((total) => total.spent.amount) ?? [])
  const [pocket] = report?.envelope.pockets ?? []
  expect(pocket).toMatchObject({ inChildren: report?.tree.totals[0]?.spent, held: { amount: '0.000000' } })
  expect(spent).toHaveLength(3)
  expect((await world.providerAnswers()).size).toBe(6)
  await expectAllHome(world)
  await world.keepHistory(runId, 'children')
})

test('a child that asks for more than is left is refused, and its parent goes on', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const runId = await world.startAgent('family', { children: 2, steps: 1, budget: '0.3' }, { direct: '0.5' })
  const run = await world.until(runId, ['completed', 'failed'])
  expect(run).toMatchObject({ state: 'completed' })
  const ends = endsOf(run.output)
  expect(ends.filter((end) => 'refused' in end)).toEqual([
    {
      refused: 'parent_short',
      detail: expect.stringContaining('it asks for 0.300000 direct USD, and 0.200000 are left'),
    },
  ])
  expect(await childrenOf(world, runId)).toHaveLength(1)
  await expectAllHome(world)
})

test('an agent that is not there, and an input that does not fit, are refused with the reason', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const unknown = await world.startAgent('family', { children: 1, steps: 1, agent: 'nobody' })
  expect(endsOf((await world.until(unknown, ['completed', 'failed'])).output)).toMatchObject([
    { refused: 'unknown_agent', detail: expect.stringContaining('nobody') },
  ])
  const unfit = await world.startAgent('family', { children: 1, steps: 1, agent: 'research' })
  expect(endsOf((await world.until(unfit, ['completed', 'failed'])).output)).toMatchObject([
    { refused: 'invalid_input' },
  ])
})

test('a child with a budget of its own ends with it, and what is left of it comes back', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const runId = await world.startAgent('family', { children: 1, steps: 50, budget: FOR_SOME_STEPS }, { direct: '0.5' })
  const run = await world.until(runId, ['completed', 'failed'])
  expect(endsOf(run.output)).toMatchObject([{ refused: 'money_exhausted' }])
  expect(await childrenOf(world, runId)).toMatchObject([
    { state: 'cancelled', reason: 'money_exhausted', gate: 'closed' },
  ])
  await expectAllHome(world)
})

test('a tree is no deeper than eight, and each generation ends before the one above it', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const runId = await world.startAgent('family', { children: 1, steps: 1, generations: 9 })
  expect(await world.until(runId, ['completed', 'failed'])).toMatchObject({ state: 'completed' })
  const runs = await world.db.selectFrom('run').select(['id', 'finished_at', 'output']).orderBy('created_at').execute()
  expect(runs).toHaveLength(8)
  expect(endsOf(runs.at(-1)?.output)).toMatchObject([{ refused: 'too_deep' }])
  const ends = runs.map(({ finished_at: at }) => at?.getTime() ?? 0)
  expect(ends).toEqual(ends.toSorted((one, other) => other - one))
  await expectAllHome(world)
})

test('a cancel of the parent stops its children, aborts what they have in flight, and closes after them', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { delayFirstByteMs: 120_000 })
  const runId = await world.startAgent('family', { children: 2, steps: 1 })
  const openRequests = async () =>
    (await world.db.selectFrom('attempt').select('call_id').where('state', '=', 'sent').execute()).length === 2
  await pollUntil(openRequests, { what: 'both children have a request open' })
  await world.cancel(runId)
  expect(await world.until(runId, ['cancelled', 'failed'])).toMatchObject({ state: 'cancelled', reason: 'cancelled' })
  expect(await childrenOf(world, runId)).toMatchObject([
    { state: 'cancelled', gate: 'closed' },
    { state: 'cancelled', gate: 'closed' },
  ])
  await expectAllHome(world)
  await world.keepHistory(runId, 'children-cancelled')
})

test('a child without money waits for the top-up of the tree, and goes on where it stopped', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const runId = await world.startAgent('family', { children: 1, steps: 12 }, { direct: FOR_SOME_STEPS })
  const childId = deriveId(runId, 'child', 'child/0')
  const isPaused = async () =>
    (await world.db.selectFrom('run').select('state').where('id', '=', childId).executeTakeFirst())?.state === 'paused'
  await pollUntil(isPaused, { what: 'the child is paused' })
  const told = await world.db.selectFrom('event').select('kind').where('run_id', '=', runId).execute()
  expect(told.map(({ kind }) => kind)).toContain('run.child_paused')
  await world.topUp(runId, '0.5')
  expect(await world.until(runId, ['completed', 'failed'])).toMatchObject({
    state: 'completed',
    output: { ends: [{ state: 'completed', output: { done: 12 } }] },
  })
  expect([...(await world.providerAnswers()).values()]).toEqual(Array.from({ length: 12 }, () => 1))
  await expectAllHome(world)
})

test('children that share the last money pause one after the other, and wait for none of them', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const runId = await world.startAgent('family', { children: 4, steps: 6, generations: 2 }, { direct: '0.0008' })
  const paused = async () => {
    const rows = await world.db.selectFrom('run').select(['state', 'reason']).where('agent', '=', 'steps').execute()
    return rows.length === 16 && rows.every(({ state }) => state !== 'running' && state !== 'queued') && rows
  }
  const rows = await pollUntil(paused, { what: 'nobody waits for money that nobody spends', deadlineMs: 60_000 })
  expect(new Set(rows.map(({ state, reason }) => `${state} ${reason}`))).toContain('paused money_exhausted')
  await world.topUp(runId, '0.5')
  expect(await world.until(runId, ['completed', 'failed'])).toMatchObject({ state: 'completed' })
  expect([...(await world.providerAnswers()).values()]).toEqual(Array.from({ length: 96 }, () => 1))
  await expectAllHome(world)
})

test('a run whose child hears first that all is cancelled is cancelled, and not completed without it', async () => {
  const world = await createWorkflowWorld([])
  const { db, scope } = world
  await world.startWorker()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { delayFirstByteMs: 120_000 })
  const runId = await world.startAgent('family', { children: 1, steps: 1 })
  const sent = () => db.selectFrom('attempt').select('number').where('state', '=', 'sent').executeTakeFirst()
  await pollUntil(sent, { what: 'a request is open' })
  // Nobody wakes it: its child is told by the gate.
  const order = { runId, mode: 'now', reason: undefined, nowMs: Date.now() } as const
  await db.transaction().execute((trx) => cancelRun(trx, scope, order))
  expect(await world.until(runId, ['completed', 'cancelled', 'failed'])).toMatchObject({
    state: 'cancelled',
    reason: 'cancelled',
  })
  await expectAllHome(world)
})

function endsOf(output: unknown): readonly object[] {
  if (typeof output !== 'object' || output === null || !('ends' in output) || !Array.isArray(output.ends)) return []
  return output.ends
}
