import pg from 'pg'
import { rowOf, type Bench, type BenchOptions, type Row } from './frame.ts'
import { callOnceEach, oursOn, startLedgerProcess } from './ledger-ours.ts'
import { seed, settleDown } from './ledger-seed.ts'
import { bytesOfTables, bytesPerCall } from './ledger-size.ts'
import { createTenant, withEnvelopes, withOneOf, type Tenant } from './ledger-tenant.ts'
import { press, pressCount, type Contender } from './load.ts'
import { verifyClean, withServer, type BenchDatabase, type BenchServer } from './postgres.ts'

const TRANSFERS = { quick: 20_000, usual: 1_000_000, full: 5_000_000 } as const
const REPETITIONS = 7
const MANY = 1_000
const LEAD_IN_MS = 300
const MEASURE_MS = 1_500
/** Operations whose journal (WAL) is weighed. */
const WEIGHED = 4_000

const SHAPES = [
  { name: '1,000 envelopes, 16 callers', callers: 16, of: (tenant: Tenant) => tenant },
  { name: 'one hot envelope, 64 callers', callers: 64, of: withOneOf },
] as const

/** One turn of one side. */
interface Turn {
  readonly perSecond: number
  /** Bytes of WAL for an operation right after a checkpoint, when each page is written whole once. */
  readonly walFresh: number
  /** And for the operations after those. */
  readonly walLater: number
}

type Side = 'empty' | 'grown' | 'old'

/** Turns by shape and side. */
type Found = Map<string, Record<Side, Turn[]>>

export const ledgerGrowthBench: Bench = {
  name: 'ledger-growth',
  says: 'the same in a ledger of 1 M transfers (--full: 5 M) beside an empty one: speed, WAL, bytes per call',
  run: (options) => withServer(options, (server) => run(server, options)),
}

async function run(server: BenchServer, options: BenchOptions): Promise<readonly Row[]> {
  const transfers = TRANSFERS[options.size]
  const template = await server.create('template_of_empty')
  const grown = await server.clone(template, 'grown')
  const seeded = await newTenant(grown)
  const before = await bytesOfTables(grown)
  await seed(grown, seeded, { transfers, say: options.say })
  const sizes = bytesPerCall(before, await bytesOfTables(grown))

  const found: Found = new Map(SHAPES.map(({ name }) => [name, { empty: [], grown: [], old: [] }]))
  const repetitions = options.size === 'quick' ? 1 : REPETITIONS
  for (let repetition = 0; repetition < repetitions; repetition += 1) {
    options.say(`repetition ${repetition + 1} of ${repetitions}`)
    const empty = await server.clone(template, `empty_${repetition}`)
    const sides = [
      { side: 'empty', database: empty, tenant: await newTenant(empty) },
      { side: 'grown', database: grown, tenant: await newTenant(grown) },
      { side: 'old', database: grown, tenant: seeded },
    ] as const
    await settleDown(empty)
    for (const each of repetition % 2 === 0 ? sides : sides.toReversed()) await takeTurns(each, found)
    if (repetition === repetitions - 1) await verifyClean(empty)
    await empty.drop()
  }
  options.say('verifying')
  await verifyClean(grown)
  return [...rowsOf(found), ...sizes]
}

async function newTenant(database: BenchDatabase): Promise<Tenant> {
  return withEnvelopes(database, await createTenant(database), MANY)
}

async function takeTurns(
  on: { readonly side: Side; readonly database: BenchDatabase; readonly tenant: Tenant },
  found: Found,
): Promise<void> {
  const process = await startLedgerProcess(on.database)
  const admin = new pg.Client(on.database.adminUrl)
  await admin.connect()
  try {
    await callOnceEach(process, on.tenant)
    for (const shape of SHAPES) {
      const contender = oursOn(process, shape.of(on.tenant))
      found.get(shape.name)?.[on.side].push(await turnOf(contender, shape.callers, admin))
    }
  } finally {
    await admin.end()
    await process.stop()
  }
}

async function turnOf(contender: Contender, callers: number, admin: pg.Client): Promise<Turn> {
  await contender.prepare(2 * WEIGHED)
  const { perSecond: expected } = await press(contender, { callers, leadInMs: LEAD_IN_MS, measureMs: LEAD_IN_MS })
  await contender.prepare((2 * expected * MEASURE_MS) / 1_000)
  const { perSecond } = await press(contender, { callers, leadInMs: LEAD_IN_MS, measureMs: MEASURE_MS })
  await contender.prepare(3 * WEIGHED)
  await admin.query('checkpoint')
  const walFresh = await weigh(contender, callers, admin)
  const walLater = await weigh(contender, callers, admin)
  return { perSecond, walFresh, walLater }
}

async function weigh(contender: Contender, callers: number, admin: pg.Client): Promise<number> {
  const before = await walPosition(admin)
  await pressCount(contender, { callers, operations: WEIGHED })
  return ((await walPosition(admin)) - before) / WEIGHED
}

async function walPosition(admin: pg.Client): Promise<number> {
  const { rows } = await admin.query<{ position: string }>(
    `select pg_current_wal_insert_lsn() - '0/0'::pg_lsn as position`,
  )
  return Number(rows[0]?.position)
}

function rowsOf(found: Found): readonly Row[] {
  return [...found].flatMap(([name, turns]) => [
    ...compare(`${name}, new ones`, { ours: turns.grown, baseline: turns.empty, judged: true }),
    ...compare(`${name}, those of the history`, { ours: turns.old, baseline: turns.empty, judged: false }),
  ])
}

/** Runs come and go: a ledger grows by new envelopes, and those are judged. */
function compare(
  name: string,
  {
    ours,
    baseline,
    judged,
  }: { readonly ours: readonly Turn[]; readonly baseline: readonly Turn[]; readonly judged: boolean },
): readonly Row[] {
  const pick = (read: (turn: Turn) => number) => ({ case: name, ours: ours.map(read), baseline: baseline.map(read) })
  const within = judged ? { target: { bound: 'at most', value: 1.2 } as const } : {}
  const both = (turn: Turn) => (turn.walFresh + turn.walLater) / 2
  return [
    rowOf({
      ...pick((turn) => turn.perSecond),
      metric: 'operations a second, grown : empty',
      ...(judged ? { target: { bound: 'at least', value: 0.8 } } : {}),
    }),
    rowOf({ ...pick(both), metric: `WAL bytes an operation, ${2 * WEIGHED} from a checkpoint on`, ...within }),
    rowOf({ ...pick((turn) => turn.walFresh), metric: '  of the first half' }),
    rowOf({ ...pick((turn) => turn.walLater), metric: '  of the second half' }),
  ]
}
