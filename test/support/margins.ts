import type { CatalogDocument, CatalogRoute } from '#contracts/catalog.ts'
import type { BalanceClass } from '#contracts/names.ts'
import { newId } from '#db/ids.ts'
import { deposit } from '#db/ledger.ts'
import { createQuote } from '#db/quote.ts'
import { sql } from 'kysely'
import { createWorld, type World } from './world.ts'

/** The sandbox's steady model, sold at a markup, and in another currency than it bills. */
export const marginCatalog: CatalogDocument = {
  models: [
    { name: 'steady', routes: [soldRoute({ name: 'dear', markupBps: 1_250 })] },
    { name: 'abroad', routes: [soldRoute({ name: 'abroad', markupBps: 500, currency: 'CNY', costCurrency: 'USD' })] },
    { name: 'plain', routes: [soldRoute({ name: 'plain' })] },
  ],
  prices: [{ provider: 'sandbox', upstreamModel: 'sandbox-steady', currency: 'USD', input: '0.40', output: '1.60' }],
}

function soldRoute(change: Pick<CatalogRoute, 'name' | 'markupBps'> & Partial<CatalogRoute>): CatalogRoute {
  const balanceClass: BalanceClass = 'direct'
  return {
    provider: 'sandbox',
    upstreamModel: 'sandbox-steady',
    balanceClass,
    currency: 'USD',
    contextTokens: 128_000,
    maxOutputTokens: 4_096,
    timeoutMs: 120_000,
    ...change,
  }
}

/** A world whose wallet has CNY as well, and a rate at which what costs USD is sold in it: 1 USD for 7.2 CNY. */
export async function createMarginWorld(): Promise<World> {
  const world = await createWorld({ catalog: marginCatalog })
  const { db, scope } = world
  const { organisation_id: organisationId } = await db
    .selectFrom('project')
    .select('organisation_id')
    .where('id', '=', scope.projectId)
    .executeTakeFirstOrThrow()
  await createQuote(db, organisationId, {
    sellCurrency: 'USD',
    sell: 10n,
    buyCurrency: 'CNY',
    buy: 72n,
    source: 'test',
    effectiveAt: null,
    expiresAt: null,
    nowMs: Date.now(),
  })
  const { id: walletId } = await db
    .selectFrom('wallet')
    .select('id')
    .where('project_id', '=', scope.projectId)
    .executeTakeFirstOrThrow()
  const amount = 1_000_000_000_000n
  await deposit(db, scope, {
    id: newId(Date.now()),
    walletId,
    balanceClass: 'direct',
    currency: 'CNY',
    amount,
    reference: 'cny',
  })
  return world
}

/** CNY for a run. */
export function yuan(amount: bigint) {
  return [{ id: newId(Date.now()), balanceClass: 'direct', currency: 'CNY', amount } as const]
}

/** What a project's counterparties have by the journal, as `kind currency`. */
export async function counterparties(world: World): Promise<Readonly<Record<string, bigint>>> {
  const { rows } = await sql<{ name: string; posted: bigint }>`
    select a.kind || ' ' || a.currency as name, sum(case when t.code in ('hold', 'void', 'expire') then 0
      when t.credit_account = a.id then t.amount else -t.amount end)::bigint as posted
    from account a join transfer t on a.id in (t.debit_account, t.credit_account)
    where a.project_id = ${world.scope.projectId} and a.kind in ('provider_cost', 'revenue', 'exchange')
    group by 1`.execute(world.db)
  return Object.fromEntries(rows.map(({ name, posted }) => [name, posted]))
}

/** What one attempt was charged, by the journal. */
export async function chargedOf(world: World): Promise<bigint> {
  const { rows } = await sql<{ amount: bigint }>`
    select coalesce(sum(case when c.kind = 'provider_cost' then t.amount else -t.amount end), 0)::bigint as amount
    from transfer t join account c on c.id = t.credit_account
    where t.project_id = ${world.scope.projectId} and t.code in ('capture', 'overage', 'correction')`.execute(world.db)
  return rows[0]?.amount ?? 0n
}
