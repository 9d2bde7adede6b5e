import { askRow, prepareAsking, withoutAnswers } from '#activities/map-row.ts'
import { storeDataset } from '#api/dataset-upload.ts'
import { getRowMap, openRowMap, recordRows, rowsStanding } from '#db/row-map.ts'
import { invariant } from '#domain/invariant.ts'
import { expect, test } from 'vitest'
import { createWorld, type World } from '../support/world.ts'

/** A run with a map over three rows. */
async function openMap(world: World) {
  const { db, scope } = world
  const run = await world.openRun({ direct: 1_000_000_000n, credit: 1_000_000_000n })
  const file = { name: 'rows', format: 'csv', content: Buffer.from('text\nOne.\nTwo.\nThree.\n') } as const
  const { id: datasetId } = await storeDataset(db, scope, { file, nowMs: Date.now() })
  const ask = { model: 'steady', maxTokens: 20, messages: [{ role: 'user' as const, parts: ['About: {{text}}'] }] }
  await openRowMap(db, scope, { runId: run.runId, path: 'rows', datasetId, ask })
  const map = await getRowMap(db, scope, { runId: run.runId, path: 'rows' })
  invariant(map, 'the map is there')
  return map
}

test('a row whose record died with its worker is not asked again by another model', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const map = await openMap(world)
  const facts = { ...(await engine.shelf.run(map.runId)), downgrade: { model: 'research', bounds: [] } }
  const request = { runId: map.runId, path: 'rows', from: 1, to: 3, concurrency: 1 }
  const { signal } = new AbortController()
  const before = await prepareAsking(engine, { facts, map, request, signal })
  const { open } = await rowsStanding(world.db, world.scope, { map, range: request })
  const [first] = open
  invariant(first, 'there are rows')
  expect(await askRow(before, first)).toMatchObject({ outcome: { number: 1, outcome: 'answered' } })
  expect((await withoutAnswers(before, open)).rows).toHaveLength(3)
  const downgraded = await prepareAsking(engine, { facts, map, request: { ...request, downgraded: true }, signal })
  const { rows, found } = await withoutAnswers(downgraded, open)
  expect(rows.map(({ number }) => number)).toEqual([2, 3])
  expect(found).toMatchObject([{ outcome: { number: 1, outcome: 'answered' } }])
  expect(await world.providerAnswers()).toHaveProperty('size', 1)
})

test('a final outcome stays, and a row that had calls of two models keeps both, the one that answered last', async () => {
  const world = await createWorld()
  const map = await openMap(world)
  const { db, scope } = world
  const [one, two] = ['01980000-0000-7000-8000-000000000001', '01980000-0000-7000-8000-000000000002']
  const record = (outcome: 'answered' | 'failed' | 'open', callId: string | undefined, reason?: string) =>
    recordRows(db, scope, { map, outcomes: [{ number: 2, outcome, callId, reason }] })
  await record('open', one)
  await record('open', two)
  await record('answered', one)
  await record('failed', two, 'late')
  const rows = await db.selectFrom('run_map_row').select(['number', 'outcome', 'call_ids', 'reason']).execute()
  expect(rows).toEqual([{ number: 2, outcome: 'answered', call_ids: [two, one], reason: null }])
  const standing = await rowsStanding(db, scope, { map, range: { from: 1, to: 3 } })
  expect(standing).toMatchObject({ answered: 1, failed: 0, open: [{ number: 1 }, { number: 3 }] })
})

test('a path belongs to one map: another prompt or dataset is told so, and the same one may be asked for again', async () => {
  const world = await createWorld()
  const { runId, path, datasetId, ask } = await openMap(world)
  const open = (change: object) => openRowMap(world.db, world.scope, { runId, path, datasetId, ask, ...change })
  expect(await open({})).toBe(true)
  expect(await open({ ask: { ...ask, maxTokens: 21 } })).toBe(false)
  expect(await open({ path: 'other', ask: { ...ask, maxTokens: 21 } })).toBe(true)
})
