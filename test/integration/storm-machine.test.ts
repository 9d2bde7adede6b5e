import { closeTree, openChild } from '#db/envelope.ts'
import { correct } from '#db/correction.ts'
import type { PocketKey } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import { foldLeases, recallLeases } from '#db/lease.ts'
import { deposit, setGate, topUpEnvelope, type Funding } from '#db/ledger.ts'
import { changeLimit, setLimit } from '#db/limit.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { expectVerified } from '../support/open-attempt.ts'
import { seeded } from '../support/seeded.ts'
import {
  deadlocksOf,
  holdOf,
  openCalls,
  pocketOf,
  settlementOf,
  startProcess,
  type Process,
  type StormCall,
} from '../support/storm.ts'
import { pollUntil } from '../support/poll.ts'
import { createWorld, type TestRun, type World } from '../support/world.ts'

const WORKERS = 20
const ROUNDS = 3
const STEPS = 12
const CLASSES = ['direct', 'credit'] as const
/** How long a caller waits for a busy pocket. */
const PATIENCE_MS = 150

/** What the workers share: envelopes that come and go, and attempts that anyone may settle or correct. */
interface Machine {
  readonly world: World
  readonly caller: { readonly keyId: string; readonly organisationId: string; readonly projectId: string | null }
  readonly limitId: string
  readonly runs: TestRun[]
  readonly held: { readonly call: StormCall; readonly pocket: PocketKey; readonly amount: bigint }[]
  readonly settled: { readonly call: StormCall; readonly pocket: PocketKey }[]
  readonly did: Map<string, number>
}

type Dice = (below: number) => number
type Step = (machine: Machine, process: Process, random: Dice) => Promise<string>

const steps: Readonly<Record<string, { readonly weight: number; readonly step: Step }>> = {
  reserve: { weight: 10, step: reserve },
  settle: { weight: 9, step: settle },
  correct: { weight: 2, step: correctOne },
  topUp: { weight: 3, step: topUp },
  deposit: { weight: 1, step: depositMore },
  replace: { weight: 1, step: replace },
  gate: { weight: 2, step: toggle },
  carve: { weight: 2, step: carve },
  cap: { weight: 1, step: moveCap },
  fold: { weight: 1, step: ({ world }) => foldLeases(world.db).then(() => 'folded') },
  recall: { weight: 1, step: ({ world }) => recallLeases(world.db).then(() => 'recalled') },
}

test('twenty connections do everything to the same wallet at once: no deadlock, and at every barrier the books are right', async () => {
  const machine = await createMachine()
  const { world } = machine
  const processes = await Promise.all(Array.from({ length: 4 }, () => startProcess(world.database.appUrl, WORKERS / 4)))
  for (let round = 0; round < ROUNDS; round += 1) {
    await Promise.all(
      Array.from({ length: WORKERS }, async (_, worker) => {
        const random = seeded(round * WORKERS + worker)
        const process = processes[worker % processes.length] ?? raise('no process')
        for (let step = 0; step < STEPS; step += 1) {
          const name = drawStep(random)
          const did = `${name} ${(await steps[name]?.step(machine, process, random)) ?? ''}`
          machine.did.set(did, (machine.did.get(did) ?? 0) + 1)
        }
      }),
    )
    await expectBooksRight(machine)
  }
  for (const { call, pocket } of machine.held.splice(0))
    await processes[0]?.queue.settle(pocket, settlementOf(call, null))
  for (const run of machine.runs) {
    const request = { envelopeId: run.envelopeId, reason: 'over' }
    expect(await closeTree(world.db, world.scope, request)).toBe('closed')
  }
  await expectBooksRight(machine)
  await Promise.all(processes.map(({ db }) => db.destroy()))
  expect(await deadlocksOf(world.db)).toBe(0n)
  for (const must of ['reserve granted', 'settle settled', 'correct corrected', 'carve opened', 'replace closed'])
    expect([...machine.did.keys()]).toContain(must)
})

async function createMachine(): Promise<Machine> {
  const world = await createWorld()
  const { id: organisationId } = await world.db.selectFrom('organisation').select('id').executeTakeFirstOrThrow()
  const caller = { keyId: newId(Date.now()), organisationId, projectId: null }
  const limitId = newId(Date.now())
  const verdict = await setLimit(world.db, caller, {
    id: limitId,
    scope: 'project',
    subjectId: world.scope.projectId,
    step: null,
    measure: 'money',
    currency: 'USD',
    period: 'life',
    timeZone: 'UTC',
    cap: 200_000n,
  })
  expect(verdict).toBe('set')
  const runs = await Promise.all(Array.from({ length: 4 }, () => world.openRun({ direct: 9_000n, credit: 9_000n })))
  return { world, caller, limitId, runs, held: [], settled: [], did: new Map() }
}

async function reserve(machine: Machine, { queue, db }: Process, random: Dice): Promise<string> {
  const { world, runs } = machine
  const run = runs[random(runs.length)] ?? raise('no run')
  const balanceClass = CLASSES[random(2)] ?? 'direct'
  const [call] = await openCalls(db, world.scope, { ...run, count: 1 })
  if (!call) return 'no call'
  const pocket = await pocketOf(db, world.scope, { ...run, balanceClass })
  const amount = BigInt(random(900))
  const { verdict } = await queue.reserve(pocket, holdOf(call, amount), { signal: AbortSignal.timeout(PATIENCE_MS) })
  if (verdict === 'granted') machine.held.push({ call, pocket, amount })
  return verdict
}

async function settle(machine: Machine, { queue }: Process, random: Dice): Promise<string> {
  const [each] = machine.held.splice(random(machine.held.length), 1)
  if (!each) return 'nothing'
  // One in eight uses nothing, one in eight more than was held.
  const kind = random(8)
  const used = kind === 0 ? null : kind === 1 ? each.amount + BigInt(random(50)) : (each.amount * BigInt(kind)) / 8n
  const more = used === null ? {} : { answer: 'done' }
  const answers = await Promise.all([
    queue.settle(each.pocket, settlementOf(each.call, used, more)),
    queue.settle(each.pocket, settlementOf(each.call, used, more)),
  ])
  machine.settled.push(each)
  return (
    answers
      .map(({ verdict }) => verdict)
      .toSorted()
      .at(-1) ?? ''
  )
}

function correctOne(machine: Machine, { db }: Process, random: Dice): Promise<string> {
  const each = machine.settled[random(machine.settled.length)]
  if (!each) return Promise.resolve('nothing')
  return correct(db, each.pocket, {
    ...settlementOf(each.call, null),
    correctionId: newId(Date.now()),
    debtId: newId(Date.now()),
    amount: BigInt(random(700)),
    certainty: 'estimated',
  })
}

async function topUp({ world, runs }: Machine, { db }: Process, random: Dice): Promise<string> {
  const { envelopeId } = runs[random(runs.length)] ?? raise('no run')
  const fundings = CLASSES.map((balanceClass): Funding => ({
    id: newId(Date.now()),
    balanceClass,
    currency: 'USD',
    amount: BigInt(1 + random(500)),
  }))
  const request = { envelopeId, fundings: random(2) === 0 ? fundings : fundings.toReversed() }
  return (await topUpEnvelope(db, world.scope, request))?.reason ?? 'moved'
}

async function depositMore({ world }: Machine, { db }: Process, random: Dice): Promise<string> {
  const { id: walletId } = await db.selectFrom('wallet').select('id').executeTakeFirstOrThrow()
  const balanceClass = CLASSES[random(2)] ?? 'direct'
  const id = newId(Date.now())
  const request = { id, walletId, balanceClass, currency: 'USD', amount: BigInt(1 + random(500)), reference: id }
  return (await deposit(db, world.scope, request)).verdict
}

/** Ends an envelope, once nothing is held of it any more, and opens another one in its place. */
async function replace({ world, runs, held }: Machine, { db, queue }: Process, random: Dice): Promise<string> {
  const place = random(runs.length)
  const { envelopeId } = runs[place] ?? raise('no run')
  await setGate(db, world.scope, { envelopeId, gate: 'closing', reason: 'storm' })
  await pollUntil(
    async () => {
      const mine = held.filter(({ call }) => call.envelopeId === envelopeId)
      for (const each of mine) held.splice(held.indexOf(each), 1)
      await Promise.all(mine.map(({ call, pocket }) => queue.settle(pocket, settlementOf(call, null))))
      return (await closeTree(db, world.scope, { envelopeId, reason: 'storm' })) === 'closed'
    },
    { what: 'what others hold of a closing envelope is settled' },
  )
  const next = await world.openRun({ direct: 6_000n, credit: 6_000n }).catch((error: unknown) => {
    if (error instanceof Error && error.message.includes('debt_outstanding')) return undefined
    throw error
  })
  if (next) runs[place] = next
  return 'closed'
}

async function toggle({ world, runs }: Machine, { db }: Process, random: Dice): Promise<string> {
  const { envelopeId } = runs[random(runs.length)] ?? raise('no run')
  await setGate(db, world.scope, { envelopeId, gate: 'frozen', reason: 'storm' })
  return setGate(db, world.scope, { envelopeId, gate: 'open', reason: 'storm' })
}

/** Money down into a child and back up, while holds are made in both. */
async function carve({ world, runs }: Machine, { db, queue }: Process, random: Dice): Promise<string> {
  const { envelopeId: parentId, runId } = runs[random(runs.length)] ?? raise('no run')
  const envelopeId = newId(Date.now())
  const carvings = CLASSES.map((balanceClass) => ({
    id: newId(Date.now()),
    balanceClass,
    currency: 'USD',
    amount: BigInt(random(60)),
    cap: null,
  }))
  const refusal = await openChild(db, world.scope, { parentId, envelopeId, runId: null, kind: 'child', carvings })
  if (refusal) return refusal.reason
  const [call] = await openCalls(db, world.scope, { runId, envelopeId, count: 1 })
  if (!call) return 'no call'
  const pocket = await pocketOf(db, world.scope, { envelopeId, balanceClass: 'direct' })
  const hold = holdOf(call, BigInt(random(200)))
  const { verdict } = await queue.reserve(pocket, hold, { signal: AbortSignal.timeout(PATIENCE_MS) })
  if (verdict === 'granted') await queue.settle(pocket, settlementOf(call, hold.amount))
  await closeTree(db, world.scope, { envelopeId, reason: 'storm' })
  return 'opened'
}

async function moveCap({ caller, limitId }: Machine, { db }: Process, random: Dice): Promise<string> {
  return changeLimit(db, caller, { limitId, cap: BigInt(100_000 + random(200_000)) })
}

/** What came in from outside is in wallets and pockets, was paid for, or is owed; and no counter disagrees. */
async function expectBooksRight({ world }: Machine): Promise<void> {
  const { rows } = await sql<{ currency: string; missing: bigint }>`
    select a.currency, (sum(a.posted_credit - a.posted_debit) - (
      select sum(case when d.kind in ('wallet', 'pocket') then 0 else t.amount end
        - case when c.kind in ('wallet', 'pocket') then 0 else t.amount end)
      from transfer t join account d on d.id = t.debit_account join account c on c.id = t.credit_account
      where t.currency = a.currency and t.code not in ('hold', 'void', 'expire')
    ))::bigint as missing
    from account a where a.kind in ('wallet', 'pocket') group by a.currency`.execute(world.db)
  expect(rows).toEqual([{ currency: 'USD', missing: 0n }])
  await expectVerified(world)
}

function drawStep(random: Dice): string {
  const all = Object.entries(steps)
  let left = random(all.reduce((sum, [, { weight }]) => sum + weight, 0))
  for (const [name, { weight }] of all) {
    left -= weight
    if (left < 0) return name
  }
  return 'reserve'
}

function raise(message: string): never {
  throw new Error(message)
}
