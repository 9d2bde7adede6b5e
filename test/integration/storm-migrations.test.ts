import { connectDatabase } from '#db/database.ts'
import { createLedgerQueue } from '#db/ledger-queue.ts'
import { correct } from '#db/correction.ts'
import { closeEnvelope, topUpEnvelope } from '#db/ledger.ts'
import { newId } from '#db/ids.ts'
import { openPool } from '#db/pool.ts'
import { verifyLedger } from '#db/verify.ts'
import { Kysely, PostgresDialect, sql } from 'kysely'
import { Migrator } from 'kysely/migration'
import { expect, onTestFinished, test } from 'vitest'
import { migrations } from '../../migrations/index.ts'
import { carveLate } from '../support/late-carving.ts'
import { truthOf } from '../support/late-truth.ts'
import { createEmptyDatabase } from '../support/postgres.ts'
import { forever, holdOf, openCalls, registerForAnHour, settlementOf, type StormCall } from '../support/storm.ts'

/** Versions that were released, and what their own functions left behind. A new release is one line more. */
const releases = [
  { version: '0001_tenants', seed: undefined },
  { version: '0002_ledger', seed: undefined },
  { version: '0003_runs_and_calls', seed: undefined },
  { version: '0004_corpus', seed: seedFirstLedger },
  { version: '0012_corrections', seed: seedLateCarving },
  { version: '0014_late_money_and_replays', seed: undefined },
] as const

test.each(releases)(
  'from $version the database comes up to the newest, and verify is clean',
  async ({ version, seed }) => {
    const database = await createEmptyDatabase()
    onTestFinished(() => database.drop())
    const owner = new Kysely<unknown>({
      dialect: new PostgresDialect({ pool: openPool({ connectionString: database.ownerUrl, max: 1 }) }),
    })
    onTestFinished(() => owner.destroy())
    const migrator = new Migrator({ db: owner, provider: migrations })
    expect((await migrator.migrateTo(version)).error).toBeUndefined()
    const seeded = await seed?.(owner)
    expect((await migrator.migrateToLatest()).error).toBeUndefined()
    const db = connectDatabase({ url: database.appUrl, maxConnections: 4 })
    onTestFinished(() => db.destroy())
    const expectClean = async () => {
      const { checks } = await verifyLedger(db)
      expect(checks.filter((check) => !check.ok)).toEqual([])
    }
    await expectClean()
    if (!seeded) return
    await seeded.goesOn(db)
    await expectClean()
  },
)

type Seeded = { readonly goesOn: (db: ReturnType<typeof connectDatabase>) => Promise<void> }

/**
 * Everything that the functions of 0002 and 0003 could leave: deposits of both classes and an own one with a debt paid,
 * an open hold, a capture with an answer, a void, an overage, a refusal, a correction, a closed and a frozen envelope.
 */
async function seedFirstLedger(owner: Kysely<unknown>): Promise<Seeded> {
  const scope = { projectId: newId(Date.now()) }
  const [walletId, organisationId, instanceId] = [newId(Date.now()), newId(Date.now()), newId(Date.now())]
  await sql`insert into organisation (id, name) values (${organisationId}, 'old')`.execute(owner)
  await sql`insert into project (id, organisation_id, name) values (${scope.projectId}, ${organisationId}, 'old')`.execute(
    owner,
  )
  await sql`insert into wallet (id, project_id) values (${walletId}, ${scope.projectId})`.execute(owner)
  await sql`insert into instance (id, kind, host, pid, lease_until)
    values (${instanceId}, 'test', 'here', 1, clock_timestamp() + interval '1 hour')`.execute(owner)
  const old = createOldLedger(owner, { ...scope, walletId, instanceId })
  await old.deposit('direct', 1_000n)
  await old.deposit('credit', 700n)
  const busy = await old.openRun({ direct: 100n, credit: 60n })
  const closed = await old.openRun({ direct: 50n, credit: 5n })
  const frozen = await old.openRun({ direct: 20n, credit: 20n })
  await old.reserve(busy.credit, holdOf(busy.calls.open, 40n))
  await old.reserve(busy.direct, holdOf(busy.calls.answered, 30n))
  await old.settle(busy.direct, settlementOf(busy.calls.answered, 25n, { answer: 'done' }))
  await old.reserve(busy.direct, holdOf(busy.calls.refused, 5_000n))
  await old.reserve(busy.direct, holdOf(busy.calls.corrected, 10n))
  await old.settle(busy.direct, settlementOf(busy.calls.corrected, 10n))
  await old.correct(busy.direct, busy.calls.corrected, 4n)
  await old.reserve(closed.credit, holdOf(closed.calls.answered, 5n))
  await old.settle(closed.credit, settlementOf(closed.calls.answered, null))
  await old.reserve(closed.direct, holdOf(closed.calls.open, 50n))
  await old.settle(closed.direct, settlementOf(closed.calls.open, 80n))
  await old.close(closed.envelopeId)
  await old.deposit('credit', 10n)
  await old.freeze(frozen.envelopeId)
  return {
    async goesOn(db) {
      const queue = createLedgerQueue({ db, instanceId: await registerForAnHour(db) })
      const pocket = (accountId: string) => ({ ...scope, accountId })
      const settlement = settlementOf(busy.calls.open, 33n, { answer: 'at last' })
      expect((await queue.settle(pocket(busy.credit), settlement)).verdict).toBe('settled')
      expect((await queue.settle(pocket(busy.credit), settlement)).verdict).toBe('replayed')
      const refused = holdOf(busy.calls.refused, 5_000n)
      expect(await queue.reserve(pocket(busy.direct), refused, forever())).toMatchObject({
        verdict: 'exhausted',
        replayed: true,
      })
      const [next] = await openCalls(db, scope, { ...busy, count: 1 })
      if (!next) throw new Error('no call')
      expect((await queue.reserve(pocket(busy.credit), holdOf(next, 27n), forever())).verdict).toBe('granted')
      expect((await queue.settle(pocket(busy.credit), settlementOf(next, 7n))).verdict).toBe('settled')
      const fundings = [{ id: newId(Date.now()), balanceClass: 'credit', currency: 'USD', amount: 11n }] as const
      expect(await topUpEnvelope(db, scope, { envelopeId: frozen.envelopeId, fundings })).toBeUndefined()
      for (const { envelopeId } of [busy, frozen])
        expect(await closeEnvelope(db, scope, { envelopeId, reason: 'over' })).toBe('closed')
      const { rows } = await sql<{ lots: bigint; wallet: bigint }>`
        select (select sum(free) from lot)::bigint as lots, posted_credit - posted_debit as wallet
        from account where kind = 'wallet' and balance_class = 'credit'`.execute(db)
      // 700 and 10 came, 30 paid the debt of the overage, 33 and 7 were spent.
      expect(rows).toEqual([{ lots: 640n, wallet: 640n }])
      const { rows: direct } = await sql<{ free: bigint }>`
        select posted_credit - posted_debit as free from account where kind = 'wallet' and balance_class = 'direct'`.execute(
        db,
      )
      expect(direct[0]?.free).toBe(1_000n - 25n - 4n - 50n)
    },
  }
}

/** Late truth beyond what a closed child was given: told again, beyond its cap, once it is the newest that books it. */
async function seedLateCarving(owner: Kysely<unknown>): Promise<Seeded> {
  const { scope, childAccount: accountId, holdId } = await carveLate(owner)
  const pocket = { ...scope, accountId }
  return {
    async goesOn(db) {
      const child = db.selectFrom('account').select(['carved', 'cap']).where('id', '=', accountId)
      expect(await child.executeTakeFirstOrThrow()).toEqual({ carved: 28n, cap: 30n })
      expect(await correct(db, pocket, truthOf({ holdId }, 50n))).toBe('corrected')
      expect(await child.executeTakeFirstOrThrow()).toEqual({ carved: 30n, cap: 30n })
    },
  }
}

interface OldRun {
  readonly envelopeId: string
  readonly runId: string
  readonly direct: string
  readonly credit: string
  readonly calls: Readonly<Record<'open' | 'answered' | 'refused' | 'corrected', StormCall>>
}

/** The functions as they were called at 0004. */
function createOldLedger(
  owner: Kysely<unknown>,
  at: { readonly projectId: string; readonly walletId: string; readonly instanceId: string },
) {
  const body = (value: object) =>
    JSON.stringify(value, (_key, each: unknown) => (typeof each === 'bigint' ? String(each) : each))
  const snake = (value: object) =>
    Object.fromEntries(
      Object.entries(value).map(([key, each]) => [key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), each]),
    )
  const run = async (statement: ReturnType<typeof sql<Record<string, unknown>>>, verdict: string) => {
    const { rows } = await statement.execute(owner)
    expect(rows).toEqual([expect.objectContaining({ verdict })])
  }
  return {
    deposit: (balanceClass: string, amount: bigint) =>
      run(
        sql`select verdict from deposit(${at.projectId}, ${at.walletId}, ${newId(Date.now())}, ${balanceClass}, 'USD',
          ${amount}, ${newId(Date.now())})`,
        'deposited',
      ),
    async openRun(amounts: { readonly direct: bigint; readonly credit: bigint }): Promise<OldRun> {
      const [runId, envelopeId] = [newId(Date.now()), newId(Date.now())]
      const items = Object.entries(amounts).map(([balanceClass, amount]) => ({
        id: newId(Date.now()),
        balance_class: balanceClass,
        currency: 'USD',
        amount,
      }))
      const { rows: refused } = await sql`
        select * from open_envelope(${at.projectId}, ${envelopeId}, ${runId}, 'run', ${body(items)}::jsonb)`.execute(
        owner,
      )
      expect(refused).toEqual([])
      await sql`insert into run (id, project_id, api_key_id, envelope_id, agent, model, input, options, state, started_at)
        values (${runId}, ${at.projectId}, ${runId}, ${envelopeId}, 'test', 'research', '{}', '{}', 'running',
          clock_timestamp())`.execute(owner)
      const { rows: pockets } = await sql<{ id: string; balance_class: string }>`
        select id, balance_class from account where envelope_id = ${envelopeId}`.execute(owner)
      const pocket = (name: string) => pockets.find(({ balance_class: each }) => each === name)?.id ?? ''
      const call = async (): Promise<StormCall> => {
        const callId = newId(Date.now())
        await sql`insert into call (id, project_id, run_id, envelope_id, api_key_id, path, digest, model, catalog_version,
            request_id)
          values (${callId}, ${at.projectId}, ${runId}, ${envelopeId}, ${runId}, 'step', '', 'steady', 1, ${callId})`.execute(
          owner,
        )
        return { runId, envelopeId, callId }
      }
      const calls = { open: await call(), answered: await call(), refused: await call(), corrected: await call() }
      return { runId, envelopeId, direct: pocket('direct'), credit: pocket('credit'), calls }
    },
    reserve: (account: string, item: ReturnType<typeof holdOf>) =>
      run(
        sql`select verdict from reserve(${at.projectId}, ${account}, ${at.instanceId}, ${body([snake(item)])}::jsonb)`,
        item.amount > 1_000n ? 'exhausted' : 'granted',
      ),
    settle: (account: string, item: ReturnType<typeof settlementOf>) =>
      run(sql`select verdict from settle(${at.projectId}, ${account}, ${body([snake(item)])}::jsonb)`, 'settled'),
    correct: (account: string, call: StormCall, amount: bigint) =>
      run(
        sql`select correct(${at.projectId}, ${account}, ${body({
          ...snake(settlementOf(call, amount)),
          correction_id: newId(Date.now()),
          debt_id: newId(Date.now()),
        })}::jsonb) as verdict`,
        'corrected',
      ),
    freeze: (envelope: string) =>
      run(sql`select set_gate(${at.projectId}, ${envelope}, 'frozen', 'test') as verdict`, 'frozen'),
    close: (envelope: string) =>
      run(sql`select close_envelope(${at.projectId}, ${envelope}, 'test') as verdict`, 'closed'),
  }
}
