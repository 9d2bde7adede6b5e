import { statementCsv } from '#api/statement-csv.ts'
import { statementJson } from '#api/statement-json.ts'
import { statementSchema, type StatementView } from '#contracts/statement.ts'
import { accountBalance, walletBalances } from '#db/balance.ts'
import { justBefore } from '#db/instant.ts'
import type { StatementPeriod } from '#db/statement-period.ts'
import { readStatement } from '#db/statement.ts'
import { parseDecimal } from '#domain/money.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { readCsv } from '../support/csv.ts'
import { EVIL_REFERENCE, tellMoneyStory } from '../support/money-story.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { walletOf } from '../support/wallets.ts'
import { createWorld, type World } from '../support/world.ts'

function nano(text: string): bigint {
  const parsed = parseDecimal(text.replace(/^-/, ''))
  if (!parsed.ok) throw new Error(text)
  return text.startsWith('-') ? -parsed.nano : parsed.nano
}

const total = <Item>(items: readonly Item[], amountOf: (item: Item) => { readonly amount: string }) =>
  items.reduce((sum, item) => sum + nano(amountOf(item).amount), 0n)

function period(from: string, to: string): StatementPeriod {
  return { from, to, openedAt: justBefore(from), closedAt: justBefore(to), writtenAt: to, final: true }
}

async function statementOf(world: World, over: StatementPeriod) {
  const walletId = await walletOf(world)
  const { projectId } = world.scope
  const { from, to, writtenAt, final } = over
  const head = {
    walletId,
    project: { id: projectId, name: 'test' },
    month: '2026-11',
    timeZone: 'UTC',
    from,
    to,
    writtenAt,
    final,
  }
  const parts = () => readStatement(world.db, world.scope, { walletId, period: over })
  const json = await textOf(statementJson(head, parts()))
  const csv = await textOf(statementCsv(head, parts()))
  return { statement: statementSchema.parse(JSON.parse(json)), csv }
}

async function textOf(pieces: AsyncIterable<string>): Promise<string> {
  let text = ''
  for await (const piece of pieces) text += piece
  return text
}

/** What the ledger says of a period, added up straight from its rows. */
async function ledgerOf(world: World, { from, to }: StatementPeriod) {
  const within = sql`t.recorded_at >= ${from}::timestamptz and t.recorded_at < ${to}::timestamptz`
  const { rows: wallet } = await sql<{ account: string; ids: string[]; amount: bigint }>`
    select a.id as account, array_agg(t.id order by t.seq) as ids,
      sum(case when t.credit_account = a.id then t.amount else -t.amount end)::bigint as amount
    from account a join transfer t on a.id in (t.debit_account, t.credit_account)
    where a.kind = 'wallet' and ${within} group by a.id`.execute(world.db)
  const { rows: spent } = await sql<Record<string, bigint | string>>`
    select t.envelope_id as envelope, sum(s.amount)::bigint as charged,
      coalesce(sum(s.amount) filter (where t.use = 'useful'), 0)::bigint as useful,
      coalesce(sum(s.amount) filter (where t.certainty = 'billed'), 0)::bigint as billed,
      coalesce(sum(s.amount) filter (where t.certainty = 'estimated'), 0)::bigint as estimated,
      coalesce(sum(s.amount) filter (where t.certainty = 'unknown'), 0)::bigint as unknown
    from transfer t join account c on c.kind = 'provider_cost' and c.id in (t.debit_account, t.credit_account)
    cross join lateral (select case when t.credit_account = c.id then t.amount else -t.amount end as amount) s
    where t.code in ('capture', 'overage', 'correction') and ${within} group by 1`.execute(world.db)
  return { wallet, spent }
}

function expectAddsUp(statement: StatementView) {
  for (const balance of statement.balances) {
    const moved = total(balance.movements, ({ amount }) => amount)
    expect(nano(balance.opening.amount) + moved).toBe(nano(balance.closing.amount))
    expect(total(balance.totals, (each) => each.in) - total(balance.totals, (each) => each.out)).toBe(moved)
  }
  for (const debt of statement.debts) {
    expect(nano(debt.opening.amount) + total(debt.changes, ({ amount }) => amount)).toBe(nano(debt.closing.amount))
  }
  const pockets = statement.envelopes.flatMap((envelope) => envelope.pockets)
  for (const pocket of pockets) {
    const got = total(pocket.changes, ({ amount }) => amount)
    expect(nano(pocket.opening.amount) + got - nano(pocket.paid.amount)).toBe(nano(pocket.closing.amount))
  }
  for (const balance of statement.balances) {
    const own = pockets.filter(
      (each) => each.balanceClass === balance.balanceClass && each.currency === balance.currency,
    )
    expect(total(own, ({ opening }) => opening)).toBe(nano(balance.inEnvelopes.opening.amount))
    expect(total(own, ({ closing }) => closing)).toBe(nano(balance.inEnvelopes.closing.amount))
  }
}

test('over any period a statement adds up, equals the ledger to the last unit, and begins where the one before it ended', async () => {
  const world = await createWorld()
  const instants = await tellMoneyStory(world)
  const walletId = await walletOf(world)
  const bounds = ['2020-01-01T00:00:00.000000Z', ...instants]
  const statements: StatementView[] = []
  const ids: string[] = []
  for (const [index, from] of bounds.entries()) {
    const to = bounds[index + 1]
    if (to === undefined) break
    const over = period(from, to)
    const { statement } = await statementOf(world, over)
    statements.push(statement)
    expectAddsUp(statement)
    const ledger = await ledgerOf(world, over)
    for (const balance of statement.balances) {
      const moved = ledger.wallet.find(({ account }) => account === balance.accountId)
      expect(balance.movements.map(({ id }) => id)).toEqual(moved?.ids ?? [])
      expect(total(balance.movements, ({ amount }) => amount)).toBe(moved?.amount ?? 0n)
      ids.push(...balance.movements.map(({ id }) => id))
      if (balance.accountId === null) continue
      const then = await accountBalance(world.db, world.scope, {
        accountId: balance.accountId,
        at: over.closedAt,
        audience: 'operator',
      })
      expect(then?.posted).toBe(nano(balance.closing.amount))
    }
    for (const envelope of statement.envelopes) {
      const spends = envelope.pockets.flatMap((pocket) => pocket.spends)
      const spent = ledger.spent.find((each) => each['envelope'] === envelope.id)
      for (const label of ['charged', 'useful', 'billed', 'estimated', 'unknown'] as const) {
        expect(total(spends, (spend) => spend[label])).toBe(spent?.[label] ?? 0n)
      }
    }
    const named = new Set(statement.envelopes.map(({ id }) => id))
    expect(ledger.spent.filter((each) => !named.has(String(each['envelope'])))).toEqual([])
  }
  for (const [index, statement] of statements.entries()) {
    for (const balance of statements[index + 1]?.balances ?? []) {
      const before = statement.balances.find(
        (each) => each.balanceClass === balance.balanceClass && each.currency === balance.currency,
      )
      expect(balance.opening.amount).toBe(before?.closing.amount ?? '0.000000')
    }
  }
  expect(new Set(ids).size).toBe(ids.length)
  const now = await walletBalances(world.db, world.scope, { walletId, at: instants.at(-1) ?? '' })
  const last = statements.at(-1)?.balances.map(({ closing }) => nano(closing.amount))
  expect(last).toEqual(now.map(({ available }) => available))
  await expectVerified(world)
})

test('a statement says which run, key, model, route and quote each amount is for', async () => {
  const world = await createWorld()
  const instants = await tellMoneyStory(world)
  const { statement } = await statementOf(world, period('2020-01-01T00:00:00.000000Z', instants.at(-1) ?? ''))
  const movements = statement.balances.flatMap((balance) => balance.movements)
  const codes = new Set(movements.map(({ code }) => code))
  const expected = ['deposit', 'refund', 'reversal', 'top_up', 'return', 'debt_payment'] as const
  for (const code of expected) expect(codes).toContain(code)
  const sold = movements.filter(({ quote, code }) => quote !== null && code === 'top_up')
  expect(sold[0]).toMatchObject({
    counterparty: 'exchange',
    quote: { source: '+bank', sell: { currency: 'CNY' }, buy: { currency: 'USD' } },
    run: { agent: 'test' },
    lot: { source: 'grant' },
  })
  const spends = statement.envelopes.flatMap(({ pockets }) => pockets.flatMap((pocket) => pocket.spends))
  expect(spends.map(({ model, route }) => `${model}/${route}`)).toEqual(
    expect.arrayContaining(['research/economy', 'steady/steady']),
  )
  const changes = statement.envelopes.flatMap(({ pockets }) => pockets.flatMap((pocket) => pocket.changes))
  expect(new Set(changes.map(({ code }) => code))).toEqual(new Set(['top_up', 'carve', 'return']))
  expect(spends.find(({ corrected }) => nano(corrected.amount) === 350n)).toMatchObject({ model: 'steady' })
  expect(spends.some(({ onDebt }) => nano(onDebt.amount) === 50n)).toBe(true)
  expect(statement.debts).toMatchObject([
    { closing: { amount: '0.000000' }, changes: [{ code: 'debt_payment' }, { code: 'overage' }] },
  ])
})

test('the CSV has the same figures, adds up by account, keeps its columns and runs no formula', async () => {
  const world = await createWorld()
  const instants = await tellMoneyStory(world)
  const { statement, csv } = await statementOf(world, period('2020-01-01T00:00:00.000000Z', instants.at(-1) ?? ''))
  expect(csv.endsWith('\r\n')).toBe(true)
  const [columns = [], ...rows] = readCsv(csv)
  expect(columns.join(',')).toMatch(/^row,recorded_at,account_id,balance_class,currency,code,amount,balance,/)
  expect(rows.every((cells) => cells.length === columns.length)).toBe(true)
  const named = rows.map((cells) => Object.fromEntries(cells.map((cell, index) => [columns[index] ?? '', cell])))
  const accounts = Map.groupBy(
    named.filter((row) => row['row'] !== 'end'),
    (row) => row['account_id'],
  )
  for (const own of accounts.values()) {
    const opening = own.find((row) => row['row']?.endsWith('opening'))
    const closing = own.find((row) => row['row']?.endsWith('closing'))
    const moved = own.reduce((sum, row) => sum + nano(row['amount'] || '0'), 0n)
    expect(nano(opening?.['balance'] ?? '') + moved).toBe(nano(closing?.['balance'] ?? ''))
  }
  const movements = statement.balances.flatMap((balance) => balance.movements)
  expect(named.filter((row) => row['row'] === 'movement').map((row) => [row['transfer_id'], row['amount']])).toEqual(
    movements.map(({ id, amount }) => [id, amount.amount]),
  )
  const end = named.at(-1)
  expect([end?.['row'], end?.['code'], end?.['count']]).toEqual(['end', 'final', String(named.length - 1)])
  expect(named.find((row) => row['reference']?.includes('HYPERLINK'))?.['reference']).toBe(`'${EVIL_REFERENCE}`)
  const decimal = /^-?\d+\.\d+$/
  const dangerous = rows.flat().filter((cell) => /^\s*[=+\-@\t\r]/.test(cell) && !decimal.test(cell))
  expect(dangerous).toEqual([])
  expect(rows.flat()).toEqual(expect.arrayContaining(["'-1+1", "'@promotion", "'+bank"]))
})
