import { verifyLedger } from '#db/verify.ts'
import { readReport } from '#db/report.ts'
import { parseDecimal } from '#domain/money.ts'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { pollUntil } from '../support/poll.ts'
import { requestsSeen } from '../support/world.ts'
import { inventFacts } from './invented-facts.ts'
import { startWorkerProcess } from './worker-process.ts'
import { createWorkflowWorld, type WorkflowWorld } from './workflow-world.ts'

/** How long the owner of a call is stopped: three times its lease. */
const STOPPED_MS = 30_000

const holdSchema = z.object({
  id: z.string(),
  state: z.string(),
  request: z.object({ callKey: z.string() }).nullable(),
})

/** Arms a hold at the provider, after so many requests that pass, and waits for the request that it keeps open. */
async function armHold(world: WorkflowWorld, afterRequests = 0) {
  const order = { model: 'sandbox-steady', afterRequests }
  const { id } = holdSchema.parse(await world.sandbox.control('POST', '/holds', order))
  const current = async () => {
    const holds = z.array(holdSchema).parse(await world.sandbox.control('GET', '/holds'))
    return holds.find((hold) => hold.id === id)
  }
  return {
    release: () => world.sandbox.control('POST', `/holds/${id}/release`),
    holding: () =>
      pollUntil(
        async () => ((await current())?.state === 'holding' ? (await current())?.request?.callKey : undefined),
        {
          what: 'the provider holds a request open',
          deadlineMs: 20_000,
        },
      ),
  }
}

async function transfersOf(world: WorkflowWorld, callId: string) {
  return world.db.selectFrom('transfer').selectAll().where('call_id', '=', callId).orderBy('seq').execute()
}

test(
  'a worker that is stopped for 30 s in the middle of a call is taken over, and its late answer is only a correction',
  { timeout: 240_000 },
  async () => {
    const { question, year, facts } = inventFacts()
    const world = await createWorkflowWorld(facts)
    const stopped = await startWorkerProcess(world)
    const hold = await armHold(world)
    const runId = await world.start(question)
    const callId = await hold.holding()
    stopped.kill('SIGSTOP')
    const stoppedAt = performance.now()
    await startWorkerProcess(world)
    await pollUntil(async () => (await world.getRun(runId)).state === 'completed', {
      what: 'the run',
      deadlineMs: 150_000,
    })
    await pollUntil(() => performance.now() - stoppedAt > STOPPED_MS, { what: 'the pause', deadlineMs: 2 * STOPPED_MS })
    await hold.release()
    stopped.kill('SIGCONT')
    const correction = await pollUntil(
      async () => (await transfersOf(world, callId)).find((row) => row.code === 'correction'),
      { what: 'the late truth', deadlineMs: 20_000 },
    )

    const rows = await transfersOf(world, callId)
    expect(rows.map((row) => [row.attempt, row.code, row.certainty])).toEqual([
      [1, 'hold', null],
      [1, 'capture', 'unknown'],
      [2, 'hold', null],
      [2, 'capture', 'billed'],
      [1, 'correction', 'billed'],
    ])
    expect(correction.use).toBe('wasted')
    const run = await world.getRun(runId)
    expect(run).toMatchObject({ state: 'completed', output: { answer: expect.stringContaining(year) } })
    expect((await world.providerAnswers()).get(callId)).toBe(2)
    const report = await readReport(world.db, world.scope, runId)
    const call = report?.calls.find((each) => each.id === callId)
    expect(call).toMatchObject({
      answeredBy: 2,
      attempts: [{ outcome: 'lost', use: 'wasted' }, { outcome: 'answered' }],
    })

    // Everything is known in the end, so the report is the provider's own bill, to the nano.
    const billed = (await requestsSeen(world.sandbox)).map((request) => nanoOf(request.billed))
    expect(nanoOf(report?.totals[0]?.spent.amount ?? '')).toBe(billed.reduce((sum, each) => sum + each, 0n))
    expect(stopped.hasExited()).toBe(false)
    const { checks } = await verifyLedger(world.db)
    expect(checks.filter((check) => !check.ok)).toEqual([])
  },
)

test('two workers killed in the middle of two calls lose nothing but the answers in flight', async () => {
  const { question, year, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  const runId = await world.start(question, { breadth: 1 })
  const lost: string[] = []
  // The second worker repeats the call that the first one lost, and is killed in the next one.
  for (const afterRequests of [0, 1]) {
    const hold = await armHold(world, afterRequests)
    const worker = await startWorkerProcess(world)
    lost.push(await hold.holding())
    worker.kill('SIGKILL')
    await worker.exited
  }
  await startWorkerProcess(world)
  await pollUntil(async () => (await world.getRun(runId)).state === 'completed', {
    what: 'the run',
    deadlineMs: 90_000,
  })
  expect(await world.getRun(runId)).toMatchObject({ output: { answer: expect.stringContaining(year) } })
  for (const [callId, answers] of await world.providerAnswers()) {
    const killed = lost.filter((each) => each === callId).length
    expect(answers).toBe(1 + killed)
  }
  const report = await readReport(world.db, world.scope, runId)
  expect(report?.counts.lost).toBe(2)
  expect(report?.envelope).toMatchObject({
    gate: 'closed',
    pockets: [{ held: { amount: '0.000000' }, free: { amount: '0.000000' } }],
  })
  const { checks } = await verifyLedger(world.db)
  expect(checks.filter((check) => !check.ok)).toEqual([])
})

function nanoOf(text: string): bigint {
  const parsed = parseDecimal(text)
  if (!parsed.ok) throw new Error(`${text} is no amount`)
  return parsed.nano
}
