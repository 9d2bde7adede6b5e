import { executeCall } from '#calls/execute.ts'
import { openAnswered } from '#db/opened-call.ts'
import { deriveId } from '#db/ids.ts'
import { putPayload } from '#db/payload.ts'
import { verifyLedger } from '#db/verify.ts'
import { expect, test } from 'vitest'
import { expectVerified, QUESTION } from '../support/open-attempt.ts'
import { endRun, eraseAll, keep, letPass, tablesWith } from '../support/storage.ts'
import { tamper } from '../support/tamper.ts'
import { createWorld, requestsSeen, type World } from '../support/world.ts'

const DOLLAR = { direct: 1_000_000_000n }
const CANARY = '4711-kestrel'
const SECRET = `<passage id="p1">The vault of Orvane opens with ${CANARY}.</passage> How does the vault open?`

/** A run of which nothing is left, with a call and what a tool gave. */
async function erasedRun(world: World) {
  const engine = await world.startEngine()
  const run = await world.openRun(DOLLAR)
  const { runId } = run
  expect(await executeCall(engine, run.request('one', SECRET))).toMatchObject({ kind: 'answered' })
  const tool = { id: deriveId(runId, 'tool', 'search/0'), runId, kind: 'tool' as const, body: { value: CANARY } }
  await putPayload(world.db, world.scope, tool)
  await endRun(world, runId, { opens: CANARY })
  await keep(world, 'hash_only')
  await letPass(world, '1 day')
  expect(await eraseAll(world)).toEqual({ payloads: 3, runs: 1 })
  await expectVerified(world)
  return { engine, run, tool }
}

test('a worker that slept while its run was erased leaves no text of it when it goes on', async () => {
  const world = await createWorld()
  const { engine, run, tool } = await erasedRun(world)
  await putPayload(world.db, world.scope, tool)
  await putPayload(world.db, world.scope, { ...tool, id: deriveId(run.runId, 'tool', 'search/1') })
  for (const prompt of [SECRET, `${SECRET} ${'and '.repeat(20_000)}`]) {
    const asked = await executeCall(engine, run.request('late', prompt))
    expect(asked).toMatchObject({ kind: 'gate', gate: 'closed' })
  }
  expect(await tablesWith(world, CANARY)).toEqual([])
  expect(await requestsSeen(world.sandbox)).toHaveLength(1)
  await expectVerified(world)
})

test('nor is an answer of another run copied for one that is erased', async () => {
  const world = await createWorld()
  const { run } = await erasedRun(world)
  const other = await world.openRun(DOLLAR)
  const answer = {
    id: deriveId(other.runId, 'answer'),
    runId: other.runId,
    kind: 'answer' as const,
    body: { text: CANARY },
  }
  await putPayload(world.db, world.scope, answer)
  const { envelopeId, apiKeyId } = run.request('', '')
  const call = {
    id: deriveId(run.runId, 'call', 'late'),
    runId: run.runId,
    envelopeId,
    apiKeyId,
    path: 'late',
    digest: Buffer.alloc(32),
    model: 'steady',
    catalogVersion: 1,
    requestId: deriveId(run.runId, 'request', 'late'),
    request: { prompt: CANARY },
  }
  const copied = { callId: deriveId(other.runId, 'call'), answerId: answer.id }
  await openAnswered(world.db, world.scope, { call, answer: copied, copyId: deriveId(run.runId, 'copy', 'late') })
  await tamper(world, `delete from payload where id = '${answer.id}'`)
  expect(await tablesWith(world, CANARY)).toEqual([])
})

test.each([
  [
    'what a tool gave, put back',
    `update payload set body = '{}', digest = null, erased_at = null where kind = 'tool'`,
    'something of its tree is left',
  ],
  [
    'a text that came after the run was erased',
    `insert into payload (id, project_id, run_id, kind, body)
      select (left(r.id::text, 13) || '-8000-8000-000000000001')::uuid, r.project_id, r.id, 'tool', '{}' from run r`,
    'something of its tree is left',
  ],
  ['an output that was put back', `update run set output = '{"opens": 1}'`, 'what it delivered is left'],
])('verify finds %s', async (_what, change, wrong) => {
  const world = await createWorld()
  await erasedRun(world)
  await tamper(world, change)
  const { checks } = await verifyLedger(world.db)
  expect(checks.filter(({ ok }) => !ok).map(({ firstWrong }) => firstWrong)).toEqual([expect.stringContaining(wrong)])
})

test('an answer of a run that is given up is not used again, though its text is there still', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const reuse = { maxAgeMs: 1_000_000_000_000 }
  const [one, two] = [await world.openRun(DOLLAR), await world.openRun(DOLLAR)]
  await executeCall(engine, one.request('a', QUESTION, { reuse }))
  await endRun(world, one.runId)
  await tamper(world, `update run set erasing_at = clock_timestamp() where id = '${one.runId}'`)
  expect(await executeCall(engine, two.request('a', QUESTION, { reuse }))).toMatchObject({ kind: 'answered' })
  expect(await requestsSeen(world.sandbox)).toHaveLength(2)
})
