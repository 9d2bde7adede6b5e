import { topUpEnvelope } from '#db/ledger.ts'
import { expireLots } from '#db/lot.ts'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  close,
  expectLotsTrue,
  freeOf,
  fund,
  funding,
  grantLot,
  letExpire,
  sendHome,
  spend,
} from '../support/wallets.ts'
import { createWorld, type World } from '../support/world.ts'

/** What the ledger is compared with: lots in the order they are drawn, and envelopes as stacks of draws. */
interface ModelLot {
  readonly id: string
  readonly priority: number
  free: bigint
  due: boolean
}
interface ModelEnvelope {
  readonly id: string
  /** What is left to give back of each draw, oldest first. */
  readonly draws: { readonly lot: ModelLot; amount: bigint }[]
  spent: bigint
}
interface Model {
  readonly lots: ModelLot[]
  readonly open: ModelEnvelope[]
}

const nano = fc.integer({ min: 1, max: 40 }).map(BigInt)
const pick = fc.nat({ max: 20 })
const grant = fc.record({ kind: fc.constant('grant' as const), amount: nano, priority: fc.integer({ min: 1, max: 3 }) })
const fundNew = fc.record({ kind: fc.constant('fund' as const), amount: nano })
const command = fc.oneof(
  { weight: 2, arbitrary: grant },
  { weight: 3, arbitrary: fundNew },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('topUp' as const), amount: nano, pick }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('spend' as const), amount: nano, pick }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('sendHome' as const), amount: nano, pick }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('close' as const), pick }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('expire' as const), pick }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('sweep' as const) }) },
)
/** Begins with lots and an envelope, so that what follows has something to do. */
const history = fc
  .tuple(fc.array(grant, { minLength: 4, maxLength: 4 }), fundNew, fc.array(command, { minLength: 10, maxLength: 40 }))
  .map(([grants, first, rest]) => [...grants, first, ...rest])
type Command = typeof command extends fc.Arbitrary<infer Value> ? Value : never

test('whatever is granted, drawn, spent, returned and expired, in any order, every lot has what a model says', async () => {
  const world = await createWorld()
  await fc.assert(
    fc.asyncProperty(history, async (commands) => {
      const model: Model = { lots: [], open: [] }
      for (const each of commands) {
        await step(world, model, each)
        const ids = model.lots.map(({ id }) => id)
        if (ids.length > 0) expect(await freeOf(world, ...ids)).toEqual(model.lots.map(({ free }) => free))
      }
      // The next sequence starts with a wallet of its own making.
      for (const lot of model.lots) {
        if (!lot.due) await letExpire(world, lot.id)
      }
      await expireLots(world.db)
    }),
    { numRuns: 20 },
  )
  await expectLotsTrue(world)
})

async function step(world: World, model: Model, command: Command): Promise<void> {
  switch (command.kind) {
    case 'grant': {
      const { lotId } = await grantLot(world, command.amount, { priority: command.priority })
      breakDue(model)
      model.lots.push({ id: lotId, priority: command.priority, free: command.amount, due: false })
      return
    }
    case 'fund': {
      const opened = await fund(world, funding(command.amount)).catch((error: unknown) => error)
      if (canPay(model, command.amount)) {
        expect(opened).toBeTypeOf('string')
        model.open.push({ id: String(opened), draws: draw(model, command.amount), spent: 0n })
      } else {
        expect(opened).toMatchObject({ message: 'wallet_short' })
      }
      return
    }
    case 'topUp':
      return topUp(world, model, command)
    case 'sendHome': {
      const envelope = chosen(model.open, command.pick)
      if (!envelope || held(envelope) < command.amount) return
      await sendHome(world, envelope.id, command.amount)
      giveBack(envelope, command.amount)
      return
    }
    case 'spend': {
      const envelope = chosen(model.open, command.pick)
      if (!envelope || held(envelope) < command.amount) return
      await spend(world, envelope.id, command.amount)
      envelope.spent += command.amount
      return
    }
    case 'close': {
      const envelope = chosen(model.open, command.pick)
      if (!envelope) return
      await close(world, envelope.id)
      giveBack(envelope, held(envelope))
      model.open.splice(model.open.indexOf(envelope), 1)
      return
    }
    case 'expire': {
      const lot = chosen(model.lots, command.pick)
      if (!lot) return
      await letExpire(world, lot.id)
      lot.due = true
      return
    }
    case 'sweep':
      await expireLots(world.db)
      breakDue(model)
  }
}

async function topUp(world: World, model: Model, command: { readonly amount: bigint; readonly pick: number }) {
  const envelope = chosen(model.open, command.pick)
  if (!envelope) return
  const request = { envelopeId: envelope.id, fundings: [funding(command.amount)] }
  const refusal = await topUpEnvelope(world.db, world.scope, request)
  breakDue(model)
  expect(refusal?.reason).toBe(canPay(model, command.amount) ? undefined : 'wallet_short')
  if (!refusal) envelope.draws.push(...draw(model, command.amount))
}

function breakDue(model: Model): void {
  for (const lot of model.lots) {
    if (lot.due) lot.free = 0n
  }
}

function canPay(model: Model, amount: bigint): boolean {
  return model.lots.reduce((sum, lot) => sum + (lot.due ? 0n : lot.free), 0n) >= amount
}

function draw(model: Model, amount: bigint): ModelEnvelope['draws'] {
  breakDue(model)
  const draws: ModelEnvelope['draws'] = []
  let left = amount
  for (const lot of model.lots.toSorted((a, b) => a.priority - b.priority || (a.id < b.id ? -1 : 1))) {
    const part = lot.free < left ? lot.free : left
    if (part === 0n) continue
    lot.free -= part
    left -= part
    draws.push({ lot, amount: part })
  }
  return draws
}

function held(envelope: ModelEnvelope): bigint {
  return envelope.draws.reduce((sum, each) => sum + each.amount, 0n) - envelope.spent
}

function giveBack(envelope: ModelEnvelope, amount: bigint): void {
  let left = amount
  for (const draw of envelope.draws.toReversed()) {
    const part = draw.amount < left ? draw.amount : left
    draw.lot.free += part
    draw.amount -= part
    left -= part
  }
}

function chosen<Item>(items: readonly Item[], index: number): Item | undefined {
  return items.length === 0 ? undefined : items[index % items.length]
}
