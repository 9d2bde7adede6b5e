import { readReport } from '#db/report.ts'
import { getRowMap } from '#db/row-map.ts'
import { readRowResults } from '#db/row-result.ts'
import { verifyLedger } from '#db/verify.ts'
import { parseDecimal } from '#domain/money.ts'
import { expect } from 'vitest'
import { storeDataset } from '#api/dataset-upload.ts'
import { runRequestSchema } from '#contracts/api-run.ts'
import { startRun } from '#db/run-start.ts'
import type { DatasetFormat } from '#domain/dataset-file.ts'
import type { RunStart } from '#workflows/kit.ts'
import { pollUntil } from '../support/poll.ts'
import { makeKey } from '../support/world.ts'
import { createWorkflowWorld, type WorkflowWorld } from './workflow-world.ts'

/** A world in which maps run as they do in production. */
export interface MapWorld extends WorkflowWorld {
  upload(file: string, format?: DatasetFormat): Promise<string>
  /** @param change `direct`: what its envelope holds, in USD */
  startMap(input: Readonly<Record<string, unknown>>, change?: MapChange, carried?: RunStart['carried']): Promise<string>
  /** What became of each row of a run, in order. */
  rowsOf(runId: string): Promise<readonly RowSeen[]>
}

export interface MapChange {
  readonly direct?: string
  readonly [option: string]: unknown
}

interface RowSeen {
  readonly number: number
  readonly outcome: string
  readonly reason: string | null
  readonly call_ids: readonly string[]
}

export async function createMapWorld(): Promise<MapWorld> {
  const world = await createWorkflowWorld([])
  const { db, scope, client, taskQueue } = world
  const keyId = await makeKey(db, scope)
  return {
    ...world,
    async upload(file, format = 'csv') {
      const content = Buffer.from(file)
      const dataset = await storeDataset(db, scope, { file: { name: 'rows', format, content }, nowMs: Date.now() })
      return dataset.id
    },
    async startMap(input, { direct = '50', ...change } = {}, carried) {
      const request = runRequestSchema.parse({
        agent: 'map',
        model: 'steady',
        input: { maxTokens: 40, ...input },
        envelope: { pockets: [{ balanceClass: 'direct', amount: { amount: direct, currency: 'USD' } }] },
        onExhausted: 'pause',
        pauseDeadlineSeconds: 60,
        ...change,
      })
      const order = { request, input: request.input, keyId, nowMs: Date.now() }
      const runId = await db.transaction().execute((trx) => startRun(trx, scope, order))
      const run: RunStart = { runId, ...(carried && { carried }) }
      await client.workflow.start('map', { workflowId: runId, taskQueue, args: [run] })
      return runId
    },
    rowsOf: (runId) =>
      db
        .selectFrom('run_map_row')
        .select(['number', 'outcome', 'reason', 'call_ids'])
        .where('run_id', '=', runId)
        .orderBy('number')
        .execute(),
  }
}

export async function attemptsOf({ db }: MapWorld, runId: string) {
  return db
    .selectFrom('attempt')
    .select(['call_id', 'number', 'state', 'outcome'])
    .where('run_id', '=', runId)
    .execute()
}

/** The ledger is right, the run's money is home, and its rows cost what its report says. */
export async function expectBooksInOrder(world: MapWorld, runId: string): Promise<void> {
  const { checks } = await verifyLedger(world.db)
  expect(checks.filter((check) => !check.ok)).toEqual([])
  const report = await readReport(world.db, world.scope, runId)
  const map = await getRowMap(world.db, world.scope, { runId, path: 'rows' })
  if (!map) throw new Error('the run has no map')
  let cost = 0n
  for await (const page of readRowResults(world.db, world.scope, map)) {
    for (const row of page) for (const { amount } of row.cost) cost += amount
  }
  const spent = report?.totals.map(({ spent: { amount } }) => parseDecimal(amount)) ?? []
  expect(cost).toBe(spent.reduce((sum, parsed) => sum + (parsed.ok ? parsed.nano : 0n), 0n))
  expect(report?.envelope.gate).toBe('closed')
  expect(new Set(report?.envelope.pockets.map(({ held }) => held.amount))).toEqual(new Set(['0.000000']))
}

/** A map that is told to stop waits for nothing but its requests' aborts. */
export function untilCancelled(world: MapWorld, runId: string) {
  return pollUntil(
    async () => {
      const row = await world.getRun(runId)
      return row.state === 'cancelled' && row
    },
    { what: 'the run ends', deadlineMs: 5_000 },
  )
}
