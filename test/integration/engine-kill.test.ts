import type { CallResult } from '#calls/call.ts'
import { executeCall } from '#calls/execute.ts'
import { startCable, type Cable } from '#local/tcp-cable.ts'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { startDoomedEngine, type DoomedEngine } from '../support/doomed-engine.ts'
import { expectVerified, QUESTION } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { createWorld, requestsSeen, type TestRun, type World } from '../support/world.ts'

const TAKE_OVER_MS = 60_000

interface Doomed extends DoomedEngine {
  readonly world: World
  readonly run: TestRun
  readonly cable: Cable
  readonly mayRepeat: number
}

/** An engine in another process, whose only way to the database is a cable that the test can unplug. */
async function startDoomed(mayRepeat: number): Promise<Doomed> {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const url = new URL(world.database.appUrl)
  const cable = await startCable({ targetHost: url.hostname, targetPort: Number(url.port) })
  onTestFinished(() => cable.stop())
  url.host = cable.address
  const order = { databaseUrl: url.href, paths: ['one'], question: QUESTION, mayRepeat }
  return { world, run, cable, mayRepeat, ...(await startDoomedEngine({ world, run }, order)) }
}

/** Locks the pocket, so that whatever comes to the database next waits there: for as long as `work` takes. */
async function whileLocked({ world, run }: Doomed, work: () => Promise<void>): Promise<void> {
  const client = new pg.Client(world.database.adminUrl)
  await client.connect()
  try {
    await client.query('begin')
    await client.query('select from account where envelope_id = $1 for update', [run.envelopeId])
    await work()
    await client.query('commit')
  } finally {
    await client.end()
  }
}

async function waitsForLock({ world }: Doomed): Promise<void> {
  const client = new pg.Client(world.database.adminUrl)
  await client.connect()
  try {
    await pollUntil(
      async () => {
        const { rows } = await client.query(
          `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
        )
        return rows.length > 0
      },
      { what: 'a statement that waits for the pocket' },
    )
  } finally {
    await client.end()
  }
}

async function holdAtProvider({ world }: Doomed) {
  await world.sandbox.control('POST', '/holds', { model: 'sandbox-steady' })
  return {
    arrived: () =>
      pollUntil(async () => (await requestsSeen(world.sandbox)).some(({ begun }) => begun), { what: 'the request' }),
    async release() {
      // The sandbox's contract.
      // oxlint-disable-next-line typescript/consistent-type-assertions
      const [hold] = (await world.sandbox.control('GET', '/holds')) as readonly { readonly id: string }[]
      await world.sandbox.control('POST', `/holds/${hold?.id}/release`)
      await pollUntil(async () => (await requestsSeen(world.sandbox)).some(({ finished }) => finished), {
        what: 'the answer to be sent',
      })
    },
  }
}

async function attemptsOf({ world, run }: Doomed) {
  return world.db.selectFrom('attempt').selectAll().where('run_id', '=', run.runId).orderBy('number').execute()
}

async function captured(doomed: Doomed): Promise<void> {
  await pollUntil(async () => (await attemptsOf(doomed)).some(({ state }) => state === 'resolved'), {
    what: 'the settlement',
  })
}

/** Where the process is killed, and how many requests the provider has seen by then and sees in the end. */
const points: Readonly<
  Record<
    string,
    { readonly strike: (doomed: Doomed) => Promise<void>; readonly attempts: number; readonly requests: number }
  >
> = {
  'before the first commit': {
    attempts: 1,
    requests: 1,
    async strike(doomed) {
      doomed.cable.unplug()
      doomed.begin()
      await doomed.kill()
      doomed.cable.cut()
    },
  },
  'held and unsent': {
    attempts: 2,
    requests: 1,
    async strike(doomed) {
      await whileLocked(doomed, async () => {
        doomed.begin()
        await waitsForLock(doomed)
        doomed.cable.unplug()
      })
      await pollUntil(async () => (await attemptsOf(doomed)).length === 1, { what: 'the hold' })
      await doomed.kill()
      doomed.cable.cut()
    },
  },
  'in flight': {
    attempts: 2,
    requests: 2,
    async strike(doomed) {
      const held = await holdAtProvider(doomed)
      doomed.begin()
      await held.arrived()
      await doomed.kill()
    },
  },
  'answered and unstored': {
    attempts: 2,
    requests: 2,
    async strike(doomed) {
      const held = await holdAtProvider(doomed)
      doomed.begin()
      await held.arrived()
      doomed.cable.unplug()
      await held.release()
      await doomed.kill()
      doomed.cable.cut()
    },
  },
  'stored, and nobody told': {
    attempts: 1,
    requests: 1,
    async strike(doomed) {
      const held = await holdAtProvider(doomed)
      doomed.begin()
      await held.arrived()
      await whileLocked(doomed, async () => {
        await held.release()
        await waitsForLock(doomed)
        doomed.cable.unplug()
      })
      await captured(doomed)
      await doomed.kill()
      doomed.cable.cut()
    },
  },
}

/** Executes the call again in this process, as often as it says to ask again. */
async function goOn({ world, run, mayRepeat }: Doomed): Promise<CallResult> {
  const engine = await world.startEngine()
  return pollUntil(
    async () => {
      const result = await executeCall(engine, run.request('one', QUESTION, { mayRepeat }))
      return result.kind !== 'waiting' && result
    },
    { what: 'the end of the call', deadlineMs: TAKE_OVER_MS },
  )
}

async function expectNothingHeld({ world, run }: Doomed): Promise<void> {
  const pockets = await world.db.selectFrom('account').selectAll().where('envelope_id', '=', run.envelopeId).execute()
  expect(pockets.map(({ pending_debit }) => pending_debit)).toEqual(pockets.map(() => 0n))
}

// All points at once: each waits ten seconds for the lease of the dead process to end.
test(
  'an engine that is killed at any point charges each attempt once, and the call goes on',
  { timeout: 90_000 },
  async () => {
    await Promise.all(
      Object.entries(points).map(async ([name, point]) => {
        const doomed = await startDoomed(1)
        await point.strike(doomed)
        expect(await goOn(doomed), name).toMatchObject({ kind: 'answered' })
        const attempts = await attemptsOf(doomed)
        const outcomes = point.attempts === 1 ? ['answered'] : ['lost', 'answered']
        expect(
          attempts.map(({ outcome }) => outcome),
          name,
        ).toEqual(outcomes)
        expect((await requestsSeen(doomed.world.sandbox)).length, name).toBe(point.requests)
        const { rows } = await resolutionsOf(doomed)
        expect(rows, name).toEqual(attempts.map(({ number }) => ({ attempt: number, count: 1 })))
        await expectNothingHeld(doomed)
        await expectVerified(doomed.world)
      }),
    )
  },
)

test('what may have been sent is not repeated where its owner does not allow it', { timeout: 90_000 }, async () => {
  await Promise.all(
    ['held and unsent', 'in flight', 'answered and unstored'].map(async (name) => {
      const doomed = await startDoomed(0)
      await points[name]?.strike(doomed)
      const before = (await requestsSeen(doomed.world.sandbox)).length
      expect(await goOn(doomed), name).toMatchObject({ kind: 'failed', reason: 'repeat_not_allowed' })
      expect((await requestsSeen(doomed.world.sandbox)).length, name).toBe(before)
      expect(
        (await attemptsOf(doomed)).map(({ outcome }) => outcome),
        name,
      ).toEqual(['lost'])
      await expectNothingHeld(doomed)
      await expectVerified(doomed.world)
    }),
  )
})

async function resolutionsOf({ world, run }: Doomed) {
  const client = new pg.Client(world.database.adminUrl)
  await client.connect()
  try {
    return await client.query<{ attempt: number; count: number }>(
      `select attempt, count(*)::int from transfer where run_id = $1 and pending_id is not null group by 1 order by 1`,
      [run.runId],
    )
  } finally {
    await client.end()
  }
}
