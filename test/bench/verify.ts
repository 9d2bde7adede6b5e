import { connectDatabase } from '#db/database.ts'
import { sealOnce } from '#db/seal.ts'
import type { Verification, VerifyOptions } from '#db/verify.ts'
import { rowOf, type Bench, type Row } from './frame.ts'
import { seed } from './ledger-seed.ts'
import { createTenant, withEnvelopes } from './ledger-tenant.ts'
import { verifyClean, withServer, type BenchDatabase } from './postgres.ts'

const TRANSFERS = { quick: 20_000, usual: 2_000_000, full: 5_000_000 } as const
const REPETITIONS = 3
const ENVELOPES = 1_000
/** What a minute of some traffic adds: an incremental verification is made for each minute. */
const SINCE = 5_000
/** The checks of the money itself, whose time together is bound, with the pass over the journal that they rest on. */
const OF_BALANCES = ['journal', 'fold', 'holds', 'never negative', 'versions']
const MS = 1_000

export const verifyBench: Bench = {
  name: 'verify',
  says: 'time of each check of a ledger of 2 M transfers (--full: 5 M), all of it sealed, and of what came since',
  run: (options) =>
    withServer(options, async (server) => {
      const { size, say } = options
      const database = await server.create('bench')
      const tenant = await withEnvelopes(database, await createTenant(database), ENVELOPES)
      await seed(database, tenant, { transfers: TRANSFERS[size], say })
      const sealed = await sealAll(database)
      const repetitions = Array.from({ length: size === 'quick' ? 1 : REPETITIONS })
      const full: Timed[] = []
      for (const [index] of repetitions.entries()) {
        say(`verifying, repetition ${index + 1}`)
        full.push(await timed(database))
      }
      const since = full.at(-1)?.verification.state
      if (!since) throw new Error('A verification that is clean has no state to go on from.')
      await seed(database, tenant, { transfers: SINCE, say })
      await sealAll(database)
      const incremental: Timed[] = []
      for (const _ of repetitions) incremental.push(await timed(database, { mode: 'incremental', since }))
      return [...rowsOf(full, TRANSFERS[size]), ...rowsOfIncremental(incremental), sealed]
    }),
}

/** Checks are made beside each other: what each takes is more, together, than it takes until all are made. */
interface Timed {
  readonly verification: Verification
  readonly seconds: number
}

async function timed(database: BenchDatabase, options: VerifyOptions = {}): Promise<Timed> {
  const beganMs = performance.now()
  const verification = await verifyClean(database, options)
  return { verification, seconds: (performance.now() - beganMs) / MS }
}

/** Seals all there is, as the sealers do all along. */
async function sealAll(database: BenchDatabase): Promise<Row> {
  const db = connectDatabase({ url: database.appUrl, maxConnections: 1 })
  const beganMs = performance.now()
  let rows = 0
  try {
    for (;;) {
      const outcome = await sealOnce(db, undefined)
      if (outcome.kind !== 'sealed') break
      rows += outcome.rows
    }
  } finally {
    await db.destroy()
  }
  const perSecond = (rows / (performance.now() - beganMs)) * MS
  return rowOf({ case: 'sealing', metric: 'transfers a second', ours: [perSecond] })
}

function seconds(found: readonly Timed[], wanted: (check: string) => boolean): readonly number[] {
  return found.map(({ verification: { checks } }) =>
    checks.filter((check) => wanted(check.name)).reduce((sum, check) => sum + check.ms / MS, 0),
  )
}

function rowsOf(found: readonly Timed[], transfers: number): readonly Row[] {
  const name = `verify of ${transfers.toLocaleString('en')} transfers`
  const names = found[0]?.verification.checks.map((check) => check.name) ?? []
  return [
    ...names.map((check) =>
      rowOf({ case: name, metric: `${check}, s`, ours: seconds(found, (each) => each === check) }),
    ),
    rowOf({
      case: name,
      metric: `${OF_BALANCES.join(' + ')}, s`,
      ours: seconds(found, (each) => OF_BALANCES.includes(each)),
      target: { bound: 'at most', value: 10 },
    }),
    rowOf({
      case: name,
      metric: 'everything, s',
      ours: found.map((each) => each.seconds),
      target: { bound: 'at most', value: 40 },
    }),
  ]
}

function rowsOfIncremental(found: readonly Timed[]): readonly Row[] {
  return [
    rowOf({
      case: `incremental, ${SINCE.toLocaleString('en')} transfers since`,
      metric: 'everything, s',
      ours: found.map((each) => each.seconds),
      target: { bound: 'at most', value: 1 },
    }),
  ]
}
