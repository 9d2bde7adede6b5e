import type { Verification } from '#db/verify.ts'
import { rowOf, type Bench, type Row } from './frame.ts'
import { seed } from './ledger-seed.ts'
import { createTenant, withEnvelopes } from './ledger-tenant.ts'
import { verifyClean, withServer } from './postgres.ts'

const TRANSFERS = { quick: 20_000, usual: 2_000_000, full: 5_000_000 } as const
const REPETITIONS = 3
const ENVELOPES = 1_000
/** The checks of the money itself, whose time together is bound. */
const OF_BALANCES = ['fold', 'holds', 'never negative', 'versions']
const MS = 1_000

export const verifyBench: Bench = {
  name: 'verify',
  says: 'time of each check of a ledger of 2 M transfers (--full: 5 M)',
  run: ({ size, say }) =>
    withServer(async (server) => {
      const database = await server.create('bench')
      const tenant = await withEnvelopes(database, await createTenant(database), ENVELOPES)
      await seed(database, tenant, { transfers: TRANSFERS[size], say })
      const found: Verification[] = []
      for (let repetition = 1; repetition <= (size === 'quick' ? 1 : REPETITIONS); repetition += 1) {
        say(`verifying, repetition ${repetition}`)
        found.push(await verifyClean(database))
      }
      return rowsOf(found, TRANSFERS[size])
    }),
}

function rowsOf(found: readonly Verification[], transfers: number): readonly Row[] {
  const name = `verify of ${transfers.toLocaleString('en')} transfers`
  const seconds = (wanted: (check: string) => boolean) =>
    found.map(({ checks }) =>
      checks.filter((check) => wanted(check.name)).reduce((sum, check) => sum + check.ms / MS, 0),
    )
  const names = found[0]?.checks.map((check) => check.name) ?? []
  return [
    ...names.map((check) => rowOf({ case: name, metric: `${check}, s`, ours: seconds((each) => each === check) })),
    rowOf({
      case: name,
      metric: `${OF_BALANCES.join(' + ')}, s`,
      ours: seconds((each) => OF_BALANCES.includes(each)),
      target: { bound: 'at most', value: 10 },
    }),
    rowOf({
      case: name,
      metric: 'everything, s',
      ours: seconds(() => true),
      target: { bound: 'at most', value: 40 },
    }),
  ]
}
