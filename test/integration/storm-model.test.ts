import { sql } from 'kysely'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { LedgerModel, type Action } from '../support/ledger-model.ts'
import { RealLedger } from '../support/ledger-real.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { startProcess } from '../support/storm.ts'
import { createWorld } from '../support/world.ts'

/** A command before it is known what there is: numbers that are taken modulo what they choose from. */
interface Draft {
  readonly kind: Action['kind'] | 'replay' | 'poison'
  readonly which: number
  readonly amount: bigint
  readonly balanceClass: 'direct' | 'credit'
}

const CALLS = 8
/** Making a failure smaller may take for ever: what is found by then is told before the test's own time is over. */
const REPORT_IN_TIME = { interruptAfterTimeLimit: 60_000, markInterruptAsFailure: true } as const

const amount = fc.oneof(
  { weight: 20, arbitrary: fc.bigInt({ min: 1n, max: 60n }) },
  { weight: 2, arbitrary: fc.constantFrom(0n, -1n, 10n ** 15n, 10n ** 15n + 1n) },
)

const draft: fc.Arbitrary<Draft> = fc.record({
  kind: fc.oneof(
    { weight: 9, arbitrary: fc.constant('reserve' as const) },
    { weight: 8, arbitrary: fc.constant('settle' as const) },
    { weight: 3, arbitrary: fc.constantFrom('deposit' as const, 'top_up' as const, 'replay' as const) },
    { weight: 5, arbitrary: fc.constantFrom('correct' as const, 'poison' as const) },
    { weight: 1, arbitrary: fc.constantFrom('open' as const, 'gate' as const, 'close' as const) },
  ),
  which: fc.nat(1_000),
  amount,
  balanceClass: fc.constantFrom('direct' as const, 'credit' as const),
})

test(
  'long sequences of commands, replays and poisoned replays do what a model of plain arithmetic does',
  { timeout: 90_000 },
  async () => {
    const world = await createWorld()
    const process = await startProcess(world.database.appUrl, 2)
    const seed = Number.parseInt(world.scope.projectId.slice(-7), 16)
    await fc.assert(
      fc.asyncProperty(fc.array(draft, { minLength: 40, maxLength: 90, size: 'max' }), async (drafts) => {
        const model = new LedgerModel()
        const real = new RealLedger(process)
        await real.create()
        const done: Action[] = []
        for (const each of [...beginning, ...drafts]) {
          const action = resolve(each, model, done)
          if (!action) continue
          const told = await real.apply(action)
          expect({ action, told }).toEqual({ action, told: model.apply(action) })
          done.push(action)
        }
        await expectEqual(world.db, real, model)
      }),
      { seed, numRuns: 10, endOnFailure: false, verbose: fc.VerbosityLevel.None, ...REPORT_IN_TIME },
    )
    await expectVerified(world)
  },
)

/** Every sequence begins with something to spend. */
const beginning: readonly Draft[] = [
  { kind: 'deposit', which: 0, amount: 300n, balanceClass: 'direct' },
  { kind: 'deposit', which: 1, amount: 200n, balanceClass: 'credit' },
  { kind: 'open', which: 0, amount: 50n, balanceClass: 'direct' },
]

function resolve(each: Draft, model: LedgerModel, done: readonly Action[]): Action | undefined {
  const { kind, which, amount: drafted, balanceClass } = each
  // Mostly what can still move; now and then what cannot.
  const envelope = pick(
    keysOf(model.envelopes, (each) => which % 5 === 0 || each.gate !== 'closed'),
    which,
  )
  const attempt = pick(
    keysOf(model.attempts, (each) => which % 5 === 0 || each.state !== 'refused'),
    which,
  )
  const [call = '', number = '0'] = attempt?.split(':') ?? []
  switch (kind) {
    case 'deposit':
      return { kind, reference: `r${done.length}`, balanceClass, amount: drafted }
    case 'open':
      return { kind, envelope: `e${done.length}`, direct: drafted, credit: BigInt(1 + (which % 40)) }
    case 'top_up':
      return envelope === undefined ? undefined : { kind, envelope, balanceClass, amount: drafted }
    case 'gate':
      return envelope === undefined ? undefined : { kind, envelope, gate: GATES[which % GATES.length] ?? 'open' }
    case 'close':
      return envelope === undefined ? undefined : { kind, envelope }
    case 'reserve': {
      if (envelope === undefined) return undefined
      const name = `${envelope}-${which % CALLS}`
      return { kind, envelope, balanceClass, call: name, number: model.attemptsOf(name).length + 1, amount: drafted }
    }
    case 'settle': {
      if (attempt === undefined) return undefined
      const isVoid = which % 7 === 0
      const answers = !isVoid && which % 3 === 0 ? 'answers' : 'fails'
      return { kind, call, number: Number(number), amount: isVoid ? null : drafted, answers }
    }
    case 'correct':
      return attempt === undefined
        ? undefined
        : { kind, call, number: Number(number), turn: which % 3, amount: drafted }
    case 'replay':
      return pick(done.filter(isReplayable), which)
    case 'poison':
      return poisoned(pick(done.filter(isReplayable), which), drafted)
  }
}

const GATES = ['open', 'open', 'open', 'frozen', 'frozen', 'closing'] as const

/** What has an id of its own; fundings are repeated under the command that asked for them. */
function isReplayable(action: Action): boolean {
  return action.kind !== 'open' && action.kind !== 'top_up'
}

function poisoned(action: Action | undefined, change: bigint): Action | undefined {
  if (action?.kind === 'settle' && change % 2n === 0n)
    return { ...action, answers: action.answers === 'answers' ? 'fails' : 'answers' }
  if (!action || !('amount' in action)) return action
  return { ...action, amount: (action.amount ?? 0n) + change }
}

function keysOf<Value>(map: ReadonlyMap<string, Value>, isWanted: (value: Value) => boolean): readonly string[] {
  return [...map].filter(([, value]) => isWanted(value)).map(([key]) => key)
}

function pick<Item>(items: readonly Item[], which: number): Item | undefined {
  return items[which % Math.max(1, items.length)]
}

async function expectEqual(
  db: Awaited<ReturnType<typeof createWorld>>['db'],
  real: RealLedger,
  model: LedgerModel,
): Promise<void> {
  const { rows } = await sql<{ place: string; balance: bigint; held: bigint; gate: string }>`
    select coalesce(envelope_id::text, 'wallet') || ' ' || balance_class as place, posted_credit - posted_debit as balance,
      pending_debit as held, gate
    from account where project_id = ${real.scope.projectId} and kind in ('wallet', 'pocket')`.execute(db)
  const has = Object.fromEntries(rows.map(({ place, ...counters }) => [place, counters]))
  const must = Object.fromEntries([
    ...(['direct', 'credit'] as const)
      .filter((balanceClass) => `wallet ${balanceClass}` in has)
      .map((balanceClass) => [
        `wallet ${balanceClass}`,
        { balance: model.wallet[balanceClass], held: 0n, gate: 'open' },
      ]),
    ...[...model.envelopes].flatMap(([name, { gate, pockets }]) =>
      [...pockets.values()].map(({ balanceClass, balance, held }) => [
        `${real.run(name).envelopeId} ${balanceClass}`,
        { balance, held, gate },
      ]),
    ),
  ])
  expect(has).toEqual(must)
  const { rows: debts } = await sql<{ debt: bigint }>`
    select project_debt(${real.scope.projectId}, 'USD') as debt`.execute(db)
  expect(debts).toEqual([{ debt: model.debt }])
}
