import { rowOf, type Bench, type BenchOptions, type Row, type Target } from './frame.ts'
import { createBaselines, type Baselines } from './ledger-baseline.ts'
import { callOnceEach, oursOn, startLedgerProcess } from './ledger-ours.ts'
import { createTenant, withEnvelopes, type Tenant } from './ledger-tenant.ts'
import { press, type Contender, type Load, type Measured } from './load.ts'
import { verifyClean, withServer } from './postgres.ts'

interface Case {
  readonly name: string
  readonly envelopes: number
  readonly callers: number
  /** Settlements that store no answer: the money alone, for what the rest of a call's story costs. */
  readonly bare?: true
  readonly floor?: Target
  readonly naive?: Target
}

const MANY = 1_000
const REPETITIONS = 7
/** Longer where a target hangs on it. */
const JUDGED_MS = 2_500
const SHOWN_MS = 1_000
const LEAD_IN_MS = 300
/** Calls are prepared for so many times the operations of the fastest repetition before. */
const PREPARED_SHARE = 1.3

const atLeast = (value: number): Target => ({ bound: 'at least', value })

const CASES: readonly Case[] = [
  { name: '1,000 envelopes, 16 callers', envelopes: MANY, callers: 16, floor: atLeast(0.6), naive: atLeast(1.2) },
  { name: 'one hot envelope, 64 callers', envelopes: 1, callers: 64, floor: atLeast(5), naive: atLeast(10) },
  { name: '1,000 envelopes, 16 callers, no answers', envelopes: MANY, callers: 16, bare: true },
  { name: 'one hot envelope, 64 callers, no answers', envelopes: 1, callers: 64, bare: true },
  { name: '1,000 envelopes, 1 caller', envelopes: MANY, callers: 1 },
  { name: '1,000 envelopes, 256 callers', envelopes: MANY, callers: 256 },
  { name: 'one hot envelope, 1 caller', envelopes: 1, callers: 1 },
  { name: 'one hot envelope, 256 callers', envelopes: 1, callers: 256 },
]

export const ledgerBench: Bench = {
  name: 'ledger',
  says: 'holds and settlements a second, beside one bare statement (floor) and a plain transaction (naive)',
  run: (options) =>
    withServer(options, async (server) => {
      const database = await server.create('bench')
      options.say(`opening ${MANY} envelopes`)
      const tenant = await withEnvelopes(database, await createTenant(database), MANY)
      const process = await startLedgerProcess(database)
      await callOnceEach(process, tenant)
      const baselines = await createBaselines(database, MANY)
      const rows: Row[] = []
      for (const each of CASES) {
        const contenders = contendersOf(each, { tenant, baselines, ours: (some) => oursOn(process, some, each) })
        rows.push(...rowsOf(each, await measure(each, contenders, options)))
      }
      await baselines.stop()
      await process.stop()
      options.say('verifying')
      await verifyClean(database)
      return rows
    }),
}

interface Contenders {
  readonly ours: Contender
  readonly floor: Contender
  readonly naive: Contender
}

function contendersOf(
  { envelopes }: Case,
  on: { readonly tenant: Tenant; readonly baselines: Baselines; readonly ours: (tenant: Tenant) => Contender },
): Contenders {
  const some = { ...on.tenant, envelopes: on.tenant.envelopes.slice(0, envelopes) }
  return { ours: on.ours(some), ...on.baselines.over(envelopes) }
}

type Repetitions = Readonly<Record<keyof Contenders, readonly Measured[]>>

/** Each repetition presses all three, one after the other, and begins with another one than the repetition before. */
async function measure(each: Case, contenders: Contenders, options: BenchOptions): Promise<Repetitions> {
  const judged = each.floor !== undefined || each.naive !== undefined
  const repetitions = options.size === 'quick' ? 1 : REPETITIONS
  const load: Load = {
    callers: each.callers,
    leadInMs: LEAD_IN_MS,
    measureMs: judged && options.size !== 'quick' ? JUDGED_MS : SHOWN_MS,
  }
  const found: Record<keyof Contenders, Measured[]> = { ours: [], floor: [], naive: [] }
  const order = ['ours', 'floor', 'naive'] as const
  const slices = Array.from({ length: repetitions }, (_, turn) => [
    ...order.slice(turn % 3),
    ...order.slice(0, turn % 3),
  ])
  await warmUp(Object.values(contenders), load)
  for (const name of slices.flat()) {
    const fastest = Math.max(1_000, ...found[name].map((slice) => slice.perSecond))
    await contenders[name].prepare(Math.ceil((fastest * (load.measureMs + load.leadInMs) * PREPARED_SHARE) / 1_000))
    found[name].push(await press(contenders[name], load))
  }
  options.say(`${each.name}: ${order.map((name) => `${name} ${found[name].map(perSecond).join(' ')}`).join(', ')}`)
  return found
}

async function warmUp(contenders: readonly Contender[], load: Load): Promise<void> {
  for (const each of contenders) await press(each, { ...load, measureMs: LEAD_IN_MS })
}

function perSecond(slice: Measured): number {
  return Math.round(slice.perSecond)
}

function rowsOf(each: Case, found: Repetitions): readonly Row[] {
  return (['floor', 'naive'] as const).flatMap((name) => {
    const target = each[name]
    const pick = (read: (slice: Measured) => number) => ({
      case: each.name,
      ours: found.ours.map(read),
      baseline: found[name].map(read),
    })
    return [
      rowOf({
        ...pick((slice) => slice.perSecond),
        metric: `operations a second, ours : ${name}`,
        ...(target && { target }),
      }),
      rowOf({ ...pick((slice) => slice.p50Ms), metric: `p50 in ms, ours : ${name}` }),
      rowOf({ ...pick((slice) => slice.p99Ms), metric: `p99 in ms, ours : ${name}` }),
    ]
  })
}
