import { executeCall } from '#calls/execute.ts'
import { openAttempts } from '#db/call.ts'
import { newId } from '#db/ids.ts'
import { closeEnvelope, setGate } from '#db/ledger.ts'
import { readReport } from '#db/report.ts'
import { sql } from 'kysely'
import { expect } from 'vitest'
import { expectVerified, QUESTION } from './open-attempt.ts'
import { pollUntil } from './poll.ts'
import { worldOn, type TestRun, type World } from './world.ts'
import type { TestDatabase } from './postgres.ts'

/** A backup is taken while this is so: one run is over, one has an answer, and one more request is out. */
export interface Busy {
  readonly world: World
  readonly finished: TestRun
  readonly running: TestRun
  /** What the call that is answered already was answered with. */
  readonly answer: unknown
  /** Ends what the old processes do. */
  abandon(): Promise<void>
}

const LEASE_TIMEOUT_MS = 60_000

/** Runs with holds that are open and closed, in a database that is about to be backed up. */
export async function beBusy(world: World): Promise<Busy> {
  const engine = await world.startEngine()
  const finished = await world.openRun({ direct: 1_000_000_000n, credit: 300_000n })
  await executeCall(engine, finished.request('first', QUESTION, { model: 'research' }))
  await setGate(world.db, world.scope, { envelopeId: finished.envelopeId, gate: 'closing', reason: 'test' })
  await closeEnvelope(world.db, world.scope, { envelopeId: finished.envelopeId, reason: 'test' })
  const running = await world.openRun({ direct: 1_000_000_000n })
  const answer = await executeCall(engine, running.request('answered', QUESTION))
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { hang: true })
  const controller = new AbortController()
  const out = executeCall(engine, running.request('out', QUESTION, { signal: controller.signal }))
  const open = () => openAttempts(world.db, world.scope, running.runId)
  await pollUntil(async () => (await open()).length === 1, { what: 'an open hold' })
  return {
    world,
    finished,
    running,
    answer,
    async abandon() {
      controller.abort()
      await out.catch(() => {})
      await world.sandbox.control('PUT', '/faults/sandbox-steady', {})
      await engine.stop()
    },
  }
}

/** What a backup is good for: the ledger is right, cannot be changed by the application, and its runs go on. */
export async function expectLife(database: TestDatabase, busy: Busy): Promise<void> {
  const { running, finished } = busy
  const world = worldOn({ database, scope: busy.world.scope, sandbox: busy.world.sandbox })
  await expectVerified(world)
  expect(await openAttempts(world.db, world.scope, running.runId)).toHaveLength(1)
  const before = await readReport(busy.world.db, world.scope, finished.runId)
  const after = await readReport(world.db, world.scope, finished.runId)
  expect(after).toEqual({ ...before, asOf: expect.any(String), final: expect.any(Boolean) })
  await expectReadOnly(world)
  const engine = await world.startEngine()
  const known = await executeCall(engine, running.request('answered', QUESTION))
  expect(known).toEqual(busy.answer)
  const fresh = await executeCall(engine, running.request('after the restore', QUESTION))
  expect(fresh.kind).toBe('answered')
  await pollUntil(async () => (await openAttempts(world.db, world.scope, running.runId)).length === 0, {
    what: 'the request that was out is booked as lost',
    deadlineMs: LEASE_TIMEOUT_MS,
  })
  expect((await readReport(world.db, world.scope, running.runId))?.counts.lost).toBe(1)
  const close = { envelopeId: running.envelopeId, reason: 'test' }
  await setGate(world.db, world.scope, { ...close, gate: 'closing' })
  expect(await closeEnvelope(world.db, world.scope, close)).toBe('closed')
  await expectVerified(world)
}

/** Grants and triggers came along. */
async function expectReadOnly(world: World): Promise<void> {
  const refused = [
    sql`update transfer set amount = 1`,
    sql`delete from transfer`,
    sql`truncate transfer`,
    sql`update account set posted_credit = 10`,
    sql`insert into transfer (id, project_id, code, debit_account, credit_account, currency, amount)
      values (${newId(Date.now())}, ${world.scope.projectId}, 'deposit', uuidv7(), uuidv7(), 'USD', 1)`,
    sql`alter table transfer disable trigger all`,
  ]
  for (const statement of refused) {
    await expect(statement.execute(world.db)).rejects.toThrow(/permission denied|must be owner/)
  }
}
