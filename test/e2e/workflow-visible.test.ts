import { startDispatcher } from '#api/dispatcher.ts'
import { temporalOrchestrator } from '#api/orchestrator.ts'
import { temporalSchedules } from '#api/temporal-schedules.ts'
import { scheduleRequestSchema } from '#contracts/api-schedule.ts'
import { SEARCH_ATTRIBUTES } from '#contracts/search-attributes.ts'
import { listFirings } from '#db/schedule-firing.ts'
import { changeSchedule, createSchedule, endSchedule } from '#db/schedule.ts'
import { defaultPayloadConverter } from '@temporalio/common'
import { ScheduleNotFoundError } from '@temporalio/client'
import { expect, onTestFinished, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { makeKey } from '../support/world.ts'
import { inventFacts } from './invented-facts.ts'
import { createWorkflowWorld, type WorkflowWorld } from './workflow-world.ts'

const FOR_EVER_MS = 120_000

function useDispatcher({ db, client, taskQueue }: WorkflowWorld) {
  const dispatcher = startDispatcher({
    db,
    orchestrator: temporalOrchestrator({ client, taskQueue }),
    clock: temporalSchedules({ client, taskQueue }),
    log: { warn: () => {} },
    monotonicMs: () => performance.now(),
  })
  onTestFinished(() => dispatcher.stop())
}

/** A schedule whose times do not come while the test runs: it is triggered. */
async function makeSchedule(world: WorkflowWorld, question: string): Promise<string> {
  const { db, scope, corpusId } = world
  const request = scheduleRequestSchema.parse({
    name: 'yearly',
    cron: '0 0 1 1 *',
    run: {
      agent: 'research',
      model: 'steady',
      input: { question, corpusId },
      envelope: { pockets: [{ balanceClass: 'direct', amount: { amount: '1', currency: 'USD' } }] },
      onExhausted: 'pause',
      priority: 2,
    },
  })
  const keyId = await makeKey(db, scope)
  const input = { question, corpusId, breadth: 4 }
  const id = await db
    .transaction()
    .execute((trx) => createSchedule(trx, scope, { request, input, keyId, nowMs: Date.now() }))
  return id ?? ''
}

async function untilTold({ db }: WorkflowWorld, id: string): Promise<void> {
  const isTold = async () => {
    const row = await db.selectFrom('schedule').selectAll().where('id', '=', id).executeTakeFirstOrThrow()
    return row.told_version === row.version
  }
  await pollUntil(isTold, { what: 'Temporal has heard of the schedule', deadlineMs: 30_000 })
}

test('a schedule starts a run, which says in Temporal what it is and what its pending call holds', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  const { db, scope, client } = world
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { delayFirstByteMs: FOR_EVER_MS })
  await world.startWorker({ isBuiltIn: true })
  useDispatcher(world)
  const scheduleId = await makeSchedule(world, question)
  await untilTold(world, scheduleId)
  const schedule = client.schedule.getHandle(scheduleId)
  const { policies } = await schedule.describe()
  expect(policies).toMatchObject({ overlap: 'SKIP', catchupWindow: 24 * 60 * 60_000 })
  await schedule.trigger()
  const firings = () => listFirings(db, scope, { scheduleId, limit: 9, order: 'desc', after: undefined })
  const runId = await pollUntil(async () => (await firings())[0]?.runId ?? undefined, {
    what: 'its run',
    deadlineMs: 30_000,
  })

  const workflow = client.workflow.getHandle(runId)
  const held = await pollUntil(
    async () => {
      const { raw } = await workflow.describe().catch(() => ({ raw: undefined }))
      const [payload] = raw?.pendingActivities?.[0]?.heartbeatDetails?.payloads ?? []
      const details = payload ? defaultPayloadConverter.fromPayload(payload) : undefined
      return JSON.stringify(details ?? null).includes('held') && details
    },
    { what: 'the pending call tells what it holds', deadlineMs: 30_000 },
  )
  expect(held).toMatchObject({ route: 'steady', held: expect.stringMatching(/^0\.\d+ USD$/) })
  const described = await workflow.describe()
  expect(described.priority).toMatchObject({ priorityKey: 2, fairnessKey: scope.projectId })
  expect(await described.staticSummary()).toBe('research · steady')
  const attributes = Object.fromEntries(
    described.typedSearchAttributes.getAll().map(({ key, value }) => [key.name, value]),
  )
  expect(attributes).toMatchObject({
    [SEARCH_ATTRIBUTES.project]: scope.projectId,
    [SEARCH_ATTRIBUTES.agent]: 'research',
    [SEARCH_ATTRIBUTES.model]: 'steady',
    [SEARCH_ATTRIBUTES.state]: 'running',
  })
  const query = `${SEARCH_ATTRIBUTES.project} = "${scope.projectId}"`
  await pollUntil(async () => (await client.workflow.count(query)).count === 1, { what: 'it is found by its project' })
  await schedule.trigger()
  await pollUntil(async () => (await firings())[0]?.skipped === 'overlap', { what: 'the next time is skipped' })
  await world.cancel(runId)
  await world.until(runId, ['cancelled'])
  const isFound = async () =>
    (await client.workflow.count(`${query} AND ${SEARCH_ATTRIBUTES.state} = "cancelled"`)).count === 1
  await pollUntil(isFound, { what: 'it is found by how it ended' })
})

test('a schedule that is paused or removed is so in Temporal', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  const { db, scope, client } = world
  useDispatcher(world)
  const scheduleId = await makeSchedule(world, question)
  await untilTold(world, scheduleId)
  const schedule = client.schedule.getHandle(scheduleId)
  const to = { state: 'paused', every: 3_600 } as const
  await db.transaction().execute((trx) => changeSchedule(trx, scope, { scheduleId, to }))
  await untilTold(world, scheduleId)
  const { state, policies, spec } = await schedule.describe()
  expect([state.paused, policies.catchupWindow, spec.intervals?.[0]?.every]).toEqual([true, 3_600_000, 3_600_000])
  await db.transaction().execute((trx) => endSchedule(trx, scope, { scheduleId, state: 'deleted', reason: null }))
  await untilTold(world, scheduleId)
  await expect(schedule.describe()).rejects.toThrow(ScheduleNotFoundError)
})
