import { ledgerId } from '#calls/charge.ts'
import { executeCall } from '#calls/execute.ts'
import type { RunningEngine } from '#calls/start-engine.ts'
import { openAttempts } from '#db/call.ts'
import { openChild } from '#db/envelope.ts'
import { correct } from '#db/correction.ts'
import { settle } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import { readInstant } from '#db/instant.ts'
import { closeEnvelope, deposit, setGate } from '#db/ledger.ts'
import { createQuote } from '#db/quote.ts'
import { refund } from '#db/refund.ts'
import { reverseDeposit } from '#db/reversal.ts'
import { QUESTION, resolution } from './open-attempt.ts'
import { pollUntil } from './poll.ts'
import { funding, grantLot, walletOf } from './wallets.ts'
import type { World } from './world.ts'

/** A reference that a spreadsheet would run, and that needs quotes. */
export const EVIL_REFERENCE = '=HYPERLINK("http://evil.example","pay, here")'

/**
 * A wallet to which everything happens: payments, lots, an exchange, calls on several routes, an overage that becomes a
 * debt and is paid, and a correction after an envelope's end. Answers an instant between any two chapters. Then nobody keeps
 * house any more: what a test changes by hand stays as it is.
 */
export async function tellMoneyStory(here: World): Promise<readonly string[]> {
  const instants: string[] = []
  const engines: RunningEngine[] = []
  const world: World = {
    ...here,
    async startEngine() {
      const engine = await here.startEngine()
      engines.push(engine)
      return engine
    },
  }
  const chapters = [payments, exchange, calls, child, debtAndPayment, correctionAfterTheEnd]
  for (const chapter of chapters) {
    instants.push(await now(world))
    await chapter(world)
  }
  instants.push(await now(world))
  for (const engine of engines) await engine.stop()
  return instants
}

async function now(world: World): Promise<string> {
  const instant = await readInstant(world.db, undefined)
  if (!instant) throw new Error('now is not ahead of the clock')
  return instant.at
}

async function payments(world: World): Promise<void> {
  const walletId = await walletOf(world)
  const money = { walletId, balanceClass: 'direct', currency: 'USD' } as const
  const paid = { ...money, id: newId(Date.now()), amount: 3_000_000_001n, reference: EVIL_REFERENCE }
  await deposit(world.db, world.scope, paid)
  await refund(world.db, world.scope, { ...money, id: newId(Date.now()), amount: 1_000_000_001n, reference: '-1+1' })
  const { depositId } = await grantLot(world, 77n, { currency: 'USD', source: '@promotion' })
  await reverseDeposit(world.db, world.scope, { id: newId(Date.now()), depositId, shortfall: 'refuse' })
}

async function exchange(world: World): Promise<void> {
  const engine = await world.startEngine()
  const { organisation_id: organisationId } = await world.db
    .selectFrom('project')
    .select('organisation_id')
    .executeTakeFirstOrThrow()
  const rate = { sellCurrency: 'CNY', sell: 71_000n, buyCurrency: 'USD', buy: 10_000n }
  const times = { effectiveAt: null, expiresAt: null, nowMs: Date.now() }
  await createQuote(world.db, organisationId, { ...rate, ...times, source: '+bank' })
  await grantLot(world, 1_000_000_000n, { currency: 'CNY' })
  const run = await world.openRun({}, [funding(71_000_000n, { currency: 'CNY', exchangeTo: 'USD' })])
  await executeCall(engine, run.request('one', QUESTION, { model: 'research' }))
  await end(world, run.envelopeId)
}

async function calls(world: World): Promise<void> {
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n, credit: 150_000n })
  for (const index of [1, 2, 3, 4]) {
    await executeCall(
      engine,
      run.request(`call/${index}`, QUESTION, { model: index % 2 === 0 ? 'research' : 'steady' }),
    )
  }
}

/** A child gets money, gets more when it needs it, and gives the rest back to a parent that goes on. */
async function child(world: World): Promise<void> {
  const engine = await world.startEngine()
  const parent = await world.openRun({ direct: 1_000_000_000n })
  const envelopeId = newId(Date.now())
  const carving = { id: newId(Date.now()), balanceClass: 'direct', currency: 'USD', amount: 1_000n, cap: null } as const
  const { runId } = parent
  const opened = { parentId: parent.envelopeId, envelopeId, runId, kind: 'child', carvings: [carving] } as const
  const refusal = await openChild(world.db, world.scope, opened)
  if (refusal) throw new Error(`the child was refused: ${refusal.reason}`)
  await executeCall(engine, parent.request('child/1', QUESTION, { envelopeId }))
  await end(world, envelopeId)
  await executeCall(engine, parent.request('parent', QUESTION))
}

async function debtAndPayment(world: World): Promise<void> {
  const { attempt, pocket, controller, call } = await openAttempt(world, 400_000n)
  await settle(world.db, pocket, { item: resolution(attempt, 400_050n), mode: 'owner' })
  controller.abort()
  await call.catch(() => {})
  await world.sandbox.control('PUT', '/faults/sandbox-steady', {})
  await deposit(world.db, world.scope, {
    id: newId(Date.now()),
    walletId: await walletOf(world),
    balanceClass: 'direct',
    currency: 'USD',
    amount: 100n,
    reference: 'pays the debt',
  })
}

async function correctionAfterTheEnd(world: World): Promise<void> {
  const { run, attempt, pocket, controller, call } = await openAttempt(world, 1_000_000n)
  await settle(world.db, pocket, { item: resolution(attempt, 50n), mode: 'owner' })
  controller.abort()
  await call.catch(() => {})
  await world.sandbox.control('PUT', '/faults/sandbox-steady', {})
  await end(world, run.envelopeId)
  await correct(world.db, pocket, {
    holdId: attempt.holdId,
    correctionId: ledgerId(attempt, 'correction'),
    debtId: ledgerId(attempt, 'debt'),
    amount: 400n,
    tokens: null,
    certainty: 'billed',
    usage: { input: 1, cachedInput: 0, output: 0 },
    detail: null,
    answerId: null,
    answer: null,
  })
}

async function end(world: World, envelopeId: string): Promise<void> {
  await setGate(world.db, world.scope, { envelopeId, gate: 'closing', reason: 'test' })
  const verdict = await closeEnvelope(world.db, world.scope, { envelopeId, reason: 'test' })
  if (verdict !== 'closed') throw new Error(`the envelope did not close: ${verdict}`)
}

/** A run with one attempt that is held, marked sent, and open at the provider. */
async function openAttempt(world: World, funded: bigint) {
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: funded })
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { hang: true })
  const controller = new AbortController()
  const call = executeCall(engine, run.request('one', QUESTION, { signal: controller.signal }))
  const open = () => openAttempts(world.db, world.scope, run.runId)
  await pollUntil(async () => (await open()).length === 1, { what: 'an open attempt' })
  const [attempt] = await open()
  if (!attempt) throw new Error('no attempt is open')
  return { run, call, controller, attempt, pocket: { projectId: world.scope.projectId, accountId: attempt.accountId } }
}
